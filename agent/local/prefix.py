"""Prefix trees: token sequences that begin alike are computed once for the part they have in common.

The rollouts of a group see the same screenshots and the same goal, their histories differ late, and their answers often
agree. Their token sequences are laid out as a tree, in depth-first order of its columns:

    branches   p q r a b      column     0 1 2 3 4 5 6 7
               p q r x y      token      p q r a b x y z
               p q z          end        8 8 7 5 5 7 7 8      token j is seen by columns j <= i < end[j]
                              position   0 1 2 3 4 3 4 2

Each token is computed once per distinct prefix, at the M-RoPE position it has in its own sequence, and sees itself and its
ancestors. Causal attention never looks to the right, so hidden states, log-probabilities and gradients are those of the
sequences one by one, up to rounding. Two pictures are the same token only if they are the same screenshot at the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guiderail.agent.local.encode import Encoded, Encoder
from guiderail.agent.types import Picture

Ints = NDArray[np.int64]
Rope = Callable[..., tuple[Tensor, Tensor]]
"""The model's own `get_rope_index`."""


# --------------------------------------------------------------------------------------------------------------- trees


@dataclass(frozen=True, eq=False)
class Branch:
    """One token sequence.

    keys: (tokens,) ids, image pads replaced by a negative number that names their picture. positions: (3, tokens), M-RoPE.
    pictures: what the pads stand for, in order.
    """

    keys: Ints
    positions: Ints
    pictures: tuple[Picture, ...]


@dataclass(eq=False)
class Tree:
    """Branches with their common prefixes merged, as columns in depth-first order.

    places: which branches, by their index in the caller's list. paths: the columns of each branch's tokens. keys, positions
    and pictures: as in Branch, of the columns. ends: (columns,), the end of each column's subtree, see above.
    """

    places: list[int] = field(default_factory=list)
    paths: list[Ints] = field(default_factory=list)
    keys: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    positions: Ints = field(default_factory=lambda: np.zeros((3, 0), np.int64))
    ends: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    pictures: list[Picture] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of columns."""
        return len(self.keys)

    def add(self, place: int, branch: Branch, shared: int) -> None:
        """shared: number of leading tokens merged with those of the branch added last. Never ends inside a picture."""
        start, stop = len(self), len(self) + len(branch.keys) - shared
        above = self.paths[-1][:shared] if self.paths else np.zeros(0, np.int64)
        path = np.concatenate([above, np.arange(start, stop)])
        self.places.append(place)
        self.paths.append(path)
        self.keys = np.concatenate([self.keys, branch.keys[shared:]])
        self.positions = np.concatenate([self.positions, branch.positions[:, shared:]], axis=1)
        self.ends = np.concatenate([self.ends, np.zeros(stop - start, np.int64)])
        self.ends[path] = stop  # the last branch through a column sets the end of its subtree
        self.pictures += branch.pictures[_count_pictures(branch.keys[:shared]) :]


def build_trees(branches: Sequence[Branch], pairs: float | None, most: int | None = None) -> list[Tree]:
    """Merge branches where it pays. Every branch is in exactly one tree.

    pairs: cost of a token outside attention, in pairs of tokens that attend to each other (`pairs_per_token`). Under a dense
    mask a tree of L columns costs L * pairs + L^2, so a branch joins the tree before it only if together they cost less than
    apart. Infinity, for attention without a mask: what is common is merged. None: nothing is merged, and the trees keep the
    order of the branches. most: the most branches in a tree.
    """
    keys = [branch.keys for branch in branches]
    trees: list[Tree] = []
    before: Ints | None = None
    for place in range(len(keys)) if pairs is None else _prefix_order(keys):
        shared = 0
        if pairs is not None and before is not None:
            common, size, n = _common(before, keys[place]), len(trees[-1]), len(keys[place])
            added = (size + n - common) ** 2 - size**2 - n**2
            if common and common * pairs > added and (most is None or len(trees[-1].places) < most):
                shared = common
        if not shared:
            trees.append(Tree())
        trees[-1].add(place, branches[place], shared)
        before = keys[place]
    return trees


def count_distinct(keys: Sequence[Ints]) -> int:
    """Number of tokens when each common prefix counts once."""
    ordered = [keys[place] for place in _prefix_order(keys)]
    return sum(map(len, ordered)) - sum(_common(a, b) for a, b in pairwise(ordered))


def pairs_per_token(config: Any) -> float:
    """6 h: a layer takes about 24 h^2 operations for a token outside attention and 4 h for a pair of tokens that attend to
    each other (h: hidden size)."""
    return 6.0 * float(config.get_text_config().hidden_size)


def _prefix_order(keys: Sequence[Ints]) -> list[int]:
    """Lexicographic: neighbours have the longest prefixes in common."""
    return sorted(range(len(keys)), key=lambda place: keys[place].tolist())


def _common(a: Ints, b: Ints) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def _count_pictures(keys: Ints) -> int:
    return int(np.count_nonzero((keys < 0) & (keys != np.concatenate([[0], keys[:-1]]))))


# ------------------------------------------------------------------------------------------------------ keys, positions


def make_branches(rows: Sequence[Encoded], encoder: Encoder, rope: Rope) -> list[Branch]:
    """Rows as branches. Positions are those that `rope` gives the row alone; it is asked once per distinct text and
    pictures up to the last picture."""
    heads: dict[bytes, Ints] = {}
    branches = []
    for row, keys in zip(rows, picture_keys(rows, encoder), strict=True):
        pads = np.flatnonzero(keys < 0)
        head = keys[: pads[-1] + 1 if len(pads) else 1]
        if head.tobytes() not in heads:
            heads[head.tobytes()] = rope_positions(Encoded(row.ids[: len(head)], row.pictures), encoder, rope)
        branches.append(Branch(keys, extend(heads[head.tobytes()], len(keys)), row.pictures))
    return branches


def picture_keys(rows: Sequence[Encoded], encoder: Encoder) -> list[Ints]:
    """Each row's ids, (tokens,), with image pads replaced by a negative number per distinct picture."""
    numbers: dict[tuple[str, int, int], int] = {}
    found = []
    for row in rows:
        keys = row.ids.numpy().copy()
        names = [(p.screenshot.digest, p.width, p.height) for p in row.pictures]
        codes = [-1 - numbers.setdefault(name, len(numbers)) for name in names]
        keys[keys == encoder.image_pad] = np.repeat(codes, [encoder.image_tokens(p) for p in row.pictures])
        found.append(keys)
    return found


def rope_positions(row: Encoded, encoder: Encoder, rope: Rope) -> Ints:
    """The model's own M-RoPE positions, shape (3, tokens)."""
    grids = [encoder.grid(picture) for picture in row.pictures]
    positions, _ = rope(
        row.ids[None],
        mm_token_type_ids=(row.ids[None] == encoder.image_pad).long(),
        image_grid_thw=torch.stack(grids) if grids else None,
        attention_mask=torch.ones_like(row.ids[None]),
    )
    found: Ints = positions[:, 0].numpy()
    return found


def extend(positions: Ints, length: int) -> Ints:
    """M-RoPE positions (3, tokens) continued by text to (3, length): all three axes count on from the largest one."""
    after = positions.max() + 1 + np.arange(length - positions.shape[1])
    return np.concatenate([positions, np.broadcast_to(after, (3, len(after)))], axis=1)


# ------------------------------------------------------------------------------------------------------- model inputs


def side_by_side(sequences: Sequence[Sequence[Tree]], encoder: Encoder) -> tuple[Tensor, Tensor, Tensor]:
    """Trees one after the other in sequences, padded on the right: ids (sequences, longest), positions (3, sequences,
    longest) and ends (sequences, longest), the latter counted within the sequence."""
    longest = max(sum(map(len, trees)) for trees in sequences)
    ids = np.full((len(sequences), longest), encoder.pad)
    positions = np.zeros((3, len(sequences), longest), np.int64)
    # Padding sees itself, and nothing else sees it: a softmax over nothing would be NaN.
    ends = np.tile(np.arange(1, longest + 1), (len(sequences), 1))
    for k, trees in enumerate(sequences):
        start = 0
        for tree in trees:
            part = slice(start, start + len(tree))
            ids[k, part] = np.where(tree.keys < 0, encoder.image_pad, tree.keys)
            positions[:, k, part] = tree.positions
            ends[k, part] = tree.ends + start
            start = part.stop
    return torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(ends)


def visible(ends: Tensor) -> Tensor:
    """(sequences, length, length), True where column i sees column j: j <= i < ends[j]. ends: (sequences, length)."""
    column = torch.arange(ends.shape[1], device=ends.device)
    sees = column[:, None] < ends[:, None, :]
    sees &= column[:, None] >= column
    return sees


def batches(trees: Sequence[Tree], max_branches: int, max_tokens: int, max_pairs: int) -> Iterator[list[Tree]]:
    """Trees of like length together, within the bounds on branches, padded tokens and entries of the mask; at least one
    tree each."""
    batch: list[Tree] = []
    branches = 0
    for tree in trees:
        tokens = len(tree) * (len(batch) + 1)
        full = branches + len(tree.places) > max_branches or tokens > max_tokens or tokens * len(tree) > max_pairs
        if batch and full:
            yield batch
            batch, branches = [], 0
        batch.append(tree)
        branches += len(tree.places)
    if batch:
        yield batch
