"""From a group of rollouts to the rows the trainer learns from: rewards, returns, two advantages, one sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.types import Rollout
from rl.advantage import EpisodeMode, episode_advantages, step_advantages
from rl.returns import ReturnMode, returns
from rl.reward import PAPER, RewardRules, step_reward
from rl.samples import StepSample


@dataclass(frozen=True, slots=True)
class CreditRules:
    """A(i,t) = episode_weight * A^E(i) + step_weight * A^S(i,t) (paper eq. 12; omega is step_weight).

    scale: divide by the group's standard deviation (else subtract the mean only). unbiased: n-1 in that deviation.
    """

    reward: RewardRules = PAPER
    gamma: float = 0.5
    returns: ReturnMode = "paper"
    episode: EpisodeMode = "total"
    episode_weight: float = 1.0
    step_weight: float = 1.0
    scale: bool = True
    unbiased: bool = True


def credit(group: Sequence[Rollout], rules: CreditRules) -> list[list[StepSample]]:
    """result[i][t]: the sample of turn t of rollout i."""
    rewards = [[step_reward(turn, rules.reward) for turn in rollout.turns] for rollout in group]
    rets = [
        returns(row, [turn.verdict.exact for turn in rollout.turns], rules.gamma, rules.returns)
        for row, rollout in zip(rewards, group, strict=True)
    ]
    steps = step_advantages(rets, scale=rules.scale, unbiased=rules.unbiased)
    episodes = episode_advantages(rewards, rets, rules.episode, scale=rules.scale, unbiased=rules.unbiased)
    return [
        [
            StepSample(
                episode_id=rollout.episode_id,
                sample=rollout.sample,
                index=turn.index,
                prompt=turn.prompt,
                completion=turn.completion,
                reward=rewards[i][t],
                ret=rets[i][t],
                advantage_episode=episodes[i][t],
                advantage_step=steps[i][t],
                advantage=rules.episode_weight * episodes[i][t] + rules.step_weight * steps[i][t],
            )
            for t, turn in enumerate(rollout.turns)
        ]
        for i, rollout in enumerate(group)
    ]
