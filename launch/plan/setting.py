"""What of a config decides memory and time: what is trained, in which numbers, and how it is spread over GPUs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guiderail.launch.before import training_of
from guiderail.launch.plan.shape import Linear, Shape, base_of, shape_of
from guiderail.rl.config import Config, updates_of
from guiderail.rl.keys.training import SFT_DEFAULTS


@dataclass(frozen=True, slots=True)
class Setting:
    """adapted: the linear layers with LoRA, none for full fine-tuning. rank: of LoRA.

    stored, computed: bytes of a stored weight and of a number in the forward. autocast: torch casts inside the forward.
    zero: DeepSpeed's stage, 0 with plain DDP, None without DeepSpeed or processes. bucket, live: elements of ZeRO's gradient
    bucket, and of parameters that ZeRO-3 keeps gathered. reference: a second model for the KL term.
    windows, micro, passes: as `rl.config.Updates`. rows: the most rows of a micro-batch.
    """

    adapted: tuple[Linear, ...]
    rank: int
    trains_tower: bool
    stored: int
    computed: int
    autocast: bool
    zero: int | None
    bucket: int
    live: int
    checkpointing: bool
    reference: bool
    windows: int
    micro: int
    passes: int
    rows: int
    share: bool

    @property
    def lora(self) -> bool:
        return bool(self.adapted)

    @property
    def adapters(self) -> int:
        """Parameters of the adapters."""
        return sum(self.rank * (one.inputs + one.outputs) * one.count for one in self.adapted)

    @property
    def adapter_bytes(self) -> int:
        """PEFT keeps adapters in float32; DeepSpeed casts them with everything else."""
        return self.stored if self.zero is not None else 4

    @property
    def copies(self) -> int:
        """Bytes of a number in the copy that every LoRA layer keeps of its input; 0 where it shares the layer's own."""
        if not self.lora or self.adapter_bytes == self.computed:
            return 0
        return self.computed if self.autocast else self.adapter_bytes

    def trained(self, shape: Shape) -> int:
        """Parameters that are trained."""
        if self.lora:
            return self.adapters
        return shape.parameters("all" if self.trains_tower else "text")


def setting_of(config: Config, shape: Shape, *, gpu: bool) -> Setting:
    """gpu: whether the run is to be on GPUs, where the trainer's defaults differ (rl/train/arguments.py). Raises
    SetupError."""
    training, deepspeed = training_of(config)
    sft = config.method.algorithm == "sft"
    given: Mapping[str, Any] = {**SFT_DEFAULTS, **training} if sft else config.rl_training() | training
    lora, frozen = config.model.lora, config.model.freeze_vision
    zero = json.loads(Path(deepspeed).read_text())["zero_optimization"] if deepspeed is not None else None
    half = bool(given.get("bf16", gpu))
    adapter = lora is not None or config.model.adapter is not None
    full_precision = config.model.dtype == "float32" or (
        config.model.dtype == "auto" and (not gpu or (not adapter and zero is None))
    )
    stored = 4 if full_precision and not (zero is not None and half) else 2
    targets = lora.target_modules if lora is not None else "all-linear"
    micro = int(given["gradient_accumulation_steps"])
    updates = updates_of(given) if not sft else None
    return Setting(
        adapted=tuple(shape.adapted(targets, frozen)) if adapter else (),
        rank=lora.r if lora is not None else 16,
        trains_tower=not frozen,
        stored=stored,
        computed=2 if half or stored == 2 else 4,
        autocast=half and zero is None,
        zero=None if zero is None else int(zero["stage"]),
        bucket=int(float((zero or {}).get("reduce_bucket_size", 5e8))),
        live=int(float((zero or {}).get("stage3_max_live_parameters", 1e9))),
        checkpointing=bool(given.get("gradient_checkpointing", gpu)),
        reference=not sft and float(given.get("beta", 0.0)) > 0,
        windows=updates.windows if updates else 1,
        micro=micro,
        passes=updates.passes if updates else 1,
        rows=int(given["per_device_train_batch_size"]) if sft else config.method.max_rows,
        share=config.update.share_prefix and not sft,
    )


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that scores what is trained on, a frozen copy in each process (rl/distill/teacher.py). setting: of its passes."""

    shape: Shape
    setting: Setting


def teacher_of(config: Config, student: Setting, *, gpu: bool) -> Teacher | None:
    """None where there is none, or it is on a server. With dtype auto its numbers are taken as bfloat16 on a GPU, as published
    ones are. Raises SetupError for a model whose shape is not known."""
    given = config.teacher
    if given is None or given.path is None or config.method.algorithm == "sft":
        return None
    stored = 4 if given.dtype == "float32" or (given.dtype == "auto" and not gpu) else 2
    setting = replace(
        student,
        adapted=(),
        trains_tower=False,
        stored=stored,
        computed=2 if student.autocast else stored,
        zero=None,
        checkpointing=False,
        reference=False,
    )
    return Teacher(shape_of(base_of(given.path)), setting)
