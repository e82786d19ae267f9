"""What both stages share on the Hugging Face trainer: arguments, launch checks, the model to train."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import socket
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import DistributedType  # type: ignore[import-untyped]
from peft import LoraConfig, PeftModel
from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from agent.errors import SetupError
from agent.local import load_model
from rl.config import nearest

Args = TypeVar("Args", bound=TrainingArguments)

_RL_DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-6,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.01,
    "loss_type": "dapo",
    "beta": 1e-4,
    "epsilon": 0.2,
    "temperature": 1.0,
    "gradient_accumulation_steps": 4,
}
_RL_OWNED: dict[str, Any] = {
    # TRL only counts with these two; what a micro-batch holds is decided by rl/batch.py.
    "per_device_train_batch_size": 2,
    "num_generations": 2,
    "shuffle_dataset": False,
    "use_vllm": False,
}
_OWNED: dict[str, Any] = {"remove_unused_columns": False, "eval_strategy": "no", "logging_nan_inf_filter": False}
_SFT_DEFAULTS: dict[str, Any] = {"learning_rate": 1e-5, "loss_type": "nll"}
_SFT_OWNED: dict[str, Any] = {
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "max_length": None,
    "packing": False,
    "average_tokens_across_devices": True,
}


# ----------------------------------------------------------------------------------------------------------- arguments


def make_training_args(
    training: Mapping[str, Any], output_dir: Path, deepspeed: str | Path | None = None
) -> GRPOConfig:
    """GRPOConfig from a config's `training` section over our defaults. Call it before anything touches the device.

    deepspeed: a DeepSpeed JSON file. save_steps is rounded up to the end of a generation: only there is a checkpoint
    exact. Raises SetupError for unknown keys, keys the trainer owns, truncated sampling (a truncated sampler biases the
    importance ratio) and losses that average inside a micro-batch (they would depend on how rows were dealt).
    """
    args = _make(GRPOConfig, training, output_dir, deepspeed, _RL_DEFAULTS, _RL_OWNED)
    for key, plain in (("top_p", (1.0,)), ("top_k", (0, None)), ("min_p", (None, 0.0)), ("repetition_penalty", (1.0,))):
        if getattr(args, key) not in plain:
            raise SetupError(f"training.{key} truncates or reshapes sampling and biases the update; remove it")
    if args.loss_type not in ("dapo", "grpo", "cispo"):
        raise SetupError(f"training.loss_type {args.loss_type!r}; use dapo (token mean), grpo (sequence mean) or cispo")
    if args.steps_per_generation % args.gradient_accumulation_steps:
        raise SetupError(
            f"training.steps_per_generation {args.steps_per_generation} is not a multiple of "
            f"gradient_accumulation_steps {args.gradient_accumulation_steps}; an update must not span generations"
        )
    cycle = updates_per_generation(args)
    if args.max_steps <= 0 or args.max_steps % cycle:
        raise SetupError(
            f"training.max_steps is {args.max_steps}; set it to a multiple of {cycle} updates per generation"
        )
    every = args.save_steps if args.save_steps >= 1 else args.save_steps * args.max_steps
    args.save_steps = max(1, math.ceil(every / cycle)) * cycle
    return args


def make_sft_args(training: Mapping[str, Any], output_dir: Path, deepspeed: str | Path | None = None) -> SFTConfig:
    """SFTConfig from a config's `training` section over our defaults; see `make_training_args`."""
    return _make(SFTConfig, training, output_dir, deepspeed, _SFT_DEFAULTS, _SFT_OWNED)


def updates_per_generation(args: GRPOConfig) -> int:
    return int(args.steps_per_generation // args.gradient_accumulation_steps * args.num_iterations)


def _make(
    kind: type[Args],
    training: Mapping[str, Any],
    output_dir: Path,
    deepspeed: str | Path | None,
    defaults: Mapping[str, Any],
    owned: Mapping[str, Any],
) -> Args:
    fields = {f.name for f in dataclasses.fields(kind) if f.init}
    hints = typing.get_type_hints(kind)
    for key, value in training.items():
        if key not in fields:
            raise SetupError(f"unknown key training.{key}{nearest(key, fields)}")
        if key in owned or key in _OWNED or key in ("output_dir", "deepspeed"):
            raise SetupError(f"training.{key} is set by the trainer itself; remove it")
        if isinstance(value, str) and hints[key] in (float, float | None):
            training = {**training, key: _number(key, value)}
        elif isinstance(value, bool) and key.endswith("_strategy"):  # YAML reads a bare `no` as false
            training = {**training, key: "yes" if value else "no"}
    if deepspeed is not None:
        if not Path(deepspeed).is_file():
            raise SetupError(f"no DeepSpeed config {deepspeed}; give one of launch/deepspeed/zero1.json, zero2, zero3")
        _stand_in_for_a_launcher()
    gpu = torch.cuda.is_available()
    given: dict[str, Any] = {
        "report_to": ["tensorboard"],
        "logging_steps": 1,
        "save_total_limit": 2,
        "seed": 0,
        "bf16": gpu,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        **defaults,
        **training,
        **owned,
        **_OWNED,
        "output_dir": str(output_dir),
    }
    if deepspeed is not None:
        given["deepspeed"] = str(deepspeed)
    if not gpu and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        given["ddp_backend"] = "gloo"
    try:
        made: Args = kind(**given)
    except (TypeError, ValueError) as error:
        raise SetupError(f"training: {error}") from error
    return made


def _number(key: str, value: str) -> float:
    """YAML reads 1e-6 (no dot) as a string."""
    try:
        return float(value)
    except ValueError:
        raise SetupError(f"training.{key} is {value!r}, expected a number") from None


def _stand_in_for_a_launcher() -> None:
    """DeepSpeed without torchrun looks for MPI; these variables say that this is the only process."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    only = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(only)


# -------------------------------------------------------------------------------------------------------------- launch


def check_launch(accelerator: Any, args: TrainingArguments, processes: int | None) -> None:
    """Launchers fall back to one process or to no DeepSpeed without a word; this turns it into a SetupError."""
    wanted = processes if processes is not None else int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise SetupError(
            f"{accelerator.num_processes} process(es) run, {wanted} were asked for; start with "
            f"`torchrun --nproc_per_node {wanted}` (not `accelerate launch --cpu`)"
        )
    deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    if deepspeed != bool(args.deepspeed):
        raise SetupError(
            f"DeepSpeed is {'on' if deepspeed else 'off'}, but the run asks for {args.deepspeed or 'none'}; "
            "start with torchrun and pass the DeepSpeed config to this program only"
        )
    if deepspeed:
        asked = json.loads(Path(str(args.deepspeed)).read_text())["zero_optimization"]["stage"]
        runs = accelerator.state.deepspeed_plugin.zero_stage
        if asked != runs:
            raise SetupError(f"ZeRO stage {runs} runs, {args.deepspeed} asks for {asked}; unset ACCELERATE_* variables")


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

        # ZeRO-3 reads its world size while the model loads; on CPUs nobody has told DeepSpeed by then.
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
        try:
            model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise SetupError(f"adapter {adapter} does not fit {path}: {error}; check both paths") from error
    return model
