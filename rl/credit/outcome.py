"""Credit from an outcome alone: trajectory-level GRPO, for rollouts without an expert to compare with.

The reward of rollout i is what the check at its end found: r_i = progress where the world measures it, else 1 for success
and 0 for failure; rl/credit/shaping.py lists what may be added. Its advantage is that reward among the attempts at the same task, the same for all its turns:

    A_i,t = (r_i - mean_j r_j) / (std_j r_j + 1e-6)

This is GRPO with outcome supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.2), applied to whole trajectories as
MAI-UI (2512.22047) and MobileGym (2605.26114) do. The comparison is fair because all attempts had the same goal and
started from the same state. Mean and std run over attempts, never over turns: else a long attempt would count more often
than a short one. The loss divides by the tokens of the whole update, a constant for all attempts in it: dividing each attempt by its own
length would make long failures count less per turn (AsyncWebRL, 2606.05597). A group whose rewards are all equal is dropped (DAPO's dynamic sampling, arXiv 2503.14476).
"""

from __future__ import annotations

from collections.abc import Sequence

from guiderail.agent.types import Rollout
from guiderail.rl.credit.samples import Credited, StepSample
from guiderail.rl.credit.shaping import attempt_rewards
from guiderail.rl.credit.uis1 import CreditRules, normalise, signal


def credit(group: Sequence[Rollout], rules: CreditRules) -> Credited:
    """Attempts at one task -> one sample per turn. A rollout without an outcome is left out. Of the rules `scale`, `unbiased`
    `episode_weight`, `spread_of` ("none" keeps every group) and those of `attempt_rewards` are read."""
    checked = [(i, rollout) for i, rollout in enumerate(group) if rollout.outcome is not None]
    rewards = attempt_rewards([rollout for _, rollout in checked], rules)
    advantages = normalise(rewards, scale=rules.scale, unbiased=rules.unbiased)
    samples: list[list[StepSample]] = [[] for _ in group]
    for (i, _), r, advantage in zip(checked, rewards, advantages, strict=True):
        samples[i] = _samples(group[i], r, advantage, rules.episode_weight)
    right = [rollout.outcome is not None and rollout.outcome.success for _, rollout in checked]
    return Credited(samples, signal(rewards, right, -1.0 if rules.spread_of == "none" else 0.0))


def _samples(rollout: Rollout, r: float, advantage: float, weight: float) -> list[StepSample]:
    """The reward comes with the last turn; it is the undiscounted return of every turn."""
    last = len(rollout.turns) - 1
    return [
        StepSample(
            unit=rollout.unit,
            sample=rollout.sample,
            index=turn.index,
            prompt=turn.prompt,
            completion=turn.completion,
            reward=r if t == last else 0.0,
            ret=r,
            advantage_episode=advantage,
            advantage_step=0.0,
            advantage=weight * advantage,
        )
        for t, turn in enumerate(rollout.turns)
    ]
