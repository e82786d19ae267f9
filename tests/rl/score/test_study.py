"""Means, paired differences and correlations of a study."""

import numpy as np
import pytest

from guiderail.rl.score.statistics import wilson
from guiderail.rl.score.study import correlation, difference, mean


def table(values):
    """Array (seeds, tasks) -> outcomes."""
    return {s: {f"t{k}": float(v) for k, v in enumerate(row)} for s, row in enumerate(values)}


def test_a_mean_over_seeds_and_tasks():
    got = mean(table([[1, 0, 1, 1], [0, 0, 1, 0]]))
    assert got.value == 0.5
    assert got.by_seed == (0.75, 0.25)
    assert got.tasks == 4
    assert got.interval[0] < 0.5 < got.interval[1]


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(1)
    level = np.array([0.2, 0.35, 0.5, 0.65, 0.8])[:, None]
    spread = mean(table(rng.random((5, 400)) < level)).interval
    alike = mean(table(rng.random((5, 400)) < 0.5)).interval
    assert spread[1] - spread[0] > 3 * (alike[1] - alike[0])


def test_equal_outcomes_do_not_claim_certainty():
    assert mean(table([[0] * 30, [0] * 30])).interval == wilson(0, 30)


def test_a_share_counts_its_parts():
    got = mean({0: {"a": 1, "b": 8}}, {0: {"a": 2, "b": 8}})
    assert got.value == 0.9


def test_nothing_scored():
    assert mean({0: {}}) is None
    assert difference({0: {"a": 1.0}}, {0: {"b": 1.0}}) is None
    assert difference({0: {"a": 1.0}}, {1: {"a": 1.0}}) is None


def test_a_paired_difference_sees_what_task_difficulty_hides():
    rng = np.random.default_rng(0)
    hard = rng.random(300) < 0.5
    first = np.array([hard | (rng.random(300) < 0.1) for _ in range(5)])
    second = np.array([hard for _ in range(5)])
    got = difference(table(first), table(second))
    apart = mean(table(first)).interval, mean(table(second)).interval
    assert apart[0][0] < apart[1][1], "the two intervals overlap"
    assert got.interval[0] > 0
    assert got.p < 0.001
    assert got.value == pytest.approx(first.mean() - second.mean())
    assert all(value > 0 for value in got.by_seed)
    back = difference(table(second), table(first))
    assert (back.value, back.p) == (pytest.approx(-got.value), pytest.approx(got.p, abs=1e-3))


def test_a_difference_counts_only_what_both_scored():
    got = difference({0: {"a": 1.0, "b": 0.0}, 1: {"a": 1.0}}, {0: {"b": 1.0, "c": 1.0}})
    assert (got.value, got.tasks) == (-1.0, 1)
    assert got.p == 1.0


def test_no_difference_at_all():
    same = table([[1, 0, 1], [1, 1, 0]])
    got = difference(same, same)
    assert (got.value, got.p) == (0.0, 1.0)
    assert got.interval[0] < 0 < got.interval[1]


def test_the_interval_covers_the_truth():
    """Ten seeds and 150 tasks with effects of their own, around a known rate: 95 % should cover about 95 of 100 times."""
    rng, covered = np.random.default_rng(3), 0
    for _ in range(100):
        chance = 0.5 + 0.06 * rng.standard_normal((10, 1)) + 0.2 * rng.uniform(-1, 1, (1, 150))
        low, high = mean(table(rng.random((10, 150)) < chance), resamples=500).interval
        covered += low <= 0.5 <= high
    assert 86 <= covered <= 100


def test_correlation_and_the_point_that_makes_it():
    x = [0.1, 0.12, 0.11, 0.13, 0.9]
    y = [0.2, 0.21, 0.23, 0.2, 0.8]
    got = correlation(["a", "b", "c", "d", "far"], x, y)
    assert got.pearson > 0.98
    assert got.lever == "far"
    assert got.drop_one[0] < 0.3
    assert got.n == 5
    assert -1 <= got.spearman_interval[0] <= got.spearman <= got.spearman_interval[1] <= 1


def test_correlation_of_a_line_is_one():
    got = correlation(list("abcde"), [1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert got.pearson == pytest.approx(1)
    assert got.spearman == pytest.approx(1)
    assert got.drop_one == (pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_no_correlation_where_none_is_defined(x, y):
    assert correlation(list("abcd")[: len(x)], x, y) is None
