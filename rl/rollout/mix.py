"""Two kinds of groups in one update: along recordings and live (`method.mix`).

Each kind has its own collector, with its own units, credit and place in its passes. Their samples go into one batch, where
every token weighs the same. The share is one of groups, not of tokens: groups differ in length.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from guiderail.agent.policy import Policy
from guiderail.rl.credit.samples import Signal, StepSample
from guiderail.rl.rollout.generation import Collector, Sampled


def share_of(groups: int, mix: float) -> int:
    """How many of a generation's groups are along recordings: at least one of each kind."""
    return min(groups - 1, max(1, round(groups * mix)))


@dataclass
class MixedCollector:
    """As `Collector`. live: whose cursor and metrics stand for the run; the recordings' metrics are logged as "recordings/..."."""

    live: Collector
    recordings: Collector
    metrics: dict[str, float] = field(default_factory=dict)

    def __call__(self, policy: Policy, number: int) -> list[StepSample]:
        return self.take(self.sample(policy, number), number)

    def sample(self, policy: Policy, number: int) -> tuple[Sampled, Sampled]:
        return self.live.sample(policy, number), self.recordings.sample(policy, number)

    def take(self, sampled: tuple[Sampled, Sampled], number: int, behind: int = 0) -> list[StepSample]:
        alive, along = sampled
        live = self.live.take(alive, number, behind)
        samples = [*live, *self.recordings.take(along, number, behind, live)]
        kept = self.recordings.metrics
        renamed = {f"recordings/{key.split('/')[1]}": kept[key] for key in ("rollout/exact", "rollout/reward")}
        self.metrics = self.live.metrics | renamed | {"rollout/turns_total": self.sampled_turns}
        return samples

    @property
    def plan(self) -> Any:
        return self.live.plan

    @property
    def cursor(self) -> int:
        return self.live.cursor

    @property
    def sampled_turns(self) -> int:
        return self.live.sampled_turns + self.recordings.sampled_turns

    @property
    def signals(self) -> Counter[Signal]:
        return self.live.signals + self.recordings.signals

    def state_dict(self) -> dict[str, Any]:
        return {"live": self.live.state_dict(), "recordings": self.recordings.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.live.load_state_dict(state["live"])
        self.recordings.load_state_dict(state["recordings"])
