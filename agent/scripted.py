"""Agents without a model: the recording's own expert, chance, and any function that answers prompts."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from guiderail.agent.dialects import Dialect
from guiderail.agent.dialogue import transform
from guiderail.agent.policy import Request, ScriptedPolicy
from guiderail.agent.screen import Vision
from guiderail.agent.types import (
    BUTTONS,
    Action,
    Click,
    Completion,
    Episode,
    LongPress,
    Open,
    Point,
    Prompt,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)

ORIGINAL_SIZE = Vision(factor=1, min_pixels=1, max_pixels=10**9)
T = TypeVar("T")


def answer(walk: Generator[Prompt, Completion, T], say: Callable[[Prompt], str]) -> T:
    """Run one rollout, along a recording or live, to its end: `say` answers every prompt. What `say` raises reaches the
    rollout in place of an answer. `rl.rollout.drive` runs many rollouts over one policy."""
    try:
        prompt = next(walk)
        while True:
            try:
                completion = Completion(say(prompt))
            except Exception as error:
                prompt = walk.throw(error)
            else:
                prompt = walk.send(completion)
    except StopIteration as stop:
        result: T = stop.value
        return result


def expert_policy(episodes: Sequence[Episode], dialect: Dialect) -> ScriptedPolicy:
    """Answers with the recorded action of the screenshot in the prompt. Only for prompts built from these same episode
    objects."""
    steps = {id(step.screenshot): step for episode in episodes for step in episode.steps}

    def say(request: Request) -> str:
        picture = request.prompt.screen
        step = steps[id(picture.screenshot)]
        return dialect.say(step.thought or "as recorded", step.action, transform(picture))

    return ScriptedPolicy(say, "expert", ORIGINAL_SIZE)


def random_policy(dialect: Dialect) -> ScriptedPolicy:
    """A random action that the dialect can express, drawn with the request's own seed."""

    def say(request: Request) -> str:
        rng = random.Random(request.seed)
        while not dialect.says(action := random_action(rng)):
            pass
        return dialect.say("any", action, transform(request.prompt.screen))

    return ScriptedPolicy(say, "random", ORIGINAL_SIZE)


def claim_policy(dialect: Dialect) -> ScriptedPolicy:
    """Says at once that the task is done: what it scores, nobody has to act for."""

    def say(request: Request) -> str:
        return dialect.say("done", Terminate("success"), transform(request.prompt.screen))

    return ScriptedPolicy(say, "claim", ORIGINAL_SIZE)


def random_action(rng: random.Random) -> Action:
    """Uniform over the kinds of action, and over the screen where the action has a point."""
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
