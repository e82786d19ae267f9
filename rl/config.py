"""One YAML per run: sections model, data, method, rollout, training. Unknown keys are errors that suggest the nearest known one.

`training` goes to TRL's GRPOConfig (SFTConfig for stage one) untouched; everything the method itself needs is in `method`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent.dialects import DIALECTS
from agent.dialogue import Window
from agent.errors import SetupError
from agent.policy import Tricks
from envs.match import RULES
from patch.base import PATCHES
from rl.advantage import EpisodeMode
from rl.credit import CreditRules
from rl.returns import ReturnMode
from rl.reward import REWARDS
from rl.select import SpreadOf


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(Section):
    """PEFT's LoraConfig, the keys one sets; alpha is lora_alpha."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"


class Model(Section):
    """path: a folder or hub id with weights, tokenizer and image processor. adapter: a PEFT adapter to start from.

    images: screenshots a prompt shows, the current one included; window: how old ones leave (agent/dialogue.py). max_prompt_tokens: checked before training starts.
    min_pixels, max_pixels: bounds of the resized picture; None takes the image processor's own.
    """

    path: str
    adapter: str | None = None
    lora: Lora | None = None
    freeze_vision: bool = False
    dialect: str = "guiderail"
    images: int = Field(default=2, ge=1)
    window: Window = "sliding"
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_prompt_tokens: int = 12288
    max_new_tokens: int = 512
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    @field_validator("dialect")
    @classmethod
    def _dialect(cls, value: str) -> str:
        return one_of(value, DIALECTS, "dialect")


class Data(Section):
    """train: standard JSONL or its folder. swipes: how it stores vertical swipes. limit: only the first so many."""

    train: str
    swipes: Literal["detect", "finger", "inverted"] = "detect"
    skip_bad: bool = False
    limit: int | None = None


class Difficulty(Section):
    """Pass over groups whose likelihood-based expected return lies outside [low, high], before sampling them. rounds: how
    often units are drawn for the groups a try lacks."""

    low: float = Field(default=0.02, ge=0, le=1)
    high: float = Field(default=0.98, ge=0, le=1)
    rounds: int = Field(default=8, ge=1)


class Method(Section):
    """What semi-online RL is made of; defaults are the paper's (method 5.7, 7).

    expert_thoughts: whether the experts' history, and SFT's targets, hold the recordings' thoughts; the paper's offline RL
    has none. max_turns: RL also ends after the update by which so many turns were sampled on all processes, dropped groups
    included.
    """

    algorithm: Literal["sft", "offline", "semi-online"] = "semi-online"
    rules: str = "guiderail"
    reward: str = "paper"
    gamma: float = Field(default=0.5, ge=0, le=1)
    returns: ReturnMode = "paper"
    episode_advantage: EpisodeMode = "total"
    episode_weight: float = 1.0
    step_weight: float = 1.0
    scale: bool = True
    groups: int = Field(default=32, ge=1)
    rollouts: int = Field(default=8, ge=1)
    eta: float = Field(default=0.3, ge=0)
    spread_of: SpreadOf = "first_return"
    tries: int = Field(default=4, ge=1)
    difficulty: Difficulty | None = None
    patch: str = "thought-free"
    patch_budget: int | Literal["unlimited"] = 1
    thought_store: str | None = None
    expert_thoughts: bool = True
    temperature: float = Field(default=1.0, gt=0)
    max_rows: int = Field(default=64, ge=1)
    max_turns: int | None = Field(default=None, ge=1)
    width: int = Field(default=64, ge=1)

    @field_validator("rules", "reward", "patch")
    @classmethod
    def _named(cls, value: str, info: Any) -> str:
        known: dict[str, Iterable[str]] = {"rules": RULES, "reward": REWARDS, "patch": PATCHES}
        return one_of(value, known[info.field_name], info.field_name)

    def credit_rules(self) -> CreditRules:
        return CreditRules(
            reward=REWARDS[self.reward],
            gamma=self.gamma,
            returns=self.returns,
            episode=self.episode_advantage,
            episode_weight=self.episode_weight,
            step_weight=self.step_weight,
            scale=self.scale,
        )


class Update(Section):
    """What makes an update cheaper without changing it (rl/tree.py, agent/vision.py); each can be turned off."""

    share_prefix: bool = True
    share_vision: bool = True


class Rollout(Section):
    """Where rollouts are sampled. engine: local (transformers, in this process, exact), vllm-server (`server`, weights over
    `group_port`) or vllm-colocate (an engine in this process that takes the share `memory` of the GPU).

    timeout: seconds to wait for the server to come up. concurrency: requests under way at once, per process. tolerance:
    largest mean difference of a probe token's log-probability between vLLM and the trainer after a weight sync; the default
    leaves room for bf16, in float32 the two agree to 1e-6.

    share_vision, share_prefill, drafts: what the local engine may share or foresee (agent.policy.Tricks); no answer changes
    with them. features: a folder in which all processes of a host keep vision features, over runs too; by default the
    environment's GUIDERAIL_FEATURES, which evaluation reads as well.
    """

    engine: Literal["local", "vllm-server", "vllm-colocate"] = "local"
    server: str = "http://127.0.0.1:8000"
    group_port: int = 51216
    timeout: float = Field(default=240.0, gt=0)
    concurrency: int = Field(default=64, ge=1)
    memory: float = Field(default=0.3, gt=0, lt=1)
    tolerance: float = Field(default=0.1, gt=0)
    share_vision: bool = True
    share_prefill: bool = True
    drafts: bool = True
    features: str | None = None

    def tricks(self) -> Tricks:
        return Tricks(self.share_vision, self.share_prefill, self.drafts)


class Config(Section):
    model: Model
    data: Data
    method: Method = Method()
    rollout: Rollout = Rollout()
    update: Update = Update()
    training: dict[str, Any] = {}


def one_of(value: str, known: Iterable[str], what: str) -> str:
    """value, if known; else a ValueError with the nearest known names."""
    if value not in set(known):
        raise ValueError(f"unknown {what} {value!r}{nearest(value, known)}")
    return value


def nearest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" or the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else f", expected one of {', '.join(names)}"


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML, apply `section.key=value` overrides (values are YAML), validate. Raises SetupError."""
    content = read_yaml(path, "config file", "the sections model, data, method, training")
    for override in overrides:
        _apply(content, override)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise SetupError("\n".join(f"{path}: {_explain(problem)}" for problem in error.errors())) from None


def read_yaml(path: Path, what: str, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises SetupError, in words that say `what` it is and what was `expected` in it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SetupError(f"no {what} {path}") from None
    except yaml.YAMLError as error:
        raise SetupError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SetupError(f"{path} holds no mapping, expected {expected}")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or len(parts) < 2:
        raise SetupError(f"override {override!r}: expected section.key=value, such as method.gamma=0.9")
    place = content
    for part in parts[:-1]:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise SetupError(f"override {override!r}: {part} is not a section")
    try:
        place[parts[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SetupError(f"override {override!r}: the value is not YAML: {error}") from None


_SECTIONS: dict[str, type[Section]] = {
    "model": Model,
    "data": Data,
    "method": Method,
    "lora": Lora,
    "rollout": Rollout,
    "difficulty": Difficulty,
    "update": Update,
}


def _explain(problem: Any) -> str:
    place = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        section = _SECTIONS.get(place[-2], Config) if len(place) > 1 else Config
        return f"unknown key {'.'.join(place)}{nearest(place[-1], section.model_fields)}"
    if problem["type"] == "missing":
        return f"{'.'.join(place)} is missing"
    return f"{'.'.join(place)}: {problem['msg'].removeprefix('Value error, ')}, got {str(problem['input'])[:80]!r}"
