"""The interface of a policy, and a scripted one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.screen import Vision
from guiderail.agent.types import Completion, Prompt

Attention = Literal["auto", "sdpa", "varlen", "flex", "eager"]
"""How a model in this process attends; see `agent.local.attention`."""
Speculation = Literal["off", "ngram", "suffix", "auto"]
"""How answers are drafted; see `Sharing`."""
LONG_ROW = 2048
"""Tokens of a row from which "auto" attends without a mask."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled. temperature: 0 is greedy. top_p: 1 is off. top_k: 0 is off.

    Training samples from the full distribution, because a truncated sampler biases the importance ratio; top_p and top_k
    are for evaluation only.
    """

    temperature: float = 1.0
    max_new_tokens: int = 512
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise SetupError(f"temperature {self.temperature}: expected 0, which is greedy, or more")


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Work that a policy in this process does only once. Answers are the same with any of it off, up to rounding.

    share_vision: each screenshot goes through the vision tower once (`agent.local.vision`). share_prefill: tokens that
    prompts have in common at their start are computed once (`agent.local.prefix`). speculation: which drafts are verified in
    one forward instead of being decoded token by token (`agent.local.drafts`). off: none. ngram: the expert's answer, where
    the prompt carries it, as long as enough of its tokens are accepted. suffix: also what the policy itself said at its
    earlier visits of the step. auto: as suffix, where measured times say that it is faster; a repeated run may then round
    otherwise.
    """

    share_vision: bool = True
    share_prefill: bool = True
    speculation: Speculation = "ngram"


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the seed of its own random stream: its answer must not depend on the other requests.

    until: the time (`time.monotonic`) after which nobody waits for the answer; None: the policy's own deadline holds. A
    policy that waits for another machine heeds it.
    """

    prompt: Prompt
    seed: int = 0
    until: float | None = None


class Policy(Protocol):
    """Answers prompts."""

    @property
    def name(self) -> str:
        """For records and messages."""

    @property
    def vision(self) -> Vision:
        """How pictures in its prompts must be sized."""

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Sequence[Completion | EnvCrashed]:
        """One completion per request, in order; an EnvCrashed in the place of each request that failed after its retries,
        never a made-up answer. Raises SetupError when the policy cannot be reached or answers nothing any more, and
        EnvCrashed when the whole batch failed."""


def completions(answers: Iterable[Completion | EnvCrashed]) -> list[Completion]:
    """The answers, where each is needed. Raises the first EnvCrashed among them."""
    found = []
    for answer in answers:
        if isinstance(answer, EnvCrashed):
            raise answer
        found.append(answer)
    return found


class ScriptedPolicy:
    """Answers with the text that `script(request)` returns. No model, no tokens."""

    def __init__(self, script: Callable[[Request], str], name: str = "scripted", vision: Vision | None = None):
        self.name = name
        self.vision = vision or Vision()
        self._script = script

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion per request, in order; `sampling` is not used."""
        return [Completion(self._script(request)) for request in requests]
