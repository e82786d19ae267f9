"""Tokenizer, image processor, weights and adapters from a folder or the hub; whole, or refused."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file

from guiderail.agent.errors import SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.shipped import shipped

_log = logging.getLogger(__name__)


def load_encoder(
    path: str | Path,
    *,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    max_prompt_tokens: int = 12288,
    decoders: int = 2,
) -> Encoder:
    """Tokenizer, chat template and image processor of a folder or hub name.

    max_pixels, min_pixels: bounds on the resized area in pixels; they override the checkpoint's. max_prompt_tokens: the
    longest prompt accepted. decoders: threads that decode screenshots ahead. Raises SetupError when something is missing.
    """
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
    return Encoder(tokenizer, processor, max_prompt_tokens=max_prompt_tokens, decoders=decoders)


def load_model(path: str | Path, device: str = "auto", dtype: str = "auto") -> Any:
    """AutoModelForImageTextToText on one device, in evaluation mode. device, dtype: as in `load_policy`.

    Raises SetupError for a folder or hub that cannot be reached, a model that is not a supported vision-language model, and
    for weights that the checkpoint lacks: transformers would leave them random. Weights that the model has no place for
    are named in the log.
    """
    path = shipped(path)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    precision: Any = dtype if dtype != "auto" or where != "cpu" else torch.float32
    try:
        family = AutoConfig.from_pretrained(path).model_type
        if family not in ("qwen3_vl", "qwen2_5_vl"):
            raise SetupError(
                f"{path} is a {family} model; give a vision-language checkpoint of the Qwen2.5-VL or Qwen3-VL family"
            )
        model, report = AutoModelForImageTextToText.from_pretrained(path, dtype=precision, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SetupError(_cannot_load(path, error)) from error
    _check_weights(path, report)
    return model.to(where)


def _check_weights(path: str | Path, report: Mapping[str, Collection[str]]) -> None:
    """report: transformers' own, which already leaves out what is tied to another weight or computed."""
    spare = (
        f"; it also holds weights that this model has no place for: {_names(u)}"
        if (u := report["unexpected_keys"])
        else ""
    )
    if report["missing_keys"]:
        raise SetupError(
            f"model {path} lacks weights, which would be random: {_names(report['missing_keys'])}{spare}; "
            "download or save it again, whole"
        )
    if spare:
        _log.warning("model %s is complete%s", path, spare)


def with_adapter(model: Any, adapter: str | Path, base: str | Path, *, trainable: bool = False) -> Any:
    """The model with a PEFT adapter on it. base: the model's name, for messages. Raises SetupError for an adapter that cannot
    be reached or does not fit, weight for weight: PEFT would leave missing ones at their start and drop the others."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            wrapped = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    except _MISFITS as error:
        raise _misfit(adapter, base, str(error)) from error
    # Only `load_adapter` returns the report.
    _load_adapter(wrapped, adapter, base, "default", trainable)
    return wrapped


def put_adapter(wrapped: Any, adapter: str | Path, base: str | Path, name: str) -> None:
    """Load another adapter, under a new name, into a model that `with_adapter` returned, and use that one. Raises SetupError
    as `with_adapter` does; the adapter that was in use then stays so."""
    try:
        _load_adapter(wrapped, adapter, base, name, False)
    except SetupError:
        if name in wrapped.peft_config:
            wrapped.delete_adapter(name)
        raise
    wrapped.set_adapter(name)
    wrapped.eval()


_MISFITS = (OSError, ValueError, RuntimeError, SafetensorError)


def _load_adapter(wrapped: Any, adapter: str | Path, base: str | Path, name: str, trainable: bool) -> None:
    names = getattr(wrapped.get_base_model(), "_checkpoint_conversion_mapping", {})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            report = wrapped.load_adapter(str(adapter), name, is_trainable=trainable, key_mapping=names)
    except _MISFITS as error:
        raise _misfit(adapter, base, str(error)) from error
    wrong = [
        f"{what} {_names(keys)}"
        for what, keys in (("it lacks", report.missing_keys), ("there is no place for", report.unexpected_keys))
        if keys
    ]
    if wrong:
        raise _misfit(adapter, base, "; ".join(wrong))


def _misfit(adapter: str | Path, base: str | Path, why: str) -> SetupError:
    return SetupError(f"adapter {adapter} does not fit {base}: {why}; check both paths")


def _names(weights: Collection[str]) -> str:
    """All names, with the numbers of alike layers together: "layers.{0,1}.mlp.up_proj.weight"."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for name in weights:
        before, number, after = (*re.split(r"(?<=\.)(\d+)(?=\.)", name, maxsplit=1), "", "")[:3]
        alike.setdefault((before, after), []).extend([int(number)] if number else [])
    return ", ".join(
        f"{before}{{{','.join(map(str, sorted(numbers)))}}}{after}" if numbers else before
        for (before, after), numbers in sorted(alike.items())
    )


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
