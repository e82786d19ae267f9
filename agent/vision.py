"""Vision features computed once per screenshot: the rollouts of a group, every step whose window shows it, old, reference
and update passes, epochs and the evaluation of every checkpoint read the same ones, for as long as the tower stays as it is.

They go in through the model's own `mm_encoder_outputs`, never through `inputs_embeds`, which would drop Qwen3-VL's
deepstack features without a word.

A stale feature cannot be served: features are filed under a fingerprint of every number in the tower, LoRA layers
included, taken anew at each call. Version counters would not do: they miss writes through `.data`, which is how PEFT
merges and DeepSpeed steps. And a tower that is to receive gradients is given pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import __version__ as transformers_version
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from agent.encode import Encoder
from agent.types import Picture

Version = tuple[object, ...]
_CHUNK = 1 << 20
_PRIME = 0x1_0000_01B3


@dataclass(frozen=True, eq=False)
class Features:
    """Of one picture: pooled (image tokens, hidden size), and one such tensor per deepstack layer (Qwen2.5-VL: none)."""

    pooled: Tensor
    deep: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.pooled.nbytes + sum(layer.nbytes for layer in self.deep)

    def to(self, device: torch.device) -> Features:
        return Features(self.pooled.to(device), tuple(layer.to(device) for layer in self.deep))


class VisionStore:
    """Features of screenshots, by content, for any number of models; kept on the host, least recently used leaves first.

    max_bytes: bound on what is held in memory (what one call needs is served whatever it weighs). folder: also keep them
    as memory-mapped files that all processes of a host share, whole runs later too; folder_bytes bounds it, oldest files
    go first. on: False always answers with pixels. hits, misses: pictures served from the store and computed.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_bytes: int = 1 << 30,
        folder: Path | None = None,
        folder_bytes: int = 16 << 30,
        on: bool = True,
    ):
        self.encoder, self.max_bytes, self.on = encoder, max_bytes, on
        self.folder = _Folder(folder, folder_bytes) if folder is not None else None
        self.hits = self.misses = self.held = 0
        self._features: OrderedDict[tuple[object, ...], Features] = OrderedDict()
        settings = {k: v for k, v in encoder.image_processor.to_dict().items() if not k.endswith("_class")}
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()

    def inputs(self, model: Any, pictures: Sequence[Picture]) -> dict[str, Any]:
        """What `model`'s forward needs to see these pictures, in this order; empty without pictures.

        {"mm_encoder_outputs", "image_grid_thw"} with features as constants, or {"pixel_values", "image_grid_thw"} where
        `usable` says no. On the model's device. Works under no_grad and inside a training forward. Repeated pictures are
        fine: each distinct one is computed, and moved, once.
        """
        if not pictures:
            return {}
        device = plain_model(model).device
        grid = torch.stack([self.encoder.grid(picture) for picture in pictures]).to(device)
        if self.usable(model):
            return {"mm_encoder_outputs": {"image": self.outputs(model, pictures)}, "image_grid_thw": grid}
        return {"pixel_values": self.encoder.vision_inputs(pictures)["pixel_values"].to(device), "image_grid_thw": grid}

    def usable(self, model: Any) -> bool:
        """False where features may not stand in for pixels: the store is off, the tower is to receive gradients or draws
        dropout, or its weights are spread over processes (ZeRO-3: a process that looks up while its neighbour computes
        is a hang)."""
        if not self.on:
            return False
        tower = plain_model(model).model.visual
        weights = list(tower.parameters())
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return False
        spread = [weight for weight in weights if hasattr(weight, "ds_shape")]
        # Gathered weights are whole for a moment, but while its hooks are on a forward still waits for all processes.
        if spread and (
            any(w.shape != w.ds_shape for w in spread) or any(m._forward_pre_hooks for m in tower.modules())
        ):
            return False
        return not any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in tower.modules())

    def outputs(self, model: Any, pictures: Sequence[Picture]) -> Any:
        """The tower's output for these pictures: `pooler_output` and, for Qwen3-VL, `deepstack_features`, detached.

        Callers outside this file want `inputs`, which knows when this may be used.
        """
        model = plain_model(model)
        version = self._version(model)
        found: dict[Picture, Features] = {}
        for picture in pictures:
            if picture not in found:
                found[picture] = self._one(model, version, picture).to(model.device)
        rows = [found[picture] for picture in pictures]
        pooled = tuple(row.pooled for row in rows)
        if not rows[0].deep:
            return BaseModelOutputWithPooling(pooler_output=pooled)
        layers = [tuple(layer) for layer in zip(*(row.deep for row in rows), strict=True)]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=pooled, deepstack_features=layers)

    def metrics(self) -> dict[str, float]:
        """Since the store was made."""
        return {
            "vision/hits": float(self.hits),
            "vision/computed": float(self.misses),
            "vision/bytes": float(self.held),
        }

    def _one(self, model: Any, version: Version, picture: Picture) -> Features:
        key = (picture.screenshot.digest, picture.width, picture.height, self._settings, *version)
        if key in self._features:
            self._features.move_to_end(key)
            self.hits += 1
            return self._features[key]
        name = self._file_name(model, key) if self.folder is not None else ""
        features = self.folder.read(name) if self.folder is not None else None
        if features is None:
            self.misses += 1
            features = self._compute(model, picture)
            if self.folder is not None:
                self.folder.write(name, features)
        else:
            self.hits += 1
        self._features[key] = features
        self.held += features.nbytes
        while self.held > self.max_bytes and len(self._features) > 1:
            self.held -= self._features.popitem(last=False)[1].nbytes
        return features

    @torch.no_grad()
    def _compute(self, model: Any, picture: Picture) -> Features:
        """Alone, so that a picture's features do not depend, in the last bit, on which others were missing."""
        patches, grid = self.encoder.pixels(picture)
        with _patches_as_product(model.model.visual.patch_embed):
            output = model.model.get_image_features(
                patches.to(model.device), grid[None].to(model.device), return_dict=True
            )
        layers = getattr(output, "deepstack_features", None) or ()
        return Features(output.pooler_output[0], tuple(layer[0] for layer in layers)).to(torch.device("cpu"))

    def _version(self, model: Any) -> Version:
        tower, kind = model.model.visual, model.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
        return fingerprint(tower), *_adapters(tower), str(precision), kind

    def _file_name(self, model: Any, key: tuple[object, ...]) -> str:
        """Other processes know neither this one's config nor its library, so both are part of the name."""
        known = (*key, model.config.vision_config.to_json_string(), transformers_version)
        return hashlib.sha256("\x1f".join(map(str, known)).encode()).hexdigest()


@contextmanager
def _patches_as_product(embed: Any) -> Iterator[None]:
    """Inside, the patch embedding is the matrix product that it is: its kernel covers a patch and never overlaps the next.
    As a 3-D convolution it takes a third of a small tower's time. Layers that somebody wrapped or hooked stay theirs."""
    proj = embed.proj
    plain = type(proj) is nn.Conv3d and proj.stride == proj.kernel_size and not any(proj.padding) and proj.groups == 1
    hooked = proj._forward_hooks or proj._forward_pre_hooks or "forward" in proj.__dict__ or "forward" in embed.__dict__
    if not plain or hooked:
        yield
        return
    embed.forward = lambda patches: functional.linear(patches.to(proj.weight.dtype), proj.weight.flatten(1), proj.bias)
    try:
        yield
    finally:
        del embed.forward


def plain_model(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper; its adapters stay active, they live in the layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()
def fingerprint(module: nn.Module) -> int:
    """64 bits from the bits and the place of every number in the module: sum_i (2 h(i) + 1) bits_i, modulo 2^64.

    The factors are odd, so a change of any one number always shows; several changes cancel with probability 2^-64.
    """
    named = [*module.named_parameters(), *module.named_buffers()]
    names = "\x1f".join(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in named)
    value = int.from_bytes(hashlib.sha256(names.encode()).digest()[:8], "big")
    whole = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for _, tensor in named if tensor.numel()]
    sums = []
    for part in _even(whole, 8 * _CHUNK):
        words = functional.pad(part, (0, -len(part) % 8)).view(torch.int64)
        sums.append((words * _factors(words.device)[: len(words)]).sum())
    for total in torch.stack(sums).tolist():
        value = (value * _PRIME + total) % 2**64
    return value


def _even(tensors: Sequence[Tensor], most: int) -> Iterator[Tensor]:
    """The same bytes end to end, in pieces of at most `most`: a tower has many small tensors and a few huge ones."""
    waiting: list[Tensor] = []
    room = most
    for tensor in tensors:
        while len(tensor):
            waiting.append(tensor[:room])
            tensor = tensor[len(waiting[-1]) :]
            room -= len(waiting[-1])
            if not room:
                yield torch.cat(waiting)
                waiting, room = [], most
    if waiting:
        yield torch.cat(waiting)


@lru_cache
def _factors(device: torch.device) -> Tensor:
    """Fixed odd int64 numbers, shape (_CHUNK,)."""
    random = torch.Generator().manual_seed(0)
    return (torch.randint(-(2**62), 2**62, (_CHUNK,), generator=random) * 2 + 1).to(device)


def _adapters(tower: nn.Module) -> Iterator[object]:
    """What decides how PEFT layers act beside their weights: on or off, which, merged, how strong."""
    for name, module in tower.named_modules():
        if hasattr(module, "merged_adapters"):
            yield name, module.disable_adapters, *module.active_adapters, str(module.merged_adapters)
            yield str(getattr(module, "scaling", ""))


class _Folder:
    """Feature files of a host. A file appears whole (atomic rename) or not at all; the oldest go when there are too many."""

    def __init__(self, path: Path, max_bytes: int):
        self.path, self.max_bytes = path, max_bytes
        path.mkdir(parents=True, exist_ok=True)
        self._held = sum(size for _, size, _ in self._files())

    def read(self, name: str) -> Features | None:
        """Memory-mapped: pages are shared by all processes that read the file."""
        file = self.path / f"{name}.safetensors"
        try:
            tensors = load_file(file)
            os.utime(file)
        except (OSError, SafetensorError):
            return None
        return Features(tensors["pooled"], tuple(tensors[f"deep.{i}"] for i in range(len(tensors) - 1)))

    def write(self, name: str, features: Features) -> None:
        tensors = {"pooled": features.pooled, **{f"deep.{i}": layer for i, layer in enumerate(features.deep)}}
        handle, draft = tempfile.mkstemp(dir=self.path, suffix=".part")
        os.close(handle)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, draft)
        os.replace(draft, self.path / f"{name}.safetensors")
        self._held += features.nbytes
        if self._held > self.max_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Down to three quarters, so that a full folder is not listed at every write."""
        files = sorted(self._files())
        self._held = sum(size for _, size, _ in files)
        for _, size, file in files:
            if self._held <= self.max_bytes * 3 // 4:
                break
            file.unlink(missing_ok=True)
            self._held -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Another process may remove a file while this one looks."""
        for file in self.path.glob("*.safetensors"):
            try:
                state = file.stat()
            except OSError:
                continue
            yield state.st_mtime, state.st_size, file
