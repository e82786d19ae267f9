"""What a policy is, and the scripted one that tests use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.screen import Vision
from agent.types import Completion, Prompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy. Training samples from the full distribution (no top-p, no top-k), because a truncated
    sampler biases the importance ratio; these two exist for evaluation only."""

    temperature: float = 1.0
    max_new_tokens: int = 512
    top_p: float = 1.0
    top_k: int = 0


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Tricks:
    """What a policy in this process may share or foresee; answers are the same with any of it off, up to rounding.

    share_vision: each screenshot goes through the vision tower once (`agent.vision`). share_prefill: tokens that rows have
    in common are computed once (`agent.tree`). drafts: the expert's answer, where the prompt carries it, is verified
    instead of being said word by word (`agent.decode`).
    """

    share_vision: bool = True
    share_prefill: bool = True
    drafts: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the seed of its own random stream: what is sampled for it must not depend on its neighbours."""

    prompt: Prompt
    seed: int = 0


class Policy(Protocol):
    """Answers prompts. One completion per request, in order. Raises SetupError when it cannot be reached at all and
    EnvCrashed when a request failed after its retries; never returns a made-up answer."""

    @property
    def name(self) -> str: ...

    @property
    def vision(self) -> Vision: ...

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]: ...


class ScriptedPolicy:
    """Says what `script(request)` returns. No model, no tokens."""

    def __init__(self, script: Callable[[Request], str], name: str = "scripted", vision: Vision | None = None):
        self.name = name
        self.vision = vision or Vision()
        self._script = script

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return [Completion(self._script(request)) for request in requests]
