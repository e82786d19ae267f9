"""A student's shape, and its first weights: the teacher's, sliced.

Shape: heads keep their size, since rotary positions belong to it. Of everything else the student has the share that its
width is of the teacher's, unless it is given. The vision tower stays the teacher's; only its last matrices, which write into
the language model, get the new width.

Weights: with P (teacher's width, student's width) the directions in which the teacher's hidden states have most energy, what
reads the residual stream is multiplied by P and what writes into it by P^T, as SliceGPT does (arXiv 2401.15024):

    x' = P^T x        W' = W diag(g) P        W_out' = P^T W_out        embedding' = embedding P

g is the weight of the norm before W; the student's is sqrt(width / width'), since the norm of x' divides by the mean over
fewer entries. A tied embedding cannot also hold the last norm's weights: there the student's norm is the diagonal of
P^T diag(g) P. Kept are the heads and channels whose matrices are largest, and layers at even distances. None of this is exact
where the width differs; it is where training begins.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from guiderail.agent.errors import SetupError
from guiderail.agent.local.encode import Encoder


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a language model. kv_heads: of keys and values. intermediate: channels of an MLP."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    intermediate: int


def shape_of(config: Any) -> Shape:
    """config: of a whole model."""
    text = config.get_text_config()
    return Shape(
        text.num_hidden_layers,
        text.hidden_size,
        text.num_attention_heads,
        text.num_key_value_heads,
        text.intermediate_size,
    )


def student_shape(
    config: Any,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    intermediate: int | None = None,
) -> Shape:
    """The student's shape from the teacher's config. Half the layers and the whole width where neither is given. Raises
    SetupError for a shape that no student can have."""
    of = shape_of(config)
    text, vision = config.get_text_config(), config.vision_config
    layers = layers if layers is not None else (of.layers if width is not None else -(-of.layers // 2))
    width = width or of.width
    share = width / of.width
    heads = heads or max(1, math.floor(of.heads * share + 0.5))
    intermediate = intermediate or max(1, math.floor(of.intermediate * share + 0.5))
    deep = len(getattr(vision, "deepstack_visual_indexes", ()))
    for name, value, least, most in (
        ("--layers", layers, max(1, deep), of.layers),
        ("--width", width, 1, of.width),
        ("--heads", heads, 1, of.heads),
        ("--intermediate", intermediate, 1, of.intermediate),
    ):
        if not least <= value <= most:
            raise SetupError(f"{name} {value}: expected {least} to {most}, as the teacher's shape allows")
    size = head_size(text)
    if getattr(text, "head_dim", None) is None and heads * size != width:
        raise SetupError(
            f"--width {width} with {heads} heads: in this family a width is heads of {size}; give --width {heads * size}"
        )
    kv_heads = _kv_heads(of)
    if heads not in kv_heads:
        key, one = ("--width", size) if getattr(text, "head_dim", None) is None else ("--heads", 1)
        raise SetupError(
            f"--width {width} with {heads} heads: they cannot be dealt evenly to 1 to {of.kv_heads} key-value heads, at most "
            f"{of.heads // of.kv_heads} to each; give {key} as one of {', '.join(str(n * one) for n in kv_heads)}"
        )
    return Shape(layers, width, heads, kv_heads[heads], intermediate)


def head_size(text: Any) -> int:
    """text: config of a language model."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _kv_heads(of: Shape) -> dict[int, int]:
    """Of each number of heads that a student may have: as few as the teacher's ratio needs. Each key-value head serves at most
    `ratio` query heads, and all as many."""
    ratio = of.heads // of.kv_heads
    found: dict[int, int] = {}
    for kv in range(1, of.kv_heads + 1):
        for each in range(1, ratio + 1):
            found.setdefault(kv * each, kv)
    return dict(sorted(found.items()))


def student_config(config: Any, shape: Shape) -> Any:
    """The teacher's config with this shape."""
    made = copy.deepcopy(config)
    text = made.get_text_config()
    text.num_hidden_layers, text.hidden_size = shape.layers, shape.width
    text.num_attention_heads, text.num_key_value_heads = shape.heads, shape.kv_heads
    text.intermediate_size = shape.intermediate
    if getattr(text, "layer_types", None):
        text.layer_types = [text.layer_types[i] for i in even_layers(len(text.layer_types), shape.layers)]
    made.vision_config.out_hidden_size = shape.width
    return made


def even_layers(of: int, count: int) -> list[int]:
    """`count` of `of` layers at even distances, the first and the last among them; of one, the last."""
    return [of - 1] if count == 1 else [round(i * (of - 1) / (count - 1)) for i in range(count)]


# ------------------------------------------------------------------------------------------------------------- slicing


class Energy:
    """Second moments of the residual stream, added up over layers and tokens inside the `with`; each layer's and each token's
    states are scaled to length 1, as the norms that read them do."""

    def __init__(self, model: Any):
        text = model.model.language_model
        self.moment = torch.zeros(text.config.hidden_size, text.config.hidden_size, dtype=torch.float64)
        self._hooks = [layer.register_forward_pre_hook(self._see, with_kwargs=True) for layer in text.layers]
        self._hooks.append(text.norm.register_forward_pre_hook(self._see, with_kwargs=True))

    def _see(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        rows = nn.functional.normalize(states.detach().reshape(-1, states.shape[-1]).double(), dim=-1)
        self.moment += (rows.T @ rows).cpu()

    def __enter__(self) -> Energy:
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def directions(self, count: int) -> Tensor:
        """Shape (width, count), orthonormal: the directions of most energy, each with its largest entry positive, so that
        they do not depend on the solver's choice of sign. All of them: the identity."""
        if count == len(self.moment):
            return torch.eye(count, dtype=torch.float64)
        found: Tensor = torch.linalg.eigh(self.moment).eigenvectors.flip(1)[:, :count]
        signs: Tensor = found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
        return found * signs


@torch.no_grad()
def sliced(teacher: Any, shape: Shape, directions: Tensor) -> Any:
    """The student's model with its first weights, on the CPU, in the teacher's precision. directions: P."""
    config = student_config(teacher.config, shape)
    student = AutoModelForImageTextToText.from_config(config).to(teacher.dtype)
    text, small = teacher.model.language_model, student.model.language_model
    narrow = directions.shape[0] != directions.shape[1]
    scale = math.sqrt(directions.shape[0] / directions.shape[1])

    def reads(to: Any, weight: Tensor, norm: Any, rows: Tensor | None = None) -> None:
        kept = weight if rows is None else weight[rows]
        _set(to.weight, kept.double() * norm.weight.double() @ directions if narrow else kept)

    def writes(to: Any, weight: Tensor, columns: Tensor) -> None:
        _set(to.weight, directions.T @ weight[:, columns].double() if narrow else weight[:, columns])

    _set(small.embed_tokens.weight, text.embed_tokens.weight.double() @ directions)
    for layer, index in zip(small.layers, even_layers(len(text.layers), shape.layers), strict=True):
        old = text.layers[index]
        query, key = kept_heads(old.self_attn, shape)
        channels = kept_channels(old.mlp, shape.intermediate)
        for name, rows in (("q_proj", query), ("k_proj", key), ("v_proj", key)):
            of, to = getattr(old.self_attn, name), getattr(layer.self_attn, name)
            reads(to, of.weight, old.input_layernorm, rows)
            if of.bias is not None:
                _set(to.bias, of.bias[rows])
        for name in ("q_norm", "k_norm"):
            if hasattr(old.self_attn, name):
                _set(getattr(layer.self_attn, name).weight, getattr(old.self_attn, name).weight)
        writes(layer.self_attn.o_proj, old.self_attn.o_proj.weight, query)
        for name in ("gate_proj", "up_proj"):
            reads(getattr(layer.mlp, name), getattr(old.mlp, name).weight, old.post_attention_layernorm, channels)
        writes(layer.mlp.down_proj, old.mlp.down_proj.weight, channels)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weight = getattr(old, name).weight
            _set(getattr(layer, name).weight, torch.full((shape.width,), scale) if narrow else weight)
    _last(teacher, student, directions, scale)
    _tower(teacher.model.visual, student.model.visual, directions)
    return student


def _last(teacher: Any, student: Any, directions: Tensor, scale: float) -> None:
    """The last norm and the head."""
    norm = teacher.model.language_model.norm.weight.double()
    tied = teacher.config.tie_word_embeddings
    _set(student.model.language_model.norm.weight, scale * ((directions**2).T @ norm))
    if not tied:
        # The student's norm holds the diagonal of P^T diag(g) P, so the head holds what is left of diag(g) P.
        left = (norm[:, None] * directions) / ((directions**2).T @ norm)
        _set(student.lm_head.weight, teacher.lm_head.weight.double() @ left)


def _tower(old: Any, new: Any, directions: Tensor) -> None:
    """The vision tower: as it is, and P^T on what writes into the language model."""
    state = {name: value.clone() for name, value in old.state_dict().items()}
    for name, value in new.state_dict().items():
        if value.shape != state[name].shape:
            state[name] = (directions.T @ state[name].double()).to(value.dtype)
    new.load_state_dict(state)


def kept_heads(attention: Any, shape: Shape) -> tuple[Tensor, Tensor]:
    """(rows of queries, rows of keys and values) of the heads with the largest |W_value| |W_out|, in the teacher's order; first
    whole groups of one key-value head, then heads within them."""
    size, of = attention.head_dim, attention.config
    per_group = of.num_attention_heads // of.num_key_value_heads
    out = attention.o_proj.weight.double().reshape(attention.o_proj.out_features, -1, size).norm(dim=(0, 2))
    values = attention.v_proj.weight.double().reshape(-1, size, attention.v_proj.in_features).norm(dim=(1, 2))
    score = out.reshape(-1, per_group) * values[:, None]
    groups = _largest(score.sum(1), shape.kv_heads)
    heads = [int(g) * per_group + int(h) for g in groups for h in _largest(score[g], shape.heads // shape.kv_heads)]
    return _rows(heads, size), _rows(groups.tolist(), size)


def kept_channels(mlp: Any, count: int) -> Tensor:
    """Indices of the channels with the largest |W_gate| |W_up| |W_down|, in the teacher's order."""
    into = mlp.gate_proj.weight.double().norm(dim=1) * mlp.up_proj.weight.double().norm(dim=1)
    return _largest(into * mlp.down_proj.weight.double().norm(dim=0), count)


def _largest(scores: Tensor, count: int) -> Tensor:
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _rows(heads: Iterable[int], size: int) -> Tensor:
    return torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads])


def _set(parameter: nn.Parameter, value: Tensor) -> None:
    if parameter.shape != value.shape:
        raise AssertionError(f"{tuple(value.shape)} for {tuple(parameter.shape)}")
    parameter.copy_(value)


def save_start(student: Any, encoder: Encoder, folder: Path) -> None:
    """A model folder."""
    student.save_pretrained(folder)
    encoder.save(folder)
