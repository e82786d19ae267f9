"""Attention without a mask: plans say what `ends` says, and every kernel computes what a dense mask gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from guiderail.agent.errors import SetupError
from guiderail.agent.local import attention
from guiderail.agent.local.attention import (
    TREES,
    WINDOWS,
    Maskless,
    attend,
    by_paths,
    by_runs,
    by_windows,
    use_attention,
)
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.local.plans import BLOCK, Plan, blocks_of, paths_of
from guiderail.agent.local.prefix import Ints, visible
from guiderail.rl.tiny.model import build_tiny
from tests.agent.local.test_policy import TEXTS, screenshot

CPU = torch.device("cpu")


def forest(steps: list[int]) -> Ints:
    """`ends` of a forest of one column more than steps. Each column is a child of an open one, that many back; where there are
    not so many, it starts a tree."""
    stack, ends = [0], np.zeros(len(steps) + 1, np.int64)
    for column, back in enumerate(steps, 1):
        for _ in range(min(back, len(stack))):
            ends[stack.pop()] = column
        stack.append(column)
    ends[stack] = len(ends)
    return ends


FORESTS = st.lists(st.sampled_from([0, 0, 0, 0, 0, 1, 2, 4, 99]), min_size=1, max_size=60).map(forest)


def sees(ends: Ints) -> Any:
    return visible(torch.from_numpy(ends)[None])[0].numpy()


@settings(max_examples=100, deadline=None)
@given(FORESTS)
def test_runs_and_paths_hold_the_pairs_that_ends_names(ends: Ints) -> None:
    expected, plan = sees(ends), Plan(ends)
    runs, counted = np.zeros_like(expected, dtype=int), np.zeros_like(expected, dtype=int)
    for start, stop, end in plan.runs:
        queries, keys = np.arange(end - start), np.arange(stop - start)
        runs[start:end, start:stop] += queries[:, None] >= keys  # aligned at the first
    assert np.array_equal(runs, expected)
    paths = paths_of(plan, CPU)
    queries, keys = paths.queries.tolist(), paths.keys.tolist()
    for a, b, c, d in zip(queries, queries[1:], keys, keys[1:], strict=False):
        assert b - a <= paths.most_queries
        assert d - c <= paths.most_keys
        seen = np.tril(np.ones((b - a, d - c), int), (d - c) - (b - a))  # aligned at the last
        np.add.at(counted[a:b], (slice(None), paths.columns[c:d].numpy()), seen)
    assert np.array_equal(counted, expected)
    assert len(paths.columns) == plan.gathered == keys[-1]
    assert queries[-1] == len(ends)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200)), min_size=1, max_size=6))
def test_blocks_hold_the_pairs_that_ends_names(chains: list[tuple[int, int]]) -> None:
    ends = forest([step for back, length in chains for step in (min(back, 1) * 60 * back, *[0] * length)])
    expected, mask, columns = sees(ends), blocks_of(Plan(ends), CPU), np.arange(len(ends))
    assert mask.seq_lengths == (len(ends), len(ends))
    wholly = np.zeros((-(-len(ends) // BLOCK),) * 2, bool)
    partly = np.zeros_like(wholly)
    for row in range(len(wholly)):
        wholly[row, mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]]] = True
        partly[row, mask.kv_indices[0, 0, row, : mask.kv_num_blocks[0, 0, row]]] = True
    assert not (wholly & partly).any()
    query, key = torch.from_numpy(columns[:, None]), torch.from_numpy(columns)
    asked = mask.mask_mod(torch.tensor(0), torch.tensor(0), query, key).numpy()
    of_block = (columns[:, None] // BLOCK, columns // BLOCK)
    assert np.array_equal(wholly[of_block] | (partly[of_block] & asked), expected)


def slow_varlen(
    query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, *rest: Any, **how: Any
) -> Tensor:
    """What torch says of varlen_attn, which has no CPU kernel: (tokens, heads, width), causal from the last query and key."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    parts = []
    for a, b, c, d in zip(cu_q.tolist(), cu_q.tolist()[1:], cu_k.tolist(), cu_k.tolist()[1:], strict=False):
        assert b - a <= rest[0]
        assert d - c <= rest[1]
        allowed = None
        if how.get("window_size", (-1, -1)) == (-1, 0):
            allowed = torch.ones(b - a, d - c, dtype=torch.bool).tril((d - c) - (b - a))
        q, k, v = query[a:b].transpose(0, 1), key[c:d].transpose(0, 1), value[c:d].transpose(0, 1)
        gqa = how.get("enable_gqa", False)
        found = scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=how["scale"], enable_gqa=gqa)
        parts.append(found.transpose(0, 1))
    return torch.cat(parts)


def states(columns: int, heads: int, key_heads: int, dtype: torch.dtype) -> list[Tensor]:
    random = torch.Generator().manual_seed(columns)
    return [
        torch.randn(1, columns, n, 16, generator=random).to(dtype).transpose(1, 2).requires_grad_()
        for n in (heads, key_heads, key_heads)
    ]


def dense(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float) -> Tensor:
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=torch.from_numpy(sees(plan.ends)), scale=scale)


def outcome(kernel: Callable[..., Tensor], inputs: list[Tensor], ends: Ints) -> list[Tensor]:
    """The result and its gradients."""
    out = kernel(*inputs, Plan(ends), 0.7)
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, weights)]


@settings(max_examples=25, deadline=None)
@given(FORESTS, st.sampled_from([(4, 4), (4, 2), (3, 1)]), st.sampled_from([torch.float32, torch.float64]))
def test_runs_and_paths_compute_what_a_mask_gives(ends: Ints, heads: tuple[int, int], dtype: torch.dtype) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "varlen_attn", slow_varlen)
        inputs = states(len(ends), *heads, dtype)
        expected = outcome(dense, inputs, ends)
        for kernel in (by_runs, by_paths):
            for got, wanted in zip(outcome(kernel, inputs, ends), expected, strict=True):
                torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_half_precision_is_about_as_exact_as_under_a_mask() -> None:
    """Each run's part of a result is rounded before it is merged."""
    ends = forest([*[0] * 200, *[0, *[0] * 40, 41] * 5, 999, *[0] * 60])
    inputs = states(len(ends), 8, 2, torch.bfloat16)
    exact = outcome(dense, [t.detach().double().requires_grad_() for t in inputs], ends)
    under_mask, ours = outcome(dense, inputs, ends), outcome(by_runs, inputs, ends)
    for got, other, true in zip(ours, under_mask, exact, strict=True):
        assert (got - true).norm() < 1.5 * (other - true).norm()


def test_flex_forward_on_a_cpu() -> None:
    """Its backward needs a GPU."""
    ends = forest([*[0] * 150, 30, *[0] * 60, 99, *[0] * 100])
    inputs = [t.detach() for t in states(len(ends), 4, 2, torch.float32)]
    out, _ = attend(None, *inputs, None, tree=Plan(ends, flex=True), scaling=0.7)
    torch.testing.assert_close(out.transpose(1, 2), dense(*inputs, Plan(ends), 0.7), atol=1e-5, rtol=1e-4)


def test_inside_autocast_it_computes_in_its_type() -> None:
    """Qwen3-VL hands over float32 queries and bfloat16 values there."""
    query, key, value = (t.detach() for t in states(5, 4, 2, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = attend(None, query, key, value.bfloat16(), None, tree=Plan(forest([0, 0, 1, 0])))
    assert out.dtype == torch.bfloat16


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"layers": 1, "vision_layers": 2, "width": 64, "vision_width": 64}
    return build_tiny(tmp_path_factory.mktemp("tiny"), TEXTS, request.param, **sizes)


@pytest.mark.parametrize("at_once", [False, True])
def test_windows_of_the_tower(folder: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    encoder, model = load_encoder(folder), load_model(folder)
    pictures = [encoder.vision.picture(screenshot(seed)) for seed in (1, 2)]
    inputs = encoder.vision_inputs(pictures)
    calls = []

    def all_at_once(module: Any, query: Tensor, key: Tensor, value: Tensor, **given: Any) -> Any:
        calls.append(given["cu_seq_lens_q"])
        starts, most = given["cu_seq_lens_q"], given["max_length_q"]
        return by_windows(query, key, value, starts, most, given["scaling"]), None

    def features() -> Tensor:
        output = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
        return torch.cat(list(output.pooler_output))

    expected = features()
    if at_once:
        monkeypatch.setattr(attention, "varlen_attn", slow_varlen)
        monkeypatch.setitem(attention.AttentionInterface._global_mapping, WINDOWS, all_at_once)
    attention.fast_windows(model, torch.device("cuda"))
    assert model.model.visual.config._attn_implementation == WINDOWS
    torch.testing.assert_close(features(), expected, atol=1e-5, rtol=1e-5)
    assert len(calls) == (2 if at_once else 0)


def test_which_attention_is_set(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    text, tower = model.config.get_text_config(), model.model.visual.config
    assert use_attention(model, "sdpa", CPU) is None
    assert (text._attn_implementation, tower._attn_implementation) == ("sdpa", "sdpa")
    assert use_attention(model, "auto", CPU) == Maskless(2048)
    assert use_attention(model, "varlen", CPU) == Maskless(0)
    assert (text._attn_implementation, tower._attn_implementation) == (TREES, "sdpa")
    model.save_pretrained(tmp_path)
    assert "guiderail" not in (tmp_path / "config.json").read_text()
    with pytest.raises(SetupError, match=r"no backward on a CPU; add to the command model\.attention=auto"):
        use_attention(model, "flex", CPU)
    assert use_attention(model, "flex", torch.device("cuda")) == Maskless(0, flex=True)
    assert use_attention(model, "auto", torch.device("mps")) is None
    text.attention_dropout = 0.1
    assert use_attention(model, "auto", CPU) is None
    assert use_attention(model, "eager", CPU) is None
    assert (text._attn_implementation, tower._attn_implementation) == ("eager", "eager")
