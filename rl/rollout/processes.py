"""Work dealt over the processes of a run, so that its result does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from guiderail.rl.rollout.dispatch import Ledger, OwnLedger

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `world`. exchange: gathers one object from every process, in order of rank. ledger: a
    new ledger for one generation; the n-th call gives every process the same one."""

    rank: int = 0
    world: int = 1
    exchange: Callable[[Any], list[Any]] = lambda item: [item]
    ledger: Callable[[], Ledger] = OwnLedger

    def map(self, work: Callable[[Sequence[A]], list[B]], items: Sequence[A]) -> list[B]:
        """work(items), one result per item, in order. Each process does its share; every process gets all results."""
        shares = self.exchange(work(share(items, self.rank, self.world)))
        return [shares[i % self.world][i // self.world] for i in range(len(items))]


ALONE = Processes()


def share(items: Sequence[A], rank: int, world: int) -> Sequence[A]:
    """Every world-th item, from `rank` on."""
    return items[rank::world]
