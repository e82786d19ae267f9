"""The records of sampling: what is to be sampled, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from guiderail.agent.policy import Sampling
from guiderail.agent.types import Rollout
from guiderail.rl.credit.samples import Credited, Signal, StepSample
from guiderail.rl.rollout.difficulty import Difficulty, Weighed
from guiderail.rl.rollout.drive import Asking, Drive, drive

Tokens = Callable[[str], Sequence[int]]
"""The ids of an answer's words, end of turn included."""


@dataclass(frozen=True)
class Shown:
    """Answers of the expert are trained on, too: their advantage, and their ids (rl/rollout/shown.py). expert(unit, index): what
    a recording's expert said at that step, "" for nothing; None: live turns hold it themselves."""

    weight: float
    tokens: Tokens
    expert: Callable[[str, int], str] | None = None


@dataclass(frozen=True)
class Unit:
    """start(sample) begins the group's rollout number `sample`. Where a group may begin elsewhere than at the start,
    opening(seed) samples what decides it, and start_at(place, sample) begins there."""

    key: str
    start: Callable[[int], Asking[Rollout]]
    opening: Callable[[int], Asking[Opened]] | None = None
    start_at: Callable[[object, int], Asking[Rollout]] | None = None

    def begin(self, sample: int, place: object) -> Asking[Rollout]:
        """place: None is the start."""
        return self.start(sample) if place is None or self.start_at is None else self.start_at(place, sample)


@dataclass(frozen=True)
class Opened:
    """place: where the group begins; None: at the start. turns: sampled to find it. faults: tries of it that machines ended."""

    place: object = None
    turns: int = 0
    faults: int = 0


@dataclass(frozen=True)
class Plan:
    """What every generation of a run is made of.

    groups: kept groups wanted per generation, over all processes. rollouts: N, per group. tries: how often groups are
    sampled for those still missing before the generation goes on with what it has. width: rollouts under way at once. order:
    visit -> number of its unit; None: passes, each in an order of its own. fill(unit, visit, group): the group with what
    the run kept of earlier ones. memories: what both of them know, fed with every generation. drive: runs the rollouts,
    here or on a fleet. shown: see `Shown`. free: groups go to processes as these get free, and are replaced at once; else each try is
    dealt and waited for. renewed(generation): the same units as they are in that generation, where they change.
    """

    units: Sequence[Unit]
    credit: Callable[[Sequence[Rollout]], Credited]
    groups: int
    rollouts: int
    sampling: Sampling
    tries: int = 4
    seed: int = 0
    width: int = 64
    difficulty: Difficulty | None = None
    order: Callable[[int], int] | None = None
    fill: Callable[[str, int, Sequence[Rollout]], Sequence[Rollout]] | None = None
    memories: Sequence[Memory] = ()
    drive: Drive = drive
    shown: Shown | None = None
    free: bool = False
    renewed: Callable[[int], Sequence[Unit]] | None = None

    def at(self, generation: int) -> Plan:
        """The plan of one generation."""
        return self if self.renewed is None else replace(self, units=self.renewed(generation))


def faults(made: Sequence[Rollout]) -> int:
    """Tries of these rollouts that machines ended."""
    return sum(one.tries + (one.ended == "crashed") for one in made)


class Memory(Protocol):
    """What a run learns from its own groups about what to sample next. Its state is JSON values and goes into checkpoints."""

    def learn(self, groups: Sequence[Group], generation: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Group:
    """One group as sampled. visit: how many units the run had visited before it. samples: see `Credited`. lost: why rollouts
    are missing whose machines failed to the last try. spent: turns that were sampled for it and that it does not hold. shown: of
    the answers that the world's expert showed; a group with any is learned from, whatever its signal. faults: tries that
    machines ended, of everything that was sampled for it. behind: generations of updates between its sampler and the policy that is trained
    on it."""

    generation: int
    visit: int
    unit: str
    signal: Signal
    rollouts: tuple[Rollout, ...]
    samples: tuple[tuple[StepSample, ...], ...]
    lost: tuple[str, ...] = ()
    spent: int = 0
    shown: tuple[StepSample, ...] = ()
    faults: int = 0
    behind: int = 0


@dataclass(frozen=True)
class Generation:
    """groups, weighed: all of them, on every process. samples: this process's share of the kept groups. cursor: the next
    visit of the run."""

    groups: list[Group]
    weighed: list[Weighed]
    samples: list[StepSample]
    cursor: int
