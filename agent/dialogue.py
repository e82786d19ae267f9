"""Goal, history and current screen -> the prompt.

One user turn and one assistant turn per step: the first user turn holds the goal, every user turn holds its screenshot
after its text (or all pictures come first, `Dialect.pictures_first`). Only the last `images` screenshots are shown, the
current one included; older user turns keep their text. All assistant turns stay. Families that keep their history as text
get a single user turn instead (`Dialect.compose`). Either way the history is the one of the rollout: the agent's own turns,
or their repairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guiderail.agent.codec import Reply
from guiderail.agent.dialects import GUIDERAIL, Dialect
from guiderail.agent.dialects.base import describe
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform, Vision
from guiderail.agent.types import Action, Completion, Message, Picture, Prompt, Screenshot

Window = Literal["sliding", "blocks"]


@dataclass(frozen=True)
class Dialogue:
    """How prompts are built and answers are read.

    images: how many screenshots a prompt shows, counting the current one (the paper's "2 historical images" is 2). window:
    "sliding" drops the oldest screenshot at every step, which changes the prompt near its start, so a server's prefix cache
    is lost at every step. "blocks" drops `images` screenshots at once and shows up to 2 images - 1: everything before the
    new turn stays a prefix for `images` steps. The model sees different prompts: use the same window in training and
    evaluation.
    """

    vision: Vision
    dialect: Dialect = GUIDERAIL
    images: int = 2
    window: Window = "sliding"

    def prompt(self, goal: str, screenshots: Sequence[Screenshot], history: Sequence[str]) -> Prompt:
        """The prompt of step t. screenshots: of steps 0 to t. history: the assistant's turns of steps 0 to t - 1 as text."""
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
        """A turn as text, coordinates in the model's pixels for this screenshot. Raises SetupError for an action that the
        dialect cannot express."""
        return self.dialect.say(thought, action, transform(self.vision.picture(screenshot)))

    def retell(self, thought: str | None, action: Action, screenshot: Screenshot) -> str:
        """A turn of another agent for the history: as `say`, or in plain words where the dialect cannot express it."""
        return self.say(thought, action, screenshot) if self.dialect.says(action) else describe(action)

    def read(self, completion: Completion, picture: Picture) -> Reply:
        """The policy's answer to this picture as thought and action. Raises UnreadableAction."""
        if completion.finish == "budget":
            raise UnreadableAction("its own turns made the prompt longer than the limit, so nothing was sampled")
        return self.dialect.read(completion.text, transform(picture))


def transform(picture: Picture) -> ScreenTransform:
    """Between the picture's pixels and screen fractions."""
    return ScreenTransform(picture.width, picture.height)
