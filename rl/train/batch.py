"""StepSamples -> the tensors TRL's loss reads.

One generation of samples is dealt into `windows` optimizer steps of `per_window` micro-batches each. Every process makes
the same number of micro-batches with the same number of rows, whatever it sampled: under ZeRO-3 and DDP a missing
forward pass hangs the others. Gaps are filled with rows of weight 0.

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
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from guiderail.agent.errors import SetupError
from guiderail.agent.local.encode import Encoded, Encoder, pad_left
from guiderail.agent.types import Message, Prompt, Screenshot
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.rollout.generation import over_updates, step_of
from guiderail.rl.train.divergence import Lesson
from guiderail.rl.train.prefix import EncodedTurn, Layout, count_tokens

LayOut = Callable[[Sequence[EncodedTurn]], Layout]


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """A sample as ids. target: (tokens,), the sampled tokens. weight: w_i above; 0 for a filler, whose sample is None."""

    encoded: Encoded
    target: Tensor
    weight: float
    sample: StepSample | None = None

    def __len__(self) -> int:
        """Tokens of prompt and target."""
        return len(self.encoded.ids) + len(self.target)

    @cached_property
    def turn(self) -> EncodedTurn:
        """Prompt and target as one row."""
        return EncodedTurn.of(self.encoded, self.target)


@dataclass(frozen=True)
class MicroBatches:
    """batches: windows * per_window micro-batches. items: this process's part of each window's normaliser."""

    batches: list[list[EncodedSample]]
    items: list[float]


def micro_batches(
    samples: Sequence[StepSample],
    encoder: Encoder,
    *,
    windows: int,
    per_window: int,
    max_rows: int,
    by_tokens: bool,
    seed: Sequence[int],
    share: bool = False,
) -> MicroBatches:
    """Deal one process's samples. max_rows: the most rows in a micro-batch; of more, rows are drawn at random (see above).
    by_tokens: the token-level loss above, else the mean over sequences.

    Rows go to windows at random and are dealt by length inside a window, so that micro-batches pad little and the i-th
    micro-batch is about equally long on every process. share: samples that see the same step of the same episode go to one
    window and stay in one micro-batch, where they can share their prompt (rl/train/prefix.py); micro-batches are then equal
    in tokens, each common prefix counted once. The same samples and seed give the same result. Raises SetupError for a
    sample without token ids or with an image pad among them.
    """
    steps: list[Hashable] = [step_of(sample) if share else i for i, sample in enumerate(samples)]
    lengths = [len(sample.completion.token_ids) for sample in samples]
    dealt = over_updates(steps, lengths, windows, max_rows * per_window, by_tokens, seed)
    batches: list[list[EncodedSample]] = []
    for window in dealt:
        rows = [_encode(samples[i], encoder, weight) for i, weight in zip(window.kept, window.weights, strict=True)]
        if share:
            groups: dict[Hashable, list[EncodedSample]] = {}
            for i, row in zip(window.kept, rows, strict=True):
                groups.setdefault(steps[i], []).append(row)
            batches += _balance(list(groups.values()), per_window, max_rows, encoder)
        else:
            rows.sort(key=len, reverse=True)
            batches += [[rows[i] for i in chunk] for chunk in np.array_split(np.arange(len(rows)), per_window)]
    return MicroBatches(batches, [window.items for window in dealt])


def _balance(
    groups: Sequence[list[EncodedSample]], count: int, most: int, encoder: Encoder
) -> list[list[EncodedSample]]:
    """Groups into `count` micro-batches of at most `most` rows: heaviest group first, each to the lightest micro-batch with
    room for all of it; a group that fits nowhere is divided. The heaviest micro-batch comes first."""
    batches: list[list[EncodedSample]] = [[] for _ in range(count)]
    load = [0] * count
    weighed = [(count_tokens([row.turn for row in group], encoder), group) for group in groups]
    for _, group in sorted(weighed, key=lambda pair: pair[0], reverse=True):
        rest = group
        while rest:
            free = [i for i in range(count) if len(batches[i]) < most]
            i = min(free, key=lambda i: (len(batches[i]) + len(rest) > most, load[i]))
            taken, rest = rest[: most - len(batches[i])], rest[most - len(batches[i]) :]
            batches[i] = batches[i] + taken
            load[i] += count_tokens([row.turn for row in taken], encoder)
    return [batches[i] for i in sorted(range(count), key=lambda i: -load[i])]


def collate(rows: Sequence[EncodedSample], count: int, encoder: Encoder, lay: LayOut | None = None) -> dict[str, Any]:
    """TRL's inputs for `count` rows, fillers appended, without pixels (`with_pixels` adds those when they are needed).

    prompt_ids, prompt_mask: (count, P), left-padded. completion_ids, completion_mask, tool_mask, rollout_logps: (count, C),
    right-padded; rollout_logps is NaN where the sampler reported none. mm_token_type_ids: (count, P + C). advantages:
    (count,). num_images: per row. pictures, samples: references. layout: None unless `lay` is given.
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
            sampled = row.sample.completion.logprobs
            rollout_logps[i, : len(sampled)] = torch.tensor(sampled)
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
        "layout": lay([row.turn for row in rows]) if lay is not None else None,
    }


def with_pixels(batch: dict[str, Any], encoder: Encoder, device: torch.device) -> dict[str, Any]:
    """A copy on `device`, with pixel_values and image_grid_thw unless it has a layout, whose forward fetches its own. Only
    one micro-batch's pixels exist at a time."""
    full = batch if batch["layout"] is not None else {**batch, **encoder.vision_inputs(batch["pictures"])}
    return {k: v.to(device) if isinstance(v, Tensor | Layout | Lesson) else v for k, v in full.items()}


def _encode(sample: StepSample, encoder: Encoder, weight: float) -> EncodedSample:
    ids = sample.completion.token_ids
    where = f"{sample.unit}, sample {sample.sample}, step {sample.index}"
    if not ids:
        raise SetupError(f"{where}: the completion has no token ids; train with a policy that reports its tokens")
    if encoder.image_pad in ids:
        raise SetupError(f"{where}: an image pad was sampled; ban vision tokens in the server's sampling settings")
    return EncodedSample(encoder.prompt(sample.prompt), torch.tensor(ids), weight, sample)


@lru_cache(maxsize=4)
def filler(encoder: Encoder) -> EncodedSample:
    """The smallest row that runs every module, vision tower included; its weight is 0."""
    side = 2 * encoder.vision.factor
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    picture = encoder.vision.picture(Screenshot(side, side, data=file.getvalue()))
    prompt = Prompt((Message("user", (picture,)),))
    return EncodedSample(encoder.prompt(prompt), torch.tensor([encoder.end_of_turn]), 0.0)
