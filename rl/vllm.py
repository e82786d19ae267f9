"""Rollouts on vLLM while training: weights go there before each generation, and are proven to have arrived.

TRL's `VLLMGeneration` starts the engine or joins the server's weight-transfer group, and pushes weights (ZeRO-3, FSDP and
LoRA included). That a push was answered with success says nothing: servers have been seen to answer so and go on with the
weights they had. So after every push a probe is sampled there and scored here:

    gap   = mean_t |log p_vLLM(a_t) - log p_trainer(a_t)|           over the sampled probe tokens a_t
    drift = mean_t |log p_trainer(a_t) now - at the first probe that vLLM answered in exactly this way|

A gap above `tolerance` stops the run. So does a vLLM that repeats an earlier probe to the last bit while the trainer has
drifted by more than a tenth of the tolerance: small updates move log-probabilities less than two implementations differ,
but a server that took the weights cannot stand perfectly still.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from trl.generation import vllm_client, vllm_generation

from agent.errors import SetupError
from agent.local import LocalPolicy
from agent.policy import Request, Sampling
from agent.types import Message, Prompt, Screenshot
from agent.vllm import ColocatedEngine, Engine, ServerEngine, VLLMPolicy
from rl.config import Rollout
from rl.likelihood import teacher_forced
from rl.trainer import SemiOnlineTrainer

START = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode raw_logprobs --enable-prefix-caching (from vLLM 0.30 also --enable-scale-out)"
)
PROBE = Sampling(temperature=1.0, max_new_tokens=16)
PROBES = 4


class VLLMTrainer(SemiOnlineTrainer):
    """Its rollouts are sampled on vLLM; everything else is `SemiOnlineTrainer`. max_new_tokens: the longest answer."""

    def __init__(self, *args: Any, rollout: Rollout, max_new_tokens: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.elsewhere = Elsewhere(rollout, self, self.encoder.max_prompt_tokens, max_new_tokens)

    def _next_generation(self) -> list[dict[str, Any]]:
        # Before `current_policy`: under ZeRO-3 both gather weights, and gathers must not be nested.
        self.elsewhere.sync()
        return super()._next_generation()

    @contextmanager
    def current_policy(self) -> Iterator[VLLMPolicy]:  # type: ignore[override]
        with super().current_policy() as local:
            yield self.elsewhere.policy(local)


class Elsewhere:
    """Samples a trainer's rollouts on vLLM. One per process; the main process pushes the weights.

    prompt_tokens, new_tokens: the longest prompt and answer, for the engine's context. Raises SetupError when vLLM is not
    installed, cannot be reached, or cannot take weights.
    """

    def __init__(self, settings: Rollout, trainer: Any, prompt_tokens: int, new_tokens: int):
        if not vllm_client.is_vllm_available():
            raise SetupError(
                f"rollout.engine {settings.engine} needs vLLM beside the trainer; run pip install 'vllm>=0.22,<=0.31', "
                "or set rollout.engine=local"
            )
        self.settings, self.trainer = settings, trainer
        self._checked = True
        self._anchor: Probe | None = None
        server = settings.engine == "vllm-server"
        try:
            self.generation = vllm_generation.VLLMGeneration(
                model=trainer.model,
                accelerator=trainer.accelerator,
                processing_class=trainer.encoder.tokenizer,
                mode="server" if server else "colocate",
                server_base_url=settings.server,
                server_timeout=settings.timeout,
                group_port=settings.group_port,
                gpu_memory_utilization=settings.memory,
                max_model_length=prompt_tokens + new_tokens,
                max_num_seqs=trainer.max_batch,
            )
            self.engine = self._server() if server else ColocatedEngine(self.generation.llm)
        except (ConnectionError, NotImplementedError, RuntimeError, OSError) as error:
            where = settings.server if server else "this process"
            said = " ".join(str(error).split())[:300]
            raise SetupError(f"vLLM at {where}: {said}; start the server with: {START}") from error

    def _server(self) -> Engine:
        """Its own client on every process; only the main one's is in the weight-transfer group."""
        client = getattr(self.generation, "vllm_client", None) or vllm_client.VLLMClient(
            base_url=self.settings.server, connection_timeout=self.settings.timeout
        )
        mode = client.get_server_info()["model_config"]["logprobs_mode"]
        if mode != "raw_logprobs":
            raise SetupError(
                f"the vLLM server at {client.base_url} tells {mode}, the trainer compares with raw log-probabilities; "
                f"start it with: {START}"
            )
        return ServerEngine(client, self.trainer.encoder, self.settings.concurrency)

    def sync(self) -> None:
        """Push the trainer's weights. Collective: every process calls it."""
        started = time.perf_counter()
        self.generation.sync_weights()
        self.trainer.accelerator.wait_for_everyone()
        self._log("vllm/sync_seconds", time.perf_counter() - started)
        self._checked = False

    def policy(self, local: LocalPolicy) -> VLLMPolicy:
        """The policy to sample with until the next `sync`. Raises SetupError when vLLM does not have `local`'s weights."""
        policy = VLLMPolicy(self.engine, local)
        if not self._checked:
            probe = ask_probe(policy)
            self._log("vllm/probe_gap", probe.gap)
            self._anchor = check(probe, self._anchor, self.settings.tolerance)
            self._checked = True
        return policy

    def _log(self, name: str, value: float) -> None:
        self.trainer._metrics["train"][name].append(value)


@dataclass(frozen=True, eq=False)
class Probe:
    """ids: what vLLM sampled. there, here: log-probabilities (tokens,) by vLLM and by the trainer, float64."""

    ids: tuple[int, ...]
    there: Tensor
    here: Tensor

    @property
    def gap(self) -> float:
        return float((self.there - self.here).abs().mean())


def ask_probe(policy: VLLMPolicy) -> Probe:
    """Some answers to one picture with a text, nothing banned, each cut before its first special token: an image pad in
    them would ask the trainer for features that are not there."""
    request = Request(_probe_prompt(policy))
    special, rows = set(policy.encoder.special_ids), [policy.asked(Request(request.prompt, s)) for s in range(PROBES)]
    told = policy.engine.answer([row for row in rows if row is not None], PROBE, policy.stop)
    plain = [[*takewhile(lambda token: token not in special, ids)] for ids, _ in told]
    asked = [(ids, logprobs[: len(ids)]) for ids, (_, logprobs) in zip(plain, told, strict=True) if ids]
    if not asked:
        raise SetupError("vLLM answers the probe with special tokens only; is it serving this model?")
    encoded, training = policy.encoder.prompt(request.prompt), policy.local.model.training
    policy.local.model.eval()
    try:
        here = teacher_forced(policy.local, [(encoded, torch.tensor(ids)) for ids, _ in asked])
    finally:
        policy.local.model.train(training)
    return Probe(
        tuple(token for ids, _ in asked for token in ids),
        torch.tensor([logprob for _, told in asked for logprob in told], dtype=torch.float64),
        torch.cat([logps for logps, _ in here]),
    )


def check(probe: Probe, anchor: Probe | None, tolerance: float) -> Probe:
    """The anchor of the next check. Raises SetupError when vLLM does not have the trainer's weights."""
    worst = int((probe.there - probe.here).abs().argmax())
    if not probe.gap <= tolerance:
        raise SetupError(
            f"after the weight sync vLLM and the trainer disagree on the probe by {probe.gap:.4f} per token, the limit is "
            f"{tolerance}; its token {worst}: log p {float(probe.there[worst]):.4f} by vLLM, "
            f"{float(probe.here[worst]):.4f} by the trainer. vLLM does not have these weights; restart it from the last "
            "checkpoint and resume, or set rollout.engine=local"
        )
    if anchor is None or anchor.ids != probe.ids or not torch.equal(anchor.there, probe.there):
        return probe
    drift = float((anchor.here - probe.here).abs().mean())
    if drift > tolerance / 10:
        raise SetupError(
            f"vLLM answers the probe exactly as before (mean log p {float(probe.there.mean()):.6f}) although the trainer's "
            f"own moved by {drift:.6f} per token to {float(probe.here.mean()):.6f}. It says it took the weights and did not; "
            "restart it from the last checkpoint and resume, or set rollout.engine=local"
        )
    return anchor


def _probe_prompt(policy: VLLMPolicy) -> Prompt:
    """A picture with structure, since a blank one would not notice a wrong vision tower."""
    side = 4 * policy.vision.factor
    file = io.BytesIO()
    Image.radial_gradient("L").resize((side, side)).convert("RGB").save(file, "PNG")
    picture = policy.vision.picture(Screenshot(side, side, data=file.getvalue()))
    return Prompt((Message("user", ("What is on the screen? ", picture)),))
