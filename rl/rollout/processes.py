"""Work dealt over the processes of a run, so that its result does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `world`. exchange: gathers one object from every process, in order of rank."""

    rank: int = 0
    world: int = 1
    exchange: Callable[[Any], list[Any]] = lambda item: [item]

    def map(self, work: Callable[[Sequence[A]], list[B]], items: Sequence[A]) -> list[B]:
        """work(items), one result per item, in order. Each process does its share; every process gets all results."""
        shares = self.exchange(work(share(items, self.rank, self.world)))
        return [shares[i % self.world][i // self.world] for i in range(len(items))]


ALONE = Processes()


def share(items: Sequence[A], rank: int, world: int) -> Sequence[A]:
    """Every world-th item, from `rank` on."""
    return items[rank::world]
