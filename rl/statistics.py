"""Intervals. A number without its interval is not printed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy import stats

Interval = tuple[float, float]


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate; (0, 1) when nothing was tried."""
    if n == 0:
        return (0.0, 1.0)
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return (float(interval.low), float(interval.high))


def bootstrap_mean(values: Sequence[float], confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean of values in [0, 1]."""
    return clustered([(str(i), value) for i, value in enumerate(values)], confidence, resamples, seed)


def clustered(
    values: Sequence[tuple[str, float]], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of (cluster, value) pairs, resampling whole clusters.

    Resampling values that are all equal would claim certainty; those get the Wilson interval of that many clusters.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for cluster, value in values:
        sums[cluster][0] += value
        sums[cluster][1] += 1
    totals, counts = np.array(list(sums.values()), dtype=np.float64).reshape(-1, 2).T
    means = totals / counts
    if len(means) == 0 or bool(np.all(means == means[0])):
        return wilson(round(float(means.sum())), len(means), confidence)
    interval = stats.bootstrap(
        (totals, counts),
        lambda t, c, axis: t.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return (float(interval.low), float(interval.high))
