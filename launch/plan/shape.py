"""The sizes of a model: its linear layers, from which parameters, memory and operations follow.

Read from config.json in the model's folder; for published models, from models.json, so that nothing need be downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import adapter_base, shipped

PUBLISHED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "models.json").read_text(encoding="utf-8"))
Where = Literal["layer", "head", "block", "merger"]


@dataclass(frozen=True, slots=True)
class Linear:
    """`count` linear layers of one shape. where: in a decoder layer, the vocabulary's head, a vision block, or a merger
    (which sees one token per 2 x 2 patches)."""

    name: str
    inputs: int
    outputs: int
    count: int
    where: Where
    bias: bool = False

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.count

    @property
    def parameters(self) -> int:
        return self.weights + self.outputs * self.count * self.bias


@dataclass(frozen=True, slots=True)
class Tower:
    """The vision tower. window: side of an attention window in pixels, 0 where every block sees the whole picture. whole:
    blocks that see the whole picture. deep: layers whose features also enter the language model."""

    hidden: int
    depth: int
    heads: int
    intermediate: int
    out: int
    patch: int
    merge: int
    frames: int
    gated: bool
    window: int
    whole: int
    deep: int
    positions: int

    @property
    def merged(self) -> int:
        return self.hidden * self.merge**2

    @property
    def pixels(self) -> int:
        """Numbers of one patch."""
        return 3 * self.frames * self.patch**2


@dataclass(frozen=True, slots=True)
class Shape:
    """family: qwen2_5_vl or qwen3_vl. Sizes as in the config's text part. tied: the head is the embedding table."""

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    tower: Tower

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim

    def linears(self) -> tuple[Linear, ...]:
        return _linears(self)

    def parameters(self, part: Literal["all", "text", "vision"] = "all") -> int:
        """Exactly those of the transformers class."""
        linears = [one for one in self.linears() if one.where != "head"]
        text = sum(one.parameters for one in linears if one.where == "layer")
        norms = 2 * self.hidden + (2 * self.head_dim if self.family == "qwen3_vl" else 0)
        text += self.layers * norms + self.hidden + self.vocabulary * self.hidden * (1 if self.tied else 2)
        t, vector = self.tower, 1 if self.family == "qwen2_5_vl" else 2  # RMSNorm has no bias
        vision = sum(one.parameters for one in linears if one.where in ("block", "merger"))
        vision += t.pixels * t.hidden + (vector - 1) * t.hidden + t.positions * t.hidden
        vision += t.depth * 2 * vector * t.hidden + vector * (t.hidden + t.deep * t.merged)
        return {"all": text + vision, "text": text, "vision": vision}[part]

    def adapted(self, targets: str | Sequence[str], frozen_tower: bool) -> list[Linear]:
        """The linear layers that LoRA wraps. Raises SetupError where `targets` names none."""
        names = None if targets == "all-linear" else {targets} if isinstance(targets, str) else set(targets)
        found = [
            one
            for one in self.linears()
            if one.where != "head"
            and not (frozen_tower and one.where in ("block", "merger"))
            and (names is None or one.name in names)
        ]
        if not found:
            raise SetupError(
                f"model.lora.target_modules {targets!r} names no linear layer of this model; try all-linear"
            )
        return found


@cache
def _linears(shape: Shape) -> tuple[Linear, ...]:
    h, t, bias = shape.hidden, shape.tower, shape.family == "qwen2_5_vl"
    deep = t.deep + 1
    text = [
        Linear("q_proj", h, shape.queries, shape.layers, "layer", bias),
        Linear("k_proj", h, shape.keys, shape.layers, "layer", bias),
        Linear("v_proj", h, shape.keys, shape.layers, "layer", bias),
        Linear("o_proj", shape.queries, h, shape.layers, "layer"),
        Linear("gate_proj", h, shape.intermediate, shape.layers, "layer"),
        Linear("up_proj", h, shape.intermediate, shape.layers, "layer"),
        Linear("down_proj", shape.intermediate, h, shape.layers, "layer"),
        Linear("lm_head", h, shape.vocabulary, 1, "head"),
    ]
    attention = [
        Linear("qkv", t.hidden, 3 * t.hidden, t.depth, "block", True),
        Linear("proj", t.hidden, t.hidden, t.depth, "block", True),
    ]
    up = ["gate_proj", "up_proj"] if t.gated else ["linear_fc1"]
    mlp = [Linear(name, t.hidden, t.intermediate, t.depth, "block", True) for name in up]
    down = Linear("down_proj" if t.gated else "linear_fc2", t.intermediate, t.hidden, t.depth, "block", True)
    first, last = ("0", "2") if t.gated else ("linear_fc1", "linear_fc2")
    merger = [
        Linear(first, t.merged, t.merged, deep, "merger", True),
        Linear(last, t.merged, t.out, deep, "merger", True),
    ]
    return (*text, *attention, *mlp, down, *merger)


def shape_of(model: str) -> Shape:
    """The shape of a model folder, a shipped model or a published one. Raises SetupError."""
    known = PUBLISHED.get(model)
    file = Path(shipped(model)) / "config.json"
    if known is None and not file.is_file():
        raise SetupError(
            f"no config.json of {model} here, and it is none of {', '.join(PUBLISHED)}; download it "
            f"(`hf download {model} config.json --local-dir FOLDER`) and plan with model.path=FOLDER"
        )
    if file.is_file():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SetupError(f"{file} cannot be read: {error}") from None
    return read_shape(known or {}, model)


def base_of(path: str) -> str:
    """The base model's name where `path` is an adapter's folder, else `path`. Raises SetupError."""
    return adapter_base(path) if (Path(path) / "adapter_config.json").is_file() else path


def read_shape(config: Mapping[str, Any], name: str) -> Shape:
    """config: the content of a config.json. Raises SetupError for a model of another family."""
    family = config.get("model_type")
    if family not in ("qwen2_5_vl", "qwen3_vl"):
        raise SetupError(f"{name} is a {family} model; give one of the Qwen2.5-VL or Qwen3-VL family")
    try:
        text, seen = config.get("text_config") or config, config["vision_config"]
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        qwen2 = family == "qwen2_5_vl"
        whole = seen.get("fullatt_block_indexes", [7, 15, 23, 31]) if qwen2 else []
        tower = Tower(
            hidden=int(seen["hidden_size"]),
            depth=int(seen["depth"]),
            heads=int(seen["num_heads"]),
            intermediate=int(seen["intermediate_size"]),
            out=int(seen["out_hidden_size"]),
            patch=int(seen["patch_size"]),
            merge=int(seen["spatial_merge_size"]),
            frames=int(seen.get("temporal_patch_size", 2)),
            gated=qwen2,
            window=int(seen.get("window_size", 112)) if qwen2 else 0,
            whole=len([i for i in whole if i < int(seen["depth"])]) if qwen2 else int(seen["depth"]),
            deep=0 if qwen2 else len(seen["deepstack_visual_indexes"]),
            positions=0 if qwen2 else int(seen["num_position_embeddings"]),
        )
        return Shape(
            family=family,
            hidden=hidden,
            layers=int(text["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(text["num_key_value_heads"]),
            head_dim=int(text.get("head_dim") or hidden // heads),
            intermediate=int(text["intermediate_size"]),
            vocabulary=int(text["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            tower=tower,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SetupError(f"config.json of {name} lacks sizes or has odd ones: {error}") from None
