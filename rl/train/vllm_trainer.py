"""Rollouts on vLLM while training: weights go to vLLM before each generation, and their arrival is checked (vllm_probe.py).

Weights travel as files in a folder that both programs see, and vLLM loads them in its own way; the trainer needs neither vLLM
nor NCCL for it. One folder per sync, which appears as a whole and is deleted afterwards. An adapter travels as an adapter.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, is_peft_model  # type: ignore[import-untyped]

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.served.vllm.policy import Engine, VLLMPolicy
from guiderail.agent.served.vllm.setting_up import Start, check_one_environment
from guiderail.rl.sections import Rollout
from guiderail.rl.train.trainer import SemiOnlineTrainer
from guiderail.rl.train.vllm_probe import TOLERANCE, Inspector, coarser
from guiderail.rl.train.vllm_samplers import Colocated, Sampler, Servers
from guiderail.rl.train.weights_out import write_adapter, write_weights


class VLLMTrainer(SemiOnlineTrainer):
    """`SemiOnlineTrainer` with rollouts sampled on vLLM. rollout: the config's section. max_new_tokens: the longest answer.
    images: the most pictures in a prompt."""

    other_sampler = True

    def __init__(
        self, path: str | Path, *args: Any, rollout: Rollout, max_new_tokens: int, images: int = 8, **kwargs: Any
    ):
        if rollout.engine == "vllm-colocate":
            check_one_environment()
        super().__init__(path, *args, **kwargs)
        context = self.encoder.max_prompt_tokens + max_new_tokens
        rank, tower = _reach(self)
        start = Start(str(path), context, images, rank, tower, speculation=rollout.speculation, sleep=rollout.sleep)
        self.rollouts = VLLMRollouts(rollout, self, start)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `ExactCheckpoints.train`; vLLM is awake afterwards, however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self.rollouts.wake()

    def _next_generation(self) -> list[dict[str, Any]]:
        self.rollouts.sync()
        return super()._next_generation()

    @contextmanager
    def current_policy(self) -> Iterator[VLLMPolicy]:  # type: ignore[override]
        """A policy over the weights as they are now, sampling on vLLM. Under ZeRO-3 they are whole only while vLLM's answers
        are compared with them. With `rollout.sleep` vLLM sleeps from its end to the next `sync`."""
        if self.rollouts.to_check:
            with super().current_policy() as local:
                self.rollouts.inspect(local)
        yield self.rollouts.policy()
        self.rollouts.rest()


def _reach(trainer: Any) -> tuple[int, bool]:
    """The rank of the adapter that is trained (0 for none), and whether it reaches into the vision tower."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not is_peft_model(model):
        return 0, False
    tower = any(model.prefix in name and ".visual." in name for name, _ in model.named_parameters())
    return int(model.peft_config[model.active_adapter].r), tower


class VLLMRollouts:
    """vLLM as the sampler of a trainer's rollouts: pushes weights to it, and checks that they arrived. One per process.

    start: how its server should have been started. Raises SetupError when vLLM cannot be reached, or cannot take weights.
    """

    def __init__(self, settings: Rollout, trainer: Any, start: Start):
        self.settings, self.trainer, self.start = settings, trainer, start
        self.to_check = True
        self._syncs, self._nonce = 0, uuid.uuid4().hex[:8]
        self._inspectors: dict[str, Inspector] = {}
        model = trainer.accelerator.unwrap_model(trainer.model)
        rows = model.get_input_embeddings().weight
        self._vocabulary = int(getattr(rows, "ds_shape", rows.shape)[0])
        self._trained = next(weight.dtype for weight in model.parameters())
        colocate = settings.engine == "vllm-colocate"
        self.sampler: Sampler = Colocated(settings, trainer, start) if colocate else Servers(settings, trainer, start)
        self.folder = Path(settings.weights_folder or Path(trainer.args.output_dir) / "weights-for-vllm").absolute()

    def sync(self) -> None:
        """Push the trainer's weights. Collective: every process calls it."""
        started = time.perf_counter()
        for name, place in self._mine():
            if name in self._inspectors and not self.sampler.asleep:
                with suppress(EnvCrashed):  # a server that is down is met again below
                    self._inspectors[name].fill(self._policy(place))
        accelerator = self.trainer.accelerator
        model, main = accelerator.unwrap_model(self.trainer.model), accelerator.is_main_process
        adapter = bool(self.start.rank)
        accelerator.wait_for_everyone()
        version = f"{self._nonce}-{self._syncs}"
        self._syncs += 1
        folder = self.folder / f"sync-{version}"
        if adapter:
            write_adapter(model, folder, main)
        else:
            write_weights(model, folder, main, self.sampler_dtype)
        accelerator.wait_for_everyone()
        try:
            took = self.sampler.take(folder, adapter, version) if main or not self.sampler.shared else []
            if self.sampler.shared and accelerator.num_processes > 1:
                version, took = broadcast_object_list([version, took], from_process=0)
            self.sampler.settle(version, took, adapter)
            accelerator.wait_for_everyone()
        finally:
            if main:
                shutil.rmtree(folder, ignore_errors=True)
                if self.settings.weights_folder is None:
                    with suppress(OSError):
                        self.folder.rmdir()
        self._log("vllm/sync_seconds", time.perf_counter() - started)
        self.to_check = True

    def rest(self) -> None:
        """Let vLLM sleep until the next `sync`, if it may. Collective: others may still be sampling."""
        if self.settings.sleep:
            self.trainer.accelerator.wait_for_everyone()
            if self.trainer.accelerator.is_main_process or not self.sampler.shared:
                self.sampler.sleep()
            self.sampler.asleep = True
            self.trainer.accelerator.wait_for_everyone()

    def wake(self) -> None:
        """Leave vLLM awake. Not collective."""
        if self.sampler.asleep and (self.trainer.accelerator.is_main_process or not self.sampler.shared):
            self.sampler.wake()
            self.sampler.asleep = False

    @property
    def sampler_dtype(self) -> torch.dtype | None:
        """vLLM's, where it is the narrower one: files then have half the size."""
        there = getattr(torch, self.sampler.dtype, None)
        return there if isinstance(there, torch.dtype) and there.itemsize < self._trained.itemsize else None

    def inspect(self, local: LocalPolicy) -> None:
        """Raises SetupError when vLLM does not have `local`'s weights."""
        for name, place in self._mine():
            inspector = self._inspectors.setdefault(name, Inspector(self._tolerance()))
            try:
                found = inspector.inspect(self._policy(place), local)
            except EnvCrashed as crash:
                self.sampler.lose(name, crash)
                continue
            for key, value in found.items():
                self._log(f"vllm/{key}", value)
        self.to_check = False

    def policy(self) -> VLLMPolicy:
        """For sampling until the next `sync`."""
        return self._policy(self.sampler.engine)

    def _mine(self) -> list[tuple[str, Engine]]:
        """The places that this process looks after."""
        rank, world = self.trainer.accelerator.process_index, self.trainer.accelerator.num_processes
        places = enumerate(self.sampler.places())
        return [place for i, place in places if not self.sampler.shared or i % world == rank]

    def _policy(self, engine: Engine) -> VLLMPolicy:
        name = f"update-{self.trainer.state.global_step}"
        return VLLMPolicy(engine, self.trainer.encoder, name, self._vocabulary, self.sampler.drafting)

    def _tolerance(self) -> float:
        return self.settings.tolerance or TOLERANCE[coarser(self._trained, self.sampler.dtype)]

    def _log(self, name: str, value: float) -> None:
        self.trainer._metrics["train"][name].append(value)
