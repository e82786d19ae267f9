"""An option, off by default: pass over units whose outcome is all but certain.

Their groups would carry no signal and cost N rollouts each. This changes which groups are chosen, hence the experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from guiderail.agent.policy import Policy

Fit = Literal["fits", "too hard", "too easy"]


@dataclass(frozen=True, slots=True)
class Weighed:
    """A unit that was looked at before sampling. expected: what `Difficulty.expect` said of it. Only "fits" is sampled."""

    generation: int
    visit: int
    unit: str
    expected: float
    reason: Fit


@dataclass(frozen=True)
class Difficulty:
    """Units are sampled when their expected return lies in [low, high].

    expect(policy, keys of units): the share of the best first-step return that each unit's rollouts may expect, 0 to 1,
    under the policy as it is (rl/score/expected.py). rounds: how often units are drawn for the groups that one try lacks;
    then the try goes on with those it has.
    """

    expect: Callable[[Policy, Sequence[str]], list[float]]
    low: float = 0.0
    high: float = 1.0
    rounds: int = 8

    def weigh(self, generation: int, visit: int, unit: str, expected: float) -> Weighed:
        reason: Fit = "too hard" if expected < self.low else "too easy" if expected > self.high else "fits"
        return Weighed(generation, visit, unit, expected, reason)
