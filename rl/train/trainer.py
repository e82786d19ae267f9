"""Semi-online RL on TRL: its trainer and its loss, our samples.

TRL asks its trainer for a micro-batch at a time (`_prepare_inputs`). Where it would sample completions and score them
with reward functions, this class calls `collect`, which hands over samples with their advantages, and deals them. The
loss (clipped ratio, KL k3) is TRL's, unchanged. Private members of TRL this file touches are listed in
tests/rl/train/test_trainer.py, which fails when TRL renames one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import use_adapter

from guiderail.agent.local.attention import use_attention
from guiderail.agent.local.drafts import Drafts
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.local.prefix import pairs_per_token
from guiderail.agent.local.vision import VisionStore, plain_model
from guiderail.agent.policy import Attention, Policy, Sharing
from guiderail.rl.config import updates_of
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.train.batch import collate, micro_batches, with_pixels
from guiderail.rl.train.checkpoints import ExactCheckpoints
from guiderail.rl.train.distributed import check_launch
from guiderail.rl.train.divergence import Teacher, Told
from guiderail.rl.train.importance import importance
from guiderail.rl.train.lessons import Lessons, told_by
from guiderail.rl.train.model import trainable_model
from guiderail.rl.train.prefix import EncodedTurn, Layout, lay_out, takes_trees, token_logps


class Collect(Protocol):
    """Called once per generation on every process. May have state_dict() / load_state_dict() (JSON values), which go
    into every checkpoint, and `metrics`, a dict of floats, which go to the log."""

    def __call__(self, policy: Policy, generation: int, /) -> list[StepSample]: ...


class SemiOnlineTrainer(ExactCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """args: from `make_training_args`. adapter: PEFT folder to go on training; lora: a new adapter; neither: all weights.

    max_rows: most samples in one micro-batch of one process. max_batch: rows decoded together. processes: how many the
    user asked for (default: WORLD_SIZE). Reference of the KL term: the weights (or adapter) training started from.
    share_prefix: rows of a micro-batch share the forward over what they have in common (rl/train/prefix.py). share_vision: a
    frozen tower sees each screenshot once. Same loss and gradients up to rounding; with neither, the forward is TRL's.
    attention: see `rl.config.Model`. sharing: what rollouts share. features: a folder for vision features, shared by the
    processes of a host. importance_cap: see rl/train/importance.py. teacher: adds a term to the loss
    (rl/train/divergence.py); None or a weight of 0 adds nothing and computes nothing.
    """

    loss_type: str
    other_sampler = False
    """Whether rollouts are sampled by another program than the one that trains."""
    _buffered_inputs: list[dict[str, Any]] | None

    def __init__(
        self,
        path: str | Path,
        collect: Collect | Callable[[Policy, int], list[StepSample]],
        args: GRPOConfig,
        *,
        encoder: Encoder | None = None,
        adapter: str | Path | None = None,
        lora: LoraConfig | None = None,
        freeze_vision: bool = False,
        dtype: str = "auto",
        attention: Attention = "auto",
        max_rows: int = 64,
        max_batch: int = 64,
        share_prefix: bool = True,
        share_vision: bool = True,
        sharing: Sharing | None = None,
        features: Path | None = None,
        importance_cap: float = 2.0,
        teacher: Teacher | None = None,
        processes: int | None = None,
        callbacks: list[Any] | None = None,
    ):
        self.encoder = encoder or load_encoder(path)
        self.collect = self.progress = collect
        self.max_rows, self.max_batch, self.sharing = max_rows, max_batch, sharing or Sharing()
        # Earlier answers and times are kept over generations. Counts are not: a resumed run then decides as a straight one.
        lasting = self.sharing.speculation in ("suffix", "auto")
        self.drafts = Drafts.of(self.sharing.speculation) if lasting else None
        self.importance_cap = importance_cap
        self.lessons = Lessons(teacher, self) if teacher is not None and teacher.weight else None
        updates = updates_of(vars(args))
        self.windows = updates.windows
        self.generation = -1
        self._fresh_logps: Tensor | None = None
        self._layout: Layout | None = None
        self._corrected = False
        self._at: dict[str, Any] = {}
        generations = args.max_steps // updates.per_generation
        super().__init__(
            model=trainable_model(path, args, adapter=adapter, lora=lora, freeze_vision=freeze_vision, dtype=dtype),
            args=args,
            reward_funcs=_credited_already,
            # Only its length matters: one pass over it is `max_steps` updates.
            train_dataset=Dataset.from_dict(
                {"prompt": [""] * generations * args.world_size * args.steps_per_generation}
            ),
            processing_class=self.encoder.tokenizer,
            peft_config=lora,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # "grpo" and "dapo" differ in how tokens are averaged. Our weights (rl/train/batch.py) do that, exact for any number
        # of processes and rows; TRL's own "grpo" averages inside a micro-batch.
        self.by_tokens = updates.by_tokens
        self.loss_type = "dapo" if self.loss_type == "grpo" else self.loss_type
        check_launch(self.accelerator, args, processes)
        self.vision = VisionStore(self.encoder, on=share_vision, folder=features)
        plain = plain_model(self.model)
        models = [self.accelerator.unwrap_model(m) for m in (self.model, self.ref_model) if m is not None]
        maskless = [use_attention(model, attention, args.device) for model in models]
        self._maskless = maskless[0]
        trees = share_prefix and all(map(takes_trees, models))
        if share_prefix and not trees:
            _log.warning("update.share_prefix is off: this attention takes no 4-D mask; use sdpa to share prompts")
        self.share_prefix = share_prefix
        self._pairs = pairs_per_token(plain.config) if trees else None
        self._rope = plain.model.get_rope_index
        laid = trees or share_vision or self.lessons is not None
        self._lay: Callable[[Sequence[EncodedTurn]], Layout] | None = self._lay_out if laid else None

    # ------------------------------------------------------------------------------------------------- TRL's hooks

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = self._next_generation()
        batch = self._buffered_inputs[self._step % steps]
        if not self.vision.usable(
            self.accelerator.unwrap_model(self.model)
        ):  # a trained tower sees pixels in every update
            self.encoder.ahead(self._buffered_inputs[(self._step + 1) % steps]["pictures"])
        self._at = {"generation": self.generation, "samples": [_name(s) for s in batch["samples"] if s is not None]}
        return with_pixels(batch, self.encoder, self.accelerator.device)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """For old-policy, reference and update passes. The rows are those of `self._layout`, which holds what the padded
        arguments hold."""
        if self._layout is None:
            result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        else:
            plain = self.accelerator.unwrap_model(model)
            with self.accelerator.autocast(), self.vision.given(plain, self._layout.pictures) as vision:
                also = self.lessons.reader(plain, self._layout) if self.lessons is not None else None
                result = (*token_logps(model, plain, self._layout, vision, also), None)
        self._fresh_logps = result[0].detach()
        return result

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        self._layout = inputs["layout"]
        if self.lessons is not None:
            self.lessons.begin(inputs["lesson"])
        loss: Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.lessons is not None:
            loss = loss + self.lessons.end(inputs["num_items_in_batch"])
        self.check_finite(loss, "loss")
        if "old_per_token_logps" not in inputs and self._buffered_inputs is not None:
            # Before the first update of a generation the weights are still those that sampled; later iterations read this.
            self._buffered_inputs[self._step % self.args.steps_per_generation]["old_per_token_logps"] = (
                self._fresh_logps
            )
        first_update = self._step % (self.args.steps_per_generation * self.num_iterations)
        if first_update < self.args.gradient_accumulation_steps and self.temperature == 1.0:
            self._log_gap(inputs)
        return loss

    def current(self) -> dict[str, Any]:
        return self._at

    # ------------------------------------------------------------------------------------------------- a generation

    def _next_generation(self) -> list[dict[str, Any]]:
        self.generation = self.state.global_step // updates_of(vars(self.args)).per_generation
        self._at = {"generation": self.generation, "samples": []}
        if self.lessons is None:
            samples, prompts = self.sampled(), {}
        else:
            with self.current_policy() as policy:
                samples = self.collect(policy, self.generation)
                prompts = self.lessons.prompts(policy, samples, self.generation)
        packed = micro_batches(
            samples,
            self.encoder,
            windows=self.windows,
            per_window=self.args.gradient_accumulation_steps,
            max_rows=self.max_rows,
            by_tokens=self.by_tokens,
            seed=(self.args.seed, self.generation, self.accelerator.process_index),
            share=self.share_prefix,
        )
        rows = self._over_processes([float(len(m)) for m in packed.batches]).amax(0).clamp(min=1).long().tolist()
        items = self._over_processes(packed.items).sum(0).float()
        foreign = self.other_sampler or any(sample.behind for sample in samples)
        self._corrected = bool(self._over_processes([float(foreign)]).sum() > 0)
        batches = []
        for i, (micro, count) in enumerate(zip(packed.batches, rows, strict=True)):
            batch = collate(micro, count, self.encoder, self._lay)
            # TRL divides by num_items_in_batch / processes * accumulation / steps_per_generation, its mean over
            # windows; this makes it exactly this window's own count.
            batch["num_items_in_batch"] = items[i // self.args.gradient_accumulation_steps] * self.windows
            self._score(batch)
            if self._corrected:
                self._weigh(batch)
            if self.lessons is not None:
                batch["lesson"] = self.lessons.prepare(micro, prompts)
                self.lessons.hear(batch)
            batches.append(batch)
        if self.lessons is not None:
            self.lessons.record(batches, self.generation)
        self._log_generation(samples, packed.batches, sum(map(_forward_tokens, batches)))
        return batches

    def sampled(self) -> list[StepSample]:
        """This process's samples of the generation."""
        with self.current_policy() as policy:
            return self.collect(policy, self.generation)

    @contextmanager
    def current_policy(self) -> Iterator[LocalPolicy]:
        """A policy over the weights as they are now; ZeRO-3 gathers them for as long as it is open."""
        name = f"update-{self.state.global_step}"
        checkpointing = self.args.gradient_checkpointing_kwargs
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=checkpointing
            ) as model,
            self.accelerator.autocast(),
        ):
            store = self.vision if self.vision.on else None
            yield LocalPolicy(
                model,
                self.encoder,
                name,
                max_batch=self.max_batch,
                sharing=self.sharing,
                store=store,
                drafts=self.drafts,
            )

    def _lay_out(self, turns: Sequence[EncodedTurn]) -> Layout:
        return lay_out(turns, self.encoder, self._rope, self._pairs, self._maskless)

    @torch.no_grad()
    def _score(self, batch: dict[str, Any]) -> None:
        """Adds the reference's log-probabilities. With several windows also the old policy's, since the weights move before
        the later windows are reached; and where turns are corrected for having been sampled by another."""
        moves = self.windows > 1 or self._corrected
        if not moves and self.beta == 0.0:
            return
        full = with_pixels(batch, self.encoder, self.accelerator.device)
        inputs = {
            "input_ids": torch.cat([full["prompt_ids"], full["completion_ids"]], dim=1),
            "attention_mask": torch.cat([full["prompt_mask"], full["completion_mask"]], dim=1),
            "logits_to_keep": full["completion_ids"].size(1),
            **{k: full.get(k) for k in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")},
        }
        self._layout = full["layout"]
        if moves:
            batch["old_per_token_logps"] = self._get_per_token_logps_and_entropies(self.model, **inputs)[0]
        if self.beta == 0.0:
            return
        if self.ref_model is not None:
            batch["ref_per_token_logps"] = self._get_per_token_logps_and_entropies(self.ref_model, **inputs)[0]
            return
        plain = self.accelerator.unwrap_model(self.model)
        with use_adapter(plain, adapter_name="ref" if "ref" in plain.peft_config else None):
            batch["ref_per_token_logps"] = self._get_per_token_logps_and_entropies(self.model, **inputs)[0]

    def _weigh(self, batch: dict[str, Any]) -> None:
        known = [sample is not None and (self.other_sampler or sample.behind > 0) for sample in batch["samples"]]
        old = batch["old_per_token_logps"]
        sampler = batch["rollout_logps"].to(old.device)
        weights = importance(old, sampler, known, self.importance_cap)
        batch["tool_mask"] = batch["tool_mask"].to(old.device) * weights
        weighed = weights[known][~sampler[known].isnan()]
        self._metrics["train"]["update/importance"].append(weighed.mean().item() if len(weighed) else 1.0)

    def tell(self, turns: Sequence[EncodedTurn], k: int) -> Told:
        """What these weights say at the target tokens of these rows, see `Teacher.tell`."""
        layout, plain = self._lay_out(turns).to(self.accelerator.device), self.accelerator.unwrap_model(self.model)
        with torch.no_grad(), self.accelerator.autocast():
            vision = self.vision.inputs(plain, layout.pictures)
            return told_by(self.model, plain, layout, vision, k, self.temperature)

    # ----------------------------------------------------------------------------------------------------- the log

    def _over_processes(self, values: list[float]) -> Tensor:
        """Shape (processes, len(values)), in order of rank."""
        mine = torch.tensor([values], dtype=torch.float64, device=self.accelerator.device)
        gathered: Tensor = self.accelerator.gather(mine)
        return gathered

    def _log_generation(self, samples: list[StepSample], micro: list[list[Any]], forward: int) -> None:
        tokens = sum(len(s.completion.token_ids) for s in samples)
        mine = [float(len(samples)), float(sum(map(len, micro))), float(tokens), float(forward)]
        counts = self._over_processes(mine).sum(0).tolist()
        advantages = [s.advantage for s in samples]
        squares = self._over_processes([sum(advantages), sum(a * a for a in advantages)]).sum(0).tolist()
        mean, square = (value / max(1.0, counts[0]) for value in squares)
        behind = self._over_processes([float(sum(s.behind for s in samples))]).sum().item()
        metrics = {
            "update/samples": counts[0],
            "update/rows": counts[1],
            "update/tokens": counts[2],
            "update/forward_tokens": counts[3],
            "update/behind": behind / max(1.0, counts[0]),
            "update/advantage_mean": mean,
            "update/advantage_std": max(0.0, square - mean * mean) ** 0.5,
            **getattr(self.collect, "metrics", {}),
            **(self.lessons.metrics() if self.lessons is not None else {}),
        }
        for key, value in metrics.items():
            self._metrics["train"][key].append(float(value))

    def _log_gap(self, inputs: dict[str, Any]) -> None:
        """|log p of the sampler - log p of the trainer| before the first update of a generation; near 0 when healthy."""
        assert self._fresh_logps is not None
        gap = (inputs["rollout_logps"] - self._fresh_logps).abs()
        known = (inputs["completion_mask"] > 0) & ~gap.isnan()
        gap = gap[known]
        total, count, most = gap.sum().item(), float(gap.numel()), gap.max().item() if gap.numel() else 0.0
        every = self._over_processes([total, count, most])
        if every[:, 1].sum() > 0:
            self._metrics["train"]["logprob_gap/mean"].append((every[:, 0].sum() / every[:, 1].sum()).item())
            self._metrics["train"]["logprob_gap/max"].append(every[:, 2].max().item())


_log = logging.getLogger(__name__)


def _credited_already(**kwargs: Any) -> list[float]:
    """TRL requires a reward function. Samples come with their advantages, so it is never called."""
    raise NotImplementedError("rewards are computed where samples are collected")


def _forward_tokens(batch: dict[str, Any]) -> int:
    if batch["layout"] is not None:
        return int(batch["layout"].ids.numel())
    return int(batch["prompt_ids"].numel() + batch["completion_ids"].numel())


def _name(sample: StepSample) -> str:
    return f"{sample.unit}/{sample.sample}/{sample.index}"
