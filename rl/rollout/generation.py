"""One generation of experience, in the paper's order: choose units, roll out, credit, filter, hand out.

A unit is what the N rollouts of a group have in common: an episode (semi-online RL), one step of an episode (offline RL),
a live task. Units are visited in passes, each pass in an order of its own. All processes choose the same visits, process
r of W rolls out every W-th of them, and the groups are exchanged. So the groups do not depend on the number of processes,
and nothing is sampled that is then thrown away.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Policy
from guiderail.agent.types import Episode, Patch, Rollout
from guiderail.envs.recordings.match import ALL_RULES
from guiderail.envs.recordings.replay import step_walk, walk
from guiderail.patch.base import build
from guiderail.patch.person import load_answers
from guiderail.rl.credit.samples import Signal, StepSample
from guiderail.rl.rollout.difficulty import Weighed
from guiderail.rl.rollout.drive import Asking
from guiderail.rl.rollout.groups import groups_from, groups_of, learned, unit_at
from guiderail.rl.rollout.measure import measured
from guiderail.rl.rollout.plan import Generation, Group, Opened, Plan, Unit
from guiderail.rl.rollout.processes import ALONE, Processes
from guiderail.rl.sections import Method


def generation(plan: Plan, policy: Policy, number: int, cursor: int, processes: Processes = ALONE) -> Generation:
    """Generation `number` of a run that has visited `cursor` units; called on every process. Same arguments, same groups.
    Where no group is worth learning from there are no samples; that is not an error."""
    groups: list[Group] = []
    weighed: list[Weighed] = []
    if plan.free and plan.difficulty is None:
        groups = groups_from(plan, policy, number, cursor, processes)
        cursor += len(groups)
    else:
        for _ in range(plan.tries):
            missing = plan.groups - sum(map(learned, groups))
            if missing == 0:
                break
            # Choose units: as many as groups are still missing, none of them twice in one try.
            visits, looked_at, cursor = next_visits(
                plan, policy, number, cursor, min(missing, len(plan.units)), processes
            )
            # Roll out each N times; reward, return, advantages.
            groups += processes.map(lambda mine: groups_of(plan, policy, number, mine), visits)
            weighed += looked_at
    # Filter.
    kept = [group for group in groups if learned(group)]
    # Hand out.
    rows = [row for group in kept for row in (*(group.samples if group.signal == "kept" else ()), group.shown)]
    samples = [s for row in rows for s in row if s.completion.token_ids]
    mine = over_processes([step_of(s) for s in samples], processes.world)[processes.rank]
    return Generation(groups, weighed, [samples[i] for i in mine], cursor)


def turns_of(groups: Sequence[Group]) -> int:
    """Turns sampled for these groups; those of an earlier generation are not."""
    return sum(group.spent + sum(len(r.turns) for r in group.rollouts if r.sampled is None) for group in groups)


def aged(made: Generation, behind: int) -> Generation:
    """A generation whose sampler is `behind` generations older than its number says."""
    return replace(
        made,
        groups=[replace(group, behind=group.behind + behind) for group in made.groups],
        samples=[replace(sample, behind=sample.behind + behind) for sample in made.samples],
    )


Sampled = tuple[Generation, float]
"""With the seconds that it took."""


@dataclass
class Collector:
    """What the trainer calls once per generation, on every process.

    record: receives every generation. cursor, sampled_turns, signals: units visited, turns sampled and groups by signal since
    the start of the run, by all processes; saved with each checkpoint. metrics: of the last generation; more() gives others.
    beside(samples, number): further samples of this process, a function of its arguments.
    """

    plan: Plan
    processes: Processes = ALONE
    record: Callable[[Generation], None] | None = None
    cursor: int = 0
    sampled_turns: int = 0
    signals: Counter[Signal] = field(default_factory=Counter)
    metrics: dict[str, float] = field(default_factory=dict)
    more: Callable[[], dict[str, float]] = dict
    beside: Callable[[Sequence[StepSample], int], list[StepSample]] | None = None

    def __call__(self, policy: Policy, number: int) -> list[StepSample]:
        """This process's share of the generation's samples."""
        return self.take(self.sample(policy, number), number)

    def sample(self, policy: Policy, number: int) -> Sampled:
        """A generation that the run takes no note of yet; what is sampled depends on what `take` has been given."""
        started = time.perf_counter()
        made = generation(self.plan, policy, number, self.cursor, self.processes)
        return made, time.perf_counter() - started

    def take(
        self, sampled: Sampled, number: int, behind: int = 0, among: Sequence[StepSample] = ()
    ) -> list[StepSample]:
        """This process's share of the samples. behind: generations for which the weights moved on since it was sampled. among:
        what else this process has for the update."""
        made, seconds = sampled
        made = aged(made, behind) if behind else made
        self.cursor = made.cursor
        self.sampled_turns += turns_of(made.groups)
        self.signals.update(group.signal for group in made.groups)
        for memory in self.plan.memories:
            memory.learn(made.groups, number)
        if self.record is not None:
            self.record(made)
        self.metrics = measured(made.groups, made.weighed, seconds) | {
            "rollout/turns_total": self.sampled_turns,
            "rollout/passes": self.cursor / len(self.plan.units),
            **self.more(),
        }
        return made.samples if self.beside is None else made.samples + self.beside([*among, *made.samples], number)

    def state_dict(self) -> dict[str, Any]:
        state = {"cursor": self.cursor, "sampled_turns": self.sampled_turns, "signals": dict(self.signals)}
        memories = [memory.state_dict() for memory in self.plan.memories]
        return state | ({"memories": memories} if memories else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cursor, self.sampled_turns = state["cursor"], state["sampled_turns"]
        self.signals = Counter(state.get("signals", {}))
        for memory, kept in zip(self.plan.memories, state.get("memories", ()), strict=True):
            memory.load_state_dict(kept)


# ---------------------------------------------------------------------------------------------------------------- units


def units_of(method: Method, episodes: Sequence[Episode], dialogue: Dialogue, done: float = 0.0) -> list[Unit]:
    """Semi-online RL: one unit per episode, walked in the policy's own history and repaired by the patch. Offline RL: one
    unit per recorded step, under the expert's history. done: the share of the run that is over, from 0 to 1."""
    rules, thoughts = ALL_RULES.find(method.rules), method.expert_thoughts
    if method.algorithm == "offline":
        return step_units(
            episodes,
            lambda episode, t, i: step_walk(episode, t, dialogue=dialogue, rules=rules, thoughts=thoughts, sample=i),
        )
    longest = max((len(episode.targets) for episode in episodes), default=1)
    patch = patch_of(method, dialogue, method.patch, budget_at(method, longest, done))

    def start(episode: Episode, i: int, begin: int = 0) -> Asking[Rollout]:
        return walk(episode, dialogue=dialogue, rules=rules, patch=patch, sample=i, begin=begin, thoughts=thoughts)

    return episode_units(episodes, start, start if method.start == "any" else None)


def budget_at(method: Method, longest: int, done: float) -> int | None:
    """Repairs per rollout; None: no limit. longest: steps of the longest recording, of which the last is never repaired. A
    falling budget begins at all the others, and is 0 where `done` is 1."""
    if method.patch_budget == "falling":
        return round((longest - 1) * (1 - done))
    return None if method.patch_budget == "unlimited" else int(method.patch_budget)


def episode_units(
    episodes: Sequence[Episode],
    start: Callable[[Episode, int], Asking[Rollout]],
    start_at: Callable[[Episode, int, int], Asking[Rollout]] | None = None,
) -> list[Unit]:
    """One unit per episode. start(episode, sample). start_at(episode, sample, begin): given, each group begins behind `begin` of
    the steps, drawn uniformly from 0 to all but one."""
    if start_at is None:
        return [Unit(episode.id, partial(start, episode)) for episode in episodes]
    begin = start_at

    def at(episode: Episode, place: Any, sample: int) -> Asking[Rollout]:
        return begin(episode, sample, place)

    return [Unit(e.id, partial(start, e), partial(_somewhere, e), partial(at, e)) for e in episodes]


def _somewhere(episode: Episode, seed: int) -> Asking[Opened]:
    """A walk that asks nothing."""
    yield from ()
    return Opened(random.Random(seed).randrange(len(episode.targets)))


def step_units(episodes: Sequence[Episode], start: Callable[[Episode, int, int], Asking[Rollout]]) -> list[Unit]:
    """One unit per recorded step. start(episode, index, sample)."""
    return [Unit(f"{e.id}/{t}", partial(start, e, t)) for e in episodes for t in e.targets]


def patch_of(method: Method, dialogue: Dialogue, name: str, limit: int | None) -> Patch | None:
    """The patch `name` with a budget of `limit` repairs per rollout (None: no limit); a person's answers are the
    method's."""
    answers = load_answers(Path(method.answers)) if method.answers else None
    return build(name, limit, dialogue.dialect.integrate, answers)


# --------------------------------------------------------------------------------------------------------------- choose


def next_visits(
    plan: Plan, policy: Policy, number: int, cursor: int, wanted: int, processes: Processes
) -> tuple[list[int], list[Weighed], int]:
    """(what one try samples, what was looked at before, the next cursor)."""
    if (difficulty := plan.difficulty) is None:
        visits, cursor = choose(cursor, wanted)
        return visits, [], cursor
    looked_at: list[Weighed] = []

    def fits(visits: Sequence[int]) -> list[bool]:
        keys = [unit_at(plan, visit).key for visit in visits]
        expected = processes.map(lambda mine: difficulty.expect(policy, mine), keys)
        fresh = [difficulty.weigh(number, *one) for one in zip(visits, keys, expected, strict=True)]
        looked_at.extend(fresh)
        return [one.reason == "fits" for one in fresh]

    visits, cursor = choose(cursor, wanted, fits, difficulty.rounds)
    return visits, looked_at, cursor


def all_fit(visits: Sequence[int]) -> list[bool]:
    return [True] * len(visits)


def choose(
    cursor: int, wanted: int, fits: Callable[[Sequence[int]], Sequence[bool]] = all_fit, rounds: int = 1
) -> tuple[list[int], int]:
    """(the visits that one try samples, the next cursor). Visits follow one another; those that do not fit are replaced,
    at most `rounds` - 1 times."""
    chosen: list[int] = []
    for _ in range(rounds):
        drawn = range(cursor, cursor + wanted - len(chosen))
        chosen += [visit for visit, good in zip(drawn, fits(drawn), strict=True) if good]
        cursor = drawn.stop
        if len(chosen) == wanted:
            break
    return chosen, cursor


# ------------------------------------------------------------------------------------------------------------- hand out


def step_of(sample: StepSample) -> tuple[str, int]:
    """(unit, step). Along a recording, samples of one step look at the same screen with the same goal; they stay together."""
    return sample.unit, sample.index


def together(steps: Sequence[Hashable]) -> list[list[int]]:
    """The places of each step's samples, steps in the order in which they first occur."""
    places: dict[Hashable, list[int]] = {}
    for i, step in enumerate(steps):
        places.setdefault(step, []).append(i)
    return list(places.values())


def over_processes(steps: Sequence[tuple[str, int]], processes: int) -> list[list[int]]:
    """The places of each process's samples: a step stays together, processes get about as much work each.

    steps: as `step_of` says. A screenshot is most of what a row costs. At the first step the rows of a micro-batch have theirs in
    common; later each row has its own history before its own. So a row there counts as five.
    """
    found = sorted(together(steps), key=len, reverse=True)
    work = [len(places) * (1 if steps[places[0]][1] == 0 else 5) for places in found]
    load, owner = [0] * processes, [0] * len(found)
    for k in sorted(range(len(found)), key=lambda k: -work[k]):
        owner[k] = min(range(processes), key=lambda rank: load[rank])
        load[owner[k]] += work[k]
    dealt: list[list[int]] = [[] for _ in range(processes)]
    for places, rank in zip(found, owner, strict=True):
        dealt[rank].extend(places)
    return dealt


@dataclass(frozen=True)
class Dealt:
    """One process's part of one optimizer step: the places of the samples that fell into it, of those that were kept, and
    the kept ones' weights. items: its part of the step's normaliser. Both as in rl/train/batch.py."""

    fell: list[int]
    kept: list[int]
    weights: list[float]
    items: float


def over_updates(
    steps: Sequence[Hashable], lengths: Sequence[int], windows: int, most: int, by_tokens: bool, seed: Sequence[int]
) -> list[Dealt]:
    """One process's samples over the `windows` optimizer steps of a generation, step by step at random.

    steps[i], lengths[i]: which step sample i is of, and its sampled tokens. most: samples kept per window; of more, as many
    are drawn at random. by_tokens: the loss is a mean over tokens, else over samples. Same arguments, same result.
    """
    rng = np.random.default_rng([*seed])
    groups = together(steps)
    order = rng.permutation(len(groups)).tolist()
    parts = [[i for group in order[window::windows] for i in groups[group]] for window in range(windows)]
    drawn = [rng.permutation(part).tolist() for part in parts]
    return [_window(part, part[:most], lengths, by_tokens) for part in drawn]


def _window(fell: list[int], kept: list[int], lengths: Sequence[int], by_tokens: bool) -> Dealt:
    scale = len(fell) / max(1, len(kept))
    if by_tokens:
        return Dealt(fell, kept, [scale] * len(kept), float(sum(lengths[i] for i in fell)))
    return Dealt(fell, kept, [scale / max(1, lengths[i]) for i in kept], float(len(fell)))
