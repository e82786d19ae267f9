"""What decoding adds to prefix trees: new columns for sampled tokens, and a cache with room for them.

branches  p q r a b      column    0 1 2 3 4 5 6 7
          p q r x        token     p q r a b x d y      y was sampled after x and sees p q r x y
          p q d          position  0 1 2 3 4 3 2 4
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from guiderail.agent.local.prefix import Ints

Bools = NDArray[np.bool_]


@dataclass(eq=False)
class Chain:
    """The tokens that one row hands to the next forward: the one it sampled last, and those of its draft after it.

    row: the row's index in the batch; tree: its tree's. slots: where the tokens stand among the tree's new columns; a
    column that several rows ask for is shared.
    """

    row: int
    tree: int
    tokens: list[int]
    slots: list[int] = field(default_factory=list)


def add_columns(
    chains: Sequence[Chain], seen: Bools, last: Ints, following: Ints, trees: int, pad: int
) -> tuple[Ints, Ints, Bools]:
    """Place the chains' tokens as new columns: ids (trees, new), positions (trees, new), mask (trees, new, old + new).

    seen: (rows, old), the columns of each row's path. last: (rows,), the last of them. following: (rows,), the position of
    the row's next token. Fills in `Chain.slots`. Slots that stay empty hold pads that see the first column.
    """
    slots: list[dict[tuple[int, int], int]] = [{} for _ in range(trees)]
    owners: list[list[tuple[int, int, int, int]]] = [[] for _ in range(trees)]
    old = seen.shape[1]
    for chain in chains:
        known, parent = slots[chain.tree], int(last[chain.row])
        for depth, token in enumerate(chain.tokens):
            slot = known.get((parent, token))
            if slot is None:
                slot = known[parent, token] = len(known)
                owners[chain.tree].append((chain.row, token, depth, parent))
            chain.slots.append(slot)
            parent = old + slot
    width = max(map(len, slots))
    ids, positions = np.full((trees, width), pad), np.zeros((trees, width), np.int64)
    mask = np.zeros((trees, width, old + width), np.bool_)
    for t, nodes in enumerate(owners):
        mask[t, len(nodes) :, 0] = True
        for slot, (row, token, depth, parent) in enumerate(nodes):
            ids[t, slot], positions[t, slot] = token, following[row] + depth
            mask[t, slot, :old] = seen[row]
            if parent >= old:
                mask[t, slot, old:] = mask[t, parent - old, old:]
            mask[t, slot, old + slot] = True
    return ids, positions, mask


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in buffers with room to grow; transformers' own class copies all of them per token."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.used = 0
        self._room: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append states (trees, heads, new, width); returns all keys and values so far."""
        stop = self.used + key_states.shape[-2]
        if not self._room or stop > self._room[0].shape[-2]:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            shape = list(key_states.shape)
            shape[-2] = stop + max(64, stop // 4)
            fresh = [key_states.new_empty(shape), value_states.new_empty([*shape[:-1], value_states.shape[-1]])]
            for new, held in zip(fresh, self._room, strict=False):
                new[:, :, : self.used] = held[:, :, : self.used]
            self._room = fresh
        for buffer, states in zip(self._room, (key_states, value_states), strict=True):
            buffer[:, :, self.used : stop] = states
        self.used = stop
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these trees only."""
        self._room = [buffer[indices] for buffer in self._room]
        self.keys, self.values = (buffer[:, :, : self.used] for buffer in self._room)
