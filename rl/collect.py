"""One generation of experience: sample groups, keep those with signal, hand each process its share.

A unit is what a group's N rollouts share: an episode (semi-online RL) or one step of an episode (offline RL). All
processes walk through the same shuffled list of units with one cursor; every try takes as many units as groups are still
missing, process r rolls out every W-th of them, and the results are exchanged. So the groups chosen do not depend on the
number of processes, and no surplus is sampled and thrown away.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.policy import Policy, Sampling
from agent.types import Episode, Rollout
from envs.replay import Walk
from rl.credit import CreditRules, credit
from rl.rollout import drive, seed_of
from rl.samples import StepSample, over_processes, unit_of
from rl.select import Signal, SpreadOf, signal

Exchange = Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Unit:
    """`walk(sample)` starts the group's rollout number `sample`."""

    key: str
    walk: Callable[[int], Walk]


@dataclass(frozen=True)
class Group:
    """One group as sampled: its rollouts, each turn's credit, and why it was kept or not.

    visit: how many units were visited before it; with seed, generation and unit it is the key of the group's random
    streams.
    """

    generation: int
    visit: int
    unit: str
    signal: Signal
    rollouts: tuple[Rollout, ...]
    samples: tuple[tuple[StepSample, ...], ...]


@dataclass(frozen=True)
class PassedOver:
    """A unit that was not sampled. expected: what `Difficulty.expect` said of it."""

    generation: int
    visit: int
    unit: str
    expected: float
    reason: Literal["too hard", "too easy"]


@dataclass(frozen=True)
class Difficulty:
    """Groups whose outcome is all but certain carry no signal and cost N walks: pass over units expected outside
    [low, high]. This changes which groups are chosen, hence the experiment; it is off unless asked for.

    expect: the share of the best first-step return that each unit's walks may expect, 0 to 1, under the policy as it is
    (rl/likelihood.py), in order. rounds: how often units are drawn for the groups one try lacks, before the try goes on
    with those it has.
    """

    expect: Callable[[Policy, Sequence[Unit]], list[float]]
    low: float = 0.0
    high: float = 1.0
    rounds: int = 8

    def verdict(self, expected: float) -> Literal["fits", "too hard", "too easy"]:
        return "too hard" if expected < self.low else "too easy" if expected > self.high else "fits"


@dataclass
class Collector:
    """Called once per generation on every process; its state is one cursor, saved with each checkpoint.

    groups: kept groups wanted per generation, over all processes. rollouts: N per group. tries: how often missing groups
    are sampled anew before the generation goes on with what it has. exchange: gathers an object from every process, in
    order of rank (the default is one process). record: receives every group, on every process. difficulty: which units
    are not worth sampling; pass_over: receives them, on every process.
    """

    units: Sequence[Unit]
    groups: int
    rollouts: int
    sampling: Sampling
    rules: CreditRules
    eta: float = 0.3
    spread_of: SpreadOf = "first_return"
    tries: int = 4
    seed: int = 0
    width: int = 64
    rank: int = 0
    world: int = 1
    exchange: Exchange = field(default=lambda item: [item])
    record: Callable[[Group], None] | None = None
    difficulty: Difficulty | None = None
    pass_over: Callable[[PassedOver], None] | None = None
    cursor: int = 0
    sampled_turns: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    _order: tuple[int, list[int]] = field(default=(-1, []), repr=False)
    _expected: list[tuple[float, str]] = field(default_factory=list, repr=False)

    def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
        """This process's share of the generation's samples (possibly empty, never an error)."""
        started = time.perf_counter()
        groups: list[Group] = []
        kept: list[Group] = []
        self._expected = []
        for _ in range(self.tries):
            if len(kept) == self.groups:
                break
            units = self._fitting_units(min(self.groups - len(kept), len(self.units)), policy, generation)
            shares = self.exchange(self.sample(units[self.rank :: self.world], policy, generation))
            fresh = [shares[i % self.world][i // self.world] for i in range(len(units))]
            groups += fresh
            kept += [group for group in fresh if group.signal == "kept"]
        for group in groups:
            if self.record is not None:
                self.record(group)
        self._measure(groups, kept, time.perf_counter() - started)
        samples = [s for group in kept for rollout in group.samples for s in rollout if s.completion.token_ids]
        return [samples[i] for i in over_processes([unit_of(s) for s in samples], self.world)[self.rank]]

    def _fitting_units(self, count: int, policy: Policy, generation: int) -> list[tuple[int, Unit]]:
        """The next `count` units that `difficulty` lets through, fewer when its rounds are used up."""
        if self.difficulty is None:
            return self._next_units(count)
        fitting: list[tuple[int, Unit]] = []
        for _ in range(self.difficulty.rounds):
            drawn = self._next_units(count - len(fitting))
            for (visit, unit), expected in zip(drawn, self._expect(drawn, policy), strict=True):
                verdict = self.difficulty.verdict(expected)
                self._expected.append((expected, verdict))
                if verdict == "fits":
                    fitting.append((visit, unit))
                elif self.pass_over is not None:
                    self.pass_over(PassedOver(generation, visit, unit.key, expected, verdict))
            if len(fitting) == count:
                break
        return fitting

    def _expect(self, drawn: Sequence[tuple[int, Unit]], policy: Policy) -> list[float]:
        """Each process asks about its share."""
        assert self.difficulty is not None
        mine = [unit for _, unit in drawn[self.rank :: self.world]]
        shares = self.exchange(self.difficulty.expect(policy, mine))
        return [shares[i % self.world][i // self.world] for i in range(len(drawn))]

    def sample(self, units: Sequence[tuple[int, Unit]], policy: Policy, generation: int) -> list[Group]:
        """The groups of these (visit, unit) pairs, all driven as one batch."""
        walks = [
            ((self.seed, generation, visit, unit.key, sample), unit.walk(sample))
            for visit, unit in units
            for sample in range(self.rollouts)
        ]
        rollouts = drive(walks, policy, self.sampling, width=self.width)
        n = self.rollouts
        return [
            self._judge(generation, visit, unit, rollouts[i * n : (i + 1) * n]) for i, (visit, unit) in enumerate(units)
        ]

    def _judge(self, generation: int, visit: int, unit: Unit, rollouts: list[Rollout]) -> Group:
        """Credit first, since the spread is measured on returns. Crashed rollouts say nothing and leave the group."""
        sound = [rollout for rollout in rollouts if rollout.ended != "crashed"]
        samples = credit(sound, self.rules)
        verdict = worth(sound, samples, self.eta, self.spread_of)
        return Group(generation, visit, unit.key, verdict, tuple(sound), tuple(map(tuple, samples)))

    def _next_units(self, count: int) -> list[tuple[int, Unit]]:
        """The next `count` (visit number, unit) pairs; each pass over the units has its own shuffle."""
        chosen = []
        for _ in range(count):
            chosen.append((self.cursor, self.unit_at(self.cursor)))
            self.cursor += 1
        return chosen

    def unit_at(self, visit: int) -> Unit:
        """The unit that is, or was, visited as number `visit` of the run."""
        epoch, place = divmod(visit, len(self.units))
        if self._order[0] != epoch:
            order = list(range(len(self.units)))
            random.Random(seed_of(self.seed, "order", epoch)).shuffle(order)
            self._order = (epoch, order)
        return self.units[self._order[1][place]]

    def _measure(self, groups: list[Group], kept: list[Group], seconds: float) -> None:
        turns = [turn for group in groups for rollout in group.rollouts for turn in rollout.turns]
        rows = [row for group in groups for row in group.samples]
        reasons = Counter(group.signal for group in groups)
        self.sampled_turns += len(turns)
        self.metrics = {
            "groups/kept": len(kept),
            **{f"groups/{reason.replace(' ', '_')}": reasons[reason] / max(1, len(groups)) for reason in _DROPS},
            "rollout/reward": _mean([sample.reward for row in rows for sample in row]),
            "rollout/first_return": _mean([row[0].ret for row in rows]),
            "rollout/exact": _mean([turn.verdict.exact for turn in turns]),
            "rollout/readable": _mean([turn.verdict.readable for turn in turns]),
            "rollout/patched": _mean([turn.repair is not None for turn in turns]),
            "rollout/finished": _mean([all(t.verdict.exact for t in r.turns) for g in groups for r in g.rollouts]),
            "rollout/turns": len(turns),
            "rollout/turns_total": self.sampled_turns,
            "rollout/turns_per_second": len(turns) / max(seconds, 1e-9),
        }
        if self.difficulty is not None:
            told = Counter(verdict for _, verdict in self._expected)
            self.metrics |= {
                "groups/expected": _mean([expected for expected, _ in self._expected]),
                "groups/too_hard": told["too hard"],
                "groups/too_easy": told["too easy"],
            }

    def state_dict(self) -> dict[str, int]:
        return {"cursor": self.cursor, "sampled_turns": self.sampled_turns}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.cursor, self.sampled_turns = state["cursor"], state["sampled_turns"]


_DROPS: tuple[Signal, ...] = ("all right", "all wrong", "alike")


def worth(group: Sequence[Rollout], samples: Sequence[Sequence[StepSample]], eta: float, spread_of: SpreadOf) -> Signal:
    """`rl.select.signal` of a group with its credit; a group of one has nobody to compare with and is "alike"."""
    if len(group) < 2:
        return "alike"
    return signal(
        [row[0].ret for row in samples],
        [row[-1].reward for row in samples],
        [all(turn.verdict.exact for turn in rollout.turns) for rollout in group],
        eta,
        spread_of,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def episode_units(episodes: Sequence[Episode], start: Callable[[Episode, int], Walk]) -> list[Unit]:
    """Semi-online RL: one unit per episode. start(episode, sample)."""
    return [Unit(episode.id, lambda sample, e=episode: start(e, sample)) for episode in episodes]  # type: ignore[misc]


def step_units(episodes: Sequence[Episode], start: Callable[[Episode, int, int], Walk]) -> list[Unit]:
    """Offline RL: one unit per recorded step. start(episode, index, sample)."""
    return [
        Unit(f"{episode.id}/{index}", lambda sample, e=episode, t=index: start(e, t, sample))  # type: ignore[misc]
        for episode in episodes
        for index in range(len(episode.steps))
    ]
