"""Which live task comes next: easy ones first, hopeless ones more and more seldom.

**Bands** (MAI-UI, arXiv 2512.22047): a task's band is the quarter in which its success rate lies, of the last group that was
sampled of it. Training has four stages; the first prefers the easiest band, the last the hardest. A task that is not of the
stage's band, and not new, is drawn with weight OTHER_BANDS. How MAI-UI weighs bands is not public; this weight is ours.

**Cooling** (MobileRL, 2509.18119): a task whose groups were all wrong twice in a row cools for three passes; its weight is then
exp(-f) after f failed groups. If the first group after that is all wrong again the task is not drawn any more.

What is drawn at a visit depends on the visit, the seed and what earlier generations found; so all processes draw the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from guiderail.rl.credit.rates import mean
from guiderail.rl.rollout.drive import seed_of
from guiderail.rl.rollout.plan import Group

STAGES = 4
OTHER_BANDS = 0.25
FAILURES = 2
COOL_PASSES = 3


@dataclass(slots=True)
class Known:
    """Of one task. rate: success of its last group. failed: its groups since one had a success. until: the visit at which it
    has cooled, 0 where it does not. gone: it is not drawn any more."""

    rate: float | None = None
    failed: int = 0
    until: int = 0
    gone: bool = False


@dataclass
class Curriculum:
    """names: of the units, in order. generations: of the whole run. bands, cooling: which of the two rules are on."""

    names: Sequence[str]
    generations: int
    bands: bool = True
    cooling: bool = True
    seed: int = 0
    stage: int = 0
    known: dict[str, Known] = field(default_factory=dict)

    def __call__(self, visit: int) -> int:
        """The place of the unit to be sampled at this visit."""
        weights = [self.weight(self.known.get(name), visit) for name in self.names]
        if not any(weights):
            weights = [1.0] * len(weights)
        return random.Random(seed_of(self.seed, "curriculum", visit)).choices(range(len(weights)), weights)[0]

    def weight(self, known: Known | None, visit: int) -> float:
        """How likely a task is drawn, relative to a new one, which has 1."""
        if known is None:
            return 1.0
        if self.cooling and known.gone:
            return 0.0
        weight = 1.0
        if self.cooling and visit < known.until:
            weight = math.exp(-known.failed)
        if self.bands and known.rate is not None and band(known.rate) != STAGES - 1 - self.stage:
            weight *= OTHER_BANDS
        return weight

    def learn(self, groups: Sequence[Group], generation: int) -> None:
        """Take in what a generation sampled; forked groups say nothing about a task's start and are left out."""
        for group in groups:
            outcomes = [one.outcome for one in group.rollouts if one.outcome is not None and one.sampled is None]
            if not outcomes or any(one.start for one in group.rollouts):
                continue
            known = self.known.setdefault(group.unit, Known())
            known.rate = mean([outcome.success for outcome in outcomes])
            if known.rate > 0:
                known.failed, known.until = 0, 0
                continue
            cooled = known.until > 0 and group.visit >= known.until
            known.failed += 1
            known.gone = known.gone or cooled
            if known.failed >= FAILURES and known.until == 0:
                known.until = group.visit + COOL_PASSES * len(self.names)
        self.stage = min(STAGES - 1, STAGES * (generation + 1) // max(1, self.generations))

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self.stage, "known": {name: asdict(known) for name, known in self.known.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stage = state["stage"]
        self.known = {name: Known(**known) for name, known in state["known"].items()}


def band(rate: float) -> int:
    """0 for a success rate below a quarter, ..., 3 from three quarters on."""
    return min(STAGES - 1, int(rate * STAGES))
