"""What of a training may differ between two of its legs: what changes no update that both would make."""

from __future__ import annotations

from guiderail.rl.runs.record import About

_SAVING = ("save_steps", "save_total_limit", "save_strategy", "save_only_model")
_SAYING = ("logging_", "report_to", "run_name", "project", "trackio_", "log_", "disable_tqdm", "push_to_hub", "hub_")
_LOADING = ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch")
_SERVING = (
    "server",
    "group_port",
    "drafts",  # today's speculation
    "speculation",
    "sleep",
    "weights_folder",
    "timeout",
    "deadline",
    "concurrency",
    "memory",
    "tolerance",
    "features",
    "decoders",
)
_LENGTH = ("config.training.max_steps", "config.training.num_train_epochs", "config.method.max_turns")


def may_change(about: About, name: str) -> bool:
    """`MayChange` of trainings: how they are saved, logged, loaded and served; and how long they are, where the learning
    rate does not depend on it."""
    section, _, key = name.removeprefix("config.").partition(".")
    if name in _LENGTH:
        return name == "config.method.max_turns" or _constant(about)
    if section == "training":
        return key.startswith((*_SAVING, *_SAYING, *_LOADING))
    return section == "rollout" and key in _SERVING


def _constant(about: About) -> bool:
    """Whether an update's learning rate, patch budget and band of tasks are the same however many follow. SFT's default is not: TRL's is linear."""
    config = about.config or {}
    training, algorithm = config.get("training", {}), config.get("method", {}).get("algorithm")
    if config.get("method", {}).get("patch_budget") == "falling" or config.get("online", {}).get("bands"):
        return False
    schedule = training.get("lr_scheduler_type", "linear" if algorithm == "sft" else "constant")
    warmup = training.get("warmup_steps") or 0
    share = training.get("warmup_ratio") or 0 < warmup < 1
    return schedule == "constant" or (schedule == "constant_with_warmup" and not share)
