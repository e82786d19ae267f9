"""The trainer's weights as files that another program loads: safetensors in a folder that appears as a whole.

Parameters are gathered one at a time (ZeRO-3) and written in shards, so neither a GPU nor the main process holds the whole
model a second time. An adapter is written as an adapter: added into bfloat16 weights, small differences would round away.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_SHARD_BYTES = 2 * 2**30


def write_weights(model: Any, folder: Path, main: bool, dtype: torch.dtype | None) -> None:
    """Every parameter under its name in the model, in `dtype` (None: as it is). Collective; only the main process writes."""
    partial = _begin(folder, main)
    shard: dict[str, Tensor] = {}
    size = number = 0
    for name, weight in _gathered(model.named_parameters()):
        if not main:
            continue
        wanted = dtype if dtype is not None and weight.is_floating_point() else weight.dtype
        # a copy: the gathered tensor is gone when the next one is gathered
        shard[name] = weight.detach().to("cpu", wanted, copy=True).contiguous()
        size += shard[name].nbytes
        if size >= _SHARD_BYTES:
            save_file(shard, partial / f"model-{number:05d}.safetensors")
            shard, size, number = {}, 0, number + 1
    if main:
        if shard:
            save_file(shard, partial / f"model-{number:05d}.safetensors")
        partial.rename(folder)


def write_adapter(model: Any, folder: Path, main: bool) -> None:
    """The active adapter of a PEFT model, as PEFT writes it. Collective; only the main process writes."""
    from peft import get_peft_model_state_dict

    partial = _begin(folder, main)
    named = ((name, weight) for name, weight in model.named_parameters() if model.prefix in name)
    trained = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in _gathered(named)}
    if main:
        name = model.active_adapter
        save_file(get_peft_model_state_dict(model, trained, name), partial / "adapter_model.safetensors")
        model.peft_config[name].save_pretrained(str(partial))
        partial.rename(folder)


def _begin(folder: Path, main: bool) -> Path:
    """An empty folder beside `folder`, which is not there."""
    partial = folder.with_name(folder.name + ".partial")
    if main:
        for old in (partial, folder):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
    return partial


def _gathered(named: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in named:
        with _whole(weight):
            yield name, weight.data


def _whole(weight: Any) -> AbstractContextManager[Any]:
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([weight])
    return gathered
