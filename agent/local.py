"""A policy in this process: transformers weights, our own decode loop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, DynamicCache
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file

from agent.encode import Encoded, Encoder
from agent.errors import PromptTooLong, SetupError
from agent.policy import Request, Sampling
from agent.screen import Vision
from agent.shipped import shipped
from agent.types import Completion, Prompt
from agent.vision import plain_model

__all__ = [
    "Encoder",
    "LocalPolicy",
    "adapter_base",
    "load_encoder",
    "load_model",
    "load_policy",
    "pick",
    "plain_model",
]

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
        """In order of the requests. Decodes prompts of like length together.

        A prompt that is too long because of the conversation in it is answered with finish "budget"; one that is too long
        from the start is a SetupError.
        """
        encoded = [self._encoded(request.prompt) for request in requests]
        rows = {i: row for i, row in enumerate(encoded) if row is not None}
        order = sorted(rows, key=lambda i: len(rows[i].ids))
        results = [Completion("", finish="budget")] * len(requests)
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
        return results

    def _encoded(self, prompt: Prompt) -> Encoded | None:
        try:
            return self.encoder.prompt(prompt)
        except PromptTooLong:
            if any(message.role == "assistant" for message in prompt.messages):
                return None
            raise

    def _first_batch(self, order: list[int], rows: Mapping[int, Encoded]) -> tuple[list[int], list[int]]:
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


# ------------------------------------------------------------------------------------------------------------- loading


def load_encoder(
    path: str | Path,
    *,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    max_prompt_tokens: int = 12288,
) -> Encoder:
    """Tokenizer, chat template and image processor of a folder or hub name. Pixel bounds override the checkpoint's."""
    path = shipped(path)
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
    name = name or Path(path).name
    path = base = shipped(path)
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
    return LocalPolicy(model.eval(), encoder, name, max_batch=max_batch)


def load_model(path: str | Path, device: str = "auto", dtype: str = "auto") -> Any:
    """AutoModelForImageTextToText on one device, in evaluation mode."""
    path = shipped(path)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    precision: Any = dtype if dtype != "auto" or where != "cpu" else torch.float32
    try:
        family = AutoConfig.from_pretrained(path).model_type
        if family not in ("qwen3_vl", "qwen2_5_vl"):
            raise SetupError(
                f"{path} is a {family} model; give a vision-language checkpoint of the Qwen2.5-VL or Qwen3-VL family"
            )
        return AutoModelForImageTextToText.from_pretrained(path, dtype=precision).to(where)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
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
