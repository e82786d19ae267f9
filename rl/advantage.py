"""Two comparisons inside a group of N rollouts of one episode (UI-S1 section 3.4, eq. 10-12).

Step level: rollouts alive at the same step, seen from the same screenshot, compared by R_t. Episode level: whole
trajectories compared by one number each, the same for every step of a trajectory. A group of one has nobody to compare
with and gets 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev, stdev
from typing import Literal, get_args

EpisodeMode = Literal["total", "first", "last", "released"]
EPISODE_MODES: tuple[EpisodeMode, ...] = get_args(EpisodeMode)
Rows = list[list[float]]
EPSILON = 1e-6


def normalise(values: Sequence[float], *, scale: bool = True, unbiased: bool = True) -> list[float]:
    """(v - mean) / (std + 1e-6); `scale` False only subtracts the mean. One value, or equal values, give 0."""
    if len(values) < 2 or max(values) == min(values):
        return [0.0] * len(values)
    mean = fmean(values)
    spread = (stdev(values) if unbiased else pstdev(values)) + EPSILON if scale else 1.0
    return [(value - mean) / spread for value in values]


def step_advantages(group: Sequence[Sequence[float]], *, scale: bool = True, unbiased: bool = True) -> Rows:
    """group[i][t] = R_t of rollout i. Each step is normalised over the rollouts that reached it (eq. 10)."""
    result: Rows = [[0.0] * len(row) for row in group]
    for t in range(max(map(len, group), default=0)):
        alive = [i for i, row in enumerate(group) if t < len(row)]
        for i, value in zip(
            alive, normalise([group[i][t] for i in alive], scale=scale, unbiased=unbiased), strict=True
        ):
            result[i][t] = value
    return result


def episode_advantages(
    rewards: Sequence[Sequence[float]],
    group_returns: Sequence[Sequence[float]],
    mode: EpisodeMode = "total",
    *,
    scale: bool = True,
    unbiased: bool = True,
) -> Rows:
    """rewards[i][t], group_returns[i][t] of rollout i -> the episode advantage of every step (eq. 11).

    One number per trajectory, normalised over trajectories: "total" undiscounted sum of rewards, "first" R_1, "last" the
    last reward (the paper's text read literally). "released" reproduces the public code: each step's own reward,
    normalised over all step rows of the group; a single row keeps its raw reward (method audit, B1 and B15).
    """
    if mode == "released":
        rows = [r for row in rewards for r in row]
        flat = iter(normalise(rows, scale=scale, unbiased=unbiased) if len(rows) > 1 else rows)
        return [[next(flat) for _ in row] for row in rewards]
    values = normalise(trajectory_numbers(rewards, group_returns, mode), scale=scale, unbiased=unbiased)
    return [[value] * len(row) for value, row in zip(values, rewards, strict=True)]


def trajectory_numbers(
    rewards: Sequence[Sequence[float]], group_returns: Sequence[Sequence[float]], mode: EpisodeMode
) -> list[float]:
    """The one number per trajectory that the episode level compares ("released" has none: it compares steps)."""
    if mode == "total":
        return [sum(row) for row in rewards]
    return [row[0] for row in group_returns] if mode == "first" else [row[-1] for row in rewards]
