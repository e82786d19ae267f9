"""Samples to tensors: every sample once, fillers weigh nothing, a cap changes no expectation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.agent.errors import SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder
from guiderail.agent.types import Completion
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.rollout.generation import over_processes, over_updates
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.batch import EncodedSample, MicroBatches, collate, filler, micro_batches, with_pixels
from guiderail.rl.train.prefix import count_tokens
from tests.agent.local.test_policy import TEXTS, prompt


def sample(encoder: Encoder, i: int, length: int, advantage: float = 1.0) -> StepSample:
    ids = (*range(5, 5 + length - 1), encoder.end_of_turn)
    said = Completion("x", ids, tuple(-0.1 * k for k in range(length)))
    seen = prompt(encoder.vision, i % 3, screens=1 + i % 2, goal="Goal: open settings " * (1 + i % 4))
    return StepSample(f"e{i}", 0, i, seen, said, 1.0, 1.0, 0.0, 0.0, advantage)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(build_tiny(tmp_path_factory.mktemp("tiny"), TEXTS, layers=1, vision_layers=1))


def dealt(encoder: Encoder, lengths: list[int], **choices: object) -> tuple[list[StepSample], MicroBatches]:
    samples = [sample(encoder, i, length) for i, length in enumerate(lengths)]
    known = {"windows": 1, "per_window": 2, "max_rows": 100, "by_tokens": True, "seed": (0, 0, 0)}
    return samples, micro_batches(samples, encoder, **(known | choices))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), max_size=17), windows=st.integers(1, 3), per_window=st.integers(1, 3))
def test_every_sample_is_dealt_once(encoder: Encoder, lengths: list[int], windows: int, per_window: int) -> None:
    samples, packed = dealt(encoder, lengths, windows=windows, per_window=per_window)
    assert len(packed.batches) == windows * per_window
    assert len(packed.items) == windows
    got = sorted(row.sample.index for micro in packed.batches for row in micro if row.sample)
    assert got == list(range(len(samples)))
    assert sum(packed.items) == sum(lengths)
    sizes = [len(micro) for micro in packed.batches]
    assert max(sizes) - min(sizes) <= 2
    for window in range(windows):
        micros = packed.batches[window * per_window : (window + 1) * per_window]
        assert sum(len(r.target) for m in micros for r in m) == packed.items[window]
        flat = [len(row) for micro in micros for row in micro]
        assert flat == sorted(flat, reverse=True)


def grouped(encoder: Encoder, sizes: list[int]) -> list[StepSample]:
    """One unit of each size; a unit's samples see the same screen."""
    samples = []
    for unit, size in enumerate(sizes):
        for i in range(size):
            one = sample(encoder, unit, 2 + i)
            samples.append(StepSample(f"e{unit}", i, 0, one.prompt, one.completion, 1.0, 1.0, 0.0, 0.0, 1.0))
    return samples


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), max_size=8),
    windows=st.integers(1, 2),
    per_window=st.integers(1, 3),
    max_rows=st.sampled_from([2, 7, 100]),
)
def test_units_stay_together(encoder: Encoder, sizes: list[int], windows: int, per_window: int, max_rows: int) -> None:
    samples = grouped(encoder, sizes)
    packed = micro_batches(
        samples,
        encoder,
        windows=windows,
        per_window=per_window,
        max_rows=max_rows,
        by_tokens=True,
        seed=(0,),
        share=True,
    )
    assert len(packed.batches) == windows * per_window
    assert all(len(micro) <= max_rows for micro in packed.batches)
    assert sum(packed.items) == sum(len(s.completion.token_ids) for s in samples)
    got = [(row.sample.unit, row.sample.sample) for micro in packed.batches for row in micro if row.sample]
    assert len(got) == len(set(got))
    homes = [{row.sample.unit for row in micro if row.sample} for micro in packed.batches]
    if max_rows == 100:
        assert sorted(got) == sorted((s.unit, s.sample) for s in samples)
        assert sum(map(len, homes)) == len(sizes)
    if max_rows == 100:
        for window in range(windows):
            micros = packed.batches[window * per_window : (window + 1) * per_window]
            weights = [[count_tokens([row.turn for row in unit], encoder) for unit in units(micro)] for micro in micros]
            loads = [sum(weight) for weight in weights]
            assert loads == sorted(loads, reverse=True)
            assert max(loads) - min(loads) <= max((w for weight in weights for w in weight), default=0)


def units(micro: list[EncodedSample]) -> list[list[EncodedSample]]:
    groups: dict[str, list[EncodedSample]] = {}
    for row in micro:
        assert row.sample is not None
        groups.setdefault(row.sample.unit, []).append(row)
    return list(groups.values())


def test_windows_are_drawn_unit_by_unit() -> None:
    """Each unit falls into each window equally often; a unit never falls into two."""
    names = [*"aaaabbbccd"]
    counts = dict.fromkeys("abcd", 0)
    draws = 400
    for seed in range(draws):
        one, other = over_updates(names, [1] * 10, 2, 3, True, (seed,))
        assert sorted(one.fell + other.fell) == list(range(10))
        assert not {names[i] for i in one.fell} & {names[i] for i in other.fell}
        assert one.kept == one.fell[:3]
        for name in {names[i] for i in one.fell}:
            counts[name] += 1
    assert all(abs(count - draws / 2) < 4.5 * (draws / 4) ** 0.5 for count in counts.values())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=40), st.integers(1, 4))
def test_processes_get_whole_steps_and_like_much_work(steps: list[tuple[str, int]], processes: int) -> None:
    dealt = over_processes(steps, processes)
    assert sorted(i for share in dealt for i in share) == list(range(len(steps)))
    for step in set(steps):
        assert sum(any(steps[i] == step for i in share) for share in dealt) == 1

    def work_of(rows: list[tuple[str, int]]) -> int:
        return sum(1 if index == 0 else 5 for _, index in rows)

    work = [work_of([steps[i] for i in share]) for share in dealt]
    largest = max((work_of([s for s in steps if s == step]) for step in steps), default=0)
    assert max(work) - min(work) <= largest


def test_one_process_has_its_samples_in_order_of_rows() -> None:
    steps = [("a", 0), ("b", 1), ("b", 1), ("a", 1), ("a", 0), ("c", 2), ("a", 0)]
    assert over_processes(steps, 1) == [[0, 4, 6, 1, 2, 3, 5]]


def test_cap_keeps_the_expectation(encoder: Encoder) -> None:
    """The gradient is linear in the weights, so it is enough that each sample's mean weight is its uncapped one."""
    lengths, draws = [3, 1, 7, 2, 9, 4, 4, 1, 2], 120
    for by_tokens in (True, False):
        total = np.zeros(len(lengths))
        for seed in range(draws):
            _, packed = dealt(encoder, lengths, max_rows=2, by_tokens=by_tokens, seed=(seed,))
            rows = [row for micro in packed.batches for row in micro]
            assert all(len(micro) <= 2 for micro in packed.batches)
            assert packed.items == [sum(lengths) if by_tokens else len(lengths)]
            for row in rows:
                assert row.sample is not None
                total[row.sample.index] += row.weight
        uncapped = np.ones(len(lengths)) if by_tokens else 1 / np.array(lengths)
        # inclusion is Bernoulli(4/9) scaled by 9/4: standard error of the mean weight is 1.1 / sqrt(draws)
        np.testing.assert_allclose(total / draws, uncapped, atol=4.5 * 1.12 / draws**0.5)


def test_capped_rows_are_drawn_from_all_lengths(encoder: Encoder) -> None:
    _, packed = dealt(encoder, [1] * 6 + [9] * 6, max_rows=1, per_window=4, seed=(3,))
    kept = [len(row.target) for micro in packed.batches for row in micro]
    assert len(kept) == 4
    assert {dealt(encoder, [1] * 6 + [9] * 6, max_rows=1, per_window=4, seed=(3,))[1].items[0]} == {60.0}
    other = dealt(encoder, [1] * 6 + [9] * 6, max_rows=1, per_window=4, seed=(4,))[1]
    assert [r.sample.index for m in packed.batches for r in m if r.sample] != [
        r.sample.index for m in other.batches for r in m if r.sample
    ]


def test_collate(encoder: Encoder) -> None:
    samples, packed = dealt(encoder, [2, 5], per_window=1)
    rows = packed.batches[0]
    batch = collate(rows, 3, encoder)
    assert "pixel_values" not in batch
    assert batch["completion_ids"].shape == batch["tool_mask"].shape == batch["rollout_logps"].shape == (3, 5)
    assert batch["prompt_mask"].sum(1).tolist() == [len(r.encoded.ids) for r in rows] + [
        len(filler(encoder).encoded.ids)
    ]
    order = [row.sample.index for row in rows if row.sample]
    assert batch["completion_mask"].sum(1).tolist() == [[2, 5][i] for i in order] + [0]
    assert batch["tool_mask"].sum(1).tolist() == [[2, 5][i] for i in order] + [0]
    assert batch["advantages"].tolist() == [1, 1, 0]
    assert batch["samples"] == [samples[i] for i in order] + [None]
    width = batch["prompt_ids"].shape[1] + 5
    assert batch["mm_token_type_ids"].shape == (3, width)
    full = with_pixels(batch, encoder, torch.device("cpu"))
    assert full["image_grid_thw"].shape == (sum(batch["num_images"]), 3)
    tokens = int((full["image_grid_thw"].prod(1) // encoder.merge**2).sum())
    assert int(batch["mm_token_type_ids"].sum()) == tokens
    assert int(full["image_grid_thw"].prod(1).sum()) == len(full["pixel_values"])


def test_sequence_weights_sum_to_one_per_row(encoder: Encoder) -> None:
    _, packed = dealt(encoder, [2, 5, 3], by_tokens=False, per_window=1)
    weights = collate(packed.batches[0], 4, encoder)["tool_mask"].sum(1)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_unknown_logprobs_are_nan(encoder: Encoder) -> None:
    said = Completion("x", (5, 6))
    silent = StepSample("e", 0, 0, prompt(encoder.vision, 0), said, 1, 1, 0, 0, 1)
    packed = micro_batches([silent], encoder, windows=1, per_window=1, max_rows=9, by_tokens=True, seed=(0,))
    assert collate(packed.batches[0], 1, encoder)["rollout_logps"].isnan().all()


@pytest.mark.parametrize("ids", [(), (5, "pad", 6)])
def test_unusable_completions_name_their_place(encoder: Encoder, ids: tuple[object, ...]) -> None:
    said = Completion("x", tuple(encoder.image_pad if i == "pad" else i for i in ids))  # type: ignore[misc]
    bad = StepSample("walk-7", 2, 4, prompt(encoder.vision, 0), said, 1, 1, 0, 0, 1)
    with pytest.raises(SetupError, match=r"walk-7, sample 2, step 4: .*"):
        micro_batches([bad], encoder, windows=1, per_window=1, max_rows=9, by_tokens=True, seed=(0,))


def test_nothing_collected(encoder: Encoder) -> None:
    packed = micro_batches([], encoder, windows=2, per_window=2, max_rows=9, by_tokens=True, seed=(0,))
    assert packed.batches == [[]] * 4
    assert packed.items == [0.0, 0.0]
    batch = collate(packed.batches[0], 1, encoder)
    assert int(batch["completion_mask"].sum()) == 0
    assert batch["samples"] == [None]


def test_filler_belongs_to_each_family(tmp_path: Path) -> None:
    other = load_encoder(build_tiny(tmp_path, TEXTS, "qwen2_5_vl", layers=1, vision_layers=1))
    inputs = other.batch([filler(other).encoded])
    assert int(inputs["mm_token_type_ids"].sum()) == 4
