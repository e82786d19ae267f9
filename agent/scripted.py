"""Agents without a model: the recording's own expert, and chance."""

from __future__ import annotations

import random
from collections.abc import Sequence

from agent.dialects import Dialect
from agent.dialogue import transform
from agent.policy import Request, ScriptedPolicy
from agent.screen import Vision
from agent.types import (
    BUTTONS,
    Action,
    Click,
    Episode,
    LongPress,
    Open,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)

ORIGINAL_SIZE = Vision(factor=1, min_pixels=1, max_pixels=10**9)


def expert_policy(episodes: Sequence[Episode], dialect: Dialect) -> ScriptedPolicy:
    """Says what the recording did at the screenshot it is shown. Only for prompts built from these very episodes."""
    steps = {id(step.screenshot): step for episode in episodes for step in episode.steps}

    def say(request: Request) -> str:
        picture = request.prompt.screen
        step = steps[id(picture.screenshot)]
        return dialect.say(step.thought or "as recorded", step.action, transform(picture))

    return ScriptedPolicy(say, "expert", ORIGINAL_SIZE)


def random_policy(dialect: Dialect) -> ScriptedPolicy:
    """Any action the dialect has a word for, anywhere, by the request's own seed."""

    def say(request: Request) -> str:
        rng = random.Random(request.seed)
        while not dialect.says(action := random_action(rng)):
            pass
        return dialect.say("any", action, transform(request.prompt.screen))

    return ScriptedPolicy(say, "random", ORIGINAL_SIZE)


def random_action(rng: random.Random) -> Action:
    """Uniform over kinds of action, and over the screen for those that point."""
    here, there = Point(rng.random(), rng.random()), Point(rng.random(), rng.random())
    choices: list[Action] = [
        Click(here),
        LongPress(here),
        Swipe(here, there),
        Type(rng.choice(["milk", "hello", "12"])),
        SystemButton(rng.choice(BUTTONS)),
        Open(rng.choice(["Settings", "Notes", "Shop"])),
        Wait(1.0),
        Terminate("success"),
    ]
    return rng.choice(choices)
