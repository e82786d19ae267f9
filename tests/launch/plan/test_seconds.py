"""How many turns a rollout makes, what a decoding step waits for, and what a cluster costs: worked by hand."""

import math

import pytest

from guiderail.agent.errors import SetupError
from guiderail.launch.plan.machines import GPU, Cluster, find, gpus
from guiderail.launch.plan.seconds import Assumed, decode_step, mean_turns, turns_of
from guiderail.launch.plan.shape import shape_of
from tests.launch.plan.settings import setting

CARD = GPU("card", 80, 1000, 1000, 100, 2.0, "2026-01")


def test_turns_until_the_budget_of_repairs_is_spent():
    assert turns_of(3, 0.5, 0) == pytest.approx([1, 0.5, 0.25])
    assert turns_of(3, 0.5, 1) == pytest.approx([1, 1, 0.75])
    assert turns_of(3, 0.5, math.inf) == pytest.approx([1, 1, 1])
    assert turns_of(4, 1.0, 0) == pytest.approx([1, 1, 1, 1])
    assert mean_turns([1, 3], 0.5, 0) == pytest.approx((1 + 1.75) / 2)


def test_a_decoding_step_reads_weights_and_cache_or_waits_for_kernels():
    shape = shape_of("Qwen/Qwen2.5-VL-7B-Instruct")
    s, assumed = setting(shape, stored=2, computed=2), Assumed(reading=1.0, launch=0.0)
    weights = 2 * shape.parameters("text")
    assert decode_step(shape, s, Cluster(CARD, 1), assumed, 0, 0, "local") == pytest.approx(weights / 1e12)
    cache = 8 * 1000 * 2 * 28 * 4 * 128 * 2
    assert decode_step(shape, s, Cluster(CARD, 1), assumed, 8, 1000, "local") == pytest.approx((weights + cache) / 1e12)
    assert decode_step(shape, s, Cluster(CARD, 1), Assumed(launch=10), 0, 0, "local") == pytest.approx(0.28)


def test_assumptions_are_numbers_that_make_sense():
    assert Assumed().but(["agreement=0.5", "answer=200"]) == Assumed(agreement=0.5, answer=200)
    for wrong in ("agrement=0.5", "agreement=1.5", "mfu=0", "kept=-1", "answer=x", "network=nan"):
        with pytest.raises(SetupError, match="--assume"):
            Assumed().but([wrong])


def test_prices_of_ones_own(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text('{"h100-80g": {"price": 1.5, "priced": "2027-01"}}')
    assert gpus(file)["h100-80g"].price == 1.5
    assert gpus(file)["h100-80g"].memory == gpus()["h100-80g"].memory
    assert Cluster(gpus(file)["h100-80g"], 8, 2).cost(2) == 48
    for wrong in (
        "[]",
        "{",
        '{"mine": {"price": 1}}',
        '{"h100-80g": {"price": "1"}}',
        '{"h100-80g": 3}',
        '{"h100-80g": {"price": -1}}',
        '{"h100-80g": {"bandwidth": 0}}',
        '{"h100-80g": {"memory": 0}}',
        '{"h100-80g": {"link": 0.0}}',
        '{"h100-80g": {"tflops": 0}}',
        '{"h100-80g": {"price": true}}',
    ):
        file.write_text(wrong)
        with pytest.raises(SetupError, match=r"prices\.json"):
            gpus(file)
    file.write_text('{"h100-80g": {"price": 0}}')
    assert gpus(file)["h100-80g"].price == 0, "one's own"
    with pytest.raises(SetupError, match="did you mean"):
        find("h100-80gb", gpus())
    assert all(row.source and row.priced for row in gpus().values())
