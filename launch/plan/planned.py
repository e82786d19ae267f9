"""A plan: one config on one cluster. Whether it fits, how long it takes, what it costs, and what to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.policy import LONG_ROW
from guiderail.launch.plan import memory, seconds
from guiderail.launch.plan.lengths import Ask, Lengths
from guiderail.launch.plan.machines import GIB, Cluster
from guiderail.launch.plan.memory import Rows
from guiderail.launch.plan.seconds import Assumed, Spent
from guiderail.launch.plan.setting import Setting, setting_of, teacher_of
from guiderail.launch.plan.shape import Shape
from guiderail.rl.config import Config

Measure = Callable[[Config], Lengths]
"""The lengths of a config's prompts, which depend on its pictures and its dialect."""

CONTEXT, FRAGMENTS = 1.5 * GIB, 0.06
"""What a GPU holds for itself and its libraries, and the share of the rest that an allocator cannot use."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU, or in one process. static: all the time. update, rollouts, teaching: on top of it, in turn. context:
    for the device and libraries."""

    static: dict[str, float]
    update: dict[str, float]
    rollouts: dict[str, float]
    teaching: dict[str, float]
    context: float

    @property
    def largest(self) -> dict[str, float]:
        """The parts of the phase that takes most."""
        return max(self.update, self.rollouts, self.teaching, key=memory.total)

    @property
    def peak(self) -> float:
        used = memory.total(self.static) + memory.total(self.largest)
        return used * (1 + (FRAGMENTS if self.context else 0)) + self.context

    @property
    def parts(self) -> dict[str, float]:
        """Static parts and those of the largest phase, without zeros."""
        return {name: size for name, size in (self.static | self.largest).items() if size}


@dataclass(frozen=True, slots=True)
class Planned:
    """rows: the micro-batch that takes most memory."""

    cluster: Cluster
    setting: Setting
    memory: Memory
    rows: Rows
    spent: Spent

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.cluster.gpu.memory * GIB

    @property
    def hours(self) -> float:
        return self.spent.hours

    @property
    def cost(self) -> float:
        """Dollars, without those of vLLM servers."""
        return self.cluster.cost(self.hours)

    def as_json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster.name,
            "fits": self.fits,
            "gpu_gib": self.cluster.gpu.memory,
            "peak_gib": self.memory.peak / GIB,
            "memory_gib": {name: size / GIB for name, size in self.memory.parts.items()},
            "gradient_accumulation_steps": self.setting.micro,
            "seconds": self.spent.seconds,
            "generations": self.spent.generations,
            "turns_per_generation": self.spent.turns,
            "rows_per_generation": self.spent.rows,
            "share_learned_from": self.spent.learned,
            "hours": self.hours,
            "dollars": self.cost,
        }


def plan(
    config: Config, shape: Shape, lengths: Lengths, cluster: Cluster, assumed: Assumed, *, whole: bool = False
) -> Planned:
    """whole: with as many micro-batches as it takes to learn from every kept turn, so that clusters of different size do the
    same work. Raises SetupError for a config that cannot be read."""
    setting = setting_of(config, shape, gpu=True)
    work = seconds.spent(config, shape, setting, lengths, cluster, assumed)
    if whole and work.learned < 1:
        setting = replace(setting, micro=math.ceil(setting.micro / work.learned))
        work = seconds.spent(config, shape, setting, lengths, cluster, assumed)
    held, rows = memory_of(config, shape, setting, lengths, cluster.world, assumed, gpu=cluster.gpu.memory * GIB)
    return Planned(cluster, setting, held, rows, work)


def memory_of(
    config: Config, shape: Shape, s: Setting, lengths: Lengths, world: int, assumed: Assumed, gpu: float | None
) -> tuple[Memory, Rows]:
    """(what one process takes, its largest micro-batch). gpu: the bytes of its GPU, None on a CPU."""
    answer = assumed.answer or lengths.answer
    choices = [micro_batch(config, s, shape, ask, answer, gpu is not None) for ask in _extremes(lengths)]
    updates = [memory.update(shape, s, rows, world, gpu is not None) for rows in choices]
    largest = max(range(len(choices)), key=lambda i: memory.total(updates[i]))
    rollouts: dict[str, float] = {}
    static = memory.static(shape, s, world)
    if config.method.algorithm != "sft" and config.rollout.engine == "local":
        longest = lengths.longest.tokens
        together = seconds.rows_together(config, longest)
        whole = memory.weights(shape, s)
        rollouts = memory.rollouts(shape, s, together, longest, round(answer), world, shared=whole)
    if config.rollout.engine == "vllm-colocate" and gpu is not None:
        static["vLLM"] = config.rollout.memory * gpu
    teaching: dict[str, float] = {}
    if (teacher := teacher_of(config, s, gpu=gpu is not None)) is not None:
        static["teacher"] = memory.weights(teacher.shape, teacher.setting)
        passes = [memory.teaching(teacher.shape, teacher.setting, rows) for rows in choices]
        teaching = max(passes, key=memory.total)
    context = CONTEXT if gpu is not None else 0.0
    return Memory(static, updates[largest], rollouts, teaching, context), choices[largest]


def micro_batch(config: Config, s: Setting, shape: Shape, ask: Ask, answer: float, gpu: bool) -> Rows:
    """The most rows of one step in one micro-batch: as a tree where sharing the prompt's beginning pays, else side by side."""
    sft = config.method.algorithm == "sft"
    count = s.rows if sft else min(s.rows, config.method.rollouts) if s.share else s.rows
    size, said = round(ask.tokens + answer), round(answer)
    added = (2 * size - ask.lead) ** 2 - 2 * size**2
    chosen = config.model.attention
    plain = chosen in ("varlen", "flex") or (chosen == "auto" and size >= LONG_ROW)
    # as rl.train.prefix.lay_out decides
    tree = s.share and count > 1 and (plain or ask.lead * 6 * shape.hidden > added)
    once = s.share and not sft and config.update.share_vision  # rows of one step show the same screenshots
    pictures = ask.patches if once or (tree and ask.lead == ask.tokens) else ask.patches * count
    again = 0 if tree and ask.lead == ask.tokens else count * sum(ask.patches) - sum(pictures)
    if tree:
        tokens = ask.lead + count * (size - ask.lead)
        return Rows(1, tokens, count * said, pictures, masked=not plain, again=again)
    return Rows(count, size, count * said, pictures, masked=not plain and (s.share or count > 1), again=again)


def _extremes(lengths: Lengths) -> Sequence[Ask]:
    """The longest prompt, and the longest that a whole group shares."""
    shared = [ask for ask in lengths.asks if ask.lead == ask.tokens]
    return [lengths.longest, *([max(shared, key=lambda ask: ask.tokens)] if shared else [])]


# --------------------------------------------------------------------------------------------------- what to change


def changes(config: Config) -> list[tuple[str, Any]]:
    """What makes a run smaller, what costs least first."""
    rows = config.method.max_rows
    sft = config.method.algorithm == "sft"
    found: list[tuple[str, Any]] = [("training.gradient_checkpointing", True)]
    found += [] if sft else [("method.max_rows", r) for r in (4, 2, 1) if r < rows]
    found += [("method.width", w) for w in (32, 16, 8) if w < config.method.width and not sft]
    if sft:
        found += [("training.per_device_train_batch_size", r) for r in (4, 2, 1)]
    found += [("training.deepspeed", "zero2.json"), ("training.deepspeed", "zero3.json")]
    found += [("model.freeze_vision", True), ("model.max_pixels", 1_300_000), ("model.images", 1)]
    if config.model.lora is None and config.model.adapter is None:
        found += [("model.lora", {"r": 16, "alpha": 32})]
    return found


def with_change(config: Config, key: str, value: Any) -> Config:
    section, name = key.split(".", 1)
    content: dict[str, Any] = config.model_dump()
    content[section][name] = value
    return Config.model_validate(content)


def smaller(config: Config, shape: Shape, measure: Measure, cluster: Cluster, assumed: Assumed) -> dict[str, Any]:
    """The keys to change so that the run fits; empty where it fits already, or where nothing that is tried helps."""
    made: dict[str, Any] = {}
    current, planned = config, plan(config, shape, measure(config), cluster, assumed)
    for key, value in changes(config):
        if planned.fits:
            break
        tried = with_change(current, key, value)
        after = plan(tried, shape, measure(tried), cluster, assumed)
        if after.memory.peak < 0.98 * planned.memory.peak:
            made[key], current, planned = value, tried, after
    return made if planned.fits else {}


def refusal(planned: Planned, change: Mapping[str, Any]) -> SetupError:
    """For a run that cannot fit."""
    keys = as_words(change)
    parts = sorted(planned.memory.parts.items(), key=lambda item: item[1], reverse=True)[:3]
    most = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
    advice = f"add to the command {keys}" if keys else "take a larger GPU, more of them, or a smaller model"
    return SetupError(
        f"this run would take {planned.memory.peak / GIB:.1f} GiB per GPU ({most}), and {planned.cluster.gpu.name} has "
        f"{planned.cluster.gpu.memory:.1f}; {advice}, or pass --no-plan to try it all the same"
    )


def as_words(change: Mapping[str, Any]) -> str:
    """As they are typed after a command."""
    return " ".join(f"{key}={_yaml(value)}" for key, value in change.items())


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "'{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}'"
    return str(value).lower() if isinstance(value, bool) else str(value)
