"""MiniLM: what the attention of the last layer says about pairs of tokens, and its distance between teacher and student.

    L = mean over tokens and heads of   KL(R(Q, K) || R'(Q', K')) + KL(R(V, V) || R'(V', V'))          MiniLM, arXiv 2002.10957
    R(A, B) = softmax(A B^T / sqrt(d)) over the tokens that a token sees; primed: the student's

R(Q, K) are the attention distributions. Teacher and student need equally many heads for it, of any size and in any width.
Where they have different numbers, all heads' vectors of a token are put side by side and cut anew, into relation heads, as
many for both, and the relations are Q-Q, K-K and V-V (MiniLMv2, arXiv 2012.15828). Both papers are about encoders; in a decoder a
token sees those before it, which also holds for V-V here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Vectors:
    """Of one layer: each (rows, heads, tokens, size), rotated, keys and values repeated to the number of query heads."""

    query: Tensor
    key: Tensor
    value: Tensor

    @property
    def heads(self) -> int:
        return self.query.shape[1]


def pairs_of(teacher: int, student: int) -> tuple[tuple[str, str], ...]:
    """The relations to compare. teacher, student: their heads."""
    if teacher == student:
        return ("query", "key"), ("value", "value")
    return ("query", "query"), ("key", "key"), ("value", "value")


def relation_loss(teacher: Vectors, student: Vectors, sees: Tensor, heads: int) -> dict[str, Tensor]:
    """The mean KL divergence in nats by relation: their sum is the loss. sees: (rows, tokens, tokens), True where token i sees
    token j; a token that sees nothing is padding. heads: relation heads, see `recut`."""
    losses = {}
    counted = sees.any(-1)
    for one, other in pairs_of(teacher.heads, student.heads):
        logs = [
            relation(recut(getattr(v, one), heads), recut(getattr(v, other), heads), sees) for v in (teacher, student)
        ]
        each = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean(1)  # KL per token
        losses[f"{one}_{other}"] = each[counted].mean()
    return losses


def relation(first: Tensor, second: Tensor, sees: Tensor) -> Tensor:
    """log softmax(A B^T / sqrt(d)) over what is seen, (rows, heads, tokens, tokens); 0 where nothing may be seen, so that
    products with its exponential of another stay finite. first, second: (rows, heads, tokens, size)."""
    scores = first @ second.mT / math.sqrt(first.shape[-1])
    hidden = ~sees[:, None]
    logs = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).log_softmax(-1)
    return logs.masked_fill(hidden, 0.0)


def recut(vectors: Tensor, heads: int) -> Tensor:
    """(rows, heads, tokens, size) with another number of heads, which divides the numbers of all heads together."""
    rows, _, tokens, _ = vectors.shape
    return vectors.transpose(1, 2).reshape(rows, tokens, heads, -1).transpose(1, 2)


@contextmanager
def last_vectors(model: Any) -> Iterator[list[Vectors]]:
    """Inside, a forward of the model leaves the last layer's vectors in the list. model: plain, or inside a PEFT wrapper."""
    attention = model.model.language_model.layers[-1].self_attn
    found: list[Vectors] = []

    def catch(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        hidden, rotary = args[0] if args else kwargs["hidden_states"], kwargs["position_embeddings"]
        found[:] = [_vectors(module, hidden, rotary)]

    hook = attention.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()


def _vectors(attention: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Vectors:
    shape = (*hidden.shape[:-1], -1, attention.head_dim)
    query, key, value = (
        project(hidden).view(shape).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    # Qwen3-VL norms queries and keys per head, Qwen2.5-VL does not.
    query = attention.q_norm(query) if hasattr(attention, "q_norm") else query
    key = attention.k_norm(key) if hasattr(attention, "k_norm") else key
    cos, sin = (part[:, None] for part in rotary)
    query, key = (x * cos + _turned(x) * sin for x in (query, key))
    repeats = query.shape[1] // key.shape[1]
    return Vectors(query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1))


def _turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)
