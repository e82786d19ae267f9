"""Rows that begin alike share what they have in common: a micro-batch laid out as prefix trees, and the forward over it.

The rows of a group-step show the same pictures and the same goal, so most of each prompt is the same tokens. Here every
token is computed once per distinct prefix. Tokens stand in depth-first order of the tree; each sees itself and its
ancestors, at the M-RoPE position it has in its row:

    rows   p q r a b      layout     p q r a b x y z
           p q r x y      ends       8 8 7 5 5 7 7 8        token j is seen by tokens j <= i < ends[j]
           p q z          position   0 1 2 3 4 3 4 2

Causal attention never looks to the right, so hidden states, log-probabilities and gradients are those of the rows one
by one, up to rounding. Two pictures are the same token only if they are the same screenshot at the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from agent.encode import Encoded, Encoder
from agent.types import Picture
from agent.vision import plain_model

Ints = NDArray[np.int64]
Rope = Callable[..., tuple[Tensor, Tensor]]
"""The model's own `get_rope_index`."""


@dataclass(frozen=True, eq=False)
class Strand:
    """One row: ids (tokens,) of prompt and target, the target's from `start` on; what the image pads stand for."""

    ids: Tensor
    start: int
    pictures: tuple[Picture, ...]

    @classmethod
    def of(cls, prompt: Encoded, target: Tensor) -> Strand:
        return cls(torch.cat([prompt.ids, target]), len(prompt.ids), prompt.pictures)


@dataclass(frozen=True, eq=False)
class Layout:
    """Trees side by side in sequences padded on the right.

    ids, ends (sequences, longest), see above, ends counted within the sequence; positions (3, sequences, longest);
    pictures in order of their places. reads, labels (n,): which token, counted over all sequences, predicts what, each
    pair once. where (rows, longest target): the entry of `reads` for each target token, -1 after a row's end.
    trees: whether a sequence may hold more than one row, which takes a 4-D mask.
    """

    ids: Tensor
    ends: Tensor
    positions: Tensor
    pictures: tuple[Picture, ...]
    reads: Tensor
    labels: Tensor
    where: Tensor
    trees: bool

    def to(self, device: torch.device) -> Layout:
        tensors: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def mask(self, additive: torch.dtype | None = None) -> Tensor:
        """What the model takes as attention_mask: (sequences, longest) ones and zeros, or with trees (sequences, 1,
        longest, longest), True where row i sees column j, or 0 and the lowest number where `additive` is a dtype."""
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        if not self.trees:
            return (place < self.ends[:, :1]).long()
        sees = (place[:, None] >= place) & (place[:, None] < self.ends[:, None, :])
        if additive is None:
            return sees[:, None]
        nothing = torch.zeros(sees.shape, dtype=additive, device=sees.device)
        return nothing.masked_fill(~sees, torch.finfo(additive).min)[:, None]


@dataclass(eq=False)
class _Tree:
    """A tree while it grows. path: the tokens of the row added last, root to leaf."""

    ids: list[Ints] = field(default_factory=list)
    positions: list[Ints] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    ends: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    path: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    paths: dict[int, Ints] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, row: int, strand: Strand, positions: Ints, shared: int, pictures: Sequence[Picture]) -> None:
        size, new = len(self), len(strand.ids) - shared
        self.path = np.concatenate([self.path[:shared], np.arange(size, size + new)])
        self.ends = np.concatenate([self.ends, np.zeros(new, np.int64)])
        # The last of these to reach a token is the end of its subtree.
        self.ends[self.path] = size + new
        self.ids.append(strand.ids.numpy()[shared:])
        self.positions.append(positions[:, shared:])
        self.pictures += pictures
        self.paths[row] = self.path


def tokens(strands: Sequence[Strand], encoder: Encoder) -> int:
    """How many tokens these rows are when every common prefix counts once."""
    order = sorted(_marked(strands, encoder), key=lambda row: row.tolist())
    return sum(map(len, order)) - sum(_common(a, b) for a, b in pairwise(order))


def lay_out(strands: Sequence[Strand], encoder: Encoder, rope: Rope, pairs: float) -> Layout:
    """pairs: how many pairs of attention cost as much as one token's way through the layers (`pairs_per_token`); a row
    joins the tree before it only where the tokens it saves outweigh the pairs it adds. 0: one row per sequence."""
    marked, positions = _marked(strands, encoder), _positions(strands, encoder, rope)
    order = sorted(range(len(strands)), key=lambda i: marked[i].tolist()) if pairs else range(len(strands))
    trees: list[_Tree] = []
    before = marked[0][:0]
    for i in order:
        row, shared, grown = marked[i], _common(before, marked[i]), len(trees[-1]) if trees else 0
        added = (grown + len(row) - shared) ** 2 - grown**2 - len(row) ** 2
        if not trees or not pairs or shared * pairs <= added:
            trees.append(_Tree())
            shared = 0
        places = np.flatnonzero((row < 0) & (np.append(0, row[:-1]) >= 0))
        pictures = [p for p, place in zip(strands[i].pictures, places, strict=True) if place >= shared]
        trees[-1].add(i, strands[i], positions[i], shared, pictures)
        before = row
    return _side_by_side(strands, _fill(trees) if pairs else [[tree] for tree in trees], bool(pairs))


def pairs_per_token(config: Any) -> float:
    """A layer takes about 24 h^2 operations for a token and 4 h for a pair of tokens (h: hidden size), hence 6 h."""
    return 6.0 * float(config.get_text_config().hidden_size)


def _marked(strands: Sequence[Strand], encoder: Encoder) -> list[Ints]:
    """Ids with image pads replaced by a negative number per distinct picture."""
    book: dict[tuple[str, int, int], int] = {}
    marked = []
    for strand in strands:
        ids = strand.ids.numpy().copy()
        keys = [(p.screenshot.digest, p.width, p.height) for p in strand.pictures]
        numbers = [-1 - book.setdefault(key, len(book)) for key in keys]
        ids[ids == encoder.image_pad] = np.repeat(numbers, [encoder.image_tokens(p) for p in strand.pictures])
        marked.append(ids)
    return marked


def _positions(strands: Sequence[Strand], encoder: Encoder, rope: Rope) -> list[Ints]:
    """Per row, shape (3, tokens): the model's own, of the row as it would stand alone."""
    ids, mask = pad_right([strand.ids for strand in strands], encoder.pad)
    grids = [encoder.grid(picture) for strand in strands for picture in strand.pictures]
    positions, _ = rope(
        ids,
        mm_token_type_ids=(ids == encoder.image_pad).long() * mask,
        image_grid_thw=torch.stack(grids) if grids else None,
        attention_mask=mask,
    )
    return [positions[:, i, : len(strand.ids)].numpy() for i, strand in enumerate(strands)]


def _common(a: Ints, b: Ints) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _fill(trees: Sequence[_Tree]) -> list[list[_Tree]]:
    """Trees into sequences of the longest one's length: first fit, longest first."""
    room: list[int] = []
    sequences: list[list[_Tree]] = []
    for tree in sorted(trees, key=len, reverse=True):
        fits = next((i for i, free in enumerate(room) if free >= len(tree)), None)
        if fits is None:
            fits = len(room)
            room.append(max(map(len, trees)))
            sequences.append([])
        sequences[fits].append(tree)
        room[fits] -= len(tree)
    return sequences


def _side_by_side(strands: Sequence[Strand], sequences: Sequence[Sequence[_Tree]], trees: bool) -> Layout:
    longest = max(sum(map(len, sequence)) for sequence in sequences)
    ids, positions = np.zeros((len(sequences), longest), np.int64), np.zeros((3, len(sequences), longest), np.int64)
    # Padding sees itself, and nothing sees it: a softmax over nothing would be NaN.
    ends = np.tile(np.arange(1, longest + 1), (len(sequences), 1)) if trees else np.zeros_like(ids)
    paths: dict[int, Ints] = {}
    for k, sequence in enumerate(sequences):
        start = 0
        for tree in sequence:
            part = slice(start, start + len(tree))
            ids[k, part] = np.concatenate(tree.ids)
            positions[:, k, part] = np.concatenate(tree.positions, axis=1)
            ends[k, part] = tree.ends + start
            paths |= {row: path + k * longest + start for row, path in tree.paths.items()}
            start = part.stop
    pairs = [torch.from_numpy(paths[i][s.start - 1 : -1]) for i, s in enumerate(strands)]
    wanted = torch.stack([torch.cat(pairs), torch.cat([s.ids[s.start :] for s in strands])])
    (reads, labels), entry = wanted.unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
    where, told = pad_right([*entry.split([len(p) for p in pairs])], 0)
    pictures = tuple(p for sequence in sequences for tree in sequence for p in tree.pictures)
    return Layout(
        torch.from_numpy(ids),
        torch.from_numpy(ends),
        torch.from_numpy(positions),
        pictures,
        reads,
        labels,
        where.masked_fill(told == 0, -1),
        trees,
    )


def pad_right(rows: Sequence[Tensor], value: int) -> tuple[Tensor, Tensor]:
    """(rows, longest) ids and int64 mask."""
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return pad_sequence(list(rows), batch_first=True, padding_value=value), mask


# ------------------------------------------------------------------------------------------------------------- forward


def takes_trees(model: Any) -> bool:
    """Whether the model's attention takes a 4-D mask."""
    return plain_model(model).config.get_text_config()._attn_implementation in ("sdpa", "eager")


def token_logps(model: Any, plain: Any, layout: Layout, vision: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and, where the head computes them, entropies of the target tokens, (rows, longest target), zero
    after a row's end. model: as wrapped for training, with TRL's fused head; plain: inside the wrappers; vision: what
    `agent.vision.VisionStore.inputs` says about the layout's pictures."""
    with reading(plain, layout.reads):
        output = model(**model_inputs(plain, layout), **vision, shift_labels=layout.labels[None], fused_lm_head=True)
    over = layout.where < 0
    logps = output.log_probs[0][layout.where].masked_fill(over, 0.0)
    entropies = output.entropy
    return logps, None if entropies is None else entropies[0][layout.where].masked_fill(over, 0.0)


def model_inputs(plain: Any, layout: Layout) -> dict[str, Tensor]:
    """What the forward takes for this layout, without the pictures."""
    eager = plain_model(plain).config.get_text_config()._attn_implementation == "eager"
    return {
        "input_ids": layout.ids,
        "attention_mask": layout.mask(plain.dtype if eager else None),
        "position_ids": layout.positions,
    }


@contextmanager
def reading(plain: Any, places: Tensor) -> Iterator[None]:
    """While open, the backbone hands on the hidden states at these places alone, as one row: shape (1, n, hidden). So the
    vocabulary's logits exist for target tokens only."""

    def pick(module: Any, arguments: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[places][None]
        return output

    handle = plain_model(plain).base_model.register_forward_hook(pick)
    try:
        yield
    finally:
        handle.remove()
