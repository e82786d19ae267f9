"""Whether vLLM has the trainer's weights, and nothing that was computed with earlier ones.

A transfer that reports success is not enough: servers have reported success and kept old weights, or loaded new weights and
gone on with vision features of the old ones. After every transfer a prompt with a picture is sampled by vLLM and scored by
the trainer, over the sampled tokens a_t:

    gap   = mean_t |log p_vLLM(a_t) - log p_trainer(a_t)|
    drift = mean_t |log p_trainer(a_t) now - at the first probe that vLLM answered in exactly this way|
    stale = max_t  |log p_vLLM(a_t) of the picture it has seen - of the same picture under a new name|

`gap` compares two implementations, so it sees only changes larger than their difference in rounding. `drift` catches a vLLM
that stands still: small updates move log-probabilities less than two implementations differ, but new weights cannot leave
vLLM's numbers as they were to the last bit. `stale` compares vLLM with itself: the known picture may come from its caches, the
renamed one cannot. Both are computed with the same weights by the same program, so they differ by what batching rounds, which
is measured at the start; what a surviving cache changes is seen where it is larger. A cache that is never reset falls behind by
one more update each time, so that it is seen sooner or later.
"""

from __future__ import annotations

import io
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.served.vllm.policy import Sampled, VLLMPolicy
from guiderail.agent.types import Message, Prompt, Screenshot
from guiderail.rl.score.likelihood import teacher_forced

SAMPLING = Sampling(temperature=1.0, max_new_tokens=8)
PROBES = 4
_REPEATS = 2
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Largest gap in nats per token, by the coarser of the two programs' dtypes."""
_REMEDY = "restart it from the last checkpoint and resume, or set rollout.engine=local"


@dataclass(frozen=True, eq=False)
class Probe:
    """ids: what vLLM sampled. there, here: log-probabilities (tokens,) by vLLM and by the trainer, float64."""

    ids: tuple[int, ...]
    there: Tensor
    here: Tensor

    @property
    def gap(self) -> float:
        """Mean absolute difference per token, in nats."""
        return float((self.there - self.here).abs().mean())


@dataclass
class Inspector:
    """Probes one engine after every transfer. tolerance: the largest gap ever accepted. limit: the same after the first
    probe: ten times the gap that it showed, at least a tenth of the tolerance. stale_limit: the largest difference between an
    answer from the caches and one that is computed anew."""

    tolerance: float
    limit: float = 0.0
    stale_limit: float = 0.0
    anchor: Probe | None = None

    def fill(self, policy: VLLMPolicy) -> None:
        """Have vLLM answer before its weights change, so that whatever it caches is there to be found stale."""
        sample(policy, "")

    def inspect(self, policy: VLLMPolicy, local: LocalPolicy) -> dict[str, float]:
        """Values for the log: probe_gap, probe_stale. local: the trainer's weights. Raises SetupError."""
        known = sample(policy, "")
        probe = score(policy, local, known)
        self.anchor = check(probe, self.anchor, self.limit or self.tolerance)
        if not self.limit:
            self._calibrate(policy, probe.gap)
        stale = difference(known, sample(policy, _new_name()))
        for _ in range(_REPEATS):  # rounding that batching changed is not there every time
            if stale > self.stale_limit:
                stale = min(stale, difference(known, sample(policy, _new_name())))
        if stale > self.stale_limit:
            raise SetupError(
                f"after the weight sync vLLM answers the probe by {stale:.2g} otherwise when its picture has a new name (limit "
                f"{self.stale_limit:.2g}): it uses features or keys and values of earlier weights. Its caches were not "
                f"reset; {_REMEDY}"
            )
        return {"probe_gap": probe.gap, "probe_stale": stale}

    def _calibrate(self, policy: VLLMPolicy, gap: float) -> None:
        """Everything under a new name is computed with today's weights: what then differs is rounding. The second answer to
        a name comes from the caches."""
        name = _new_name()
        first, cached, other = sample(policy, name), sample(policy, name), sample(policy, _new_name())
        self.limit = min(self.tolerance, max(10 * gap, self.tolerance / 10))
        self.stale_limit = max(4 * difference(first, cached), 4 * difference(first, other), self.tolerance / 100)
        _log.info(
            "vLLM and the trainer differ by %.2g per token on the probe, at most %.2g is accepted from now on; caches older than "
            "the weights are seen where they change an answer's log-probability by more than %.2g",
            gap,
            self.limit,
            self.stale_limit,
        )


def sample(policy: VLLMPolicy, salt: str) -> list[Sampled]:
    """Answers to one picture with a text, nothing banned, each cut before its first special token: an image pad in them would
    ask the trainer for features that do not exist. Raises SetupError where nothing is left."""
    prompt = _prompt(policy)
    special, rows = (
        set(policy.encoder.special_ids),
        [policy.encode(Request(prompt, seed), salt) for seed in range(PROBES)],
    )
    asked = policy.engine.sample([row for row in rows if row is not None], SAMPLING, policy.stop)
    answers: list[Sampled] = []
    for answer in asked:
        if isinstance(answer, EnvCrashed):
            raise answer
        ids = [*takewhile(lambda token: token not in special, answer[0])]
        answers.append((ids, answer[1][: len(ids)]))
    if not any(ids for ids, _ in answers):
        raise SetupError("vLLM answers the probe with special tokens only; start it with the model that is trained")
    return answers


def score(policy: VLLMPolicy, local: LocalPolicy, answers: Sequence[Sampled]) -> Probe:
    """The answers with the trainer's own log-probabilities."""
    encoded, training = policy.encoder.prompt(_prompt(policy)), local.model.training
    given = [(ids, logprobs) for ids, logprobs in answers if ids]
    local.model.eval()
    try:
        with torch.no_grad():
            here = teacher_forced(local, [(encoded, torch.tensor(ids)) for ids, _ in given])
    finally:
        local.model.train(training)
    return Probe(
        tuple(token for ids, _ in given for token in ids),
        torch.tensor([logprob for _, logprobs in given for logprob in logprobs], dtype=torch.float64),
        torch.cat([logps for logps, _ in here]),
    )


def difference(one: Sequence[Sampled], other: Sequence[Sampled]) -> float:
    """The largest difference of log-probabilities up to and including the first token that is not the same; infinite where
    already the first one is another."""
    largest = 0.0
    for (ids, logps), (ids2, logps2) in zip(one, other, strict=True):
        same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(ids, ids2, strict=False))])
        if same == 0 and (ids or ids2):
            return float("inf")
        largest = max([largest, *(abs(a - b) for a, b in zip(logps[:same], logps2[:same], strict=True))])
    return largest


def check(probe: Probe, anchor: Probe | None, tolerance: float) -> Probe:
    """Compare a probe with the trainer and with the anchor, the first probe that vLLM answered in exactly this way.

    Returns the anchor of the next check. tolerance: largest gap, in nats per token. Raises SetupError when vLLM does not
    have the trainer's weights.
    """
    worst = int((probe.there - probe.here).abs().argmax())
    if not probe.gap <= tolerance:
        raise SetupError(
            f"after the weight sync vLLM and the trainer disagree on the probe by {probe.gap:.4g} per token, the limit is "
            f"{tolerance:.4g}; its token {worst}: log p {float(probe.there[worst]):.4f} by vLLM, "
            f"{float(probe.here[worst]):.4f} by the trainer. vLLM does not have these weights; {_REMEDY}"
        )
    if anchor is None or anchor.ids != probe.ids or not torch.equal(anchor.there, probe.there):
        return probe
    drift = float((anchor.here - probe.here).abs().mean())
    if drift > tolerance / 10:
        raise SetupError(
            f"vLLM answers the probe exactly as before (mean log p {float(probe.there.mean()):.6f}) although the trainer's "
            f"own moved by {drift:.6f} per token to {float(probe.here.mean()):.6f}. It did not take the weights; {_REMEDY}"
        )
    return anchor


def coarser(one: Any, other: Any) -> str:
    """The dtype of the two, such as "torch.bfloat16", with the larger tolerance."""
    names = [str(dtype).removeprefix("torch.") for dtype in (one, other)]
    return max(names, key=lambda name: TOLERANCE.get(name, max(TOLERANCE.values())))


def _new_name() -> str:
    """What vLLM cannot know, not even from an earlier run."""
    return f" {uuid.uuid4().hex}"


def _prompt(policy: VLLMPolicy) -> Prompt:
    """A picture with structure: a blank one would not reveal a wrong vision tower. Its 144 tokens fill a block of the prefix
    cache, of 16 tokens on GPUs and 128 on CPUs: shorter prompts are never cached."""
    side = 12 * policy.vision.factor
    file = io.BytesIO()
    Image.radial_gradient("L").resize((side, side)).convert("RGB").save(file, "PNG")
    picture = policy.vision.picture(Screenshot(side, side, data=file.getvalue()))
    return Prompt((Message("user", ("What is on the screen? ", picture)),))


_log = logging.getLogger(__name__)
