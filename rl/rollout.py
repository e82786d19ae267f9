"""Many walks over one policy: whoever is waiting for an answer goes into the next batch.

Episodes of different length do not wait for each other: a finished walk leaves its place to the next one. What is sampled
for a walk depends only on its key, never on its neighbours, so any single rollout can be replayed alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.errors import EnvCrashed
from agent.policy import Policy, Request, Sampling
from agent.types import Completion, Prompt

Key = tuple[object, ...]
T = TypeVar("T")
Asking = Generator[Prompt, Completion, T]
"""A coroutine that asks a policy and returns a T: a walk over a recording (Rollout) or a live attempt (Attempt)."""


def seed_of(*key: object) -> int:
    """A 63-bit seed from any printable key, the same on every machine and run."""
    text = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@dataclass
class _Live(Generic[T]):
    place: int
    key: Key
    walk: Asking[T]
    prompt: Prompt
    asked: int = 0


def drive(
    walks: Iterable[tuple[Key, Asking[T]]],
    policy: Policy,
    sampling: Sampling,
    *,
    width: int = 64,
    on_finished: Callable[[T], None] | None = None,
) -> list[T]:
    """Run all walks to their end, at most `width` at a time; results come back in the order of the walks.

    Each walk's key seeds its own random stream, one draw of seeds per question. A request whose machine failed even when
    sent alone ends its walk as "crashed"; a policy that cannot be reached at all raises SetupError through here.
    """
    waiting = iter(walks)
    live: list[_Live[T]] = []
    results: dict[int, T] = {}
    started = 0

    def finish(place: int, result: T) -> None:
        results[place] = result
        if on_finished is not None:
            on_finished(result)

    while True:
        while len(live) < width and (pair := next(waiting, None)) is not None:
            key, walk = pair
            try:
                live.append(_Live(started, key, walk, next(walk)))
            except StopIteration as stop:
                finish(started, stop.value)
            started += 1
        if not live:
            return [results[place] for place in range(started)]
        requests = [Request(w.prompt, seed_of(*w.key, w.asked)) for w in live]
        still: list[_Live[T]] = []
        for w, answer in zip(live, _answers(policy, requests, sampling), strict=True):
            try:
                w.prompt = w.walk.throw(answer) if isinstance(answer, EnvCrashed) else w.walk.send(answer)
                w.asked += 1
                still.append(w)
            except StopIteration as stop:
                finish(w.place, stop.value)
        live = still


def _answers(policy: Policy, requests: list[Request], sampling: Sampling) -> list[Completion | EnvCrashed]:
    """The whole batch at once; if that crashes, one by one, so that only the culprits are lost."""
    try:
        return [*policy.complete(requests, sampling)]
    except EnvCrashed:
        answers: list[Completion | EnvCrashed] = []
        for request in requests:
            try:
                answers += policy.complete([request], sampling)
            except EnvCrashed as crash:
                answers.append(crash)
        return answers
