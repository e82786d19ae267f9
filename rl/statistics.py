"""Intervals. A number without its interval is not printed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Values = npt.NDArray[np.float64]


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate; (0, 1) when nothing was tried."""
    if n == 0:
        return (0.0, 1.0)
    from scipy import stats  # 0.7 s to import, and most commands print no interval

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
    totals, counts = _per_cluster(values)
    means = totals / counts
    if len(means) == 0 or bool(np.all(means == means[0])):
        return wilson(round(float(means.sum())), len(means), confidence)
    return _ratio(totals, counts, confidence, resamples, seed)


def mcnemar(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Exact two-sided p-value that two yes-or-no outcomes on the same things differ in rate (binomial on the pairs that
    disagree); 1 when none disagrees."""
    first = sum(a and not b for a, b in pairs)
    second = sum(b and not a for a, b in pairs)
    from scipy import stats

    return float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0


def paired_difference(
    pairs: Sequence[tuple[str, float, float]], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of mean(a) - mean(b) over (cluster, a, b) with values in [0, 1], whole clusters
    resampled. Where every cluster differs alike, resampling would claim certainty; the interval is then as wide as the
    share of clusters that might still differ (upper end of Wilson's interval of 0 successes)."""
    totals, counts = _per_cluster([(cluster, a - b) for cluster, a, b in pairs])
    means = totals / counts
    if len(means) == 0 or bool(np.all(means == means[0])):
        middle = float(means[0]) if len(means) else 0.0
        unseen = wilson(0, len(means), confidence)[1]
        return (max(-1.0, middle - unseen), min(1.0, middle + unseen))
    return _ratio(totals, counts, confidence, resamples, seed)


def _per_cluster(values: Sequence[tuple[str, float]]) -> tuple[Values, Values]:
    """Sum and count of each cluster's values."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for cluster, value in values:
        sums[cluster][0] += value
        sums[cluster][1] += 1
    totals, counts = np.array(list(sums.values()), dtype=np.float64).reshape(-1, 2).T
    return totals, counts


def _ratio(totals: Values, counts: Values, confidence: float, resamples: int, seed: int) -> Interval:
    """Percentile bootstrap interval of sum(totals) / sum(counts)."""
    from scipy import stats

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
