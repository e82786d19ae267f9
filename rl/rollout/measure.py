"""What a generation looks like in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from guiderail.rl.credit.rates import mean, rates
from guiderail.rl.credit.samples import DROPPED
from guiderail.rl.rollout.difficulty import Weighed
from guiderail.rl.rollout.plan import Group


def measured(groups: Sequence[Group], weighed: Sequence[Weighed], seconds: float) -> dict[str, float]:
    """The generation's metrics by name; rl/runs/metrics.py says what each means."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rows = [row for group in groups for row in group.samples if row]
    signals = Counter(group.signal for group in groups)
    fresh = [rollout for rollout in rollouts if rollout.sampled is None]
    turns = sum(len(rollout.turns) for rollout in fresh)
    metrics = {
        "groups/kept": signals["kept"],
        **{f"groups/{name.replace(' ', '_')}": signals[name] / max(1, len(groups)) for name in DROPPED},
        "rollout/reward": mean([sample.reward for row in rows for sample in row]),
        "rollout/first_return": mean([row[0].ret for row in rows]),
        **rates(fresh),
        "rollout/turns": turns,
        "rollout/turns_per_second": turns / max(seconds, 1e-9),
    }
    if not rollouts or any(rollout.outcome is not None for rollout in rollouts):
        metrics |= ends(groups)
    if weighed:
        reasons = Counter(one.reason for one in weighed)
        metrics |= {
            "groups/expected": mean([one.expected for one in weighed]),
            "groups/too_hard": reasons["too hard"],
            "groups/too_easy": reasons["too easy"],
        }
    return metrics


def ends(groups: Sequence[Group]) -> dict[str, float]:
    """How the live attempts of a generation ended: each is counted once, and every machine's fault beside them."""
    rollouts = [rollout for group in groups for rollout in group.rollouts if rollout.sampled is None]
    failed = Counter(one.ended for one in rollouts if one.outcome is not None and not one.outcome.success)
    return {
        "ends/success": float(sum(one.outcome is not None and one.outcome.success for one in rollouts)),
        "ends/false_claim": float(failed["finished"]),
        "ends/gave_up": float(failed["gave_up"]),
        "ends/out_of_steps": float(failed["out_of_steps"]),
        "ends/infrastructure": float(sum(group.faults for group in groups)),
        "ends/replayed": float(sum(r.sampled is not None for group in groups for r in group.rollouts)),
    }
