"""Groups as they are sampled: N rollouts of one unit, then their credit."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Policy
from guiderail.agent.types import Rollout
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.rollout.dispatch import Board, Dealt, Free
from guiderail.rl.rollout.drive import Asking, Key, seed_of
from guiderail.rl.rollout.plan import Group, Opened, Plan, Unit, faults
from guiderail.rl.rollout.processes import Processes
from guiderail.rl.rollout.shown import shown_samples

PATIENCE = 1800.0
"""Seconds for which a process without work waits while no group of the others ends; as long as PyTorch's collectives wait."""


def groups_of(plan: Plan, policy: Policy, number: int, visits: Sequence[int]) -> list[Group]:
    """The groups of these visits: all their rollouts driven as one batch, each from a random stream of its own, then
    credit for each group."""
    made = _sample(plan, policy, number, visits.__getitem__, Dealt(range(len(visits))), len(visits))
    return [made[place] for place in range(len(visits))]


def groups_from(plan: Plan, policy: Policy, number: int, cursor: int, processes: Processes) -> list[Group]:
    """The groups of a generation that begins with the visit `cursor`, each sampled by a process that was free. A process has at
    most its equal share of the wanted groups under way."""
    board = Free(processes.ledger(), plan.groups, plan.tries, len(plan.units))
    share = -(-plan.groups // processes.world)
    mine = _sample(plan, policy, number, lambda place: cursor + place, board, share)
    made = {place: group for one in processes.exchange(mine) for place, group in one.items()}
    return [made[place] for place in sorted(made)]


def learned(group: Group) -> bool:
    """Whether anything of the group is trained on."""
    return group.signal == "kept" or bool(group.shown)


def _sample(
    plan: Plan, policy: Policy, number: int, visit_at: Callable[[int], int], board: Board, most: int
) -> dict[int, Group]:
    """Place -> group, of the places that the board gives this process; at most `most` groups are under way at once."""
    source = _Source(plan.at(number), number, visit_at, board, most)
    plan.drive(source, policy, plan.sampling, width=plan.width, on_finished=source.finished)
    return source.made


@dataclass
class _Begun:
    """A group under way. left: rollouts that have not ended."""

    place: int
    visit: int
    unit: Unit
    opened: Opened
    rollouts: list[Rollout | None]
    left: int


@dataclass
class _Source:
    """The walks of the groups that the board gives, for a drive. Where a group has an opening, that is walked first."""

    plan: Plan
    number: int
    visit_at: Callable[[int], int]
    board: Board
    most: int
    made: dict[int, Group] = field(default_factory=dict)
    _under_way: int = 0
    _ready: deque[tuple[_Begun, int | None]] = field(default_factory=deque)
    _handed: list[tuple[_Begun, int | None]] = field(default_factory=list)
    _waited: tuple[int, float] = (-1, 0.0)

    def __iter__(self) -> Iterator[tuple[Key, Asking[Any]] | None]:
        return self

    def __next__(self) -> tuple[Key, Asking[Any]] | None:
        while not self._ready:
            place = self.board.claim() if self._under_way < self.most else None
            if place is None and self._under_way == 0 and self.board.over():
                raise StopIteration
            if place is None:
                self._check_patience()
                return None
            self._begin(place)
        group, sample = self._ready.popleft()
        self._handed.append((group, sample))
        start = (self.plan.seed, self.number, group.visit, group.unit.key)
        if sample is None:
            opening = cast(Callable[[int], Asking[Any]], group.unit.opening)
            return (*start, "opening"), opening(seed_of(*start, "opening", "where"))
        return (*start, sample), group.unit.begin(sample, group.opened.place)

    def finished(self, walk: int, result: Any) -> None:
        """For the drive's `on_finished`."""
        group, sample = self._handed[walk]
        if sample is None:
            group.opened = result
            self._ready.extend((group, i) for i in range(self.plan.rollouts))
            return
        group.rollouts[sample] = result
        group.left -= 1
        if group.left == 0:
            self._under_way -= 1
            made = self.made[group.place] = self._credited(group)
            self.board.settle(group.place, learned(made))

    def _begin(self, place: int) -> None:
        visit, count = self.visit_at(place), self.plan.rollouts
        group = _Begun(place, visit, unit_at(self.plan, visit), Opened(), [None] * count, count)
        self._under_way += 1
        self._ready.extend((group, i) for i in ([None] if group.unit.opening is not None else range(count)))

    def _check_patience(self) -> None:
        """Raises SetupError where this process has nothing to do and nothing happens elsewhere."""
        now, settled = time.monotonic(), self.board.settled()
        if self._under_way or settled != self._waited[0]:
            self._waited = (settled, now)
        elif now - self._waited[1] > PATIENCE:
            raise SetupError(f"no process has finished a group for {PATIENCE:.0f} s; look at the logs of the others")

    def _credited(self, begun: _Begun) -> Group:
        plan, number, visit, unit = self.plan, self.number, begun.visit, begun.unit
        made = [cast(Rollout, rollout) for rollout in begun.rollouts]
        # A broken machine is not a wrong answer: crashed rollouts enter no group.
        sound = tuple(rollout for rollout in made if rollout.ended != "crashed")
        sound = sound if plan.fill is None else tuple(plan.fill(unit.key, visit, sound))
        credited = plan.credit(sound)
        samples = tuple(_aged(row, one, number) for row, one in zip(credited.samples, sound, strict=True))
        lost = tuple(rollout.reason for rollout in made if rollout.ended == "crashed")
        spent = begun.opened.turns + _spent(made) - sum(len(one.turns) for one in sound if one.sampled is None)
        shown = () if plan.shown is None else shown_samples(sound, plan.shown)
        failed = begun.opened.faults + faults(made)
        return Group(number, visit, unit.key, credited.signal, sound, samples, lost, spent, shown, failed)


def _spent(made: Sequence[Rollout]) -> int:
    """Turns sampled for rollouts, those that they do not hold included."""
    return sum(len(rollout.turns) + rollout.spent for rollout in made)


def _aged(row: Sequence[StepSample], rollout: Rollout, number: int) -> tuple[StepSample, ...]:
    """Samples of a rollout from an earlier generation know how long ago that was."""
    behind = 0 if rollout.sampled is None else number - rollout.sampled
    return tuple(replace(sample, behind=behind) for sample in row) if behind else tuple(row)


def unit_at(plan: Plan, visit: int) -> Unit:
    """The unit of a visit: each pass over the units has its own shuffle, unless the plan has another order."""
    if plan.order is not None:
        return plan.units[plan.order(visit)]
    epoch, place = divmod(visit, len(plan.units))
    return plan.units[_order(len(plan.units), plan.seed, epoch)[place]]


@lru_cache(maxsize=4)
def _order(units: int, seed: int, epoch: int) -> list[int]:
    order = list(range(units))
    random.Random(seed_of(seed, "order", epoch)).shuffle(order)
    return order
