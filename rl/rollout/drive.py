"""Many rollouts over one policy: all that wait for an answer are asked in one batch.

Rollouts of different length do not wait for each other: a finished one gives its place to the next. What is sampled for a
rollout depends only on its key, never on its neighbours, so any single one can be replayed alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.agent.types import Completion, Prompt

Key = tuple[object, ...]
T = TypeVar("T")
Asking = Generator[Prompt, Completion, T]
"""A coroutine that asks a policy and returns a T: along a recording or live (Rollout), or for one repair (Turn)."""


Walks = Iterable[tuple[Key, Asking[T]] | None]
"""Walks with their keys. None: the next one may not begin yet; ask again later."""
PAUSE = 0.02
"""Seconds until walks are asked for again, where none is under way."""


class Drive(Protocol):
    """Runs walks to their end over one policy, at most `width` at a time; results in the order of the walks. on_finished: told the
    number of a walk in that order, and its result, as soon as it ends."""

    def __call__(
        self,
        walks: Walks[T],
        policy: Policy,
        sampling: Sampling,
        *,
        width: int,
        on_finished: Callable[[int, T], None] | None = None,
    ) -> list[T]: ...


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
    until: float | None
    asked: int = 0


def drive(
    walks: Walks[T],
    policy: Policy,
    sampling: Sampling,
    *,
    width: int = 64,
    seconds: float | None = None,
    on_finished: Callable[[int, T], None] | None = None,
) -> list[T]:
    """Run all walks to their end, at most `width` at a time; results come back in the order of the walks.

    Each walk's key seeds its own random stream, one draw of seeds per question. A request whose machine failed ends its walk
    as "crashed" and no other; a policy that cannot be reached at all raises SetupError through here. seconds: for one walk,
    from its start; they bound the request under way too.
    """
    if width < 1:
        raise SetupError(f"width {width}, expected at least 1")
    waiting = Waiting(walks)
    live: list[_Live[T]] = []
    results: dict[int, T] = {}
    started = 0

    def finish(place: int, result: T) -> None:
        results[place] = result
        if on_finished is not None:
            on_finished(place, result)

    while True:
        while len(live) < width and (pair := waiting.take()) is not None:
            key, walk = pair
            until = None if seconds is None else time.monotonic() + seconds
            try:
                live.append(_Live(started, key, walk, next(walk), until))
            except StopIteration as stop:
                finish(started, stop.value)
            started += 1
        if not live and waiting.over:
            return [results[place] for place in range(started)]
        if not live:
            time.sleep(PAUSE)
            continue
        requests = [Request(w.prompt, seed_of(*w.key, w.asked), w.until) for w in live]
        still: list[_Live[T]] = []
        for w, answer in zip(live, answers(policy, requests, sampling), strict=True):
            try:
                w.prompt = w.walk.throw(answer) if isinstance(answer, EnvCrashed) else w.walk.send(answer)
                w.asked += 1
                still.append(w)
            except StopIteration as stop:
                finish(w.place, stop.value)
        live = still


class Waiting(Generic[T]):
    """Walks that have not begun. over: there are no more."""

    def __init__(self, walks: Walks[T]):
        self._walks: Iterator[tuple[Key, Asking[T]] | None] = iter(walks)
        self.over = False

    def take(self) -> tuple[Key, Asking[T]] | None:
        """The next walk, if one may begin now."""
        try:
            return next(self._walks)
        except StopIteration:
            self.over = True
            return None


def answers(policy: Policy, requests: list[Request], sampling: Sampling) -> Sequence[Completion | EnvCrashed]:
    """The policy's, with a fault in every place where the whole batch failed."""
    try:
        return policy.complete(requests, sampling)
    except EnvCrashed as crash:
        return [crash] * len(requests)
