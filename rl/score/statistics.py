"""Intervals. A number without its interval is not printed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Values = npt.NDArray[np.float64]


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate; (0, 1) when nothing was tried."""
    return _wilson(successes / n, n, confidence) if n else (0.0, 1.0)


def stratified(outcomes: Sequence[tuple[str, bool]], confidence: float = 0.95) -> Interval:
    """Interval of the success rate over (stratum, success), one per task, when tasks are drawn within fixed strata, as
    benchmarks draw them from their templates: only what varies within a stratum is chance.

    Wilson's, with the effective sample size n / deff of survey statistics in place of n (Korn and Graubard 1998), where deff
    is the pooled variance within strata over the plain p (1 - p). Another degree of freedom at the plain variance goes into
    it, so that few tasks per stratum claim little, and one task each gives Wilson's own interval.
    """
    by_stratum: dict[str, list[bool]] = defaultdict(list)
    for stratum, success in outcomes:
        by_stratum[stratum].append(success)
    n, right = len(outcomes), sum(success for _, success in outcomes)
    if right in (0, n):
        return wilson(right, n, confidence)
    plain = right / n * (1 - right / n)
    inside = sum(sum(of) * (len(of) - sum(of)) / len(of) for of in by_stratum.values())
    deff = (inside + plain) / (n - len(by_stratum) + 1) / plain
    return _wilson(right / n, n / deff, confidence)


def over_tasks(values: Sequence[tuple[str, float]], templates: Mapping[str, str]) -> Interval:
    """Interval of the mean of (task, value): with one value per task, all 0 or 1, `stratified` by the tasks' templates (a task
    without one stands alone), else `clustered` by task."""
    if len({task for task, _ in values}) == len(values):
        return stratified([(templates.get(task, task), bool(value)) for task, value in values])
    return clustered(values)


def _wilson(share: float, n: float, confidence: float) -> Interval:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (max(0.0, middle - half) if share > 0 else 0.0, min(1.0, middle + half) if share < 1 else 1.0)


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


def paired_p(pairs: Sequence[tuple[str, float, float]]) -> float | None:
    """`mcnemar` of (cluster, a, b), both 0 or 1. None where a cluster has several pairs: these are not independent."""
    if len({cluster for cluster, _, _ in pairs}) < len(pairs):
        return None
    return mcnemar([(a == 1, b == 1) for _, a, b in pairs])


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
        batch=max(1, 2**21 // len(totals)),  # bounds memory; the draws are the same
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return (float(interval.low), float(interval.high))
