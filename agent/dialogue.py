"""Goal, own history and current screen -> the conversation put before the policy.

One user turn and one assistant turn per step: the first user turn carries the goal, every user turn carries its
screenshot after its text. Only the last `images` screenshots stay, the current one included; older user turns keep
their text. All assistant turns stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.dialects import GUIDERAIL, Dialect
from agent.screen import ScreenTransform, Vision
from agent.types import Action, Message, Picture, Prompt, Screenshot


@dataclass(frozen=True)
class Dialogue:
    """images: how many screenshots a prompt shows, counting the current one (the paper's "2 historical images" is 2)."""

    vision: Vision
    dialect: Dialect = GUIDERAIL
    images: int = 2

    def prompt(self, goal: str, screenshots: Sequence[Screenshot], history: Sequence[str]) -> Prompt:
        """screenshots: of steps 0..t; history: the assistant's turns of steps 0..t-1 as text."""
        if len(screenshots) != len(history) + 1:
            raise ValueError(f"{len(screenshots)} screenshots need {len(screenshots) - 1} turns, got {len(history)}")
        messages = [Message("system", (self.dialect.system,))] if self.dialect.system else []
        first_shown = len(screenshots) - self.images
        for index, screenshot in enumerate(screenshots):
            text = self.dialect.later if index else self.dialect.first(goal)
            shown = (self.vision.picture(screenshot),) if index >= first_shown else ()
            messages.append(Message("user", (text, *shown)))
            if index < len(history):
                messages.append(Message("assistant", (history[index],)))
        return Prompt(tuple(messages))

    def say(self, thought: str | None, action: Action, screenshot: Screenshot) -> str:
        """A turn as text, coordinates in the model's pixels for this screenshot."""
        return self.dialect.say(thought, action, transform(self.vision.picture(screenshot)))


def transform(picture: Picture) -> ScreenTransform:
    return ScreenTransform(picture.width, picture.height)
