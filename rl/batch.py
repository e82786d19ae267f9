"""StepSamples -> the tensors TRL's loss reads.

One generation of samples is dealt into `windows` optimizer steps of `per_window` micro-batches each. Every process makes
the same number of micro-batches with the same number of rows, whatever it collected: under ZeRO-3 and DDP a missing
forward pass is a hang. What is missing is filled with rows that weigh nothing.

Weights travel in `tool_mask`, which TRL multiplies into the completion mask of both policy and KL terms:

    loss of one optimizer step = sum_rows w_i sum_t l_it / items,

token-level (paper eq. 13, K = all tokens):  w_i = c_i,            items = tokens of the window, all processes
sequence mean (released code):               w_i = c_i / length_i, items = rows of the window, all processes

c_i is 1, or n / k where only k of a window's n rows were kept. Then E[sum_kept (n / k) x_i] = sum_i x_i and `items`
still counts all n rows, so the expected gradient is that of the whole window.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from agent.encode import Encoded, Encoder, pad_left
from agent.errors import SetupError
from agent.types import Message, Prompt, Screenshot
from rl.samples import StepSample, deal, unit_of
from rl.tree import Layout, Strand, tokens

Aggregate = Literal["tokens", "sequences"]
LayOut = Callable[[Sequence[Strand]], Layout]


@dataclass(frozen=True, eq=False)
class Row:
    """A sample as ids: `target` (tokens,) are the sampled tokens. weight: w_i above; 0 for a filler (sample None)."""

    encoded: Encoded
    target: Tensor
    weight: float
    sample: StepSample | None = None

    def __len__(self) -> int:
        return len(self.encoded.ids) + len(self.target)

    @cached_property
    def strand(self) -> Strand:
        return Strand.of(self.encoded, self.target)


@dataclass(frozen=True)
class Packed:
    """micro: windows * per_window micro-batches. items: this process's part of each window's normaliser."""

    micro: list[list[Row]]
    items: list[float]


def pack(
    samples: Sequence[StepSample],
    encoder: Encoder,
    *,
    windows: int,
    per_window: int,
    max_rows: int,
    aggregate: Aggregate,
    seed: Sequence[int],
    share: bool = False,
) -> Packed:
    """Deal one process's samples. max_rows: most rows a micro-batch may hold; beyond it rows are drawn (see above).

    Rows go to windows at random and are dealt by length inside a window, so that micro-batches pad little and the i-th
    micro-batch is about equally long on every process. share: rows that see the same step of the same episode go to
    windows as one and stay in one micro-batch, where they can share their prompt (rl/tree.py); micro-batches are then
    equal in tokens, each common prefix counted once. Same samples and seed, same result.
    """
    units = [unit_of(sample) if share else i for i, sample in enumerate(samples)]
    micro: list[list[Row]] = []
    items: list[float] = []
    for part, kept in deal(units, windows, max_rows * per_window, seed):
        lengths = [len(samples[i].completion.token_ids) for i in part]
        items.append(float(sum(lengths) if aggregate == "tokens" else len(part)))
        scale = len(part) / max(1, len(kept))
        rows = [_row(samples[i], encoder, scale, aggregate) for i in kept]
        if share:
            groups: dict[Hashable, list[Row]] = {}
            for i, row in zip(kept, rows, strict=True):
                groups.setdefault(units[i], []).append(row)
            micro += _balance(list(groups.values()), per_window, max_rows, encoder)
        else:
            rows.sort(key=len, reverse=True)
            micro += [[rows[i] for i in chunk] for chunk in np.array_split(np.arange(len(rows)), per_window)]
    return Packed(micro, items)


def _balance(groups: Sequence[list[Row]], count: int, most: int, encoder: Encoder) -> list[list[Row]]:
    """Groups to `count` micro-batches, heaviest first, each to the lightest one that has room for all of it; where none
    has, it is divided. The heaviest micro-batch comes first."""
    micro: list[list[Row]] = [[] for _ in range(count)]
    load = [0] * count
    weighed = [(tokens([row.strand for row in group], encoder), group) for group in groups]
    for _, group in sorted(weighed, key=lambda pair: pair[0], reverse=True):
        rest = group
        while rest:
            free = [i for i in range(count) if len(micro[i]) < most]
            i = min(free, key=lambda i: (len(micro[i]) + len(rest) > most, load[i]))
            taken, rest = rest[: most - len(micro[i])], rest[most - len(micro[i]) :]
            micro[i] = micro[i] + taken
            load[i] += tokens([row.strand for row in taken], encoder)
    return [micro[i] for i in sorted(range(count), key=lambda i: -load[i])]


def collate(rows: Sequence[Row], count: int, encoder: Encoder, lay: LayOut | None = None) -> dict[str, Any]:
    """TRL's inputs for `count` rows, fillers appended, without pixels (`with_pixels` adds those when they are needed).

    prompt_ids, prompt_mask (count, P) left-padded; completion_ids, completion_mask, tool_mask, rollout_logps (count, C)
    right-padded (rollout_logps is NaN where the sampler told none); mm_token_type_ids (count, P + C); advantages
    (count,); num_images per row; pictures and samples as references; layout, where `lay` is given.
    """
    rows = [*rows, *[filler(encoder)] * (count - len(rows))]
    longest = max(len(row.target) for row in rows)
    prompt_ids, prompt_mask = pad_left([row.encoded.ids for row in rows], encoder.pad)
    completion_ids = torch.full((count, longest), encoder.pad)
    completion_mask = torch.zeros((count, longest), dtype=torch.long)
    weights = torch.zeros((count, longest))
    rollout_logps = torch.full((count, longest), torch.nan)
    for i, row in enumerate(rows):
        n = len(row.target)
        completion_ids[i, :n] = row.target
        if row.sample is not None:
            completion_mask[i, :n] = 1
            weights[i, :n] = row.weight
            told = row.sample.completion.logprobs
            rollout_logps[i, : len(told)] = torch.tensor(told)
    image = torch.cat([prompt_ids == encoder.image_pad, torch.zeros_like(completion_ids, dtype=torch.bool)], dim=1)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "tool_mask": weights,
        "advantages": torch.tensor([row.sample.advantage if row.sample else 0.0 for row in rows]),
        "mm_token_type_ids": image.long(),
        "rollout_logps": rollout_logps,
        "num_images": [len(row.encoded.pictures) for row in rows],
        "pictures": [picture for row in rows for picture in row.encoded.pictures],
        "samples": [row.sample for row in rows],
        "layout": lay([row.strand for row in rows]) if lay is not None else None,
    }


def with_pixels(batch: dict[str, Any], encoder: Encoder, device: torch.device) -> dict[str, Any]:
    """A copy on `device`, with pixel_values and image_grid_thw unless its layout's forward will ask for its own; only one
    micro-batch's pixels exist at a time."""
    full = batch if batch["layout"] is not None else {**batch, **encoder.vision_inputs(batch["pictures"])}
    return {k: v.to(device) if isinstance(v, Tensor | Layout) else v for k, v in full.items()}


def _row(sample: StepSample, encoder: Encoder, scale: float, aggregate: Aggregate) -> Row:
    ids = sample.completion.token_ids
    where = f"episode {sample.episode_id}, sample {sample.sample}, step {sample.index}"
    if not ids:
        raise SetupError(f"{where}: the completion has no token ids; train with a policy that tells its tokens")
    if encoder.image_pad in ids:
        raise SetupError(f"{where}: an image pad was sampled; ban vision tokens in the server's sampling settings")
    weight = scale if aggregate == "tokens" else scale / len(ids)
    return Row(encoder.prompt(sample.prompt), torch.tensor(ids), weight, sample)


@lru_cache(maxsize=4)
def filler(encoder: Encoder) -> Row:
    """The smallest row that still runs every module, vision tower included; it weighs nothing."""
    side = 2 * encoder.vision.factor
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    picture = encoder.vision.picture(Screenshot(side, side, data=file.getvalue()))
    prompt = Prompt((Message("user", (picture,)),))
    return Row(encoder.prompt(prompt), torch.tensor([encoder.end_of_turn]), 0.0)
