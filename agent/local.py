"""A policy in this process: transformers weights, our own decode loop.

Only tokenizer, chat template and image processor of a checkpoint are used, never its Processor class: that one wants
torchvision, hides how text becomes ids, and turns `<|im_end|>` typed by a user into a real end of turn.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, DynamicCache
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file

from agent.errors import SetupError
from agent.policy import Request, Sampling
from agent.screen import Vision
from agent.types import Completion, Message, Picture, Prompt, Screenshot

_BREAK = "\ue000"  # private use: marks where a special token's spelling inside content must not be read as one
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
        self._special = re.compile("|".join(re.escape(s) for s in sorted(special, key=len, reverse=True)))
        self._pixels: OrderedDict[tuple[str, int, int], tuple[Tensor, Tensor]] = OrderedDict()
        self._held = 0
        self._check_template()

    def prompt(self, prompt: Prompt) -> Encoded:
        """Raises SetupError over `max_prompt_tokens` and for a picture whose size is not of this model's `vision`."""
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
            raise SetupError(
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
        return [i for piece in text.split(_BREAK) for i in self.tokenizer.encode(piece, add_special_tokens=False)]

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


# -------------------------------------------------------------------------------------------------------------- policy


class LocalPolicy:
    """Samples from a transformers vision-language model, plain or PEFT-wrapped, on the device the model is on.

    Each request has its own random stream: what is sampled depends on its logits and its seed, not on its neighbours.
    max_batch: most rows decoded together; max_batch_tokens: most prompt tokens among them, padding included.
    """

    def __init__(
        self, model: Any, encoder: Encoder, name: str, *, max_batch: int = 64, max_batch_tokens: int = 1 << 16
    ):
        self.model, self.encoder, self.name = model, encoder, name
        self.max_batch, self.max_batch_tokens = max_batch, max_batch_tokens
        rows = model.get_input_embeddings().weight
        vocabulary = getattr(rows, "ds_shape", rows.shape)[0]
        # Image pads among sampled tokens would ask the update for features that are not there; ids past the
        # tokenizer's own are padding of the embedding table.
        banned = torch.zeros(vocabulary, dtype=torch.bool)
        banned[list(encoder.special_ids)] = True
        banned[len(encoder.tokenizer) :] = True
        banned[encoder.end_of_turn] = False
        self._banned = banned

    @property
    def vision(self) -> Vision:
        return self.encoder.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """In order of the requests. Decodes prompts of like length together."""
        rows = [self.encoder.prompt(request.prompt) for request in requests]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        results: list[Completion | None] = [None] * len(rows)
        training = self.model.training
        self.model.eval()
        try:
            while order:
                chosen, order = self._first_batch(order, rows)
                seeds = [requests[i].seed for i in chosen]
                for i, answer in zip(chosen, self._decode([rows[i] for i in chosen], seeds, sampling), strict=True):
                    results[i] = answer
        finally:
            self.model.train(training)
        return [result for result in results if result is not None]

    def _first_batch(self, order: list[int], rows: Sequence[Encoded]) -> tuple[list[int], list[int]]:
        """Split `order` (shortest first) after as many rows as fit; at least one."""
        size = 1
        while size < min(self.max_batch, len(order)):
            if len(rows[order[size]].ids) * (size + 1) > self.max_batch_tokens:
                break
            size += 1
        return order[:size], order[size:]

    @torch.no_grad()
    def _decode(self, rows: Sequence[Encoded], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        model = plain_model(self.model)
        device = model.device
        inputs = {k: v.to(device) for k, v in self.encoder.batch(rows).items()}
        mask = inputs["attention_mask"]
        positions, shift = model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=mask,
        )
        following = mask.sum(1, keepdim=True) + shift
        uniforms = torch.from_numpy(
            np.stack([np.random.default_rng(seed % 2**64).random(sampling.max_new_tokens) for seed in seeds])
        )
        cache = DynamicCache(config=model.config.get_text_config())
        output = model(**inputs, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        banned, alive = self._banned.to(device), list(range(len(rows)))
        tokens: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        for step in range(sampling.max_new_tokens):
            scores = output.logits[:, -1].float()
            picked = pick(scores.masked_fill(banned, -torch.inf), uniforms[alive, step].to(device), sampling)
            told = scores.log_softmax(-1).gather(1, picked[:, None])[:, 0].tolist()
            ids = picked.tolist()
            for row, token, logprob in zip(alive, ids, told, strict=True):
                tokens[row].append(token)
                logprobs[row].append(logprob)
            keep = [i for i, token in enumerate(ids) if token != self.encoder.end_of_turn]
            if not keep or step + 1 == sampling.max_new_tokens:
                break
            if len(keep) < len(alive):
                alive = [alive[i] for i in keep]
                index = torch.tensor(keep, device=device)
                cache.batch_select_indices(index)
                picked, mask, following = picked[index], mask[index], following[index]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            output = model(
                input_ids=picked[:, None],
                attention_mask=mask,
                position_ids=following[None].expand(3, -1, -1),
                past_key_values=cache,
                use_cache=True,
            )
            following = following + 1
        return [self._completion(t, p) for t, p in zip(tokens, logprobs, strict=True)]

    def _completion(self, token_ids: list[int], logprobs: list[float]) -> Completion:
        ended = bool(token_ids) and token_ids[-1] == self.encoder.end_of_turn
        text = self.encoder.text(token_ids)
        return Completion(text, tuple(token_ids), tuple(logprobs), "stop" if ended else "length")


def pick(scores: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """One token per row by inverse CDF. scores: (rows, vocabulary), -inf where banned; uniforms: (rows,) in [0, 1)."""
    if sampling.temperature == 0:
        return scores.argmax(-1)
    scores = scores / sampling.temperature
    if sampling.top_k:
        kth = scores.topk(min(sampling.top_k, scores.shape[-1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if sampling.top_p < 1:
        ordered, index = scores.softmax(-1).sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= sampling.top_p  # the token that crosses top_p stays
        scores = scores.masked_fill(outside.gather(1, index.argsort(-1)), -torch.inf)
    cdf = scores.double().softmax(-1).cumsum(-1)
    total = cdf[:, -1]
    # Strictly greater, and strictly below the total: a token of probability zero spans no part of the CDF.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target[:, None], right=True)[:, 0]


def plain_model(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper; its adapters stay active, they live in the layers."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


# ------------------------------------------------------------------------------------------------------------- loading


def load_encoder(
    path: str | Path,
    *,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    max_prompt_tokens: int = 12288,
) -> Encoder:
    """Tokenizer, chat template and image processor of a folder or hub name. Pixel bounds override the checkpoint's."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        processor = Qwen2VLImageProcessorPil.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise SetupError(_cannot_load(path, error)) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _processor_template(path)
    size = dict(processor.size)
    size |= {"longest_edge": max_pixels} if max_pixels else {}
    size |= {"shortest_edge": min_pixels} if min_pixels else {}
    processor.size = size
    return Encoder(tokenizer, processor, max_prompt_tokens=max_prompt_tokens)


def load_policy(
    path: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    *,
    adapter: str | Path | None = None,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    max_prompt_tokens: int = 12288,
    max_batch: int = 64,
    name: str | None = None,
) -> LocalPolicy:
    """A policy from a folder or hub name. `path` may be a PEFT adapter folder; its base model is then loaded first.

    device "auto": a GPU when there is one. dtype "auto": the checkpoint's on a GPU, float32 on a CPU. Raises SetupError
    when the folder, the adapter or the hub is out of reach, or the model is not a supported vision-language model.
    """
    base: str | Path = path
    if adapter is None and (Path(path) / "adapter_config.json").is_file():
        adapter, base = path, adapter_base(path)
    model = load_model(base, device, dtype)
    if adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, str(adapter))
        except (OSError, ValueError, RuntimeError) as error:
            raise SetupError(f"adapter {adapter} does not fit {base}: {error}; check both paths") from error
    encoder = load_encoder(
        path if (Path(path) / "preprocessor_config.json").is_file() else base,
        max_pixels=max_pixels,
        min_pixels=min_pixels,
        max_prompt_tokens=max_prompt_tokens,
    )
    return LocalPolicy(model.eval(), encoder, name or Path(path).name, max_batch=max_batch)


def load_model(path: str | Path, device: str = "auto", dtype: str = "auto") -> Any:
    """AutoModelForImageTextToText on one device, in evaluation mode."""
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    precision: Any = dtype if dtype != "auto" or where != "cpu" else torch.float32
    try:
        family = AutoConfig.from_pretrained(path).model_type
        if family not in ("qwen3_vl", "qwen2_5_vl"):
            raise SetupError(
                f"{path} is a {family} model; give a vision-language checkpoint of the Qwen2.5-VL or Qwen3-VL family"
            )
        return AutoModelForImageTextToText.from_pretrained(path, dtype=precision).to(where)
    except (OSError, ValueError) as error:
        raise SetupError(_cannot_load(path, error)) from error


def adapter_base(folder: str | Path) -> str:
    """Name or path of the model an adapter folder was trained on."""
    file = Path(folder) / "adapter_config.json"
    try:
        base = json.loads(file.read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise SetupError(f"{file} names no base model ({error}); pass the base model and adapter={folder}") from error
    if not isinstance(base, str) or not base:
        raise SetupError(f"{file} names no base model; pass the base model and adapter={folder}")
    return base


def _cannot_load(path: str | Path, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    looks_local = Path(path).is_absolute() or str(path).startswith(".") or str(path).count("/") != 1
    if Path(path).exists() or looks_local:
        state = "is incomplete or of another kind" if Path(path).exists() else "does not exist"
        return f"model folder {path} {state} ({first}); pass a folder with config.json, weights and tokenizer"
    return (
        f"model {path} is neither a folder nor reachable on the hub ({first}); download it first with "
        f"`hf download {path}`, or unset HF_HUB_OFFLINE"
    )


def _processor_template(path: str | Path) -> str | None:
    """Older checkpoints keep the template in chat_template.json, beside the processor instead of the tokenizer."""
    with suppress(OSError, ValueError, KeyError):
        file = cached_file(str(path), "chat_template.json")
        if file:
            return str(json.loads(Path(file).read_text())["chat_template"])
    raise SetupError(f"{path} has no chat template; add chat_template.jinja to the folder")
