"""A policy in this process: transformers weights, our own decode loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file

from agent.decode import Gate, Speech, decode
from agent.encode import Encoded, Encoder
from agent.errors import PromptTooLong, SetupError
from agent.policy import Request, Sampling, Tricks
from agent.screen import Vision
from agent.shipped import shipped
from agent.tree import Ints, Row, batches, lay_out
from agent.types import Completion, Prompt
from agent.vision import VisionStore, plain_model

__all__ = [
    "Encoder",
    "LocalPolicy",
    "adapter_base",
    "load_encoder",
    "load_model",
    "load_policy",
    "plain_model",
]

_MOST_PAIRS = 1 << 28  # entries of the attention mask of one batch

# -------------------------------------------------------------------------------------------------------------- policy


class LocalPolicy:
    """Samples from a transformers vision-language model, plain or PEFT-wrapped, on the device the model is on.

    Each request has its own random stream: what is sampled depends on its logits and its seed, not on its neighbours.
    max_batch: most rows decoded together; max_batch_tokens: most prompt tokens among them, padding included. tricks: what
    is shared between rows (`Tricks`); none of it changes an answer. store: where vision features are kept; give the same
    one to whatever else looks at the same screenshots.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        name: str,
        *,
        max_batch: int = 64,
        max_batch_tokens: int = 1 << 16,
        tricks: Tricks | None = None,
        store: VisionStore | None = None,
    ):
        self.model, self.encoder, self.name = model, encoder, name
        self.max_batch, self.max_batch_tokens = max_batch, max_batch_tokens
        self.tricks = tricks or Tricks()
        shared = store if self.tricks.share_vision else None
        self.store = shared or VisionStore(encoder, on=self.tricks.share_vision)
        self.gate = Gate()
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
        encoded = self._encoded(requests)
        asked = [i for i, row in enumerate(encoded) if row is not None]
        results = [Completion("", finish="budget")] * len(requests)
        training = self.model.training
        self.model.eval()
        self.gate.begin()
        try:
            speeches = self._decode(
                [encoded[i] for i in asked],  # type: ignore[misc]
                [self._speech(requests[i], sampling) for i in asked],
                sampling,
            )
        finally:
            self.model.train(training)
        for i, speech in zip(asked, speeches, strict=True):
            results[i] = self._completion(speech)
        return results

    def _encoded(self, requests: Sequence[Request]) -> list[Encoded | None]:
        """Rollouts of a group that have said the same so far ask the same."""
        known: dict[Prompt, Encoded | None] = {}
        for prompt in (request.prompt for request in requests):
            if prompt not in known:
                try:
                    known[prompt] = self.encoder.prompt(prompt)
                except PromptTooLong:
                    if not any(message.role == "assistant" for message in prompt.messages):
                        raise
                    known[prompt] = None
        return [known[request.prompt] for request in requests]

    def _speech(self, request: Request, sampling: Sampling) -> Speech:
        uniforms = np.random.default_rng(request.seed % 2**64).random(sampling.max_new_tokens)
        draft: list[int] = []
        if self.tricks.drafts and request.prompt.draft and self.gate.open():
            said = self.encoder.target(request.prompt.draft)[: sampling.max_new_tokens - 1]
            draft = said[
                : int((~self._banned[said] & (said != self.encoder.end_of_turn)).long().cumprod(0).sum())
            ].tolist()
        return Speech(torch.from_numpy(uniforms), draft)

    @torch.no_grad()
    def _decode(self, encoded: Sequence[Encoded], speeches: list[Speech], sampling: Sampling) -> list[Speech]:
        if not encoded:
            return speeches
        model = plain_model(self.model)
        banned, rows = self._banned.to(model.device), self._rows(model, encoded, speeches)
        packs = lay_out(
            rows, share=self.tricks.share_prefill, ratio=_ratio(model.config.get_text_config()), most=self.max_batch
        )
        for batch in batches(packs, self.max_batch, self.max_batch_tokens, _MOST_PAIRS):
            decode(
                model,
                batch,
                speeches,
                self.store.inputs(model, [picture for pack in batch for picture in pack.pictures]),
                banned=banned,
                end=self.encoder.end_of_turn,
                pad=self.encoder.pad,
                sampling=sampling,
                gate=self.gate,
            )
        return speeches

    def _rows(self, model: Any, encoded: Sequence[Encoded], speeches: Sequence[Speech]) -> list[Row]:
        codes: dict[tuple[str, int, int], int] = {}
        known: dict[int, tuple[Ints, Ints]] = {}
        heads: dict[bytes, Ints] = {}
        rows = []
        for row, speech in zip(encoded, speeches, strict=True):
            if id(row) not in known:
                keys = row.ids.numpy().copy()
                pads = np.flatnonzero(keys == self.encoder.image_pad)
                sizes = [self.encoder.image_tokens(picture) for picture in row.pictures]
                names = [(p.screenshot.digest, p.width, p.height) for p in row.pictures]
                keys[pads] = np.repeat([-1 - codes.setdefault(name, len(codes)) for name in names], sizes)
                head = keys[: pads[-1] + 1 if len(pads) else 1]
                if head.tobytes() not in heads:
                    heads[head.tobytes()] = self._positions(model, Encoded(row.ids[: len(head)], row.pictures))
                known[id(row)] = keys, _go_on(heads[head.tobytes()], len(keys))
            keys, positions = known[id(row)]
            if speech.draft:
                keys = np.concatenate([keys, speech.draft])
                positions = _go_on(positions, len(keys))
            rows.append(Row(keys, positions, row.pictures, len(row.ids)))
        return rows

    def _positions(self, model: Any, row: Encoded) -> Ints:
        """The model's own M-RoPE positions, shape (3, tokens)."""
        grids = [self.encoder.grid(picture) for picture in row.pictures]
        positions, _ = model.model.get_rope_index(
            row.ids[None],
            mm_token_type_ids=(row.ids[None] == self.encoder.image_pad).long(),
            image_grid_thw=torch.stack(grids) if grids else None,
            attention_mask=torch.ones_like(row.ids[None]),
        )
        found: Ints = positions[:, 0].numpy()
        return found

    def _completion(self, speech: Speech) -> Completion:
        ended = bool(speech.tokens) and speech.tokens[-1] == self.encoder.end_of_turn
        text = self.encoder.text(speech.tokens)
        return Completion(text, tuple(speech.tokens), tuple(speech.logprobs), "stop" if ended else "length")


def _go_on(positions: Ints, length: int) -> Ints:
    """M-RoPE positions (3, tokens) continued by text: after the last picture all three count on together."""
    after = positions.max() + 1 + np.arange(length - positions.shape[1])
    return np.concatenate([positions, np.broadcast_to(after, (3, len(after)))], axis=1)


def _ratio(config: Any) -> float:
    """Multiplications of one token outside attention over those of one token looking at one other, in a layer."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    weights = config.hidden_size * (2 * head * (heads + groups) + 3 * config.intermediate_size)
    return float(weights / (2 * heads * head))


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
    tricks: Tricks | None = None,
    features: Path | None = None,
    name: str | None = None,
) -> LocalPolicy:
    """A policy from a folder or hub name. `path` may be a PEFT adapter folder; its base model is then loaded first.

    features: a folder to keep vision features in, for other processes and for other checkpoints with the same tower.
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
    tricks = tricks or Tricks()
    store = VisionStore(encoder, folder=features, on=tricks.share_vision)
    return LocalPolicy(model.eval(), encoder, name, max_batch=max_batch, tricks=tricks, store=store)


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
