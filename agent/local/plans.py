"""What each column of a sequence of trees sees, without a table of columns by columns: made from `ends` alone.

Column j is seen by the columns j <= i < ends[j] (agent/local/prefix.py). The kernels in agent/local/attention.py ask for this in
three ways. None takes a tensor of columns by columns.

    runs     neighbours with the same end. The columns [start, end) see [start, stop), each from itself backwards: causal
             attention of end - start queries to stop - start keys, aligned at the first of both.
    paths    neighbours of which each is a child of the one before. The queries [start, stop) see the ancestors of `start` and
             themselves: causal attention to keys that are gathered, aligned at the last of both.
    blocks   squares of 128 by 128: which hold a pair that is seen, and which are seen whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from guiderail.agent.local.prefix import Ints

BLOCK = 128


@dataclass(frozen=True, eq=False)
class Plan:
    """ends: (columns,). flex: whether to use blocks even where keys could be gathered."""

    ends: Ints
    flex: bool = False

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """(start, stop, end) of each run, from left to right: ancestors come first."""
        bounds = [0, *(np.flatnonzero(np.diff(self.ends)) + 1).tolist(), len(self.ends)]
        return [(start, stop, int(self.ends[start])) for start, stop in pairwise(bounds)]

    @cached_property
    def starts(self) -> list[int]:
        """Where paths start: columns that are no child of the one before."""
        return [0, *(np.flatnonzero(self.ends[:-1] <= np.arange(1, len(self.ends))) + 1).tolist()]

    @cached_property
    def ancestors(self) -> list[Ints]:
        """Of the first column of each path."""
        return [np.flatnonzero(self.ends[:start] > start) for start in self.starts]

    @property
    def gathered(self) -> int:
        """Number of keys that the paths take together."""
        return len(self.ends) + sum(map(len, self.ancestors))


@dataclass(frozen=True, eq=False)
class Paths:
    """columns: (gathered,), where the keys are taken from. queries, keys: (paths + 1,) int32, where each path's begin.
    most_queries, most_keys: of one path."""

    columns: Tensor
    queries: Tensor
    keys: Tensor
    most_queries: int
    most_keys: int


@lru_cache(maxsize=4)
def paths_of(plan: Plan, device: torch.device) -> Paths:
    """Made once for all layers."""
    bounds = [*plan.starts, len(plan.ends)]
    taken = [
        np.concatenate([above, np.arange(start, stop)])
        for above, start, stop in zip(plan.ancestors, bounds[:-1], bounds[1:], strict=True)
    ]
    lengths = np.array([len(keys) for keys in taken])
    return Paths(
        torch.from_numpy(np.concatenate(taken)).to(device),
        torch.tensor(bounds, dtype=torch.int32, device=device),
        torch.tensor([0, *lengths.cumsum()], dtype=torch.int32, device=device),
        int(np.diff(bounds).max()),
        int(lengths.max()),
    )


@lru_cache(maxsize=4)
def blocks_of(plan: Plan, device: torch.device) -> BlockMask:
    """Made once for all layers. A block that turns out to hold no pair costs time and changes nothing."""
    columns = len(plan.ends)
    count = -(-columns // BLOCK)
    padded = np.concatenate([plan.ends, np.zeros(count * BLOCK - columns, np.int64)]).reshape(count, BLOCK)
    first = np.arange(count) * BLOCK
    last = first + BLOCK - 1
    below = first[:, None] >= last  # every query of the block comes after every key
    held = (last[:, None] >= first) & (first[:, None] < padded.max(1))
    whole = below & (last[:, None] < padded.min(1))
    ends = torch.from_numpy(plan.ends).to(device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < ends[key])

    partly, wholly = (_listed(blocks, device) for blocks in (held & ~whole, whole))
    return BlockMask.from_kv_blocks(*partly, *wholly, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(columns, columns))


def _listed(blocks: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Per row of blocks, how many are set, and their indices, those that are set first: (1, 1, rows), (1, 1, rows, rows)."""
    order = np.argsort(~blocks, axis=1, kind="stable").astype(np.int32)
    return (
        torch.from_numpy(blocks.sum(1).astype(np.int32)).to(device)[None, None],
        torch.from_numpy(order).to(device)[None, None],
    )
