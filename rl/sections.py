"""The sections of a run's YAML, with every key's default and limits."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Window
from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Attention, Sharing, Speculation
from guiderail.agent.registry import Registry
from guiderail.envs.recordings.match import ALL_RULES
from guiderail.patch.base import PATCHES
from guiderail.rl.credit.named import CREDITS, LIVE_CREDITS, REWARDS
from guiderail.rl.credit.uis1 import CreditRules, EpisodeMode, ReturnMode, SpreadOf

MADE = "made"
"""The context in which the config of a run is read that was made with it: keys are read that training refuses."""


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

    attention: of updates (agent/local/attention.py). sdpa and eager take dense masks. varlen takes none: on a GPU torch's
    varlen kernel, on a CPU piece by piece; flex, on GPUs alone, is FlexAttention. Losses and gradients are the same up to
    rounding. auto is varlen for micro-batches with a row of 2,048 tokens or more, sdpa for the others.
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
    attention: Attention = "auto"

    @field_validator("dialect")
    @classmethod
    def _dialect(cls, value: str) -> str:
        return known(value, DIALECTS)


class Data(Section):
    """train: standard JSONL or its folder, parquet files or their folder, or OWNER/NAME of a data set on the Hub. swipes: how
    it stores vertical swipes. limit: take only the first `limit` episodes."""

    train: str
    swipes: Literal["detect", "finger", "inverted"] = "detect"
    skip_bad: bool = False
    limit: int | None = None


class Difficulty(Section):
    """Before sampling, pass over units whose expected return, by likelihood, lies outside [low, high]. rounds: how often
    units are drawn to replace those."""

    low: float = Field(default=0.02, ge=0, le=1)
    high: float = Field(default=0.98, ge=0, le=1)
    rounds: int = Field(default=8, ge=1)


class World(Section):
    """The live world of online RL. name: one of `rl.rollout.worlds.OURS`, an installed world, or path/to/file.py:NAME. options:
    which tasks, as the world's own class names them (Pocket: n, seed, split, style, size, device).

    retries: new tries of an attempt whose machine failed; then its group goes on without it. start_timeout, step_timeout,
    check_timeout, attempt_timeout: seconds, see `envs.live.attempts.Patience`. workers: processes that hold the world, per
    training process; 0: it is in the training process. spares: further workers, started and idle, that take the place of one
    that dies. recycle: attempts after which a worker is replaced. executor: where the workers are, processes on
    this machine or the hosts of the Ray cluster of RAY_ADDRESS (without one, Ray is started on this machine).
    """

    name: str = "pocket"
    options: dict[str, Any] = {}
    retries: int = Field(default=2, ge=0)
    start_timeout: float | None = Field(default=None, gt=0)
    step_timeout: float = Field(default=120.0, gt=0)
    check_timeout: float | None = Field(default=None, gt=0)
    attempt_timeout: float = Field(default=3600.0, gt=0)
    workers: int = Field(default=0, ge=0)
    spares: int = Field(default=0, ge=0)
    recycle: int | None = Field(default=None, ge=1)
    executor: Literal["processes", "ray"] = "processes"


class Fork(Section):
    """Groups that begin at one live state and history in the middle of an attempt of the agent's own; the world must restore
    states (Pocket does).

    at: which turn of that attempt, "any" drawn evenly or "late" drawn evenly from its second half. continuations: attempts
    that value one answer; more than 1 train the answer alone. train: "branch" all turns from there on, or "answer" the first
    of them. most: turns of a branch, judged by the expert and not by the end; for the credit ui-s1.
    """

    at: Literal["any", "late"] = "any"
    continuations: int = Field(default=1, ge=1)
    train: Literal["branch", "answer"] = "branch"
    most: int | None = Field(default=None, ge=1)


class Online(Section):
    """The parts of online RL, each of which is off unless its key is set.

    fork: see `Fork`. expert: each turn is judged against what the task's expert would do in its state, for the credit ui-s1.
    shown: the weight with which that expert's own answer is trained on at each turn, besides the agent's (rl/rollout/shown.py).
    bands, cooling: which tasks are drawn (rl/rollout/curriculum.py). replay: own successes kept per task for groups without any
    (rl/rollout/successes.py). importance_cap: turns that an earlier policy, or vLLM, sampled weigh min(ratio, cap). ahead: 1
    samples the next generation while this one is trained on (rl/train/ahead.py).
    """

    fork: Fork | None = None
    expert: bool = False
    shown: float = Field(default=0.0, ge=0)
    bands: bool = False
    cooling: bool = False
    replay: int = Field(default=0, ge=0)
    importance_cap: float = Field(default=2.0, ge=1)
    ahead: int = Field(default=0, ge=0, le=1)

    @model_validator(mode="after")
    def _asked(self) -> Online:
        if self.shown and not self.expert:
            raise ValueError("shown needs expert=true, which asks the task's expert at each turn")
        return self


class Hindsight(Section):
    """Gated hindsight distillation (arXiv 2608.06065; rl/train/hindsight.py). The policy, shown what the recording holds of
    what came next, teaches itself without it. In SFT the section adds every step with the teacher's prompt, for models that
    cannot read such a prompt yet.

    weight: of the term beside the policy's loss. beta, top: of its divergence and of the teacher's tokens
    (rl/train/divergence.py). Which turns are taught: mismatches, those that disagree with the expert; below, those whose
    return is lower (null: any); recovers, those at which the teacher's most likely answer agrees with the expert under
    `method.rules`. What the teacher sees: screen, the next screenshot; thoughts, the expert's thought of this step.
    """

    weight: float = Field(default=0.1, ge=0)
    beta: float = Field(default=0.5, ge=0, le=1)
    top: int = Field(default=100, ge=1)
    mismatches: bool = True
    below: float | None = 1.45
    recovers: bool = True
    screen: bool = True
    thoughts: bool = False

    @model_validator(mode="after")
    def _something_to_see(self) -> Hindsight:
        if not (self.screen or self.thoughts):
            raise ValueError("the teacher would see no more than the policy; set screen or thoughts to true")
        return self


class Method(Section):
    """What semi-online RL is made of; defaults are the paper's (method 5.7, 7).

    credit: how a group of rollouts becomes samples (rl/credit); it reads the rules from `reward` to `scale`, `eta` and
    `spread_of`. expert_thoughts: whether the experts' history, and SFT's targets, hold the recorded thoughts; the paper's
    offline RL has none. hindsight: off unless given. shown: the weight with which the expert's turn, where it has
    a thought, is trained on in the agent's own history (rl/rollout/shown.py). start: where rollouts along a recording begin: at its
    first step, or each group at a step drawn at random, behind the expert's turns (with thoughts as expert_thoughts says).
    thought_store: a file of thoughts that take the place of the recorded ones. answers: a file for the patch person. max_turns: RL
    also ends after the update by which max_turns turns were sampled, counted on all processes and with dropped groups.
    shortest_path, refusal, repetition, invalid: what an attempt's reward also depends on, in online RL (rl/credit/shaping.py).
    mix: the share of an update's groups that online RL takes along recordings.

    algorithm distill: semi-online walks, or live attempts where there is a section `world`, without an advantage of their own
    and without a filter: what is learned comes from the section `teacher`. patch_budget falling: as many repairs as the longest
    recording has room for in the first generation, none in the last, and evenly fewer in between.
    """

    algorithm: Literal["sft", "offline", "semi-online", "online", "distill"] = "semi-online"
    rules: str = "guiderail"
    credit: str = "ui-s1"
    reward: str = "paper"
    gamma: float = Field(default=0.5, ge=0, le=1)
    returns: ReturnMode = "paper"
    episode_advantage: EpisodeMode = "total"
    episode_weight: float = 1.0
    step_weight: float = 1.0
    scale: bool = True
    mix: float = Field(default=0.0, ge=0, lt=1)
    shortest_path: float = Field(default=0.0, ge=0, le=1)
    refusal: float = Field(default=0.0, ge=0, lt=1)
    repetition: float = Field(default=0.0, ge=0)
    invalid: float = Field(default=0.0, ge=0)
    groups: int = Field(default=32, ge=1)
    rollouts: int = Field(default=8, ge=1)
    start: Literal["first", "any"] = "first"
    eta: float = Field(default=0.3, ge=0)
    spread_of: SpreadOf = "first_return"
    tries: int = Field(default=4, ge=1)
    difficulty: Difficulty | None = None
    hindsight: Hindsight | None = None
    shown: float = Field(default=0.0, ge=0)
    patch: str = "thought-free"
    patch_budget: int | Literal["unlimited", "falling"] = 1
    thought_store: str | None = None
    answers: str | None = None
    expert_thoughts: bool = True
    temperature: float = Field(default=1.0, gt=0)
    max_rows: int = Field(default=64, ge=1)
    max_turns: int | None = Field(default=None, ge=1)
    width: int = Field(default=64, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _credit_of_attempts(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("algorithm") == "online":
            return {"credit": "outcome", **values}
        if isinstance(values, dict) and values.get("algorithm") == "distill":
            return {"episode_weight": 0.0, "step_weight": 0.0, "spread_of": "none", "rollouts": 2, **values}
        return values

    @field_validator("patch_budget")
    @classmethod
    def _budget(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, int) and value < 0 and info.context != MADE:
            raise ValueError(f"expected 0 or more repairs, unlimited (-1 of UI-S1's code) or falling, got {value}")
        return value

    @field_validator("rules", "credit", "reward", "patch")
    @classmethod
    def _named(cls, value: str, info: Any) -> str:
        registries: dict[str, Registry[Any]] = {
            "rules": ALL_RULES,
            "credit": CREDITS,
            "reward": REWARDS,
            "patch": PATCHES,
        }
        live = info.data.get("algorithm") in ("online", "distill")
        if info.field_name == "credit" and value in LIVE_CREDITS and not live:
            raise ValueError(f"{value} needs live attempts, rollouts along recordings have no outcome; use ui-s1")
        return known(value, registries[info.field_name])

    def credit_rules(self) -> CreditRules:
        return CreditRules(
            reward=REWARDS.find(self.reward),
            gamma=self.gamma,
            returns=self.returns,
            episode=self.episode_advantage,
            episode_weight=self.episode_weight,
            step_weight=self.step_weight,
            scale=self.scale,
            eta=self.eta,
            spread_of=self.spread_of,
            shortest=self.shortest_path,
            refusal=self.refusal,
            repeat=self.repetition,
            invalid=self.invalid,
        )


class Teacher(Section):
    """A larger model that scores what the student samples, where the student is (rl/distill/teacher.py).

    path: its folder or hub id, a frozen copy in each process; or server, the address of one that reports the log-probabilities
    of prompts (vLLM), and its `model` there. form: "divergence" compares whole distributions, over the teacher's `top` most
    likely tokens (rl/train/divergence.py has beta); "advantage" makes log pi_T - log pi_S of each sampled token its advantage.
    weight: of the teacher, beside the advantages of RL. recorded: the share of an update's turns that are the expert's own,
    under the expert's history (1 - lambda of GKD). tokenizer: "other" where it is not the student's: then answers are compared in
    spans of equal text, "divergence" is that of sorted probabilities, and beta is not used (rl/train/spans.py).
    """

    path: str | None = None
    server: str | None = None
    model: str | None = None
    tokenizer: Literal["same", "other"] = "same"
    form: Literal["divergence", "advantage"] = "divergence"
    weight: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.5, ge=0, le=1)
    top: int = Field(default=64, ge=1)
    recorded: float = Field(default=0.0, ge=0, lt=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    deadline: float = Field(default=100.0, gt=0)

    @model_validator(mode="after")
    def _one_teacher(self) -> Teacher:
        if (self.path is None) == (self.server is None):
            raise ValueError("give teacher.path=FOLDER or teacher.server=ADDRESS, one of them")
        if self.server is not None and self.model is None:
            raise ValueError("teacher.model is missing; add to the command teacher.model=NAME, as the server lists it")
        if self.tokenizer == "other" and self.path is None:
            raise ValueError(
                "teacher.tokenizer=other needs the teacher's weights: give teacher.path=FOLDER, not a server"
            )
        if self.recorded and self.form == "advantage":
            raise ValueError("recorded turns were not sampled by the student; use teacher.form=divergence with them")
        return self


class Update(Section):
    """What makes an update cheaper without changing it (rl/train/prefix.py, agent/local/vision.py); each can be turned off."""

    share_prefix: bool = True
    share_vision: bool = True


class Rollout(Section):
    """Where rollouts are sampled. engine: local (transformers, in this process, exact), vllm-server (one server or several,
    in an environment of their own) or vllm-colocate (an engine in this process that takes the share `memory` of the GPU).

    server: an address, or a list of them; a group stays on one of them. weights_folder: where weights lie for the servers
    until they have loaded them, on storage that both see; by default in the run's folder.
    timeout: seconds to wait for a server to come up. deadline: seconds for one answer, all tries together. concurrency:
    requests under way at once, per process. tolerance: largest mean difference of a probe token's log-probability between
    vLLM and the trainer after a weight sync; by default 0.001 where both compute in float32, 0.1 in bfloat16.

    sleep: whether vLLM gives its memory back during updates; a server must have been started for it.

    dispatch: how groups get to processes (rl/rollout/dispatch.py). tries: each try is dealt evenly and waited for, which can be
    replayed to the bit. free: a process takes the next group when it has room, and a group that teaches nothing is replaced at once.
    The groups are the same but for the rounding of batches that are composed otherwise. `method.difficulty` has tries.

    share_vision, share_prefill: what the local engine may share between rollouts (agent.policy.Sharing); no answer changes
    with them. speculation: how answers are drafted and verified in advance. Of the local engine (agent/local/drafts.py): off;
    ngram, the default: the expert's answer; suffix: also earlier answers at the same step; auto: these where measured times
    say so. Of vLLM: off, ngram or suffix, as vLLM starts it; auto and the default take a server as it is. features: a folder in which all processes of a host keep vision features, over runs too; by default the
    environment's GUIDERAIL_FEATURES, which evaluation reads as well. decoders: threads that decode screenshots before they are
    needed, in rollouts and updates; 0 for none.
    """

    engine: Literal["local", "vllm-server", "vllm-colocate"] = "local"
    server: str | list[str] = "http://127.0.0.1:8000"
    weights_folder: str | None = None
    timeout: float = Field(default=240.0, gt=0)
    deadline: float = Field(default=100.0, gt=0)
    concurrency: int = Field(default=64, ge=1)
    memory: float = Field(default=0.3, gt=0, lt=1)
    tolerance: float | None = Field(default=None, gt=0)
    share_vision: bool = True
    share_prefill: bool = True
    speculation: Speculation | None = None
    sleep: bool = False
    dispatch: Literal["tries", "free"] = "tries"
    features: str | None = None
    decoders: int = Field(default=2, ge=0, le=64)

    @property
    def servers(self) -> list[str]:
        """Their addresses; several may also stand in one string, with commas."""
        given = self.server.split(",") if isinstance(self.server, str) else self.server
        return [address.strip().rstrip("/") for address in given]

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_releases(cls, values: Any) -> Any:
        """They named the port of a group for weights, which travel as files now; and `drafts`, which is `speculation` now."""
        if not isinstance(values, dict):
            return values
        kept = {k: v for k, v in values.items() if k not in ("group_port", "drafts")}
        return {"speculation": "off", **kept} if values.get("drafts") is False else kept

    @field_validator("server")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        given = value.split(",") if isinstance(value, str) else value
        if not given or any(not re.match(r"https?://[^/\s]+", address.strip()) for address in given):
            raise ValueError(f"expected addresses such as http://127.0.0.1:8000, got {str(value)[:80]}")
        return value

    def sharing(self) -> Sharing:
        """What the local engine shares."""
        return Sharing(self.share_vision, self.share_prefill, self.speculation or "ngram")


def known(name: str, registry: Registry[Any]) -> str:
    """name, if a part may have it; else a ValueError. Nothing is loaded, so configs of others are safe to read."""
    try:
        registry.check(name)
    except SetupError as error:
        raise ValueError(str(error)) from None
    return name
