"""Rows that share their beginnings: laid out as trees, and the same numbers as one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from guiderail.agent.local.attention import Maskless, use_attention
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.local.prefix import pairs_per_token
from guiderail.agent.local.vision import VisionStore, plain_model
from guiderail.agent.types import Message, Prompt
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.prefix import EncodedTurn, count_tokens, lay_out, model_inputs, token_logps
from tests.agent.local.test_policy import TEXTS, screenshot

SMALL = {"layers": 2, "vision_layers": 2, "width": 64, "vision_width": 64}
ALWAYS = 1e9


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"), TEXTS, request.param, **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load_encoder(folder)


def turn(encoder: Encoder, screens: list[int], said: str, target: list[int]) -> EncodedTurn:
    pictures = tuple(encoder.vision.picture(screenshot(seed)) for seed in screens)
    turns = (
        Message("user", (*pictures, "Goal: open settings")),
        Message("assistant", (said,)),
        Message("user", ("go",)),
    )
    encoded = encoder.prompt(Prompt(turns))
    return EncodedTurn.of(encoded, torch.tensor(target))


def family(encoder: Encoder, images: int = 1) -> list[EncodedTurn]:
    """Two screens, histories that part late, answers that begin alike, one row twice, one whose target begins another's."""
    rows = [
        turn(encoder, [screen + i for i in range(images)], said, target)
        for screen in (0, 5)
        for said, target in (("tap", [5, 6, 7]), ("tap", [5, 6, 8, 9]), ("tap here", [5]), ("tap", [5, 6, 7, 11]))
    ]
    return [*rows, rows[1]]


def plain_rope(ids: Tensor, mm_token_type_ids: Tensor, image_grid_thw: Any, attention_mask: Tensor) -> Any:
    return (attention_mask.cumsum(1) - 1)[None].expand(3, -1, -1), None


# ------------------------------------------------------------------------------------------------------------ layout


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(5, 7), min_size=1, max_size=6), st.integers(1, 3)), min_size=1, max_size=9),
    st.sampled_from([None, 3.0, ALWAYS]),
    st.sampled_from([None, Maskless(0)]),
)
def test_every_token_sees_its_own_row_and_nothing_else(
    encoder: Encoder, rows: list[tuple[list[int], int]], pairs: float | None, maskless: Maskless | None
) -> None:
    """From each target token back through the mask: the row itself, at positions 0, 1, 2, ..."""
    turns = [EncodedTurn(torch.tensor([4, *ids, *[5 + n] * n]), (), 1 + len(ids)) for ids, n in rows]
    layout = lay_out(turns, encoder, plain_rope, pairs, maskless)
    mask = layout.mask()
    longest = layout.ids.shape[1]
    assert layout.where.shape == (len(rows), max(n for _, n in rows))
    for i, one in enumerate(turns):
        wanted = layout.where[i][layout.where[i] >= 0]
        assert layout.labels[wanted].tolist() == one.ids[one.start :].tolist()
        for t, entry in enumerate(wanted.tolist()):
            sequence, place = divmod(int(layout.reads[entry]), longest)
            if layout.trees:
                seen = mask[sequence, 0, place]
            else:
                seen = (mask[sequence] == 1) & (torch.arange(longest) <= place)
            assert layout.ids[sequence][seen].tolist() == one.ids[: one.start + t].tolist()
            assert layout.positions[0, sequence][seen].tolist() == list(range(one.start + t))
    if maskless is not None:
        assert layout.ids.shape[0] == 1
        assert layout.plan is not None
        assert np.array_equal(layout.plan.ends, layout.ends[0].numpy())
    if pairs == ALWAYS or (maskless is not None and pairs is not None):
        assert layout.ids.shape[0] == 1
        assert layout.ids.numel() == count_tokens(turns, encoder)
        pairs_read = set(zip(layout.reads.tolist(), layout.labels.tolist(), strict=True))
        assert len(pairs_read) == len(layout.reads)


def test_pictures_are_told_apart(encoder: Encoder) -> None:
    """Same ids, other screenshot: nothing is shared from the picture on, and each picture stands in its place."""
    one, other = turn(encoder, [1, 2], "tap", [5]), turn(encoder, [1, 3], "tap", [6])
    assert torch.equal(one.ids[: one.start], other.ids[: other.start])
    layout = lay_out([one, other, one], encoder, rope(encoder), ALWAYS)
    assert [p.screenshot for p in layout.pictures] == [screenshot(seed) for seed in (1, 3, 2)]
    pads = int((layout.ids == encoder.image_pad).sum())
    assert pads == sum(encoder.image_tokens(p) for p in layout.pictures)
    again = lay_out([turn(encoder, [1, 2], "tap", [5])] * 3, encoder, rope(encoder), ALWAYS)
    assert len(again.pictures) == 2


def rope(encoder: Encoder) -> Any:
    def positions(ids: Tensor, **kwargs: Any) -> Any:
        return torch.arange(ids.shape[1]).expand(3, len(ids), -1), None

    return positions


def test_a_tree_grows_only_where_it_pays(encoder: Encoder) -> None:
    """Rows that share a token or two would pay for it with a longer sequence."""
    near = [EncodedTurn(torch.tensor([*range(5, 45), 50 + i]), (), 40) for i in range(4)]
    far = [EncodedTurn(torch.tensor([5, *range(50 + 40 * i, 90 + 40 * i)]), (), 40) for i in range(4)]
    assert lay_out(near, encoder, plain_rope, 300.0).ids.shape == (1, 44)
    assert lay_out(far, encoder, plain_rope, 300.0).ids.shape == (4, 41)
    assert lay_out(near, encoder, plain_rope, None).ids.shape == (4, 41)


def test_short_trees_lie_beside_each_other(encoder: Encoder) -> None:
    rows = [EncodedTurn(torch.arange(k * 100, k * 100 + n), (), n - 1) for k, n in enumerate((30, 11, 9, 10))]
    layout = lay_out(rows, encoder, plain_rope, 1.0)
    assert layout.ids.shape == (1 + 1, 30)
    assert int(layout.mask()[..., 0, :].sum()) == 2


def test_short_rows_keep_their_mask(encoder: Encoder) -> None:
    """So that what was trained on short prompts is trained again bit for bit."""
    rows = [EncodedTurn(torch.arange(k * 100, k * 100 + n), (), n - 1) for k, n in enumerate((30, 11, 9, 10))]
    kept, plain = (lay_out(rows, encoder, plain_rope, 1.0, Maskless(shortest)) for shortest in (31, 30))
    assert kept.plan is None
    assert kept.ids.shape == lay_out(rows, encoder, plain_rope, 1.0).ids.shape
    assert plain.ids.shape == (1, 60)


# ---------------------------------------------------------------------------------------------------------- exactness


def one_by_one(model: Any, encoder: Encoder, rows: list[EncodedTurn]) -> list[Tensor]:
    found = []
    for row in rows:
        inputs = encoder.batch([row])
        logits = plain_model(model)(**inputs).logits[0, row.start - 1 : -1]
        found.append(logits.log_softmax(-1).gather(1, row.ids[row.start :, None])[:, 0])
    return found


def gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("images", "lora", "attention", "tower"),
    [
        (1, False, "sdpa", "trained"),
        (2, False, "eager", "frozen"),
        (1, True, "sdpa", "frozen"),
        (2, True, "sdpa", "trained"),
    ],
)
def test_same_numbers_and_gradients(
    folder: Path, encoder: Encoder, images: int, lora: bool, attention: str, tower: str
) -> None:
    torch.manual_seed(0)
    model = load_model(folder).train()
    model.set_attn_implementation(attention)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    if tower == "frozen":
        model.model.visual.requires_grad_(False)
    if lora:
        targets = "all-linear" if tower == "trained" else ["q_proj", "v_proj"]
        model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    if attention == "eager":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        plain_model(model).enable_input_require_grads()
    rows = family(encoder, images)
    credit = torch.linspace(-1, 2, len(rows))
    alone = one_by_one(model, encoder, rows)
    sum(a * row.sum() for a, row in zip(credit, alone, strict=True)).backward()  # type: ignore[union-attr]
    expected = gradient(model)
    store = VisionStore(encoder)
    plain = plain_model(model)
    for pairs in (None, pairs_per_token(plain.config), ALWAYS):
        model.zero_grad()
        layout = lay_out(rows, encoder, plain.model.get_rope_index, pairs)
        with store.given(model, layout.pictures) as vision:
            logps, entropies = token_logps(model, model, layout, vision)
        if tower == "trained":  # each distinct screenshot once, however often it is shown
            assert len(vision["image_grid_thw"]) == len(set(layout.pictures))
            assert (len(layout.pictures) > len(set(layout.pictures))) or pairs is not None
        assert logps.shape == entropies.shape == (len(rows), 4)
        (credit[:, None] * logps).sum().backward()
        for i, row in enumerate(alone):
            torch.testing.assert_close(logps[i, : len(row)], row, atol=1e-5, rtol=1e-5)
            assert torch.count_nonzero(logps[i, len(row) :]) == 0
        assert apart(gradient(model), expected) < 1e-5
    assert (store.misses > 0) == (tower == "frozen")


@pytest.mark.parametrize(
    ("lora", "checkpointing", "dtype", "share"),
    [(False, False, "float32", True), (True, True, "float32", False), (False, True, "bfloat16", True)],
)
def test_same_numbers_and_gradients_without_a_mask(
    folder: Path, encoder: Encoder, lora: bool, checkpointing: bool, dtype: str, share: bool
) -> None:
    """As with a dense mask; in bfloat16 about as far from float32 as with one."""
    torch.manual_seed(0)
    rows = family(encoder, 2)
    credit = torch.linspace(-1, 2, len(rows))[:, None]
    plain = load_model(folder).train()
    add_fused_lm_head(plain)
    model: Any = plain
    if lora:
        model = get_peft_model(plain, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        plain.enable_input_require_grads()

    def numbers(maskless: Maskless | None) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        layout = lay_out(rows, encoder, plain.model.get_rope_index, ALWAYS if share else None, maskless)
        assert ("tree" in model_inputs(plain, layout)) == (maskless is not None)
        logps, _ = token_logps(model, model, layout, VisionStore(encoder).inputs(model, layout.pictures))
        (credit * logps).sum().backward()
        return logps.detach().float(), gradient(model).float()

    exact = numbers(None)
    model.to(getattr(torch, dtype))
    dense, plain_mask = numbers(None), use_attention(model, "varlen", torch.device("cpu"))
    ours = numbers(plain_mask)
    if dtype == "float32":
        torch.testing.assert_close(ours[0], dense[0], atol=1e-5, rtol=1e-5)
        assert apart(ours[1], dense[1]) < 1e-5
    else:
        for n in (0, 1):
            assert apart(ours[n], exact[n]) < 1.5 * apart(dense[n], exact[n])


def test_logits_exist_for_targets_alone(folder: Path, encoder: Encoder) -> None:
    """Nothing with the vocabulary's width is longer than the distinct target tokens."""
    model = load_model(folder)
    add_fused_lm_head(model)
    layout = lay_out(family(encoder), encoder, model.model.get_rope_index, ALWAYS)
    vocabulary, seen = model.config.text_config.vocab_size, []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = call(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.ndim > 1 and out.shape[-1] == vocabulary:
                seen.append(out.shape[-2])
            return out

    with Watch(), torch.no_grad():
        token_logps(model, model, layout, VisionStore(encoder).inputs(model, layout.pictures))
    assert seen
    assert (
        max(n for n in seen if n != model.config.text_config.hidden_size) <= len(layout.reads) < layout.ids.numel() / 3
    )
