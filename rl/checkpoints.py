"""Checkpoints that load as models and resume exactly, and a guard against NaN, for every trainer of this project."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from agent.encode import Encoder
from agent.errors import GuiderailError, SetupError
from agent.local import plain_model

COMPLETE = "complete.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a run killed while saving leaves one without the marker."""
    found = [p.parent for p in folder.glob(f"checkpoint-*/{COMPLETE}") if p.parent.name.split("-")[-1].isdigit()]
    return max(found, key=lambda p: int(p.name.split("-")[-1]), default=None)


class ExactCheckpoints:
    """Mixin in front of a TRL trainer: loadable model folders, exact resume, no silent NaN.

    `progress`: an object with state_dict() -> JSON values and load_state_dict(); saved per process with each checkpoint.
    """

    encoder: Encoder
    progress: Any = None
    accelerator: Any
    args: Any
    state: Any
    model: Any
    is_deepspeed_enabled: bool

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """resume_from_checkpoint: a checkpoint folder written by this class on as many processes."""
        if resume_from_checkpoint:
            self._load_progress(Path(resume_from_checkpoint))
            resume_from_checkpoint = str(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]

    def save_policy(self, folder: Path) -> None:
        """A folder for `agent.local.load_policy`. Call it on every process: ZeRO-3 gathers the weights."""
        self.save_model(str(folder))  # type: ignore[attr-defined]
        if self.accelerator.is_main_process:
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, of no use to whoever gets the model
        if self.is_deepspeed_enabled and self.accelerator.is_main_process and not list(folder.glob("*.safetensors")):
            raise SetupError(
                f"no weights in {folder}; set stage3_gather_16bit_weights_on_model_save to true in the DeepSpeed config"
            )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: TRL's card would call the run folder "trained with GRPO" and write a README into it."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        if self.args.should_save:
            self.encoder.save(Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(self.progress, "state_dict"):
            self._progress_file(folder).write_text(json.dumps(self.progress.state_dict()))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (folder / COMPLETE).write_text(json.dumps({"processes": self.accelerator.num_processes}))
        self.accelerator.wait_for_everyone()

    def _progress_file(self, folder: Path) -> Path:
        return folder / f"progress-{self.accelerator.process_index}.json"

    def _load_progress(self, folder: Path) -> None:
        if not (folder / COMPLETE).is_file():
            raise SetupError(f"checkpoint {folder} is incomplete; resume from the one before it")
        saved = json.loads((folder / COMPLETE).read_text())["processes"]
        if saved != self.accelerator.num_processes:
            raise SetupError(f"checkpoint {folder} is of {saved} process(es); resume on as many")
        if hasattr(self.progress, "load_state_dict"):
            self.progress.load_state_dict(json.loads(self._progress_file(folder).read_text()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Saved Qwen2.5-VL weights carry hub names; Trainer loads them with strict=False, which loads nothing at all."""
        target = model if model is not None else self.model
        if self.is_deepspeed_enabled or hasattr(target, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = AutoModelForImageTextToText.from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        plain_model(target).load_state_dict(saved.state_dict(), strict=True)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        if norm is not None:
            self.check_finite(norm, "gradient norm")
        return norm

    def check_finite(self, value: Any, what: str) -> None:
        """Raises GuiderailError after leaving `nonfinite-<rank>.json` in the run folder."""
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
        """What is being trained on, as JSON values, for `check_finite`."""
        return {}
