"""Prompt -> token ids and pixels: the one place where text becomes tokens, for sampling, RL updates and SFT alike.

Of a checkpoint only tokenizer, chat template and image processor are used, never its Processor class, which needs
torchvision, hides how text becomes ids, and turns a `<|im_end|>` that a user typed into a real end of turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from guiderail.agent.errors import PromptTooLong, SetupError
from guiderail.agent.local.pixels import Pixels
from guiderail.agent.screen import Vision
from guiderail.agent.types import Message, Picture, Prompt, Screenshot

_BREAK = (
    "\ue000"  # private use: splits the spelling of a special token inside content, so that it is not read as that token
)
_CPU = torch.device("cpu")
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
    """ids: (tokens,), int64, image pads expanded. pictures: what the pads stand for, in order."""

    ids: Tensor
    pictures: tuple[Picture, ...]


class Encoder:
    """Prompt -> ids and pixels.

    max_prompt_tokens: the longest prompt accepted, image tokens included. pixel_bytes, decoders: bound and threads of what
    holds each distinct screenshot's patches (agent/local/pixels.py). vision: the checkpoint's resize rule. Raises SetupError
    for a tokenizer, chat template or image processor that does not fit.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        *,
        max_prompt_tokens: int = 12288,
        pixel_bytes: int = 1 << 30,
        decoders: int = 2,
    ):
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.max_prompt_tokens = max_prompt_tokens
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
        self._pixels = Pixels(image_processor, pixel_bytes, decoders)
        self._check_template()

    def prompt(self, prompt: Prompt) -> Encoded:
        """The prompt's ids, up to where the assistant's turn begins. Raises PromptTooLong over `max_prompt_tokens`,
        SetupError for a picture that is not sized for `vision`."""
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
                "max_prompt_tokens",
                len(ids),
            )
        return Encoded(torch.tensor(ids), pictures)

    def target(self, text: str) -> Tensor:
        """An assistant turn as ids (tokens,), end of turn included; special tokens spelled in the text stay text."""
        return torch.tensor([*self._ids(self._spell_out(text)), self.end_of_turn])

    def text(self, token_ids: Sequence[int]) -> str:
        """Sampled ids as text up to the end of turn, without special tokens."""
        ids = list(token_ids)
        if self.end_of_turn in ids:
            ids = ids[: ids.index(self.end_of_turn)]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def image_tokens(self, picture: Picture) -> int:
        """Number of image tokens. Raises SetupError for a picture that is not sized for `vision`."""
        factor = self.vision.factor
        if picture.width % factor or picture.height % factor:
            raise SetupError(
                f"a picture of {picture.width}x{picture.height} px does not fit this model, whose sides are multiples "
                f"of {factor}; build prompts with this policy's own `vision`"
            )
        return (picture.width // factor) * (picture.height // factor)

    def pixels(
        self, picture: Picture, dtype: torch.dtype = torch.float32, device: torch.device = _CPU
    ) -> tuple[Tensor, Tensor]:
        """Patches (patches, channels * time * patch^2) on `device`, and grid (3,): time, rows, columns in patches.

        Kept by the screenshot's content and the model's size, so each distinct screenshot is decoded once. Raises SetupError
        for a picture that is not sized for `vision`.
        """
        grid = self.grid(picture)
        return self._pixels.patches(picture, dtype, device), grid

    def ahead(self, pictures: Iterable[Picture]) -> None:
        """Decode these while other work goes on: their pixels will be asked for soon."""
        self._pixels.ahead(pictures)

    def grid(self, picture: Picture) -> Tensor:
        """The grid (3,) of `pixels`, without reading the screenshot."""
        self.image_tokens(picture)
        patch = self.vision.factor // self.merge
        return torch.tensor([1, picture.height // patch, picture.width // patch])

    def vision_inputs(
        self, pictures: Sequence[Picture], dtype: torch.dtype = torch.float32, device: torch.device = _CPU
    ) -> dict[str, Tensor]:
        """pixel_values (patches of all pictures, dim) on `device`, and image_grid_thw (pictures, 3); empty without pictures."""
        if not pictures:
            return {}
        self.ahead(pictures)
        parts = [self.pixels(picture, dtype, device) for picture in pictures]
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
        """Pieces between breaks are tokenized apart, so a special token's spelling that was split stays plain text."""
        return [i for piece in text.split(_BREAK) for part in self._special.split(piece) for i in self._plain(part)]

    def _plain(self, text: str) -> list[int]:
        """text: a special token, or text without one. A tokenizer cuts special tokens out first, so the text between them
        is tokenized by itself. Cached, since a rollout's history and its group's goal come again with every step."""
        if text in self._special_id:
            return [self._special_id[text]]
        if text not in self._known:
            if len(self._known) == _REMEMBERED:
                self._known.clear()
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return self._known[text]

    def _check_template(self) -> None:
        """Templates of "thinking" checkpoints silently drop the thoughts of past turns, which semi-online RL needs."""
        chat = [_as_chat(message, self._spell_out) for message in _PROBE.messages]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        if str(_PROBE.messages[1].parts[0]) not in text:
            raise SetupError("the chat template rewrites past assistant turns; use an Instruct checkpoint's template")
        if text.count("<|image_pad|>") != 1:
            raise SetupError("the chat template does not place images; use the vision-language checkpoint's template")


def _as_chat(message: Message, clean: Any) -> dict[str, Any]:
    """Neighbouring strings are joined before cleaning, so that two halves of a special token cannot meet after it."""
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
    """ids and int64 mask, both (rows, longest)."""
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side="left"), mask
