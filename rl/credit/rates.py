"""What sampled rollouts look like in the log: agreement with the expert along recordings, success of live attempts."""

from __future__ import annotations

from collections.abc import Sequence

from guiderail.agent.types import Rollout


def rates(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Shares of turns and rollouts, 0 to 1, by metric name (rl/runs/metrics.py says what each means)."""
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    outcomes = [rollout.outcome for rollout in rollouts if rollout.outcome is not None]
    readable = {"rollout/readable": mean([turn.action is not None for turn in turns])}
    if outcomes:
        return {"rollout/success": mean([outcome.success for outcome in outcomes]), **readable}
    return {
        "rollout/exact": mean([turn.exact for turn in turns]),
        **readable,
        "rollout/patched": mean([turn.repair is not None for turn in turns]),
        "rollout/finished": mean([rollout.matched for rollout in rollouts]),
    }


def mean(values: Sequence[float]) -> float:
    """0 where there is nothing."""
    return sum(values) / len(values) if values else 0.0
