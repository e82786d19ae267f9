"""What the trainer learns from: one row per sampled turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def deal(count: int, windows: int, most: int, seed: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """One process's samples 0..count-1 over the windows (optimizer steps) of a generation, at random: per window all that
    fell into it and the at most `most` that are kept. Same arguments, same result."""
    order = np.random.default_rng([*seed]).permutation(count).tolist()
    return [(order[window::windows], order[window::windows][:most]) for window in range(windows)]
