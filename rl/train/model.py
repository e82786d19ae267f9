"""The model to train, and whether the recordings fit into its prompt budget."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import TrainingArguments

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import PromptTooLong, SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_model, with_adapter
from guiderail.agent.local.vision import plain_model
from guiderail.agent.types import Episode, Prompt
from guiderail.envs.recordings.replay import expert_prompt


def trainable_model(
    path: str | Path,
    args: TrainingArguments,
    *,
    adapter: str | Path | None = None,
    lora: LoraConfig | None = None,
    freeze_vision: bool = False,
    dtype: str = "auto",
) -> Any:
    """The model to train, on the CPU; make `args` first (ZeRO-3 shards while loading). `lora` is adjusted in place.

    dtype "auto": float32 on a CPU and for full fine-tuning without DeepSpeed, whose optimizer would lose small updates
    in bfloat16; else the checkpoint's own.
    """
    if adapter is not None and lora is not None:
        raise SetupError("model.adapter continues an adapter and model.lora starts one; give one of them")
    full = adapter is None and lora is None
    if dtype == "auto" and (args.use_cpu or (full and not args.deepspeed)):
        dtype = "float32"
    if args.deepspeed:
        import deepspeed

        # ZeRO-3 reads its world size while the model loads; on CPUs DeepSpeed does not know it by then.
        deepspeed.init_distributed("gloo" if args.use_cpu else None, auto_mpi_discovery=False, verbose=False)
    model = load_model(path, "cpu", dtype)
    # Loading under ZeRO-3 also keeps renamings that matched nothing; saving would then apply them backwards.
    conversions = getattr(model, "_weight_conversions", None)
    if conversions is not None:
        model._weight_conversions = [c for c in conversions if c.was_used()]
    if freeze_vision:
        model.model.visual.requires_grad_(False)
        if lora is not None and lora.exclude_modules is None:
            lora.exclude_modules = r".*\bvisual\b.*"
    if adapter is not None:
        model = with_adapter(model, adapter, path, trainable=True)
        if freeze_vision:  # of the adapter, too
            plain_model(model).model.visual.requires_grad_(False)
    return model


def _size(prompt: Prompt, encoder: Encoder) -> float:
    """About the prompt's tokens, without the tokenizer: three bytes of text each, and those of its pictures exactly."""
    text = sum(len(part.encode()) for message in prompt.messages for part in message.parts if isinstance(part, str))
    return text / 3 + sum(encoder.image_tokens(picture) for picture in prompt.pictures)


LONGER = "add to the command model.max_prompt_tokens={}, or lower model.images or model.max_pixels"


def check_budget(episodes: Sequence[Episode], dialogue: Dialogue, encoder: Encoder, advice: str = LONGER) -> None:
    """SetupError before training when even the experts' own words do not fit the prompt budget, with one that fits them.
    The 64 prompts that look longest are counted. advice: what to do, with the budget for {}."""
    tokens, where = 0, ""
    last = ((expert_prompt(episode, len(episode.steps) - 1, dialogue), episode) for episode in episodes)
    for prompt, episode in nlargest(64, last, key=lambda one: _size(one[0], encoder)):
        try:
            encoder.prompt(prompt)
        except PromptTooLong as error:
            tokens, where = max((tokens, where), (error.tokens, f"{episode.source}, {len(episode.steps)} steps"))
    if tokens:
        raise SetupError(
            f"{where}: the last prompt has {tokens} tokens, the limit is {encoder.max_prompt_tokens}; "
            + advice.format(-(-tokens // 100) * 100)
        )
