"""Goal, own history and current screen -> the conversation put before the policy.

One user turn and one assistant turn per step: the first user turn carries the goal, every user turn carries its
screenshot after its text (or all pictures come first, `Dialect.pictures_first`). Only the last `images` screenshots
stay, the current one included; older user turns keep their text. All assistant turns stay. Families that keep their
history as text compose a single user turn instead (`Dialect.compose`). Either way the history is what the walk hands in:
the agent's own turns, or their repairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.codec import Reply
from agent.dialects import GUIDERAIL, Dialect
from agent.dialects.base import describe
from agent.errors import UnreadableAction
from agent.screen import ScreenTransform, Vision
from agent.types import Action, Completion, Message, Picture, Prompt, Screenshot

Window = Literal["sliding", "blocks"]


@dataclass(frozen=True)
class Dialogue:
    """images: how many screenshots a prompt shows, counting the current one (the paper's "2 historical images" is 2).

    window: "sliding" drops the oldest screenshot at every step, which changes the prompt near its start, so a server's
    prefix cache is lost with every step. "blocks" drops `images` of them at once and shows up to 2 images - 1: all that
    was said and shown before stays a prefix for `images` steps. What the model sees differs: train and evaluate alike.
    """

    vision: Vision
    dialect: Dialect = GUIDERAIL
    images: int = 2
    window: Window = "sliding"

    def prompt(self, goal: str, screenshots: Sequence[Screenshot], history: Sequence[str]) -> Prompt:
        """screenshots: of steps 0..t; history: the assistant's turns of steps 0..t-1 as text."""
        if len(screenshots) != len(history) + 1:
            raise ValueError(f"{len(screenshots)} screenshots need {len(screenshots) - 1} turns, got {len(history)}")
        picture = self.vision.picture(screenshots[-1])
        system = self.dialect.system.replace("WIDTHxHEIGHT", f"{picture.width}x{picture.height}")
        messages = [Message("system", (system,))] if system else []
        past = [self.dialect.remember(turn) for turn in history]
        if self.dialect.compose is not None:
            return Prompt((*messages, Message("user", self.dialect.compose(goal, past, picture))))
        if self.dialect.goal_apart:
            messages.append(Message("user", (self.dialect.first(goal),)))
        first_shown = max(0, len(screenshots) - self.images)
        if self.window == "blocks":
            first_shown -= first_shown % self.images
        if self.dialect.pictures_first:
            pictures = tuple(self.vision.picture(shot) for shot in screenshots[first_shown:])
            messages.append(Message("user", (*pictures, self.dialect.first(goal))))
            for turn in past:
                messages += [Message("assistant", (turn,)), Message("user", (self.dialect.later,))]
            return Prompt(tuple(messages))
        for index, screenshot in enumerate(screenshots):
            opening = "" if self.dialect.goal_apart else self.dialect.first(goal)
            text = self.dialect.later if index else opening
            shown = (self.vision.picture(screenshot),) if index >= first_shown else ()
            if text or shown:
                messages.append(Message("user", (*((text,) if text else ()), *shown)))
            if index < len(past):
                messages.append(Message("assistant", (past[index],)))
        return Prompt(tuple(messages))

    def say(self, thought: str | None, action: Action, screenshot: Screenshot) -> str:
        """A turn as text, coordinates in the model's pixels for this screenshot. SetupError if there is no word for it."""
        return self.dialect.say(thought, action, transform(self.vision.picture(screenshot)))

    def retell(self, thought: str | None, action: Action, screenshot: Screenshot) -> str:
        """Somebody else's turn for the history: as `say`, or in plain words where the dialect has no word for it."""
        return self.say(thought, action, screenshot) if self.dialect.says(action) else describe(action)

    def read(self, completion: Completion, picture: Picture) -> Reply:
        """What the policy said at this picture. Raises UnreadableAction."""
        if completion.finish == "budget":
            raise UnreadableAction("its own words have filled the prompt budget, so it was not asked")
        return self.dialect.read(completion.text, transform(picture))


def transform(picture: Picture) -> ScreenTransform:
    return ScreenTransform(picture.width, picture.height)
