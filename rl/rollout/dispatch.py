"""Which process samples which groups of a generation, and when.

A generation takes visits in their order until enough groups are worth learning from. Groups that are not are replaced, and so are
their replacements, `tries` times in all. Visits are numbered by their *place* in the generation.

`Dealt`: process r of W samples every W-th place of a list. `Free`: each process takes the next place whenever it has room, as
soon as it is certain that the place is needed. The same places are sampled either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Board(Protocol):
    """One process's view of a generation's places."""

    def claim(self) -> int | None:
        """A place that this process is to sample now; None: at this moment none."""
        ...

    def over(self) -> bool:
        """Whether `claim` will never give another place."""
        ...

    def settle(self, place: int, learned: bool) -> None:
        """The group of this place is complete. learned: it is worth learning from."""
        ...

    def settled(self) -> int:
        """Groups that are complete, as far as this process knows."""
        ...


class Dealt:
    """The places that this process was dealt."""

    def __init__(self, places: Iterable[int]):
        self._left, self._settled = deque(places), 0

    def claim(self) -> int | None:
        return self._left.popleft() if self._left else None

    def over(self) -> bool:
        return not self._left

    def settle(self, place: int, learned: bool) -> None:
        self._settled += 1

    def settled(self) -> int:
        return self._settled


class Ledger(Protocol):
    """What the processes of a run know together about one generation."""

    def take(self) -> int:
        """0, 1, 2, ...; each number once, over all processes."""
        ...

    def settle(self, place: int, learned: bool) -> None: ...

    def settled(self) -> Mapping[int, bool]:
        """place -> learned, of all groups that are complete."""
        ...


@dataclass
class OwnLedger:
    """Of a process that is alone."""

    taken: int = 0
    places: dict[int, bool] = field(default_factory=dict)

    def take(self) -> int:
        self.taken += 1
        return self.taken - 1

    def settle(self, place: int, learned: bool) -> None:
        self.places[place] = learned

    def settled(self) -> Mapping[int, bool]:
        return self.places


class Free:
    """Places as processes get free. groups, tries: as in a plan. units: as many places are visited at most in one try."""

    def __init__(self, ledger: Ledger, groups: int, tries: int, units: int):
        self._ledger, self._limits = ledger, (groups, tries, units)
        self._ticket: int | None = None

    def claim(self) -> int | None:
        if self._ticket is None:
            self._ticket = self._ledger.take()
        if self._ticket >= needed(self._ledger.settled(), *self._limits):
            return None
        place, self._ticket = self._ticket, None
        return place

    def over(self) -> bool:
        known = self._ledger.settled()
        end = needed(known, *self._limits)
        return self._ticket is not None and self._ticket >= end and all(place in known for place in range(end))

    def settle(self, place: int, learned: bool) -> None:
        self._ledger.settle(place, learned)

    def settled(self) -> int:
        return len(self._ledger.settled())


def needed(settled: Mapping[int, bool], groups: int, tries: int, units: int) -> int:
    """How many places are certain to be sampled, given which groups are complete and which of them are learned from. It never
    falls as more groups are complete. Once all below it are, it is the number of places that `tries` tries sample, each of as
    many places as groups are then missing."""
    end = min(groups, units)
    for _ in range(tries - 1):
        missed = sum(not settled.get(place, True) for place in range(end))
        end = min(groups + missed, end + units)
    return end
