"""One YAML per run: sections model, data, method, rollout, update, training, with every default.

Unknown keys are errors that suggest the nearest known one. `training` goes to TRL's GRPOConfig (SFTConfig for stage one)
over RL_DEFAULTS; everything the method itself needs is in `method`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, ValidationInfo, model_validator

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.errors import SetupError
from guiderail.agent.registry import Registry, nearest, origins
from guiderail.envs.recordings.match import ALL_RULES
from guiderail.patch.base import PATCHES
from guiderail.rl.credit.named import CREDITS, LIVE_CREDITS, REWARDS
from guiderail.rl.sections import (
    MADE,
    Data,
    Difficulty,
    Fork,
    Hindsight,
    Lora,
    Method,
    Model,
    Online,
    Rollout,
    Section,
    Teacher,
    Update,
    World,
)

RL_DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-6,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.01,
    "loss_type": "dapo",
    "beta": 1e-4,
    "epsilon": 0.2,
    "use_bias_correction_kl": False,  # plain k3, paper eq. 13; true multiplies it by the ratio
    "temperature": 1.0,
    "gradient_accumulation_steps": 4,
    "num_iterations": 1,
    "seed": 0,
}
"""Keys of `training` where a config is silent, in offline and semi-online RL."""


class Config(Section):
    """data: of the recordings; live attempts without `method.mix` need none. world, online: of live attempts. teacher: beside
    any RL; `method.algorithm` distill learns from it alone."""

    model: Model
    data: Data | None = None
    world: World | None = None
    method: Method = Method()
    teacher: Teacher | None = None
    online: Online = Online()
    rollout: Rollout = Rollout()
    update: Update = Update()
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _credit_of_live_distillation(cls, values: Any) -> Any:
        method = values.get("method") if isinstance(values, dict) else None
        if isinstance(method, dict) and method.get("algorithm") == "distill" and values.get("world") is not None:
            return {**values, "method": {"credit": "outcome", **method}}
        return values

    @model_validator(mode="after")
    def _what_is_sampled(self, info: ValidationInfo) -> Config:
        if info.context == MADE:
            return self
        live = self.live
        self._check_teacher()
        if self.method.hindsight is not None and not (
            self.method.algorithm in ("sft", "semi-online") or (live and self.method.mix)
        ):
            raise ValueError(
                "method.hindsight needs turns along recordings: algorithm semi-online or sft, or mix above 0"
            )
        if self.method.start == "any" and self.method.algorithm not in ("semi-online", "distill"):
            raise ValueError("method.start=any is of semi-online RL; offline RL trains single steps anywhere as it is")
        if self.method.shown and self.method.algorithm not in ("semi-online", "online"):
            raise ValueError("method.shown is of semi-online RL; SFT and offline RL have method.expert_thoughts")
        if self.data is None and not (live and self.method.mix == 0):
            raise ValueError(_MISSING["data"])
        if live and self.method.difficulty is not None:
            raise ValueError("method.difficulty is of recordings; for live tasks use online.bands or online.cooling")
        if self.method.mix and self.method.groups < 2:
            raise ValueError("method.mix needs method.groups of 2 or more, one of each kind")
        if self.world is None and live:
            raise ValueError("world is missing; add to the command world.name=pocket, or another world")
        if self.world is not None and self.world.executor == "ray" and not self.world.workers:
            raise ValueError("world.executor=ray needs world.workers=1 or more")
        if self.method.credit == "ui-s1-states" and not self.online.expert:
            raise ValueError("method.credit=ui-s1-states needs online.expert=true, which judges each turn")
        if self.online.ahead:
            self._can_be_ahead()
        self._check_sampling()
        if live:
            self._check_live()
        else:
            self._nothing_of_live_attempts()
        return self

    def _check_sampling(self) -> None:
        method, served = self.method, self.rollout.engine != "local"
        if method.temperature != 1.0 and (served or self.online.ahead or self.online.replay):
            raise ValueError(
                "method.temperature must be 1 where turns are weighed by their sampler's probabilities, which are those at "
                "temperature 1 (a vLLM engine, online.ahead, online.replay)"
            )
        if method.difficulty is not None and served:
            raise ValueError(f"method.difficulty needs rollout.engine=local, got {self.rollout.engine}")

    def _check_live(self) -> None:
        method, fork = self.method, self.online.fork
        if method.credit == "ui-s1" and not self.online.expert:
            raise ValueError(
                "method.credit=ui-s1 needs online.expert=true in a live world: nothing else judges a turn there"
            )
        if method.credit == "ui-s1" and (unfit := self._of_outcomes()):
            raise ValueError(
                f"{unfit[0]} is of outcomes, and method.credit=ui-s1 looks at single turns; use another credit"
            )
        if not method.mix and (method.shown or method.start == "any"):
            key = "shown" if method.shown else "start=any"
            raise ValueError(
                f"method.{key} is of turns along recordings; in a live world set method.mix above 0 as well"
            )
        if fork is not None and fork.most is not None and method.credit != "ui-s1":
            raise ValueError(
                f"online.fork.most needs method.credit=ui-s1, got {method.credit}: a branch that is cut has no outcome"
            )
        if fork is not None and (fork.train == "answer" or fork.continuations > 1) and (unfit := self._shaping()):
            raise ValueError(f"method.{unfit[0]} looks at whole attempts; online.fork trains single answers here")

    def _nothing_of_live_attempts(self) -> None:
        """Keys that would do nothing."""
        algorithm = self.method.algorithm
        idle = [f"method.{key}" for key in self._shaping()] + ["method.mix"] * bool(self.method.mix)
        idle += [f"online.{key}" for key in Online.model_fields if getattr(self.online, key) != getattr(Online(), key)]
        idle = ["world"] * (self.world is not None) + [key for key in idle if key != "online.importance_cap"]
        if idle:
            raise ValueError(f"{idle[0]} is of live attempts, method.algorithm online; got {algorithm}")

    def _of_outcomes(self) -> list[str]:
        """The keys that are set and decide about an attempt's reward."""
        fork = self.online.fork
        return [f"method.{key}" for key in self._shaping()] + ["online.fork.continuations"] * (
            fork is not None and fork.continuations > 1
        )

    def _shaping(self) -> list[str]:
        """The keys of rl/credit/shaping.py that are set."""
        return [key for key in ("shortest_path", "refusal", "repetition", "invalid") if getattr(self.method, key)]

    def _check_teacher(self) -> None:
        method, given = self.method, self.teacher
        if method.algorithm == "distill" and given is None:
            raise ValueError("teacher is missing; add to the command teacher.path=FOLDER, a larger model")
        if method.algorithm == "distill" and not self.live and method.credit in LIVE_CREDITS:
            raise ValueError(f"method.credit: {method.credit} needs live attempts; add a world, or use ui-s1")
        if given is not None and method.algorithm == "sft":
            raise ValueError("teacher scores what the student samples, and SFT samples nothing; use algorithm distill")
        if given is not None and method.hindsight is not None:
            raise ValueError("method.hindsight and teacher are two teachers; give one of them")
        if method.algorithm == "distill" and method.rollouts < 2:
            raise ValueError("method.rollouts must be 2 or more: a group of one is dropped")
        if given is not None and method.temperature != 1.0:
            raise ValueError("a teacher scores what was sampled at temperature 1; remove method.temperature")
        if given is not None and given.recorded and self.live and not method.mix:
            raise ValueError(
                "teacher.recorded needs walks along recordings; in a live world set method.mix above 0 as well"
            )

    @property
    def live(self) -> bool:
        """Whether the policy acts in a live world."""
        return self.method.algorithm == "online" or (self.method.algorithm == "distill" and self.world is not None)

    def _can_be_ahead(self) -> None:
        if self.method.algorithm != "online":
            raise ValueError("online.ahead is of method.algorithm online; remove it")
        if self.world is None or not self.world.workers:
            raise ValueError("online.ahead needs world.workers=1 or more: worlds in processes beside the training")
        if self.rollout.engine != "local":
            raise ValueError(f"online.ahead needs rollout.engine=local, got {self.rollout.engine}")
        if self.teacher is not None or self.method.hindsight is not None:
            raise ValueError("online.ahead trains on older turns, which no teacher scores; remove it, or the teacher")

    @property
    def recordings(self) -> Data:
        """The section `data`, where there must be one. Raises SetupError."""
        if self.data is None:
            raise SetupError(_MISSING["data"])
        return self.data

    def parts(self) -> dict[str, tuple[Registry[Any], str]]:
        """The key of every part that is asked for by name -> its kind and that name."""
        return {
            "model.dialect": (DIALECTS, self.model.dialect),
            "method.rules": (ALL_RULES, self.method.rules),
            "method.credit": (CREDITS, self.method.credit),
            "method.reward": (REWARDS, self.method.reward),
            "method.patch": (PATCHES, self.method.patch),
        }

    def origins(self) -> dict[str, dict[str, dict[str, str]]]:
        """{"parts": ...} for the run record, see `agent.registry.origins`."""
        return origins(*self.parts().values())

    def rl_training(self) -> dict[str, Any]:
        """`training` with its defaults, in offline and semi-online RL."""
        return RL_DEFAULTS | self.training


@dataclass(frozen=True, slots=True)
class Updates:
    """How a generation becomes optimizer steps. Its samples are divided over `windows` steps of `micro` micro-batches each
    (per process), and trained on `passes` times. by_tokens: the loss of a step is a mean over tokens, else over samples."""

    micro: int
    windows: int
    passes: int
    by_tokens: bool

    @property
    def per_generation(self) -> int:
        return self.windows * self.passes


def updates_of(training: Mapping[str, Any]) -> Updates:
    """training: the section with its defaults, or the trainer's arguments as a mapping."""
    micro = int(training["gradient_accumulation_steps"])
    steps = int(training.get("steps_per_generation") or micro)
    return Updates(micro, steps // micro, int(training["num_iterations"]), training["loss_type"] != "grpo")


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML, apply `section.key=value` overrides (values are YAML), validate, load the parts it names. Raises
    SetupError."""
    content = read_yaml(path, "config file", "the sections model, data, method, training")
    for override in overrides:
        _apply(content, override)
    config = validated(content, path)
    for key, (registry, name) in config.parts().items():
        try:
            registry.find(name)
        except SetupError as error:
            raise SetupError(f"{path}: {key}: {error}") from error
    return config


def validated(content: Any, path: Path, made: bool = False) -> Config:
    """The config in a file's content, with no part loaded. made: a run was made with it, so keys may be together that are
    refused now. Raises SetupError."""
    try:
        return Config.model_validate(content, context=MADE if made else None)
    except ValidationError as error:
        raise SetupError("\n".join(f"{path}: {_explain(problem)}" for problem in error.errors())) from None


def read_yaml(path: Path, what: str, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises SetupError, in words that say `what` it is and what was `expected` in it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SetupError(f"no {what} {path}") from None
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise SetupError(f"{path}:{number}: not UTF-8 text: {error.reason}; save the {what} as UTF-8") from None
    except yaml.YAMLError as error:
        raise SetupError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SetupError(f"{path} holds no mapping, expected {expected}")
    return content


def options_of(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words as a mapping; values are YAML. Raises SetupError."""
    content: dict[str, Any] = {"options": {}}
    for word in given:
        _apply(content, f"options.{word}")
    options: dict[str, Any] = content["options"]
    return options


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
    "hindsight": Hindsight,
    "teacher": Teacher,
    "update": Update,
    "world": World,
    "online": Online,
    "fork": Fork,
}


_MISSING = {
    "model": "model.path is missing; add to the command model.path=FOLDER (the model to start from) or a hub id",
    "data": "data.train is missing; add to the command data.train=FOLDER (your recordings)",
}


def _explain(problem: Any) -> str:
    place = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        section = _SECTIONS.get(place[-2], Config) if len(place) > 1 else Config
        return f"unknown key {'.'.join(place)}{nearest(place[-1], section.model_fields)}"
    if problem["type"] == "missing":
        return _MISSING.get(place[0], f"{'.'.join(place)} is missing")
    if problem["type"] == "value_error":
        return f"{'.'.join(place) + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}"
    return f"{'.'.join(place)}: {problem['msg']}, got {str(problem['input'])[:80]!r}"
