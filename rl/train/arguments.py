"""The `training` section of a config -> the arguments of TRL's trainers, over our defaults."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from guiderail.agent.errors import SetupError
from guiderail.rl.config import RL_DEFAULTS, updates_of
from guiderail.rl.keys.training import LOSS, OWNED, RL_OWNED, SFT_DEFAULTS, SFT_OWNED, checked

Args = TypeVar("Args", bound=TrainingArguments)


def make_training_args(
    training: Mapping[str, Any], output_dir: Path, deepspeed: str | Path | None = None
) -> GRPOConfig:
    """GRPOConfig from a config's `training` section over our defaults. Call it before anything touches the device.

    deepspeed: a DeepSpeed JSON file. save_steps is rounded up to the end of a generation: only there is a checkpoint
    exact. Raises SetupError for unknown keys, keys the trainer owns, truncated sampling (a truncated sampler biases the
    importance ratio) and losses that average inside a micro-batch (they would depend on how rows were dealt).
    """
    training = checked(training, "semi-online")
    args = _make(GRPOConfig, training, output_dir, deepspeed, RL_DEFAULTS | LOSS | RL_OWNED)
    cycle = updates_of(vars(args)).per_generation
    if args.max_steps <= 0 or args.max_steps % cycle:
        raise SetupError(
            f"training.max_steps is {args.max_steps}; set it to a multiple of {cycle} updates per generation"
        )
    every = args.save_steps if args.save_steps >= 1 else args.save_steps * args.max_steps
    args.save_steps = max(1, math.ceil(every / cycle)) * cycle
    return args


def make_sft_args(training: Mapping[str, Any], output_dir: Path, deepspeed: str | Path | None = None) -> SFTConfig:
    """SFTConfig from a config's `training` section over our defaults; see `make_training_args`."""
    return _make(SFTConfig, checked(training, "sft"), output_dir, deepspeed, SFT_DEFAULTS | SFT_OWNED)


def make_plain_args(training: Mapping[str, Any], output_dir: Path) -> TrainingArguments:
    """transformers' own arguments over our defaults, for a training that is neither SFT nor RL."""
    return _make(TrainingArguments, training, output_dir, None, {})


def in_updates(training: Mapping[str, Any], units: int, groups: int, tries: int) -> tuple[dict[str, Any], int | None]:
    """(`training` with max_steps in place of num_train_epochs, the visits of units after which the run ends or None).

    num_train_epochs are passes over the units; a unit whose group is dropped has been visited too. So max_steps is an upper
    bound, reached where nothing is dropped. It is also what a learning-rate schedule spans: only a constant one is the same
    however many groups are dropped. max_steps wins when both are given. groups, tries: of a generation (`Plan`).
    """
    rest = {key: value for key, value in training.items() if key != "num_train_epochs"}
    epochs = training.get("num_train_epochs")
    if rest.get("max_steps") is not None or epochs is None:
        return rest, None
    visits = math.ceil(epochs * units)
    generations = -(-visits // min(groups, units * tries))
    rest["max_steps"] = generations * updates_of(RL_DEFAULTS | rest).per_generation
    return rest, visits


def _make(
    kind: type[Args],
    training: Mapping[str, Any],
    output_dir: Path,
    deepspeed: str | Path | None,
    ours: Mapping[str, Any],
) -> Args:
    """training: checked, so that it sets nothing that the trainer owns."""
    if deepspeed is not None:
        if not Path(deepspeed).is_file():
            raise SetupError(f"no DeepSpeed config {deepspeed}; guiderail brings zero1.json, zero2.json and zero3.json")
        _stand_in_for_a_launcher()
    gpu = torch.cuda.is_available()
    given: dict[str, Any] = {
        "report_to": ["tensorboard"],
        "logging_steps": 1,
        "save_total_limit": 2,
        "bf16": gpu,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        **ours,
        **training,
        **OWNED,
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


def _stand_in_for_a_launcher() -> None:
    """DeepSpeed without torchrun looks for MPI; these variables say that this is the only process."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    only = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(only)
