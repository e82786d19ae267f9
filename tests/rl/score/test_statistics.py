"""Intervals cover what they should; SOP and offline scores from plain rows."""

import math
import random

import pytest

from guiderail.envs.recordings.match import GUIDERAIL, UIS1_RELEASED_SOP
from guiderail.rl.score.sop import Scored, StepScored, offline_score, score
from guiderail.rl.score.statistics import bootstrap_mean, clustered, paired_p, stratified, wilson


def test_wilson_against_a_worked_value():
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 0) == (0.0, 1.0)


def test_of_strata_only_what_varies_inside_is_chance():
    pure = [(name, name == "a") for name in "ab" for _ in range(40)]
    low, high = stratified(pure)
    # Inside nothing varies: deff = (0 + 1/4) / (78 + 1) / (1/4), so Wilson's at 80 * 79 tasks.
    assert (low, high) == wilson(3160, 6320)
    mixed = [(str(k // 40), k % 2 == 0) for k in range(80)]
    wide, plain = stratified(mixed), wilson(40, 80)
    assert wide[1] - wide[0] == pytest.approx(plain[1] - plain[0], rel=0.02)
    assert stratified([("a", True), ("b", False), ("c", True)]) == wilson(2, 3)  # one task each tells no variance
    assert stratified([("a", True)] * 5) == wilson(5, 5)
    assert stratified([]) == (0.0, 1.0)


@pytest.mark.parametrize("each", [2, 5, 30])
def test_stratified_covers_95_times_in_100_where_wilson_is_too_wide(each):
    rng = random.Random(each)
    rates = [0.02, 0.05, 0.1, 0.1, 0.2, 0.2, 0.4, 0.5, 0.7, 0.7, 0.8, 0.9]
    hits, widths, plain = 0, 0.0, 0.0
    for _ in range(400):
        drawn = [(str(k), rng.random() < rate) for k, rate in enumerate(rates) for _ in range(each)]
        low, high = stratified(drawn)
        hits += low <= sum(rates) / len(rates) <= high
        widths += high - low
        low, high = wilson(sum(right for _, right in drawn), len(drawn))
        plain += high - low
    assert 0.92 <= hits / 400 <= 0.98
    assert widths < 0.85 * plain


def test_equal_outcomes_do_not_claim_certainty():
    low, high = bootstrap_mean([0.0] * 20)
    assert low == 0.0
    assert 0.1 < high < 0.2


def test_bootstrap_covers_the_mean_about_95_times_in_100():
    rng = random.Random(0)
    hits = 0
    for trial in range(100):
        low, high = bootstrap_mean([rng.random() ** 2 for _ in range(60)], resamples=400, seed=trial)
        hits += low <= 1 / 3 <= high
    assert 88 <= hits <= 100


def test_clusters_are_resampled_whole():
    alone = clustered([(str(i), i % 2) for i in range(40)])
    together = clustered([(str(i // 10), i // 10 % 2) for i in range(40)])
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_the_exact_test_is_of_pairs_that_are_independent():
    pairs = [(str(i), 1.0, 0.0) for i in range(8)]
    assert paired_p(pairs) == pytest.approx(2 / 2**8)
    assert paired_p([*pairs, ("0", 1.0, 1.0)]) is None
    assert paired_p([]) == 1.0


def test_sop_counts_progress_success_and_unscored():
    rows = [Scored("a", 4, 4), Scored("b", 4, 1), Scored("c", 2, 0), Scored("d", 5, 2, crashed=True)]
    result = score(rows, GUIDERAIL)
    assert (result["PG"], result["TSR"], result["n"], result["unscored"]) == (1.25 / 3, 1 / 3, 3, 1)
    assert result["Score"] == pytest.approx((1.25 / 3 + 1 / 3) / 2)
    assert result["rules"]["name"] == "guiderail"
    low, high = result["intervals"]["Score"]
    assert low <= result["Score"] <= high


def test_wiped_progress_is_zero():
    assert score([Scored("a", 4, 4), Scored("b", 4, 3, wiped=True)], UIS1_RELEASED_SOP)["PG"] == 0.5
    assert score([Scored("a", 4, 4), Scored("b", 4, 3)], UIS1_RELEASED_SOP)["PG"] == 0.875


def test_nothing_scored_is_no_zero():
    result = score([Scored("a", 3, 1, crashed=True)], GUIDERAIL)
    assert result["PG"] is None
    assert result["n"] == 0
    assert not any(math.isnan(x) for x in result["intervals"]["PG"])


def test_offline_scores_ground_only_what_touches():
    rows = [
        StepScored("a", 0, True, True, True),
        StepScored("a", 1, True, True, False),
        StepScored("a", 2, False, True, True),
        StepScored("b", 0, False, False, False),
        StepScored("b", 1, True, False, False, crashed=True),
    ]
    result = offline_score(rows, GUIDERAIL)
    assert (result["TM"], result["GR"], result["SR"], result["n"], result["unscored"]) == (0.75, 0.5, 0.5, 4, 1)
