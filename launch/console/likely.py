"""What else a policy might have done: further answers to the same prompt, drawn at temperature 1 and counted by action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.policy import Request
from guiderail.agent.types import Action, Click, LongPress, Point, Prompt, Swipe, Turn
from guiderail.envs.live.attempts import read_turn
from guiderail.rl.rollout.drive import seed_of

if TYPE_CHECKING:
    from guiderail.launch.console.actors import Actor

NEAR = 0.04
"""Two points this close, in fractions of the screen, count as one: the distance of the match rules (envs/recordings/match.py)."""


@dataclass(frozen=True, slots=True)
class Likely:
    """An action, and the share of the drawn answers that do it. chosen: the one that the agent gave as its answer."""

    action: Action | None
    share: float
    drawn: int
    chosen: bool = False


def likely(actor: Actor, prompt: Prompt, turn: Turn, draws: int) -> list[Likely]:
    """The chosen action first, then the two others that were drawn most often. An answer that cannot be read is action None.

    A share is an estimate of how often the policy would act so: with 16 draws its 95 % interval is up to 24 points wide on
    each side.
    """
    if actor.policy is None:
        return []
    requests = [Request(prompt, seed_of("likely", actor.seed, turn.index, k)) for k in range(draws)]
    with actor.lock:
        answers = actor.policy.complete(requests, replace(actor.sampling, temperature=1.0))
    actions = [
        read_turn(turn.index, prompt, answer, actor.dialogue).action
        for answer in answers
        if not isinstance(answer, EnvCrashed)
    ]
    return counted(turn.action, actions)


def counted(chosen: Action | None, drawn: Sequence[Action | None]) -> list[Likely]:
    """See `likely`."""
    groups: list[list[Action | None]] = [[chosen]]
    for action in drawn:
        home = next((group for group in groups if alike(group[0], action)), None)
        if home is None:
            groups.append([action])
        else:
            home.append(action)
    n = max(1, len(drawn))
    first = Likely(chosen, (len(groups[0]) - 1) / n, n, True)
    others = sorted(groups[1:], key=len, reverse=True)[:2]
    return [first, *(Likely(group[0], len(group) / n, n) for group in others)]


def alike(a: Action | None, b: Action | None) -> bool:
    """Whether two actions are the same for a person who looks at the screen."""
    match a, b:
        case (Click(p), Click(q)) | (LongPress(p), LongPress(q)):
            return near(p, q)
        case Swipe(), Swipe():
            return a.direction == b.direction
    return a == b


def near(p: Point, q: Point) -> bool:
    return abs(p.x - q.x) <= NEAR and abs(p.y - q.y) <= NEAR
