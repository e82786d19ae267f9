"""Prompt -> token ids and pixels: the one place where text becomes tokens, for sampling, RL updates and SFT alike.

Only tokenizer, chat template and image processor of a checkpoint are used, never its Processor class: that one wants
torchvision, hides how text becomes ids, and turns `<|im_end|>` typed by a user into a real end of turn.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from agent.errors import PromptTooLong, SetupError
from agent.screen import Vision
from agent.types import Message, Picture, Prompt, Screenshot

_BREAK = "\ue000"  # private use: marks where a special token's spelling inside content must not be read as one
_REMEMBERED = 4096  # pieces of text whose ids are kept
_PROBE = Prompt(
    (
        Message("user", ("goal",)),
        Message("assistant", ("<think>why</think>\n<action>\n{}\n</action>",)),
        Message("user", ("next", Picture(Screenshot(2, 2), 2, 2))),
    )
)


@dataclass(frozen=True, eq=False)
class Encoded:
    """ids: shape (tokens,), int64, image pads expanded. pictures: what the pads stand for, in order."""

    ids: Tensor
    pictures: tuple[Picture, ...]


class Encoder:
    """Prompt -> ids and pixels; the one place where text becomes tokens, for sampling, RL updates and SFT alike.

    vision: resize rule of the checkpoint. max_prompt_tokens: longest prompt accepted, image tokens included; a longer
    one is a SetupError. pixel_bytes: bound of the cache that holds each distinct screenshot's patches once.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        *,
        max_prompt_tokens: int = 12288,
        pixel_bytes: int = 1 << 30,
    ):
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.max_prompt_tokens, self.pixel_bytes = max_prompt_tokens, pixel_bytes
        self.merge = int(image_processor.merge_size)
        size = image_processor.size
        self.vision = Vision(
            factor=int(image_processor.patch_size) * self.merge,
            min_pixels=int(size["shortest_edge"]),
            max_pixels=int(size["longest_edge"]),
        )
        special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        missing = [t for t in ("<|image_pad|>", "<|im_end|>") if t not in special]
        if missing:
            raise SetupError(f"the tokenizer has no {' or '.join(missing)}; use a Qwen2.5-VL or Qwen3-VL checkpoint")
        self.image_pad, self.end_of_turn = special["<|image_pad|>"], special["<|im_end|>"]
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end_of_turn
        self.special_ids = tuple(sorted(special.values()))
        self._special = re.compile("(" + "|".join(re.escape(s) for s in sorted(special, key=len, reverse=True)) + ")")
        self._special_id, self._known = special, dict[str, list[int]]()
        self._pixels: OrderedDict[tuple[str, int, int], tuple[Tensor, Tensor]] = OrderedDict()
        self._held = 0
        self._check_template()

    def prompt(self, prompt: Prompt) -> Encoded:
        """Raises PromptTooLong over `max_prompt_tokens`, SetupError for a picture that is not sized for `vision`."""
        text = self.tokenizer.apply_chat_template(
            [_as_chat(message, self._spell_out) for message in prompt.messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        flat = self._ids(text)
        pictures, ids = prompt.pictures, []
        if flat.count(self.image_pad) != len(pictures):
            raise SetupError(
                f"the chat template wrote {flat.count(self.image_pad)} image places for {len(pictures)} pictures; "
                "use the checkpoint's own vision-language template"
            )
        shown = iter(pictures)
        for token in flat:
            ids += [token] * self.image_tokens(next(shown)) if token == self.image_pad else [token]
        if len(ids) > self.max_prompt_tokens:
            images = ids.count(self.image_pad)
            raise PromptTooLong(
                f"a prompt has {len(ids)} tokens ({images} of them for {len(pictures)} pictures), the limit is "
                f"{self.max_prompt_tokens}; lower max_pixels or the number of screenshots kept, or raise "
                "max_prompt_tokens"
            )
        return Encoded(torch.tensor(ids), pictures)

    def target(self, text: str) -> Tensor:
        """An assistant turn as ids, shape (tokens,), end of turn included; special spellings in it stay text."""
        return torch.tensor([*self._ids(self._spell_out(text)), self.end_of_turn])

    def text(self, token_ids: Sequence[int]) -> str:
        """Sampled ids as text up to the end of turn, without special tokens."""
        ids = list(token_ids)
        if self.end_of_turn in ids:
            ids = ids[: ids.index(self.end_of_turn)]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def image_tokens(self, picture: Picture) -> int:
        factor = self.vision.factor
        if picture.width % factor or picture.height % factor:
            raise SetupError(
                f"a picture of {picture.width}x{picture.height} px does not fit this model, whose sides are multiples "
                f"of {factor}; build prompts with this policy's own `vision`"
            )
        return (picture.width // factor) * (picture.height // factor)

    def pixels(self, picture: Picture) -> tuple[Tensor, Tensor]:
        """Patches (rows, channels * time * patch^2) in float32, and grid (3,) = time, rows, columns in patches.

        Cached under the screenshot's content and the model's size: a prompt holds references, so a rollout batch costs
        one decode per distinct screenshot.
        """
        key = (picture.screenshot.digest, picture.width, picture.height)
        if key in self._pixels:
            self._pixels.move_to_end(key)
            return self._pixels[key]
        image = picture.screenshot.image()
        if image.size != (picture.width, picture.height):
            image = image.resize((picture.width, picture.height), Image.Resampling.BICUBIC)
        features = self.image_processor(images=[image], do_resize=False, return_tensors="pt")
        patches, grid = features["pixel_values"], features["image_grid_thw"][0]
        if int(grid.prod()) // self.merge**2 != self.image_tokens(picture):
            raise SetupError(
                f"screenshot {picture.screenshot.path or picture.screenshot.digest[:12]} at {picture.width}x"
                f"{picture.height} px gave {int(grid.prod()) // self.merge**2} image features for "
                f"{self.image_tokens(picture)} image tokens; the image processor does not belong to this model"
            )
        self._pixels[key] = (patches, grid)
        self._held += patches.nbytes
        while self._held > self.pixel_bytes and len(self._pixels) > 1:
            self._held -= self._pixels.popitem(last=False)[1][0].nbytes
        return patches, grid

    def grid(self, picture: Picture) -> Tensor:
        """Shape (3,): time, rows, columns in patches; as `pixels` gives it, without looking at the screenshot."""
        self.image_tokens(picture)
        patch = self.vision.factor // self.merge
        return torch.tensor([1, picture.height // patch, picture.width // patch])

    def vision_inputs(self, pictures: Sequence[Picture]) -> dict[str, Tensor]:
        """pixel_values (patches of all pictures, dim) and image_grid_thw (pictures, 3); empty without pictures."""
        if not pictures:
            return {}
        parts = [self.pixels(picture) for picture in pictures]
        return {"pixel_values": torch.cat([p for p, _ in parts]), "image_grid_thw": torch.stack([g for _, g in parts])}

    def batch(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Left-padded model inputs: input_ids, attention_mask, mm_token_type_ids (rows, longest), and the pixels."""
        ids, mask = pad_left([row.ids for row in rows], self.pad)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == self.image_pad).long(),
            **self.vision_inputs([picture for row in rows for picture in row.pictures]),
        }

    def save(self, folder: Path) -> None:
        """Tokenizer, chat template and image processor, next to the weights."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def _spell_out(self, content: str) -> str:
        return self._special.sub(lambda m: m[0][0] + _BREAK + m[0][1:], content.replace(_BREAK, ""))

    def _ids(self, text: str) -> list[int]:
        """Pieces between breaks are read apart, so a special token's spelling that was broken up stays plain text."""
        return [i for piece in text.split(_BREAK) for part in self._special.split(piece) for i in self._plain(part)]

    def _plain(self, text: str) -> list[int]:
        """A special token, or text without one: a tokenizer cuts those out first, so what lies between is read by itself.
        Remembered, since a walk's history and its group's goal come again with every step."""
        if text in self._special_id:
            return [self._special_id[text]]
        if text not in self._known:
            if len(self._known) == _REMEMBERED:
                self._known.clear()
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return self._known[text]

    def _check_template(self) -> None:
        """Templates of "thinking" checkpoints drop the thoughts of past turns, silently. Semi-online history is them."""
        chat = [_as_chat(message, self._spell_out) for message in _PROBE.messages]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        if str(_PROBE.messages[1].parts[0]) not in text:
            raise SetupError("the chat template rewrites past assistant turns; use an Instruct checkpoint's template")
        if text.count("<|image_pad|>") != 1:
            raise SetupError("the chat template does not place images; use the vision-language checkpoint's template")


def _as_chat(message: Message, clean: Any) -> dict[str, Any]:
    """Neighbouring strings are joined first: two halves of a special token must not meet after cleaning."""
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if not isinstance(part, str):
            parts.append({"type": "image"})
        elif parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += part
        else:
            parts.append({"type": "text", "text": part})
    for item in parts:
        if item["type"] == "text":
            item["text"] = clean(item["text"])
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {"role": message.role, "content": parts[0]["text"]}
    return {"role": message.role, "content": parts}


def pad_left(rows: Sequence[Tensor], value: int) -> tuple[Tensor, Tensor]:
    """(rows, longest) ids and int64 mask."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), value)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
    return ids, mask
