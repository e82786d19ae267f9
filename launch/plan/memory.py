"""Bytes on one GPU, part by part.

What is always there: weights, gradients, optimizer (divided by ZeRO), the reference model. On top of it comes the larger of two
phases, the update or the rollouts. What a layer keeps for its backward is counted tensor by tensor, as torch's autograd saves
them in transformers' Qwen classes; benchmarks/plan.py compares the sums with measured peaks.

    h hidden, q = heads * head_dim, k = kv_heads * head_dim, i intermediate; v, u: hidden and intermediate of the tower
    e bytes of a number in the forward; a bytes of a number in the copies that LoRA layers keep of their inputs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guiderail.launch.plan.setting import Setting
from guiderail.launch.plan.shape import Shape

TILE = 32768  # columns of the vocabulary that TRL's head makes at once
TILE_ROWS = 4096
PROMPTS = 1 << 16  # prompt tokens decoded together (agent/local/policy.py)
SCORES = 1 << 26  # entries of the decoder's table of scores (agent/local/decode.py)
LOGITS = 1 << 25  # logits that a teacher makes at once (rl/train/divergence.py)


@dataclass(frozen=True, slots=True)
class Rows:
    """A micro-batch as it is laid out: `sequences` of `longest` columns. targets: tokens that are scored. patches: of each
    distinct picture, before the merger. masked: attention reads a dense mask of (sequences, longest, longest). again: patches
    of pictures that stand in the text once more, whose features are copies."""

    sequences: int
    longest: int
    targets: int
    patches: tuple[int, ...] = ()
    masked: bool = True
    again: int = 0

    @property
    def tokens(self) -> int:
        return self.sequences * self.longest

    @property
    def pairs(self) -> int:
        return self.sequences * self.longest**2


def weights(shape: Shape, s: Setting) -> float:
    """Of the whole model, without adapters."""
    return float(s.stored * shape.parameters())


def static(shape: Shape, s: Setting, world: int) -> dict[str, float]:
    """What is there throughout the training, in bytes."""
    trained, whole = s.trained(shape), weights(shape, s)
    stage = s.zero or 0
    adapters = float(s.adapters * s.adapter_bytes)
    number = s.adapter_bytes if s.lora else s.stored
    spread = world if stage >= 3 else 1
    return {
        "weights": (whole + adapters) / spread,
        "reference": whole / spread if s.reference and not s.lora else 0.0,
        "gradients": float(trained * number) / (world if stage >= 2 else 1),
        # Without DeepSpeed Adam's two moments have the weights' own type; with it they and a copy of the weights are float32.
        "optimizer": float(2 * number * trained) if s.zero is None else 12.0 * trained / (world if stage else 1),
    }


def layer(shape: Shape, s: Setting, rows: Rows) -> float:
    """What one decoder layer keeps for its backward, or makes again from its checkpoint."""
    h, q, k, i, e, a = shape.hidden, shape.queries, shape.keys, shape.intermediate, s.computed, s.copies
    stream = s.stored if s.autocast else e  # numbers of the residual stream
    norms = 2 * h * 4 + (0 if s.lora else 2 * h * stream)
    if shape.family == "qwen3_vl":
        norms += (q + k) * 4 + (0 if s.lora else (q + k) * e)
    inputs = (5 * h + q + i) * a if a else (5 if stream != e else 2) * h * e + i * e
    attention = (2 * q + 2 * (q if rows.masked else k)) * e + shape.heads * 4
    mask = rows.pairs * e if rows.masked else 0  # the boolean mask as numbers to add
    ranks = sum(s.rank for one in s.adapted if one.where == "layer") * (a or e)
    return float(rows.tokens * (norms + inputs + attention + 3 * i * e + ranks) + mask)


def block(shape: Shape, s: Setting, patches: int) -> float:
    """What one block of the tower keeps, in its backward. patches: of all pictures."""
    t, e, a = shape.tower, s.computed, s.copies
    v, u = t.hidden, t.intermediate
    if t.gated:
        norms = 2 * v * 4 + (0 if s.lora else 2 * v * e)
        inputs = (4 * v + u) * a if a else (3 * v + u) * e
        inner = 3 * u * e
    else:
        norms = 2 * v * e
        inputs = (3 * v + u) * a if a else (3 * v + u) * e
        inner = u * e
    return float(patches * (norms + inputs + 6 * v * e + inner + t.heads * 4))


def mergers(shape: Shape, s: Setting, patches: int) -> tuple[float, float]:
    """What the mergers keep while the language model runs, and while the tower's blocks do. There is one for each deepstack
    layer, whose input is the next block's, and one behind the last block, which is done before the blocks."""
    t, e = shape.tower, s.computed
    norm = t.hidden * (4 + (0 if s.lora else e)) if t.gated else t.hidden * e
    linear = 2 * t.hidden * (s.copies or e) + t.hidden * e
    return float(patches * (norm + linear * (1 + t.deep))), float(patches * linear * min(t.deep, t.depth - 1))


def gradients(s: Setting, wide: int, narrow: int, gated: bool) -> int:
    """Of a token, those that are alive at once in the backward of a layer: most are so in its MLP. wide, narrow: its sizes. A
    LoRA layer has two of its input, one of them in the adapter's numbers."""
    e = s.computed
    if s.copies:
        return wide * s.copies + 2 * narrow * e
    return ((2 if gated or s.lora else 1) * wide + narrow) * e


def head(shape: Shape, s: Setting, rows: Rows, gpu: bool) -> float:
    """The last norm, and the backward of the fused head: a tile of scores, gradients of the hidden states in float32, and, where
    the head is trained, its whole gradient in float32 and then in its own numbers. Without Triton the softmax of a tile takes
    about five float32 tiles, and a part of the head is copied to float32."""
    tile = min(rows.targets, TILE_ROWS) * min(TILE, shape.vocabulary) * (s.computed + (0 if gpu else 5 * 4))
    part = 0 if gpu or s.computed == 4 else min(TILE, shape.vocabulary) * shape.hidden * 4
    whole = cast = 0
    if not s.lora:
        whole = shape.vocabulary * shape.hidden * 4
        cast = shape.vocabulary * shape.hidden * s.stored if s.stored != 4 else 0
    hidden = (rows.tokens + rows.targets) * shape.hidden * (4 + s.computed)
    return float(tile + hidden + whole + max(part, cast))


def update(shape: Shape, s: Setting, rows: Rows, world: int, gpu: bool) -> dict[str, float]:
    """What forward and backward of one micro-batch take on top of `static`, at the moment when they take most."""
    patches, e, t = sum(rows.patches), s.computed, shape.tower
    stream = s.stored if s.autocast else e
    kept = shape.layers * (rows.tokens * shape.hidden * stream if s.checkpointing else layer(shape, s, rows))
    embedded = 2 * rows.tokens * shape.hidden * stream
    features = (patches + rows.again) / t.merge**2 * shape.hidden * e * (1 + t.deep)
    again = layer(shape, s, rows) if s.checkpointing else 0.0
    largest = 0.0 if s.lora else shape.hidden * shape.intermediate * s.stored
    of_layer = again + rows.tokens * gradients(s, shape.intermediate, shape.hidden, True) + largest
    # autocast keeps bf16 weights for the forward
    casts = 2.0 * shape.parameters() if s.autocast and s.stored == 4 else 0.0
    text = kept + max(of_layer, head(shape, s, rows, gpu), casts)
    after = 0.0 if s.lora else float(shape.vocabulary * shape.hidden * s.stored)
    seen = left = 0.0
    if s.trains_tower and patches:
        per_block = patches * t.hidden * stream if s.checkpointing else block(shape, s, patches)
        # With LoRA the patches' embedding is frozen, and nothing keeps pixels.
        seen = left = t.depth * per_block + (0.0 if s.lora else patches * t.pixels * e)
        merged, still = mergers(shape, s, patches)
        seen, left = seen + merged, left + still
        of_block = patches * gradients(s, t.intermediate, t.hidden, t.gated)
        after = max(after, of_block + (block(shape, s, patches) if s.checkpointing else 0.0))
    # Either the language model's backward takes most, or what comes after it: the embedding's, and the tower's.
    activations, vision = max((text, seen), (after, left), key=sum)
    return {
        "activations": embedded + activations,
        "vision": vision + features,
        "mask": float(rows.pairs) if rows.masked else 0.0,
        **gathered(shape, s, world),
    }


def gathered(shape: Shape, s: Setting, world: int) -> dict[str, float]:
    """ZeRO's buffers: a bucket of gradients, parameters gathered for the moment, and gradients in float32 at the step."""
    if s.zero is None or s.zero == 0:
        return {"ZeRO buffers": 0.0}
    bucket = s.bucket * (4 if s.zero == 1 else s.stored)  # allocated whole, however little is trained
    live = min(s.live, shape.parameters()) * s.stored if s.zero >= 3 and world > 1 else 0
    return {"ZeRO buffers": float(max(bucket + live, 4 * s.trained(shape) / world))}


def rollouts(
    shape: Shape, s: Setting, rows: int, longest: int, new: int, world: int, *, shared: float
) -> dict[str, float]:
    """What sampling takes on top of `static` in the local engine: rows: decoded together. longest: prompt tokens of a row.
    new: tokens of an answer. shared: part of `static` that ZeRO-3 gathers again."""
    cache = 2 * shape.layers * shape.keys * s.computed * rows * (longest + new) * 1.25
    scores = min(rows * shape.vocabulary, SCORES) * 24.0
    return {
        "KV cache": cache,
        "prefill": max(inference(shape, s, Rows(rows, longest, 0)), scores),
        "gathered weights": shared if s.zero == 3 and world > 1 else 0.0,
    }


def inference(shape: Shape, s: Setting, rows: Rows) -> float:
    """A layer's tensors and the mask, in a pass without gradients."""
    layer = rows.tokens * (3 * shape.intermediate + 2 * shape.hidden + 3 * shape.queries) * s.computed
    return float(layer + (rows.pairs * (2 + s.computed) if rows.masked else 0))


def teaching(shape: Shape, s: Setting, rows: Rows) -> dict[str, float]:
    """What a pass of the teacher over a micro-batch takes on top of `static`. shape, s: the teacher's."""
    scores = min(rows.targets * shape.vocabulary, LOGITS) * (s.computed + 3 * 4.0)
    features = (sum(rows.patches) + rows.again) / shape.tower.merge**2 * shape.hidden * s.computed
    tower = sum(rows.patches) * (3 * shape.tower.intermediate + 5 * shape.tower.hidden) * s.computed
    text = rows.tokens * shape.hidden * s.computed + max(inference(shape, s, rows), scores)
    return {"teacher's pass": features * (1 + shape.tower.deep) + max(text, float(tower))}


def total(parts: Mapping[str, float]) -> float:
    return sum(parts.values())
