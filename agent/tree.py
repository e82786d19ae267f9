"""Rows that begin alike share what they have in common, while the prompt is read and while the answer is said.

The rollouts of a group look at the same pictures with the same goal, their histories part late, and their answers often
say the same. Rows are laid out as prefix trees (`Pack`): every token is computed once per distinct prefix, at the M-RoPE
position it has in its row, and sees itself and its ancestors. Decoding appends nodes to the tree:

    rows   p q r a b      columns    0 1 2 3 4 5 6 7
           p q r x        tokens     p q r a b x y d      x sees p q r x;  d sees p q d
           p q d          position   0 1 2 3 4 3 4 2      y, just sampled after x, sees p q r x y

Causal attention never looks to the right, so what a row says is what it would say alone, up to rounding. Two pictures are
the same token only if they are the same screenshot at the same size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from agent.types import Picture

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Row:
    """One prompt, perhaps with tokens that are expected to follow it.

    keys: (tokens,) ids, image pads replaced by a negative code of their picture; prompt: how many of them are prompt, the
    rest is draft. positions: (3, tokens), M-RoPE.
    """

    keys: Ints
    positions: Ints
    pictures: tuple[Picture, ...]
    prompt: int


@dataclass(eq=False)
class Pack:
    """A prefix tree of rows, depth first, as columns. places: which rows; prompts: how many of a row's tokens are prompt;
    paths: the columns of each row's tokens.

    spans: (start, stop, ancestors): columns start..stop-1 are a chain hanging from the last of `ancestors`.
    """

    places: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    paths: list[Ints] = field(default_factory=list)
    spans: list[tuple[int, int, Ints]] = field(default_factory=list)
    keys: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    positions: Ints = field(default_factory=lambda: np.zeros((3, 0), np.int64))
    pictures: list[Picture] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, place: int, row: Row, shared: int) -> None:
        """shared: how many first tokens the row has in common with the row added last."""
        start, stop = len(self), len(self) + len(row.keys) - shared
        above = self.paths[-1][:shared] if self.paths else np.zeros(0, np.int64)
        self.spans += [(start, stop, above)] if stop > start else []
        self.places.append(place)
        self.prompts.append(row.prompt)
        self.paths.append(np.concatenate([above, np.arange(start, stop)]))
        self.keys = np.concatenate([self.keys, row.keys[shared:]])
        self.positions = np.concatenate([self.positions, row.positions[:, shared:]], axis=1)
        held = len(_runs(row.keys[:shared]))
        self.pictures += row.pictures[held:]


def lay_out(rows: Sequence[Row], *, share: bool, ratio: float, most: int) -> list[Pack]:
    """Rows into packs, shortest pack first; `share` False gives every row its own.

    A pack of L tokens costs L * ratio + L^2 (ratio: cost of one token outside attention, in units of one token looking at
    one other), so rows that have little in common beside a long rest of their own are better apart. most: rows in a pack.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i].keys.tobytes())
    packs: list[Pack] = []
    for place, before in zip(order, [None, *order[:-1]], strict=True):
        row = rows[place]
        common = _common(row.keys, rows[before].keys) if share and before is not None else 0
        n, length = len(row.keys), len(packs[-1]) if packs else 0
        together = length + n - common
        gain = ratio * common + length**2 + n**2 - together**2
        if common and gain > 0 and len(packs[-1].places) < most:
            packs[-1].add(place, row, common)
        else:
            packs.append(Pack())
            packs[-1].add(place, row, 0)
    return sorted(packs, key=len)


def _common(a: Ints, b: Ints) -> int:
    """Length of the common prefix."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def _runs(keys: Ints) -> Ints:
    """Where the pictures among these keys begin. A common prefix never ends inside a picture."""
    return np.flatnonzero((keys < 0) & (keys != np.concatenate([[0], keys[:-1]])))


def prefill_mask(packs: Sequence[Pack], length: int) -> Bools:
    """(packs, length, length): who sees whom. Columns beyond a pack's end see its first token, so that nothing is NaN."""
    mask = np.zeros((len(packs), length, length), np.bool_)
    for p, pack in enumerate(packs):
        mask[p, len(pack) :, 0] = True
        for start, stop, above in pack.spans:
            mask[p, start:stop, above] = True
            mask[p, start:stop, start:stop] = np.tri(stop - start, dtype=np.bool_)
    return mask


@dataclass(eq=False)
class Chain:
    """Nodes one row hands to the next forward: the token it said last, and what is expected to follow.

    slots: their places among the new columns of pack `pack`; nodes that another row hands in as well are shared.
    """

    row: int
    pack: int
    tokens: list[int]
    slots: list[int] = field(default_factory=list)


def grow(
    chains: Sequence[Chain], seen: Bools, ends: Ints, following: Ints, packs: int, pad: int
) -> tuple[Ints, Ints, Bools]:
    """Place the chains' tokens as new columns: ids (packs, new), positions (packs, new), mask (packs, new, old + new).

    seen (rows, old): the columns of each row's path; ends (rows,): the last of them; following (rows,): the position of
    the row's next token. Fills in `Chain.slots`. Slots that stay empty hold pads that see the first column.
    """
    slots: list[dict[tuple[int, int], int]] = [{} for _ in range(packs)]
    owners: list[list[tuple[int, int, int, int]]] = [[] for _ in range(packs)]
    old = seen.shape[1]
    for chain in chains:
        known, parent = slots[chain.pack], int(ends[chain.row])
        for depth, token in enumerate(chain.tokens):
            slot = known.get((parent, token))
            if slot is None:
                slot = known[parent, token] = len(known)
                owners[chain.pack].append((chain.row, token, depth, parent))
            chain.slots.append(slot)
            parent = old + slot
    width = max(map(len, slots))
    ids, positions = np.full((packs, width), pad), np.zeros((packs, width), np.int64)
    mask = np.zeros((packs, width, old + width), np.bool_)
    for p, nodes in enumerate(owners):
        mask[p, len(nodes) :, 0] = True
        for slot, (row, token, depth, parent) in enumerate(nodes):
            ids[p, slot], positions[p, slot] = token, following[row] + depth
            mask[p, slot, :old] = seen[row]
            if parent >= old:
                mask[p, slot, old:] = mask[p, parent - old, old:]
            mask[p, slot, old + slot] = True
    return ids, positions, mask


class Columns(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in buffers with room to grow; transformers' own copies all of them at every token."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.used = 0
        self._room: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
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
        self._room = [buffer[indices] for buffer in self._room]
        self.keys, self.values = (buffer[:, :, : self.used] for buffer in self._room)


def batches(packs: Sequence[Pack], max_rows: int, max_tokens: int, max_pairs: int) -> Iterator[list[Pack]]:
    """Packs of like length together, within the bounds on rows, padded tokens and entries of the mask; at least one."""
    batch: list[Pack] = []
    rows = 0
    for pack in packs:
        tokens = len(pack) * (len(batch) + 1)
        if batch and (rows + len(pack.places) > max_rows or tokens > max_tokens or tokens * len(pack) > max_pairs):
            yield batch
            batch, rows = [], 0
        batch.append(pack)
        rows += len(pack.places)
    if batch:
        yield batch
