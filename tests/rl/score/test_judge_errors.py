"""A worked table of a judge's errors."""

import pytest

from guiderail.rl.score.judge_errors import Judged, errors
from guiderail.rl.score.statistics import wilson


def one(truth, verdict, world="pocket", goal="g", items=()):
    return Judged(world, "call", goal, truth, verdict, items)


TABLE = [
    *[one(True, True, items=(("a", True), ("b", True)))] * 6,
    *[one(True, False, items=(("a", True), ("b", False)))] * 2,
    *[one(False, False, items=(("a", False), ("b", True)))] * 3,
    one(False, True, items=(("a", True), ("b", True))),
    one(True, True, "miniwob"),
    one(False, True, "miniwob"),
]


def test_rates_intervals_and_kappa():
    made = errors(TABLE)
    assert (made["n"], made["succeeded"], made["failed"]) == (14, 9, 5)
    assert (made["agreement_count"], made["false_pass_count"], made["false_fail_count"]) == (10, 2, 2)
    assert (made["agreement"], made["false_pass"], made["false_fail"]) == (10 / 14, 2 / 5, 2 / 9)
    assert made["false_pass_interval"] == list(wilson(2, 5))
    chance = (9 * 9 + 5 * 5) / 14**2
    assert made["kappa"] == pytest.approx((10 / 14 - chance) / (1 - chance))
    pocket, miniwob = made["by_world"]["pocket"], made["by_world"]["miniwob"]
    assert (pocket["n"], pocket["false_pass_count"], pocket["agreement"]) == (12, 1, 9 / 12)
    assert (miniwob["n"], miniwob["agreement"], miniwob["kappa"]) == (2, 0.5, 0.0)
    assert set(made["by_group"]) == {"pocket:call", "miniwob:call"}


def test_items_name_what_was_not_seen():
    made = errors(TABLE)["items"]
    assert (made["n"], made["missed_count"], made["missed"]) == (16, 2, 2 / 16)
    assert made["worst"] == [{"goal": "g", "item": "b", "n": 8, "missed": 2, "alone": 2}]
    assert (made["failed"], made["all_held"]) == (4, 1)


def test_nothing_is_not_zero():
    made = errors([])
    assert (made["agreement"], made["false_pass"], made["kappa"], made["items"]["missed"]) == (None, None, None, None)
    same = errors([one(True, True)] * 3)
    assert (same["agreement"], same["false_pass"], same["kappa"]) == (1.0, None, None)
