"""Floating-point operations of a pass, by part. A multiplication and its addition count as two.

Attention with a dense mask computes all pairs of columns, seen or not; so do the operations counted here. Without one, half of
them are counted, which is what a tree of one row takes; branches take less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from guiderail.launch.plan.memory import Rows
from guiderail.launch.plan.setting import Setting
from guiderail.launch.plan.shape import Linear, Shape, Where


@dataclass(frozen=True, slots=True)
class Work:
    """Operations. linear: products with weights, adapters apart. attention: scores and values."""

    linear: float = 0.0
    adapters: float = 0.0
    attention: float = 0.0

    @property
    def total(self) -> float:
        return self.linear + self.adapters + self.attention


def tokens_of(shape: Shape, rows: Rows) -> dict[Where, float]:
    """How many tokens each kind of linear layer sees."""
    patches = float(sum(rows.patches))
    return {
        "layer": float(rows.tokens),
        "head": float(rows.targets),
        "block": patches,
        "merger": patches / shape.tower.merge**2,
    }


def forward(shape: Shape, s: Setting, rows: Rows) -> dict[str, Work]:
    """One pass over a micro-batch: {"text", "vision", "head"}. The vision part is left out where features are stored."""
    seen = tokens_of(shape, rows)
    t = shape.tower
    pairs = rows.pairs if rows.masked else rows.pairs / 2
    text = Work(
        _linear(shape, ("layer",), seen), _adapters(s, ("layer",), seen), 4.0 * shape.layers * shape.queries * pairs
    )
    window = (t.window // t.patch) ** 2 if t.window else 0
    whole = sum(n * n for n in rows.patches) * t.whole
    windows = sum(rows.patches) * window * (t.depth - t.whole)
    embed = 2.0 * t.pixels * t.hidden * sum(rows.patches)
    vision = Work(
        embed + _linear(shape, ("block", "merger"), seen),
        _adapters(s, ("block", "merger"), seen),
        4.0 * t.hidden * (whole + windows),
    )
    return {"text": text, "vision": vision, "head": Work(_linear(shape, ("head",), seen))}


def backward(shape: Shape, s: Setting, rows: Rows) -> dict[str, Work]:
    """Gradients of inputs, and of weights where these are trained; with checkpointing also the layers once more. Attention
    makes its scores again: five products in place of two."""
    first = forward(shape, s, rows)
    found = {}
    for part, work in first.items():
        if part == "vision" and not s.trains_tower:
            continue
        factor = 1 if s.lora else 2
        made = Work(factor * work.linear, 2 * work.adapters, 2.5 * work.attention)
        if part == "vision":  # pixels have no gradient; with LoRA neither has what the first block sees
            missing = _first_block(shape, s, rows)
            made = Work(made.linear - missing, made.adapters, made.attention)
        if part == "head":  # scores are made again, tile by tile
            made = Work(made.linear + work.linear)
        elif s.checkpointing:
            made = _plus(made, _again(shape, s, rows, part, work))
        found[part] = made
    return found


def update(shape: Shape, s: Setting, rows: Rows, *, stored: bool) -> dict[str, float]:
    """All passes of a micro-batch: reference, old policy, forward, backward. stored: features of a frozen tower are in the
    store; a trained tower sees its pictures in every pass."""
    once = forward(shape, s, rows)
    scoring = (1 if s.reference else 0) + (1 if s.windows > 1 else 0)
    see = 0 if stored and not s.trains_tower else 1
    plain = {name: work.total * (see if name == "vision" else 1) for name, work in once.items()}
    if s.reference and s.lora:  # the reference is the model with its adapters off
        plain_reference = {
            name: value - once[name].adapters * (see if name == "vision" else 1) for name, value in plain.items()
        }
    else:
        plain_reference = plain
    reference = sum(plain_reference.values()) if s.reference else 0.0
    old = sum(plain.values()) * (scoring - (1 if s.reference else 0))
    return {
        "reference": reference,
        "old policy": old,
        "forward": sum(plain.values()),
        "backward": sum(work.total for work in backward(shape, s, rows).values()),
    }


def teaching(shape: Shape, s: Setting, rows: Rows) -> float:
    """A teacher's pass over a micro-batch whose screenshots' features are stored. It makes its scores twice, see
    rl/train/divergence.py. shape, s: the teacher's."""
    found = forward(shape, s, rows)
    return found["text"].total + 2 * found["head"].total


def divergence(shape: Shape, s: Setting, rows: Rows) -> float:
    """What a student adds to be compared with a teacher: scores, the same again in the backward, and their gradients."""
    return (3 if s.lora else 4) * forward(shape, s, rows)["head"].total


def _linear(shape: Shape, where: Iterable[Where], seen: Mapping[Where, float]) -> float:
    chosen = set(where)
    return sum(2.0 * one.weights * seen[one.where] for one in shape.linears() if one.where in chosen)


def _adapters(s: Setting, where: Iterable[Where], seen: Mapping[Where, float]) -> float:
    chosen = set(where)
    return sum(2.0 * _low(one, s.rank) * seen[one.where] for one in s.adapted if one.where in chosen)


def _low(one: Linear, rank: int) -> int:
    return rank * (one.inputs + one.outputs) * one.count


def _first_block(shape: Shape, s: Setting, rows: Rows) -> float:
    t, patches = shape.tower, sum(rows.patches)
    embed = 2.0 * t.pixels * t.hidden * patches
    return embed + 2.0 * 3 * t.hidden**2 * patches if s.lora else embed


def _again(shape: Shape, s: Setting, rows: Rows, part: str, work: Work) -> Work:
    """What checkpointing computes a second time. The last product of a layer is left out where nothing after it is saved; an
    adapter saves something after it. Patches' embedding and mergers are not checkpointed."""
    seen, where = tokens_of(shape, rows), "block" if part == "vision" else "layer"
    last = [one for one in shape.linears() if one.where == where and one.name in ("down_proj", "linear_fc2")]
    skipped = 0.0 if s.lora else sum(2.0 * one.weights * seen[one.where] for one in last)
    linear = _linear(shape, ("block",), seen) if part == "vision" else work.linear
    adapters = _adapters(s, ("block",), seen) if part == "vision" else work.adapters
    return Work(linear - skipped, adapters, work.attention)


def _plus(a: Work, b: Work) -> Work:
    return Work(a.linear + b.linear, a.adapters + b.adapters, a.attention + b.attention)
