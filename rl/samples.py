"""What the trainer learns from: one row per sampled turn."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


def unit_of(sample: StepSample) -> Hashable:
    """Samples of one unit look at the same screen with the same goal."""
    return sample.episode_id, sample.index


def together(units: Sequence[Hashable]) -> list[list[int]]:
    """The places of each unit's samples, units in the order in which they first occur."""
    places: dict[Hashable, list[int]] = {}
    for i, unit in enumerate(units):
        places.setdefault(unit, []).append(i)
    return list(places.values())


def over_processes(units: Sequence[Hashable], processes: int) -> list[list[int]]:
    """Samples, told by their units, over the processes: a unit stays together, the processes get about as many rows each."""
    dealt: list[list[int]] = [[] for _ in range(processes)]
    for unit in sorted(together(units), key=len, reverse=True):
        min(dealt, key=len).extend(unit)
    return dealt


def deal(units: Sequence[Hashable], windows: int, most: int, seed: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """One process's samples, told by their units, over the windows (optimizer steps) of a generation, unit by unit at
    random: per window all that fell into it and the at most `most`, drawn at random, that are kept. Same arguments, same
    result."""
    rng = np.random.default_rng([*seed])
    groups = together(units)
    order = rng.permutation(len(groups)).tolist()
    parts = [[i for group in order[window::windows] for i in groups[group]] for window in range(windows)]
    drawn = [rng.permutation(part).tolist() for part in parts]
    return [(part, part[:most]) for part in drawn]
