"""What the trainer learns from: one row per sampled turn."""

from __future__ import annotations

from dataclasses import dataclass

from agent.types import Completion, Prompt


@dataclass(frozen=True, slots=True)
class StepSample:
    """One turn of one rollout with its credit. Only `completion.token_ids`, sampled by the policy, are ever trained on.

    ret: discounted return R_t. advantage = w_E * advantage_episode + w_S * advantage_step (UI-S1, section 5.4 of the
    method; paper eq. 12).
    """

    episode_id: str
    sample: int
    index: int
    prompt: Prompt
    completion: Completion
    reward: float
    ret: float
    advantage_episode: float
    advantage_step: float
    advantage: float
