"""The `training` section of a config, checked without TRL, whose import takes seconds: keys, kinds of values, their rules."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import nearest
from guiderail.rl.config import RL_DEFAULTS, updates_of
from guiderail.rl.keys.fields import GRPO, SFT

_OPTIMIZER: dict[str, Any] = {
    "optim": "adamw_torch_fused",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "warmup_steps": 0,
    "label_smoothing_factor": 0.0,
    "neftune_noise_alpha": None,
}
"""Stated, like the two below: a default that moves in TRL or transformers must not move our numbers."""
LOSS: dict[str, Any] = {
    **_OPTIMIZER,
    "importance_sampling_level": "token",
    "epsilon_high": None,
    "delta": None,
    "top_entropy_quantile": 1.0,
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "entropy_coef_min": 0.0,
    "entropy_coef_max": 1.0,
    "entropy_coef_delta": 0.005,
    "entropy_target": 0.2,
    "off_policy_mask_threshold": None,
    "sync_ref_model": False,
    "ref_model_mixup_alpha": 0.6,
    "ref_model_sync_steps": 512,
    "router_aux_loss_coef": None,
    "disable_dropout": False,
    "cast_lm_head_to_fp32": False,
}
"""What TRL's loss reads besides RL_DEFAULTS."""
_NO_EFFECT = frozenset(
    {
        *("max_completion_length", "num_generations_eval", "max_tool_calling_iterations", "mask_truncated_completions"),
        *("generation_kwargs", "chat_template_kwargs", "cache_implementation", "ds3_gather_for_generation"),
        *("reward_weights", "multi_objective_aggregation", "scale_rewards", "pad_to_multiple_of"),
        *("model_init_kwargs", "trust_remote_code"),
    }
)
"""Fields of what TRL never does here: sampling, rewards, loading."""
_NO_EFFECT_FAMILIES = ("vllm_", "sapo_", "vespo_", "use_transformers_", "transformers_continuous_batching_")
RL_OWNED: dict[str, Any] = {
    # TRL only counts with these two; what a micro-batch holds is decided by rl/train/batch.py.
    "per_device_train_batch_size": 2,
    "num_generations": 2,
    "generation_batch_size": None,
    "shuffle_dataset": False,
    "use_vllm": False,
}
OWNED: dict[str, Any] = {"remove_unused_columns": False, "eval_strategy": "no", "logging_nan_inf_filter": False}
SFT_DEFAULTS: dict[str, Any] = {
    **_OPTIMIZER,
    "learning_rate": 1e-5,
    "lr_scheduler_type": "linear",
    "weight_decay": 0.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "loss_type": "nll",
    "completion_only_loss": None,
    "assistant_only_loss": False,
    "router_aux_loss_coef": None,
    "seed": RL_DEFAULTS["seed"],
}
SFT_OWNED: dict[str, Any] = {
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "max_length": None,
    "packing": False,
    "average_tokens_across_devices": True,
}
_PLAIN_SAMPLING: dict[str, tuple[float | None, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, None),
    "min_p": (0.0, None),
    "repetition_penalty": (1.0,),
}


def checked(training: Mapping[str, Any], algorithm: str) -> dict[str, Any]:
    """The section with its values as TRL takes them: 1e-6, which YAML reads as text, is a number.

    algorithm: "sft" or any other. Raises SetupError for unknown keys, keys that the trainer sets itself and values of the
    wrong kind; in RL also for truncated sampling, which biases the importance ratio, for losses that average inside a
    micro-batch, which depend on how rows are dealt, and for updates that do not fill whole generations.
    """
    known, owned = (SFT, SFT_OWNED) if algorithm == "sft" else (GRPO, RL_OWNED)
    for key in training:
        if key not in known:
            raise SetupError(f"unknown key training.{key}{nearest(str(key), known)}")
        if key in owned or key in OWNED or key in ("output_dir", "deepspeed"):
            raise SetupError(f"training.{key} is set by the trainer itself; remove it")
        if algorithm != "sft" and (key in _NO_EFFECT or key.startswith(_NO_EFFECT_FAMILIES)):
            raise SetupError(
                f"training.{key} has no effect: TRL's own sampling, rewards and loading never run here; remove it, and "
                "see the sections model, method and rollout"
            )
    made = {key: _value(key, value, known[key]) for key, value in training.items()}
    for key, value in made.items():
        _check_number(key, value)
    _check_trackers(made.get("report_to") or [])
    if algorithm != "sft":
        _check_rl(made)
    return made


_COUNTS = ("gradient_accumulation_steps", "steps_per_generation", "num_iterations", "per_device_train_batch_size")
_SIGNED = ("max_steps", "local_rank", "entropy_coef", "entropy_coef_min", "entropy_coef_max")
_SEEDS = ("seed", "data_seed")
LARGEST_SEED = 2**32 - 1


def _check_number(key: str, value: Any) -> None:
    """Raises SetupError for a number that no trainer can use."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if key in _SEEDS and not 0 <= value <= LARGEST_SEED:
        raise SetupError(f"training.{key} is {value}, expected 0 to {LARGEST_SEED}")
    if not math.isfinite(value):
        raise SetupError(f"training.{key} is {value}, expected a finite number")
    if key in _COUNTS and value <= 0:
        raise SetupError(f"training.{key} is {value}, expected 1 or more")
    if key not in _SIGNED and value < 0:
        raise SetupError(f"training.{key} is {value}, expected 0 or more")
    if key in ("max_steps", "num_train_epochs") and value == 0:
        raise SetupError(f"training.{key} is 0, expected more: nothing would be trained")


def _check_rl(training: dict[str, Any]) -> None:
    for key, plain in _PLAIN_SAMPLING.items():
        if training.get(key, plain[0]) not in plain:
            raise SetupError(f"training.{key} truncates or reshapes sampling and biases the update; remove it")
    given = RL_DEFAULTS | training
    if given["loss_type"] not in ("dapo", "grpo", "cispo"):
        raise SetupError(
            f"training.loss_type {given['loss_type']!r}; use dapo (token mean), grpo (sequence mean) or cispo"
        )
    if given["loss_type"] == "cispo" and (given.get("epsilon_high") is None or given["epsilon_high"] < 1):
        # cispo takes min(ratio, epsilon_high) as weight. TRL puts epsilon there, so every weight would be 0.2.
        raise SetupError("training.loss_type cispo needs training.epsilon_high, the largest ratio: set it to 5.0")
    steps, micro = given.get("steps_per_generation"), given["gradient_accumulation_steps"]
    if steps is not None and steps % micro:
        raise SetupError(
            f"training.steps_per_generation {steps} is not a multiple of gradient_accumulation_steps {micro}; an update "
            "must not span generations"
        )
    cycle, updates = updates_of(given).per_generation, training.get("max_steps")
    if updates is None and training.get("num_train_epochs") is None:
        raise SetupError(f"training.max_steps is missing; set it to a multiple of {cycle} updates per generation")
    if updates is not None and (updates <= 0 or updates % cycle):
        raise SetupError(f"training.max_steps is {updates}; set it to a multiple of {cycle} updates per generation")


_TRACKERS = ("comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")
"""Names in `report_to` that are also the name of the package."""
_OTHERS = ("all", "none", "azure_ml", "clearml", "codecarbon", "dagshub", "flyte", "kubeflow", "neptune")
_REPORTS = (*_TRACKERS, *_OTHERS)


def _check_trackers(wanted: str | list[str]) -> None:
    """Raises SetupError for an experiment tracker that is not installed, or that nobody knows."""
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in _REPORTS:
            raise SetupError(f"training.report_to names {name!r}{nearest(str(name), _REPORTS)}")
        if name in _TRACKERS and importlib.util.find_spec(name) is None:
            raise SetupError(f"training.report_to names {name}, which is not installed; run: pip install {name}")


def _value(key: str, value: Any, kind: str) -> Any:
    """value as a field of that kind takes it. Raises SetupError."""
    if value is None and kind.endswith("?"):
        return None
    plain = kind.removesuffix("?")
    if "|" in plain:
        # YAML reads a bare `no` as false.
        word = ("yes" if value else "no") if isinstance(value, bool) and key.endswith("_strategy") else value
        if word not in plain.split("|"):
            raise SetupError(f"training.{key} is {value!r}{nearest(str(word), plain.split('|'))}")
        return word
    number = isinstance(value, int) and not isinstance(value, bool)
    match plain:
        case "float" if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                raise SetupError(f"training.{key} is {value!r}, expected a number") from None
        case "float" if not number and not isinstance(value, float):
            raise SetupError(f"training.{key} is {value!r}, expected a number")
        case "int" if not number:
            raise SetupError(f"training.{key} is {value!r}, expected a whole number")
        case "bool" if not isinstance(value, bool):
            raise SetupError(f"training.{key} is {value!r}, expected true or false")
    return value
