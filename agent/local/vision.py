"""Vision features, computed once per screenshot and vision tower.

They are shared by the rollouts of a group, by every step whose window shows the screenshot, by old, reference and update
passes, by epochs, and by the evaluation of every checkpoint. They enter through the model's own `mm_encoder_outputs`, never
through `inputs_embeds`, which would silently drop Qwen3-VL's deepstack features.

A stale feature cannot be served: features are filed under a fingerprint of every number in the tower, LoRA layers included,
computed anew at each call. Version counters are not enough: they miss writes through `.data`, which PEFT's merge and
DeepSpeed's step use. A tower that is to receive gradients gets pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import __version__ as transformers_version
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from guiderail.agent.cache import ByteCache
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.features import FeatureFolder, Features
from guiderail.agent.types import Picture

Version = tuple[object, ...]
_CHUNK = 1 << 20
_PRIME = 0x1_0000_01B3


class VisionStore:
    """Features of screenshots, by content, for any number of models. Kept in host memory.

    max_bytes: bound on memory; the least recently used features are dropped first (one call may need more). folder: also
    keep them as memory-mapped files, which all processes of a host and later runs share. folder_bytes: bound on that folder;
    the oldest files are deleted first. on: False always gives pixels. hits, misses: pictures served and computed.
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
        self.encoder, self.on = encoder, on
        self.folder = FeatureFolder(folder, folder_bytes) if folder is not None else None
        self.hits = self.misses = 0
        self._features: ByteCache[tuple[object, ...], Features] = ByteCache(max_bytes)
        self._settings = _settings(encoder)

    @property
    def held(self) -> int:
        """Bytes of features in memory."""
        return self._features.held

    def serves(self, encoder: Encoder) -> bool:
        """Whether pictures that `encoder` has sized have the same features here."""
        return _settings(encoder) == self._settings

    @contextmanager
    def given(self, model: Any, pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
        """`inputs` for a forward that gets gradients. Inside the block a tower that is trained sees each distinct picture once:
        its features are repeated after it, so their gradients add up before they enter it. Same numbers up to rounding."""
        distinct = list(dict.fromkeys(pictures))
        if not distinct or not self.on or self.usable(model):
            yield self.inputs(model, pictures)
            return
        plain = plain_model(model)
        vision = self.inputs(model, distinct)
        known = {picture: i for i, picture in enumerate(distinct)}
        with (
            patches_as_product(plain.model.visual.patch_embed),
            _repeated(plain.model, [known[picture] for picture in pictures]),
        ):
            yield vision

    def inputs(self, model: Any, pictures: Sequence[Picture]) -> dict[str, Any]:
        """The arguments of `model`'s forward for these pictures, in this order; empty without pictures.

        {"mm_encoder_outputs", "image_grid_thw"} with features as constants where `usable`, else {"pixel_values",
        "image_grid_thw"}. On the model's device. Works under no_grad and in a training forward. Each distinct picture is
        computed and moved once.
        """
        if not pictures:
            return {}
        device = plain_model(model).device
        grid = torch.stack([self.encoder.grid(picture) for picture in pictures]).to(device)
        if self.usable(model):
            return {"mm_encoder_outputs": {"image": self.outputs(model, pictures)}, "image_grid_thw": grid}
        # The tower casts its input to its own type first; so does what is moved.
        pixels = self.encoder.vision_inputs(pictures, plain_model(model).model.visual.dtype, device)
        return {"pixel_values": pixels["pixel_values"], "image_grid_thw": grid}

    def usable(self, model: Any) -> bool:
        """Whether features may replace pixels. False where the store is off, the tower is to receive gradients or draws
        dropout, or its weights are spread over processes (ZeRO-3: one process that looks up while another computes is a
        hang)."""
        if not self.on:
            return False
        tower = plain_model(model).model.visual
        weights = list(tower.parameters())
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return False
        spread = [weight for weight in weights if hasattr(weight, "ds_shape")]
        # Gathered weights are whole for a moment, but with ZeRO's hooks a forward still waits for all processes.
        if spread and (
            any(w.shape != w.ds_shape for w in spread) or any(m._forward_pre_hooks for m in tower.modules())
        ):
            return False
        return not any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in tower.modules())

    def outputs(self, model: Any, pictures: Sequence[Picture]) -> Any:
        """The tower's output for these pictures: `pooler_output` and, for Qwen3-VL, `deepstack_features`, detached.

        Other files call `inputs`, which checks whether this may be used.
        """
        model = plain_model(model)
        version = self._version(model)
        self.encoder.ahead(p for p in dict.fromkeys(pictures) if not self._held(model, self._key(version, p)))
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

    def _one(self, model: Any, version: Version, picture: Picture) -> Features:
        key = self._key(version, picture)
        if (known := self._features.get(key)) is not None:
            self.hits += 1
            return known
        name = self._file_name(model, key) if self.folder is not None else ""
        features = self.folder.read(name) if self.folder is not None else None
        if features is None:
            self.misses += 1
            features = self._compute(model, picture)
            if self.folder is not None:
                self.folder.write(name, features)
        else:
            self.hits += 1
        self._features.put(key, features, features.nbytes)
        return features

    def _key(self, version: Version, picture: Picture) -> tuple[object, ...]:
        return picture.screenshot.digest, picture.width, picture.height, self._settings, *version

    def _held(self, model: Any, key: tuple[object, ...]) -> bool:
        return key in self._features or (self.folder is not None and self.folder.has(self._file_name(model, key)))

    @torch.no_grad()
    def _compute(self, model: Any, picture: Picture) -> Features:
        """One picture at a time, so that the last bit of its features does not depend on which others are missing."""
        patches, grid = self.encoder.pixels(picture, model.model.visual.dtype, model.device)
        with patches_as_product(model.model.visual.patch_embed):
            output = model.model.get_image_features(patches, grid[None].to(model.device), return_dict=True)
        layers = getattr(output, "deepstack_features", None) or ()
        return Features(output.pooler_output[0], tuple(layer[0] for layer in layers)).to(torch.device("cpu"))

    def _version(self, model: Any) -> Version:
        tower, kind = model.model.visual, model.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
        return fingerprint(tower), *_adapters(tower), str(precision), kind

    def _file_name(self, model: Any, key: tuple[object, ...]) -> str:
        """Other processes may have another config or library version, so both are part of the name."""
        known = (*key, model.config.vision_config.to_json_string(), transformers_version)
        return hashlib.sha256("\x1f".join(map(str, known)).encode()).hexdigest()


def _settings(encoder: Encoder) -> str:
    """What determines a picture's patches besides the picture."""
    settings = {k: v for k, v in encoder.image_processor.to_dict().items() if not k.endswith("_class")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def patches_as_product(embed: Any) -> Iterator[None]:
    """Inside, the patch embedding runs as a matrix product, which gives the same numbers: its kernel covers one patch and
    does not overlap the next. As a 3-D convolution it takes a third of a small tower's time. Wrapped or hooked layers are
    left alone."""
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


@contextmanager
def _repeated(backbone: Any, places: Sequence[int]) -> Iterator[None]:
    """Inside, the features of picture number `places[k]` stand at the k-th place of a picture in the text."""
    features = backbone.get_image_features

    def repeated(*args: Any, **kwargs: Any) -> Any:
        output = features(*args, **kwargs)
        output.pooler_output = tuple(output.pooler_output[i] for i in places)
        if getattr(output, "deepstack_features", None) is not None:
            output.deepstack_features = [tuple(layer[i] for i in places) for layer in output.deepstack_features]
        return output

    backbone.get_image_features = repeated
    try:
        yield
    finally:
        del backbone.get_image_features


def plain_model(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper. Its adapters stay active, because they are in the layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()
def fingerprint(module: nn.Module) -> int:
    """64 bits from the bits and the place of every number in the module: sum_i (2 h(i) + 1) bits_i, modulo 2^64.

    The factors are odd, so a change of any single number changes the sum; several changes cancel with probability 2^-64.
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
    """The tensors' bytes, concatenated and cut into pieces of at most `most`: a tower has many small tensors and a few huge
    ones."""
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
    """State of PEFT layers besides their weights: on or off, which adapters, merged or not, scaling."""
    for name, module in tower.named_modules():
        if hasattr(module, "merged_adapters"):
            yield name, module.disable_adapters, *module.active_adapters, str(module.merged_adapters)
            yield str(getattr(module, "scaling", ""))
