"""A micro-batch laid out as prefix trees (agent/local/prefix.py), and the forward over it.

The rows of a group-step show the same screenshots and the same goal, so most of each prompt is the same tokens. Each is
computed once per distinct prefix, and the vocabulary's logits exist for target tokens only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from guiderail.agent.local.attention import TREES, Maskless
from guiderail.agent.local.encode import Encoded, Encoder
from guiderail.agent.local.plans import Plan
from guiderail.agent.local.prefix import (
    Rope,
    Tree,
    build_trees,
    count_distinct,
    make_branches,
    picture_keys,
    side_by_side,
    visible,
)
from guiderail.agent.local.vision import plain_model
from guiderail.agent.types import Picture


@dataclass(frozen=True, eq=False)
class EncodedTurn(Encoded):
    """A prompt with its target behind it: ids (tokens,), the target's from `start` on."""

    start: int

    @classmethod
    def of(cls, prompt: Encoded, target: Tensor) -> EncodedTurn:
        """target: (tokens,) ids."""
        return cls(torch.cat([prompt.ids, target]), prompt.pictures, len(prompt.ids))


@dataclass(frozen=True, eq=False)
class Layout:
    """Trees side by side in sequences that are padded on the right.

    ids, ends: (sequences, longest), see agent/local/prefix.py. positions: (3, sequences, longest). pictures: in order of
    their places. reads, labels: (n,), the column that predicts a target token, counted over all sequences, and that token;
    each pair once. where: (rows, longest target), the entry of `reads` for each target token, -1 after a row's end. trees:
    whether a sequence may hold more than one row, which takes a 4-D mask or a plan. plan: of the only sequence, where the
    model is to attend without a mask.
    """

    ids: Tensor
    ends: Tensor
    positions: Tensor
    pictures: tuple[Picture, ...]
    reads: Tensor
    labels: Tensor
    where: Tensor
    trees: bool
    plan: Plan | None = None

    def to(self, device: torch.device) -> Layout:
        """A copy with its tensors on `device`."""
        tensors: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def mask(self, additive: torch.dtype | None = None) -> Tensor:
        """The model's attention_mask. Without trees (sequences, longest) ones and zeros. With trees (sequences, 1, longest,
        longest), True where column i sees column j; where `additive` is a dtype, 0 and its lowest number instead."""
        if not self.trees:
            return (torch.arange(self.ids.shape[1], device=self.ids.device) < self.ends[:, :1]).long()
        sees = visible(self.ends)
        if additive is None:
            return sees[:, None]
        nothing = torch.zeros(sees.shape, dtype=additive, device=sees.device)
        return nothing.masked_fill(~sees, torch.finfo(additive).min)[:, None]


def count_tokens(turns: Sequence[Encoded], encoder: Encoder) -> int:
    """Number of tokens of these rows when each common prefix counts once."""
    return count_distinct(picture_keys(turns, encoder))


def lay_out(
    turns: Sequence[EncodedTurn], encoder: Encoder, rope: Rope, pairs: float | None, maskless: Maskless | None = None
) -> Layout:
    """pairs: cost of a token in pairs of attention, see `build_trees`; None merges nothing.

    maskless: which rows need no mask, see agent/local/attention.py. Pairs that nobody sees then cost nothing: whatever is
    common is merged, and all trees lie in one sequence without padding. With a mask, rows that are not merged get a sequence
    each.
    """
    plain = maskless is not None and max(len(turn.ids) for turn in turns) >= maskless.shortest
    trees = build_trees(make_branches(turns, encoder, rope), math.inf if plain and pairs is not None else pairs)
    sequences = [trees] if plain else [[tree] for tree in trees] if pairs is None else _fill(trees)
    ids, positions, ends = side_by_side(sequences, encoder)
    paths: dict[int, Tensor] = {}
    for k, sequence in enumerate(sequences):
        start = k * ids.shape[1]
        for tree in sequence:
            paths |= {i: torch.from_numpy(path + start) for i, path in zip(tree.places, tree.paths, strict=True)}
            start += len(tree)
    pairs_read = [paths[i][turn.start - 1 : -1] for i, turn in enumerate(turns)]
    wanted = torch.stack([torch.cat(pairs_read), torch.cat([turn.ids[turn.start :] for turn in turns])])
    (reads, labels), entry = wanted.unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
    entries = entry.split([len(columns) for columns in pairs_read])
    where = pad_sequence(entries, batch_first=True, padding_value=-1)
    pictures = tuple(p for sequence in sequences for tree in sequence for p in tree.pictures)
    plan = Plan(ends[0].numpy(), maskless.flex) if plain and maskless is not None else None
    return Layout(ids, ends, positions, pictures, reads, labels, where, plan is not None or pairs is not None, plan)


def _fill(trees: Sequence[Tree]) -> list[list[Tree]]:
    """Trees into sequences of the longest one's length: first fit, longest first."""
    room: list[int] = []
    sequences: list[list[Tree]] = []
    for tree in sorted(trees, key=len, reverse=True):
        fits = next((i for i, free in enumerate(room) if free >= len(tree)), None)
        if fits is None:
            fits = len(room)
            room.append(max(map(len, trees)))
            sequences.append([])
        sequences[fits].append(tree)
        room[fits] -= len(tree)
    return sequences


# ------------------------------------------------------------------------------------------------------------- forward


def takes_trees(model: Any) -> bool:
    """Whether the model's attention takes a 4-D mask."""
    return plain_model(model).config.get_text_config()._attn_implementation in ("sdpa", "eager", TREES)


def token_logps(
    model: Any, plain: Any, layout: Layout, vision: dict[str, Any], also: Also | None = None
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and, where the head computes them, entropies of the target tokens: (rows, longest target), zero
    after a row's end.

    model: as wrapped for training, with TRL's fused head. plain: the model inside the wrappers. vision: what
    `agent.local.vision.VisionStore.inputs` returns for the layout's pictures. also: as in `hidden_at`.
    """
    with hidden_at(plain, layout.reads, also):
        output = model(**model_inputs(plain, layout), **vision, shift_labels=layout.labels[None], fused_lm_head=True)
    over = layout.where < 0
    logps = output.log_probs[0][layout.where].masked_fill(over, 0.0)
    entropies = output.entropy
    return logps, None if entropies is None else entropies[0][layout.where].masked_fill(over, 0.0)


def model_inputs(plain: Any, layout: Layout) -> dict[str, Any]:
    """The arguments of the forward for this layout, without the pictures."""
    given = {"input_ids": layout.ids, "position_ids": layout.positions}
    attention = plain_model(plain).config.get_text_config()._attn_implementation
    if layout.plan is not None and attention == TREES:
        return given | {"tree": layout.plan}
    return given | {"attention_mask": layout.mask(plain.dtype if attention == "eager" else None)}


Also = Callable[[Tensor], None]
"""Takes the hidden states at some columns, (n, hidden), inside the model's forward."""


@contextmanager
def hidden_at(plain: Any, columns: Tensor, also: Also | None = None) -> Iterator[None]:
    """Inside, the backbone returns the hidden states at these columns only, as one row (1, n, hidden), so that the
    vocabulary's logits exist for target tokens only. columns: (n,), counted over all sequences. also: is given them too."""

    def select(module: Any, arguments: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[columns][None]
        if also is not None:
            also(output.last_hidden_state[0])
        return output

    handle = plain_model(plain).base_model.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()
