"""Spans of two tokenizers: the alignment, and the arithmetic against plain float64."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from guiderail.rl.train.divergence import Told, most_likely
from guiderail.rl.train.spans import Best, Spans, align, sorted_distance, told_in_spans


@pytest.mark.parametrize(
    ("ours", "theirs", "spans"),
    [
        ([b"ab", b"c"], [b"ab", b"c"], ([0, 1], [0, 1])),
        ([b"ab", b"c"], [b"a", b"bc"], ([0, 0], [0, 0])),
        ([b"a", b"bc", b"d", b"."], [b"ab", b"cd", b"."], ([0, 0, 0, 1], [0, 0, 1])),
        ([b"a", b"b", b"."], [b"ab", b"."], ([0, 0, 1], [0, 1])),
        ([b"", b"a", b"b"], [b"a", b"b", b""], ([0, 0, 1], [0, 1, 1])),
        ([b"a", b"", b"b"], [b"ab"], ([0, 0, 0], [0])),
    ],
)
def test_align(ours: list[bytes], theirs: list[bytes], spans: tuple[list[int], list[int]]) -> None:
    assert align(ours, theirs) == spans
    assert align(theirs, ours) == spans[::-1]


def test_another_text_is_refused() -> None:
    with pytest.raises(ValueError, match="different texts"):
        align([b"ab"], [b"a", b"c"])


def test_align_as_trl_does() -> None:
    gold = pytest.importorskip("trl.experimental.gold.gold_trainer")
    rng, text = random.Random(0), b"abcdefghijklmnop"
    for _ in range(50):
        sides = []
        for _ in range(2):
            cuts = [0, *sorted(rng.sample(range(1, len(text)), rng.randrange(1, 12))), len(text)]
            sides.append([*pairwise(cuts)])
        groups = gold.ULDLoss._align_by_byte_offsets(*sides)
        found = align(*([text[a:b] for a, b in side] for side in sides))
        for spans, expected in zip(found, groups, strict=True):
            assert [[i for i, s in enumerate(spans) if s == k] for k in range(max(spans) + 1)] == expected


def test_sorted_distance_is_that_of_whole_distributions_or_less() -> None:
    made = torch.Generator().manual_seed(0)
    sizes = (7, 11)
    one, two = (torch.randn(5, n, dtype=torch.float64, generator=made).softmax(-1) for n in sizes)
    one, two = (p.sort(descending=True).values for p in (one, two))
    whole = (torch.cat([one, one.new_zeros(5, 4)], 1) - two).abs().sum(1)

    def cut(p: torch.Tensor, k: int) -> torch.Tensor:
        return torch.cat([p[:, :k], p[:, k:].sum(1, keepdim=True)], 1)

    # With k of 11 both sides are covered: what is missing on the shorter side is 0.
    padded = torch.cat([one, one.new_zeros(5, 4)], 1)
    torch.testing.assert_close(sorted_distance(cut(padded, 10), cut(two, 10)), whole)
    before = whole + 1e-12
    for k in (10, 6, 3, 1):
        now = sorted_distance(cut(padded, k), cut(two, k))
        assert (now <= before).all()
        before = now + 1e-12
    torch.testing.assert_close(sorted_distance(cut(one, 2), cut(two, 9)), sorted_distance(cut(one, 2), cut(two, 2)))


def test_told_in_spans_against_whole_distributions() -> None:
    """Teacher tokens 0 1 | 2 | 3 4 of spans 0, 1 and 2; the student has 1, 2 and 1 tokens there."""
    made = torch.Generator().manual_seed(1)
    hidden = torch.randn(5, 4, dtype=torch.float64, generator=made)
    head = torch.nn.Linear(4, 9, bias=False, dtype=torch.float64)
    torch.nn.init.normal_(head.weight, generator=made)
    said = torch.tensor([3, 8, 1, 0, 5])
    theirs, ours = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])
    whole = head(hidden).log_softmax(-1).detach()
    said[[0, 3]], said[2] = whole[[0, 3]].argmin(-1), whole[2].argmax()
    told = most_likely(hidden, head, 3, 1.0, said)
    found = told_in_spans(told, said, theirs, ours, [f"text {i}" for i in range(5)])
    of_said = whole.gather(1, said[:, None])[:, 0]
    torch.testing.assert_close(found.logps, torch.stack([of_said[:2].sum(), of_said[2], of_said[3:].sum()]))
    assert found.agrees.tolist() == [False, True, False]
    largest = whole.exp()[[0, 2, 3]].sort(descending=True).values
    torch.testing.assert_close(found.largest, torch.cat([largest[:, :3], largest[:, 3:].sum(1, keepdim=True)], 1))
    assert [best.text for best in found.best] == ["text 0", "text 2", "text 3"]
    assert [best.probability for best in found.best] == pytest.approx(largest[:, 0].tolist())

    logps = torch.tensor([-0.5, -0.25, -1.0, float("nan")], dtype=torch.float64)
    gaps, counted, known, agrees = found.gaps(torch.zeros(4), logps, torch.ones(4, dtype=torch.bool))
    middle = -1.25 - found.logps[1]
    torch.testing.assert_close(gaps, torch.stack([-0.5 - found.logps[0], middle, middle, 0 * middle]))
    assert counted.tolist() == [True, True, False, False]
    assert known.tolist() == [True, True, True, False]
    assert agrees.tolist() == [False, True, True, False]

    other = torch.randn(4, 4, dtype=torch.float64, generator=made, requires_grad=True)
    student = head(other).softmax(-1)[[0, 1, 3]].sort(descending=True).values
    student = torch.cat([student[:, :3], student[:, 3:].sum(1, keepdim=True)], 1)
    expected = (found.largest - student).abs().sum(1)
    apart = found.apart(found.student(other, head, 1.0), 0.5)
    torch.testing.assert_close(apart[[0, 1, 3]], expected)
    assert apart[2] == 0
    grads = [torch.autograd.grad(value.sum(), other, retain_graph=True)[0] for value in (apart, expected)]
    torch.testing.assert_close(*grads)


def test_spans_of_one_token_are_no_different_from_tokens() -> None:
    made = torch.Generator().manual_seed(2)
    hidden, head = torch.randn(6, 4, generator=made), torch.nn.Linear(4, 9, bias=False)
    torch.nn.init.normal_(head.weight, generator=made)
    said, each = torch.tensor([0, 3, 8, 1, 2, 2]), torch.arange(6)
    told = most_likely(hidden, head, 3, 1.0, said)
    spans = told_in_spans(told, said, each, each, [""] * 6)
    logps, taught = -torch.rand(6, generator=made), torch.tensor([True] * 5 + [False])
    logps[1] = float("nan")
    for mine, expected in zip(spans.gaps(said, logps, taught), told.gaps(said, logps, taught), strict=True):
        assert torch.equal(mine[taught], expected[taught])
    assert isinstance(told, Told)
    assert Spans(each, spans.logps, spans.agrees, spans.largest, (Best("", 0.0),) * 6).begins.all()
