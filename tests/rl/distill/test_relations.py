"""MiniLM's losses against loops in float64, and what a real layer's attention computes."""

import math

import pytest
import torch

from guiderail.agent.local.loading import load_model
from guiderail.rl.distill.relations import Vectors, last_vectors, pairs_of, relation_loss
from guiderail.rl.tiny.model import build_tiny

ROWS, TOKENS = 2, 5


def vectors(heads: int, size: int, seed: int) -> Vectors:
    made = torch.Generator().manual_seed(seed)
    return Vectors(*(torch.randn(ROWS, heads, TOKENS, size, generator=made, dtype=torch.float64) for _ in range(3)))


def seen() -> torch.Tensor:
    """Causal; the second row has two tokens of padding at its end."""
    sees = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril().repeat(ROWS, 1, 1)
    sees[1, 3:] = False
    return sees


def by_hand(teacher: Vectors, student: Vectors, heads: int) -> float:
    """The definition, number by number."""

    def distribution(v: Vectors, one: str, other: str, row: int, head: int, token: int) -> list[float]:
        def cut(name: str, at: int) -> list[float]:
            side_by_side = [x for vector in getattr(v, name)[row, :, at] for x in vector.tolist()]
            size = len(side_by_side) // heads
            return side_by_side[head * size : (head + 1) * size]

        query = cut(one, token)
        scores = [
            sum(a * b for a, b in zip(query, cut(other, at), strict=True)) / math.sqrt(len(query))
            for at in range(token + 1)
        ]
        powers = [math.exp(score) for score in scores]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for one, other in pairs_of(teacher.heads, student.heads):
        values = []
        for row, token in [(r, t) for r in range(ROWS) for t in range((TOKENS, 3)[r])]:
            for head in range(heads):
                p, q = (distribution(v, one, other, row, head, token) for v in (teacher, student))
                values.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        total += sum(values) / len(values)
    return total


@pytest.mark.parametrize(
    ("teacher", "student", "heads"),
    [((4, 6), (4, 6), 4), ((4, 6), (4, 3), 4), ((4, 6), (2, 5), 2), ((4, 6), (2, 5), 1), ((6, 4), (4, 3), 2)],
)
def test_the_loss_is_the_definition(teacher, student, heads):
    large, small = vectors(*teacher, 0), vectors(*student, 1)
    losses = relation_loss(large, small, seen(), heads)
    assert sum(losses.values()).item() == pytest.approx(by_hand(large, small, heads), rel=1e-12)
    assert len(losses) == (2 if teacher[0] == student[0] else 3)


def test_gradients_are_those_of_finite_differences():
    large, small = vectors(2, 4, 0), vectors(2, 3, 1)

    def loss(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.stack([*relation_loss(large, Vectors(query, key, value), seen(), 2).values()]).sum()

    inputs = [x.requires_grad_() for x in (small.query, small.key, small.value)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_equal_vectors_have_no_loss_and_padding_no_gradient():
    one = vectors(2, 4, 0)
    assert sum(relation_loss(one, one, seen(), 2).values()).item() == 0
    small = vectors(2, 3, 1)
    small.value.requires_grad_()
    relation_loss(one, small, seen(), 2)["value_value"].backward()
    assert small.value.grad[1, :, 3:].abs().max() == 0 < small.value.grad[1, :, :3].abs().max()


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_the_vectors_give_the_attention_of_the_layer(tmp_path, family):
    model = load_model(build_tiny(tmp_path, ["words of a screen"], family), "cpu", "float32")
    model.set_attn_implementation("eager")
    ids = torch.randint(0, 200, (2, 7), generator=torch.Generator().manual_seed(0))
    with last_vectors(model) as found, torch.no_grad():
        attended = model(input_ids=ids, output_attentions=True).attentions[-1]
    scores = found[0].query @ found[0].key.mT / math.sqrt(found[0].query.shape[-1])
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    torch.testing.assert_close(scores.masked_fill(hidden, -torch.inf).softmax(-1), attended)
