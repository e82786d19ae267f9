"""What a dialect is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent import codec
from agent.codec import Reply
from agent.screen import ScreenTransform
from agent.types import Action


@dataclass(frozen=True)
class Dialect:
    """A prompt and its parser.

    system: the system prompt ("" for none). first(goal): text of the first user turn. later: text of every later user
    turn. say(thought, action, screen): a turn as text. read(text, screen): the inverse; raises UnreadableAction only.
    integrate: system prompt of the on-policy patch, which asks the policy to put the expert's action into its own words.
    """

    name: str
    system: str
    first: Callable[[str], str]
    later: str
    integrate: Callable[[str], str]
    say: Callable[[str | None, Action, ScreenTransform], str] = codec.say
    read: Callable[[str, ScreenTransform], Reply] = codec.read
