"""Checkpoints that load as models and resume exactly, and a guard against NaN, for every trainer of this project."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from guiderail.agent.disk import sync, write_whole
from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_model
from guiderail.agent.local.vision import plain_model
from guiderail.rl.train.callbacks import Stop

COMPLETE = "complete.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, None where there is none. A run killed while saving leaves one without COMPLETE."""
    found = [p.parent for p in folder.glob(f"checkpoint-*/{COMPLETE}") if p.parent.name.split("-")[-1].isdigit()]
    return max(found, key=lambda p: int(p.name.split("-")[-1]), default=None)


def delete_checkpoint(folder: Path) -> None:
    """COMPLETE first: what a kill leaves of the folder does not count."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def delete_old(newest: Path, limit: int | None) -> None:
    """Delete what a kill left of checkpoints, and complete ones until `limit` are left; `newest` stays."""
    numbered = [p for p in newest.parent.glob("checkpoint-*") if p.name.split("-")[-1].isdigit() and p != newest]
    complete = sorted((p for p in numbered if (p / COMPLETE).is_file()), key=lambda p: int(p.name.split("-")[-1]))
    stale = [p for p in numbered if p not in complete]
    if limit is not None and limit > 0:
        stale += complete[: max(0, len(complete) + 1 - limit)]
    for folder in stale:
        delete_checkpoint(folder)


def mean_loss(history: Sequence[Mapping[str, Any]], start: int, end: int, mean: float) -> float:
    """Mean loss per update over all legs of a run, of which the last made updates `start` to `end` with this mean. What was
    before is in the log that its checkpoint carried: each entry is a mean over the updates since the entry before."""
    logged = [(int(row["step"]), float(row["loss"])) for row in history if "loss" in row and row["step"] <= start]
    befores = [0, *(step for step, _ in logged)]
    total = sum(loss * (step - before) for (step, loss), before in zip(logged, befores, strict=False))
    return (total + mean * (end - start)) / max(1, befores[-1] + end - start)


class ExactCheckpoints:
    """Mixin before a TRL trainer: checkpoints that load as models, exact resume, no silent NaN.

    progress: an object with state_dict() -> JSON values and load_state_dict(); saved per process with each checkpoint.
    beside: adds files to each folder of weights, on the main process.
    """

    encoder: Encoder
    progress: Any = None
    beside: Callable[[Path], None] | None = None
    accelerator: Any
    args: Any
    state: Any
    model: Any
    is_deepspeed_enabled: bool
    callback_handler: Any
    train_dataset: Any

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """resume_from_checkpoint: a checkpoint folder that this class wrote on the same number of processes. Raises SetupError
        for any other folder."""
        if resume_from_checkpoint:
            self._load_progress(Path(resume_from_checkpoint))
            if any(isinstance(one, Stop) and one.reached() for one in self.callback_handler.callbacks):
                self._end_at(Path(resume_from_checkpoint))
            resume_from_checkpoint = str(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]

    def _end_at(self, checkpoint: Path) -> None:
        """Make its update the run's last. Trainer makes none only where a pass over the data ends: callbacks are asked too late."""
        made = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).global_step
        self.train_dataset = self.train_dataset.select(range(len(self.train_dataset) * made // self.args.max_steps))
        self.args.max_steps = made

    def save_policy(self, folder: Path) -> None:
        """Write a folder for `agent.local.policy.load_policy`, which appears complete or not at all. Call it on every
        process: ZeRO-3 gathers the weights. Raises SetupError where DeepSpeed's config keeps them from being gathered."""
        partial = folder.with_name(f".{folder.name}.part")
        main = self.accelerator.is_main_process
        if main:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.save_model(str(partial))  # type: ignore[attr-defined]
        self.accelerator.wait_for_everyone()
        if main:
            if self.is_deepspeed_enabled and not list(partial.glob("*.safetensors")):
                raise SetupError(
                    f"no weights for {folder}; set stage3_gather_16bit_weights_on_model_save to true in the DeepSpeed config"
                )
            (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle, of no use to users of the model
            sync([*filter(Path.is_file, partial.rglob("*")), partial])
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes nothing: TRL's card would put a README into the run folder that says "trained with GRPO"."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            self.encoder.save(folder)
            if self.beside is not None:
                self.beside(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint counts when COMPLETE is in it, which comes last. Older ones go only after that: there is always a
        complete one."""
        folder, main = self._checkpoint_folder(), self.accelerator.is_main_process
        if main and folder.exists():
            delete_checkpoint(folder)  # of a run that was killed while saving it
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = limit
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(self.progress, "state_dict"):
            self._progress_file(folder).write_text(json.dumps(self.progress.state_dict()))
        self.accelerator.wait_for_everyone()
        if main:
            sync([*filter(Path.is_file, folder.rglob("*")), *folder.parent.glob("*.jsonl"), folder])
            write_whole(folder / COMPLETE, json.dumps({"processes": self.accelerator.num_processes}).encode())
            delete_old(folder, limit)
        self.accelerator.wait_for_everyone()

    def _checkpoint_folder(self) -> Path:
        return Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"

    def _progress_file(self, folder: Path) -> Path:
        return folder / f"progress-{self.accelerator.process_index}.json"

    def _load_progress(self, folder: Path) -> None:
        if not (folder / COMPLETE).is_file():
            raise SetupError(f"checkpoint {folder} is incomplete; resume from the one before it")
        saved = json.loads((folder / COMPLETE).read_text())["processes"]
        if saved != self.accelerator.num_processes:
            raise SetupError(
                f"checkpoint {folder} was written by {saved} process(es), this run has {self.accelerator.num_processes}; "
                f"resume on {saved}"
            )
        if hasattr(self.progress, "load_state_dict"):
            self.progress.load_state_dict(json.loads(self._progress_file(folder).read_text()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Saved Qwen2.5-VL weights have the hub's names. Trainer loads them with strict=False, which loads nothing at all."""
        target = model if model is not None else self.model
        if self.is_deepspeed_enabled or hasattr(target, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            # Beside a folder for another adapter (the reference), transformers before 5.20 leaves this one as it was.
            if not self.is_deepspeed_enabled:
                target.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            return
        saved = load_model(resume_from_checkpoint, "cpu", target.dtype)
        plain_model(target).load_state_dict(saved.state_dict(), strict=True)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        if norm is not None:
            self.check_finite(norm, "gradient norm")
        return norm

    def check_finite(self, value: Any, what: str) -> None:
        """Raises GuiderailError for NaN and infinity, after writing `nonfinite-<rank>.json` into the run folder."""
        number = float(value.detach() if isinstance(value, torch.Tensor) else value)
        if math.isfinite(number):
            return
        report = {"what": what, "value": str(number), "update": self.state.global_step, **self.current()}
        file = Path(self.args.output_dir) / f"nonfinite-{self.accelerator.process_index}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=1))
        where = "".join(f", {key} {value}" for key, value in report.items() if key in ("update", "generation"))
        raise GuiderailError(f"{what} is {number}{where}; the samples of this update are in {file}")

    def current(self) -> dict[str, Any]:
        """The samples of this update, as JSON values, for `check_finite`."""
        return {}
