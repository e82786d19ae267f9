"""One-step-off asynchrony: while the trainer learns from one generation, the next one is sampled with the weights from before.

    generation g is sampled with the weights after the updates of generation g - 2, and trained on after those of g - 1

So devices and the trainer work at the same time. At most one generation is ahead, and it is handed over when its last attempt
has ended: what limits staleness is what may begin, and no slow attempt is dropped. Turns know that they are one generation old
(`StepSample.behind`), and weigh min(pi_old / pi_sampler, cap) in the loss (rl/train/importance.py).

Sampling runs in a thread of its own, with a copy of the weights that are trained; frozen ones are shared. The first generation of
a run, also of a resumed one, is sampled with the present weights, before the trainer goes on.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol, cast

import torch
from torch import nn
from trl import GRPOConfig

from guiderail.agent.errors import SetupError
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.agent.types import Completion
from guiderail.rl.config import updates_of
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.train.trainer import SemiOnlineTrainer

STOP_SECONDS = 20.0
"""For what is under way in the background when a run fails."""


class Halves(Protocol):
    """A collector whose call is divided: `sample` needs a policy and changes nothing, `take` does the rest."""

    def sample(self, policy: Policy, number: int) -> Any: ...
    def take(self, made: Any, number: int, behind: int = 0) -> list[StepSample]: ...


class AheadTrainer(SemiOnlineTrainer):
    """`SemiOnlineTrainer` that samples one generation ahead. Its collector has `Halves`, and its exchange between processes a
    group of its own. Raises SetupError under ZeRO-3, where no process has whole weights to copy."""

    def __init__(self, path: str | Path, collect: Halves, args: GRPOConfig, **kwargs: Any):
        deepspeed: Any = getattr(args, "hf_deepspeed_config", None)
        if deepspeed is not None and deepspeed.is_zero3():
            raise SetupError(
                "online.ahead copies the weights, of which each process has a part under ZeRO-3; set training.deepspeed to "
                "zero2.json, or online.ahead=0"
            )
        super().__init__(path, cast(Any, collect), args, **kwargs)
        self.halves = collect
        self._generations = args.max_steps // updates_of(vars(args)).per_generation
        self._coming: Future[Any] | None = None
        self._copy = trained_copy(cast(nn.Module, self.model))
        encoder = copy.deepcopy(self.encoder)  # a tokenizer is not for two threads
        self._stopped = Event()
        self._policy = _Stoppable(
            self._stopped,
            self._copy,
            encoder,
            "ahead",
            max_batch=self.max_batch,
            sharing=self.sharing,
            store=VisionStore(encoder, folder=kwargs.get("features")) if self.vision.on else None,
        )

    def sampled(self) -> list[StepSample]:
        number, coming = self.generation, self._coming
        started = time.perf_counter()
        if coming is None:
            with self.current_policy() as policy:
                made = self.halves.sample(policy, number)
        else:
            made = coming.result()
        self._metrics["train"]["ahead/waited"].append(time.perf_counter() - started)
        samples = self.halves.take(made, number, behind=int(coming is not None))
        self._coming = self._begin(number + 1) if number + 1 < self._generations else None
        return samples

    def _begin(self, number: int) -> Future[Any]:
        """Sample a generation in the background, with the weights as they are now."""
        copy_weights(self.accelerator.unwrap_model(self.model), self._copy)

        def work() -> Any:
            with self.accelerator.autocast():
                return self.halves.sample(self._policy, number)

        return in_background(work)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Leaves nothing under way. What is sampled for a run that ends early is not used; all processes end it together."""
        try:
            ended = super().train(*args, **kwargs)
        except BaseException:
            self._stopped.set()
            with suppress(TimeoutError):
                self._end(STOP_SECONDS)
            raise
        self._end(None)
        return ended

    def _end(self, timeout: float | None) -> None:
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.exception(timeout)


class _Stoppable(LocalPolicy):
    """stopped: when it is set nothing is answered any more."""

    def __init__(self, stopped: Event, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._stopped = stopped

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        if self._stopped.is_set():
            raise RuntimeError("the training that these answers are for has ended")
        return super().complete(requests, sampling)


def trained_copy(model: nn.Module) -> nn.Module:
    """A copy with parameters of its own for what is trained; it shares what is frozen."""
    frozen = {id(one): one for one in model.parameters() if not one.requires_grad}
    made = copy.deepcopy(model, frozen).eval()
    module: Any
    for module in made.modules():
        module.__dict__.pop("forward", None)  # TRL's own forward would call the model that was copied
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False
    for one in made.parameters():
        one.requires_grad_(False)
    return made


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Of the parameters that `source` trains; with their type and place."""
    into = dict(target.named_parameters())
    for name, one in source.named_parameters():
        if one.requires_grad:
            into[name].data = one.detach().clone()


def in_background(work: Callable[[], Any]) -> Future[Any]:
    """The result of `work`, done by a thread that does not keep the program from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="ahead", daemon=True).start()
    return future
