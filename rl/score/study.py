"""Comparing training arms over seeds and tasks, and metrics over checkpoints. Arithmetic alone; no files.

Every arm meets the same tasks with every seed, a crossed design. Training seeds and tasks are both samples of what could
have been, so intervals resample both. With few seeds (five) a percentile interval is a little too narrow; the table
therefore also says in how many seeds a difference has the sign it claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from guiderail.rl.score.statistics import Interval, Values, wilson

Outcomes = Mapping[int, Mapping[str, float]]
"""seed -> task -> value in [0, 1]; a task without a score is left out."""

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Mean:
    """value with its 95 % interval; by_seed: each seed's own mean; tasks: how many entered."""

    value: float
    interval: Interval
    by_seed: tuple[float, ...]
    tasks: int


@dataclass(frozen=True, slots=True)
class Difference(Mean):
    """p: two-sided bootstrap p-value, no smaller than 2 / (resamples + 1)."""

    p: float


def mean(outcomes: Outcomes, weights: Outcomes | None = None, resamples: int = RESAMPLES) -> Mean | None:
    """Mean over seeds and tasks; None when nothing was scored. weights: sum(values) / sum(weights) instead, for shares
    whose parts are counted per task (right steps of all steps)."""
    values, counts = _matrices(outcomes, weights)
    if counts.sum() == 0:
        return None
    share, drawn = _resampled(values, counts, resamples)
    low, high = _percentiles(drawn)
    if low == high:  # resampling equal values would claim certainty
        n = int((counts.sum(axis=0) > 0).sum())
        low, high = wilson(round(share * n), n)
    return Mean(share, (low, high), _by_seed(values, counts), int((counts.sum(axis=0) > 0).sum()))


def difference(first: Outcomes, second: Outcomes, resamples: int = RESAMPLES) -> Difference | None:
    """mean(first) - mean(second) over the (seed, task) pairs that both scored; None when there is none.

    Seeds and tasks are resampled as in `mean`, the same for both arms. Where all pairs differ alike the interval is as wide
    as the share of tasks that might still differ (Wilson's upper end for 0), and p is 1.
    """
    pairs = {
        seed: {task: first[seed][task] - second[seed][task] for task in first[seed] if task in second[seed]}
        for seed in sorted(set(first) & set(second))
    }
    values, counts = _matrices({seed: row for seed, row in pairs.items() if row}, None)
    if counts.sum() == 0:
        return None
    gap, drawn = _resampled(values, counts, resamples)
    (low, high), n = _percentiles(drawn), int((counts.sum(axis=0) > 0).sum())
    if low == high:
        unseen = wilson(0, n)[1]
        return Difference(gap, (max(-1.0, gap - unseen), min(1.0, gap + unseen)), _by_seed(values, counts), n, 1.0)
    least = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (least + 1) / (len(drawn) + 1))
    return Difference(gap, (low, high), _by_seed(values, counts), n, p)


def _matrices(outcomes: Outcomes, weights: Outcomes | None) -> tuple[Values, Values]:
    """Values and counts, shape (seeds, tasks); 0 and 0 where a seed has no score of a task."""
    seeds = sorted(outcomes)
    tasks = sorted({task for row in outcomes.values() for task in row})
    place = {task: k for k, task in enumerate(tasks)}
    values, counts = np.zeros((len(seeds), len(tasks))), np.zeros((len(seeds), len(tasks)))
    for i, seed in enumerate(seeds):
        for task, value in outcomes[seed].items():
            values[i, place[task]] = value
            counts[i, place[task]] = 1.0 if weights is None else weights[seed][task]
    return values, counts


def _resampled(values: Values, counts: Values, resamples: int) -> tuple[float, Values]:
    """The share, and its values under draws of seeds and, independently, of tasks with replacement."""
    rows, columns = (_draws(n, resamples, axis) for axis, n in enumerate(values.shape))
    tops = ((rows @ values) * columns).sum(axis=1)
    bottoms = ((rows @ counts) * columns).sum(axis=1)
    drawn = tops[bottoms > 0] / bottoms[bottoms > 0]
    return float(values.sum() / counts.sum()), drawn


@lru_cache(maxsize=12)
def _draws(n: int, resamples: int, stream: int) -> Values:
    """Shape (resamples, n): how often each of n things is drawn."""
    rng = np.random.default_rng((stream, n))
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def _percentiles(drawn: Values) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return (float(low), float(high))


def _by_seed(values: Values, counts: Values) -> tuple[float, ...]:
    return tuple(float(v.sum() / c.sum()) for v, c in zip(values, counts, strict=True) if c.sum() > 0)


# ------------------------------------------------------------------------------------------------------- two metrics


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of two metrics over n checkpoints. interval: bootstrap over checkpoints. drop_one: (lowest, highest) when any one of
    them is left out, with the name of the one whose absence moves it most."""

    pearson: float
    interval: Interval
    drop_one: Interval
    lever: str
    spearman: float
    spearman_interval: Interval
    n: int


def correlation(
    names: Sequence[str], x: Sequence[float], y: Sequence[float], resamples: int = RESAMPLES
) -> Correlation | None:
    """None with fewer than four checkpoints or where a metric never varies. Checkpoints that share a start are not
    independent, so the interval is that of other draws of checkpoints like these, no more."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy.stats import rankdata

    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(a), size=(resamples, len(a)))
    others = np.array([np.delete(np.arange(len(a)), k) for k in range(len(a))])
    whole = float(_pearson(a, b))
    left = _pearson(a[others], b[others])
    drawn = _pearson(a[picks], b[picks])
    ranks = _pearson(rankdata(a[picks], axis=1), rankdata(b[picks], axis=1))
    return Correlation(
        whole,
        _percentiles(drawn[~np.isnan(drawn)]),
        (float(np.nanmin(left)), float(np.nanmax(left))),
        names[int(np.nanargmax(np.abs(left - whole)))],
        float(_pearson(rankdata(a), rankdata(b))),
        _percentiles(ranks[~np.isnan(ranks)]),
        len(a),
    )


def _pearson(a: Values, b: Values) -> Values:
    """Along the last axis; NaN where one of the two does not vary."""
    u, v = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    norm = np.sqrt((u * u).sum(axis=-1) * (v * v).sum(axis=-1))
    shared = (u * v).sum(axis=-1)
    found: Values = np.divide(shared, norm, out=np.full_like(norm, np.nan), where=norm > 1e-12)
    return found
