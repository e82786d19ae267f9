"""Prefix trees and drafts: whatever is shared or drafted, the same tokens come out; wasted work is bounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.agent.local import policy as local
from guiderail.agent.local.decode import decode
from guiderail.agent.local.drafts import CountGate, Drafts
from guiderail.agent.local.policy import LocalPolicy, load_policy
from guiderail.agent.local.prefix import Branch, Ints, build_trees, side_by_side, visible
from guiderail.agent.policy import Request, Sampling, Sharing
from guiderail.agent.types import Completion, Message, Prompt
from guiderail.rl.tiny.model import build_tiny
from tests.agent.local.test_policy import FAMILIES, TEXTS, prompt, screenshot

OFF = Sharing(share_vision=False, share_prefill=False, speculation="off")
SAMPLED, GREEDY = Sampling(1.0, 14), Sampling(0.0, 14)


@pytest.fixture(scope="module", params=FAMILIES)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalPolicy:
    """Weights three times as large, since a random model is near uniform; in float64, where no random number falls into
    the rounding that two batch shapes differ by."""
    made = load_policy(build_tiny(tmp_path_factory.mktemp("tiny"), TEXTS, request.param))
    with torch.no_grad():
        made.model.double().lm_head.weight.mul_(3)
    return made


def like(policy: LocalPolicy, **options: Any) -> LocalPolicy:
    return LocalPolicy(policy.model, policy.encoder, "variant", **options)


def group(policy: LocalPolicy) -> list[Request]:
    """Walks of two groups: at the first step, later with histories that part, pictures first and among the text."""
    vision, requests = policy.vision, []
    for episode, pictures in itertools.product((1, 2), (1, 2)):
        shown = tuple(vision.picture(screenshot(10 * episode + i)) for i in range(pictures))
        first = Message("user", (*shown, f"Goal: open settings {episode}"))
        requests += [Prompt((first,))] * 3
        for said in ("tap it", "tap it", "tap there, then go on " * 4):
            requests.append(Prompt((first, Message("assistant", (said,)), Message("user", ("next",)))))
        requests += [prompt(vision, episode, screens=1 + pictures, said=said) for said in ("tap", "tap", "swipe")]
    return [Request(p, seed=i % 5) for i, p in enumerate(requests)]


def assert_same(got: Sequence[Completion], expected: Sequence[Completion]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert (a.token_ids, a.text, a.finish) == (b.token_ids, b.text, b.finish)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)


def with_drafts(requests: Sequence[Request], texts: Sequence[str]) -> list[Request]:
    return [replace(r, prompt=replace(r.prompt, draft=text)) for r, text in zip(requests, texts, strict=True)]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(trees, columns) of every forward."""
    shapes: list[tuple[int, int]] = []

    def spy(model: Any, *args: Any, **kwargs: Any) -> None:
        hook = model.model.register_forward_pre_hook(
            lambda _, a, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
        )
        try:
            decode(model, *args, **kwargs)
        finally:
            hook.remove()

    monkeypatch.setattr(local, "decode", spy)
    return shapes


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY])
def test_sharing_changes_nothing(policy: LocalPolicy, sampling: Sampling) -> None:
    requests = group(policy)
    plain = like(policy, sharing=OFF).complete(requests, sampling)
    for sharing in (Sharing(True, False, "off"), Sharing(False, True, "off"), Sharing(True, True, "off")):
        assert_same(like(policy, sharing=sharing).complete(requests, sampling), plain)
    assert_same(like(policy, max_batch=3).complete(requests, sampling), plain)


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY])
@pytest.mark.parametrize("share", [True, False])
def test_drafts_change_nothing(policy: LocalPolicy, sampling: Sampling, share: bool) -> None:
    """Right ones, ones that part at every place, ones whose tail alone is right, nonsense, special tokens, too long."""
    requests = group(policy)
    plain = like(policy, sharing=OFF).complete(requests, sampling)
    texts = [answer.text for answer in plain]
    spoil: list[Callable[[int, str], str]] = [
        lambda i, text: text,
        lambda i, text: text[: i % (len(text) + 1)] + "zz" + text[i % (len(text) + 1) :],
        lambda i, text: "well, " + text,
        lambda i, text: "" if i % 2 else text * 9,
        lambda i, text: text[: i % 7] + "<|im_end|><|image_pad|>" + text,
    ]
    for change in spoil:
        drafted = with_drafts(requests, [change(i, text) for i, text in enumerate(texts)])
        eager = like(policy, sharing=Sharing(share_prefill=share))
        eager.drafts = Drafts(CountGate(least=0.0, drafted=100))
        assert_same(eager.complete(drafted, sampling), plain)


def test_a_right_draft_is_one_forward(policy: LocalPolicy, work: list[tuple[int, int]]) -> None:
    requests = [Request(prompt(policy.vision, i), seed=i) for i in range(4)]
    plain = like(policy, sharing=OFF).complete(requests, SAMPLED)
    assert len(work) == max(len(answer.token_ids) for answer in plain)
    work.clear()
    # What tokens say and what their text is read back as may differ in a random model; the ids are handed in as text.
    eager = like(policy)
    eager.drafts = Drafts(CountGate(least=0.0, drafted=100))
    for request, answer in zip(requests, plain, strict=True):
        ids = policy.encoder.target(answer.text).tolist()[:-1]
        if ids == [t for t in answer.token_ids if t != policy.encoder.end_of_turn]:
            work.clear()
            assert_same(eager.complete(with_drafts([request], [answer.text]), SAMPLED), [answer])
            assert len(work) == 1
            break
    else:
        pytest.fail("no answer survives being read back")


def test_who_has_no_draft_follows_a_sibling(policy: LocalPolicy, work: list[tuple[int, int]]) -> None:
    """Greedy rows with one prompt say the same: one right draft is enough for all of them."""
    for i in range(9):
        request = Request(prompt(policy.vision, i))
        (answer,) = like(policy, sharing=OFF).complete([request], GREEDY)
        ids = policy.encoder.target(answer.text).tolist()[:-1]
        if len(ids) > 3 and ids == [t for t in answer.token_ids if t != policy.encoder.end_of_turn]:
            break
    else:
        pytest.fail("no answer survives being read back")
    drafted = with_drafts([request] * 4, ["nothing", answer.text, answer.text[:3], "else"])
    eager = like(policy)
    eager.drafts = Drafts(CountGate(least=0.0, drafted=100))
    work.clear()
    assert_same(eager.complete(drafted, GREEDY), [answer] * 4)
    assert len(work) == 2


def test_what_is_common_is_computed_once(policy: LocalPolicy, work: list[tuple[int, int]]) -> None:
    request = Request(prompt(policy.vision, 1, screens=2))
    length = len(policy.encoder.prompt(request.prompt).ids)
    like(policy).complete([request] * 8, GREEDY)
    assert work[0] == (1, length)
    assert set(work[1:]) == {(1, 1)}
    work.clear()
    like(policy, sharing=Sharing(share_prefill=False)).complete([request] * 8, GREEDY)
    assert work[0] == (8, length)


def test_positions_are_the_models_own(policy: LocalPolicy) -> None:
    requests = group(policy)
    encoded, started = policy._encode(requests), [policy._start(r, SAMPLED) for r in requests]
    branches = policy._branches(policy.model, encoded, started)  # type: ignore[arg-type]
    for branch, request in zip(branches, requests, strict=True):
        inputs = policy.encoder.batch([policy.encoder.prompt(request.prompt)])
        expected, _ = policy.model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
        assert np.array_equal(branch.positions, expected[:, 0].numpy())


def branch(keys: Ints) -> Branch:
    return Branch(keys, np.broadcast_to(np.arange(len(keys)), (3, len(keys))), ())


@settings(deadline=None)
@given(words=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=9), share=st.booleans())
def test_a_branch_sees_itself_and_nothing_else(policy: LocalPolicy, words: list[list[int]], share: bool) -> None:
    branches = [branch(np.array(w)) for w in words]
    trees = build_trees(branches, 1e9 if share else None, most=4)
    assert sorted(place for tree in trees for place in tree.places) == list(range(len(branches)))
    assert all(len(tree.places) <= (4 if share else 1) for tree in trees)
    ids, positions, ends = side_by_side([[tree] for tree in trees], policy.encoder)
    masks = visible(ends).numpy()
    assert ids.shape == ends.shape == (len(trees), max(map(len, trees)))
    assert masks.any(-1).all()
    for t, (tree, mask) in enumerate(zip(trees, masks, strict=True)):
        prefixes = set()
        for place, path in zip(tree.places, tree.paths, strict=True):
            assert tree.keys[path].tolist() == ids[t, path].tolist() == words[place]
            assert tree.positions[0, path].tolist() == positions[2, t, path].tolist() == list(range(len(words[place])))
            for depth, column in enumerate(path):
                assert np.flatnonzero(mask[column]).tolist() == path[: depth + 1].tolist()
            prefixes |= {tuple(words[place][: i + 1]) for i in range(len(path))}
        assert len(tree) == len(prefixes)


def test_rows_with_long_rests_of_their_own_are_apart() -> None:
    def row(rest: int, seed: int) -> Branch:
        return branch(np.concatenate([np.arange(50), np.random.default_rng(seed).integers(100, 10**6, rest)]))

    assert len(build_trees([row(5, i) for i in range(8)], 100.0, most=64)) == 1
    assert len(build_trees([row(500, i) for i in range(8)], 100.0, most=64)) == 8


def test_the_gate_shuts_on_disagreement_and_opens_again() -> None:
    gate = CountGate()

    def tries(rows: int) -> int:
        gate.begin_call()
        return sum(gate.allows() for _ in range(rows))

    assert tries(64) == 8
    for _ in range(40):
        gate.record(10, 0)
    assert [tries(64) for _ in range(63)] == [*[0] * 30, 8, *[0] * 31, 8]
    for _ in range(40):
        gate.record(10, 9)
    assert tries(20) == 20


def test_a_shut_gate_and_no_drafts_are_the_same_work(policy: LocalPolicy, work: list[tuple[int, int]]) -> None:
    requests = with_drafts(group(policy), ["nothing it would ever say"] * len(group(policy)))
    shut = like(policy)
    shut.drafts.gate.record(1000, 0)
    got = shut.complete(requests[:15], SAMPLED)
    spent, gate_off = list(work), like(policy, sharing=Sharing(speculation="off"))
    work.clear()
    assert_same(got, gate_off.complete(requests[:15], SAMPLED))
    assert spent == work
