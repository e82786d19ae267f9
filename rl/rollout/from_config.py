"""A config's method as what is sampled: the plans of its groups, along recordings and live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Sampling
from guiderail.agent.types import Episode
from guiderail.rl.config import Config
from guiderail.rl.credit.named import credit_named
from guiderail.rl.rollout.curriculum import Curriculum
from guiderail.rl.rollout.difficulty import Difficulty
from guiderail.rl.rollout.drive import Asking, Drive, drive
from guiderail.rl.rollout.generation import units_of
from guiderail.rl.rollout.live import Order, live_units
from guiderail.rl.rollout.mix import share_of
from guiderail.rl.rollout.plan import Memory, Plan, Shown, Tokens, Unit
from guiderail.rl.rollout.shown import told
from guiderail.rl.rollout.successes import Successes


@dataclass(frozen=True)
class Live:
    """Where live attempts are made. names: of its tasks. begin: makes a walk of an order. drive: runs walks. metrics: for the
    log, since they were last taken."""

    names: Sequence[str]
    begin: Callable[[Order], Asking[Any]]
    drive: Drive = drive
    metrics: Callable[[], dict[str, float]] = dict


def recorded_plan(
    config: Config,
    episodes: Sequence[Episode],
    dialogue: Dialogue,
    seed: int,
    difficulty: Difficulty | None = None,
    tokens: Tokens | None = None,
    generations: int = 1,
) -> Plan:
    """Groups along recordings: all of a generation, or the share of them that online RL mixes in. tokens, generations: as in
    `live_plan`."""
    method, credit, groups = config.method, config.method.credit, config.method.groups
    if config.live:
        credit, groups = "ui-s1", share_of(groups, method.mix)

    def units(generation: int) -> list[Unit]:
        return units_of(method, episodes, dialogue, generation / max(1, generations - 1))

    plan = _plan(config, units(0), credit, groups, seed)
    renewed = lru_cache(1)(units) if method.patch_budget == "falling" else None
    if method.shown and tokens is not None:
        plan = replace(plan, shown=Shown(method.shown, tokens, told(episodes, dialogue)))
    return replace(plan, difficulty=difficulty, renewed=renewed)


def live_plan(
    config: Config,
    live: Live,
    dialogue: Dialogue,
    generations: int,
    images: Path,
    seed: int,
    tokens: Tokens | None = None,
) -> Plan:
    """Groups of live attempts. generations: of the whole run. images: the folder that keeps their screenshots. tokens: the ids
    of an answer's words, for those that are shown."""
    method, online = config.method, config.online
    groups = method.groups - (share_of(method.groups, method.mix) if method.mix else 0)
    plan = _plan(config, live_units(live.names, live.begin, online.fork), method.credit, groups, seed)
    plan = replace(plan, drive=live.drive)
    if online.shown and tokens is not None:
        plan = replace(plan, shown=Shown(online.shown, tokens))
    memories: list[Memory] = []
    if online.bands or online.cooling:
        curriculum = Curriculum(live.names, generations, online.bands, online.cooling, seed)
        plan = replace(plan, order=curriculum)
        memories.append(curriculum)
    if online.replay:
        successes = Successes(dialogue, images, online.replay, seed)
        plan = replace(plan, fill=successes.fill)
        memories.append(successes)
    return replace(plan, memories=tuple(memories))


def _plan(config: Config, units: Sequence[Unit], credit: str, groups: int, seed: int) -> Plan:
    method = config.method
    return Plan(
        units,
        credit_named(credit, method.credit_rules()),
        groups=groups,
        rollouts=method.rollouts,
        sampling=Sampling(method.temperature, config.model.max_new_tokens),
        tries=method.tries,
        seed=seed,
        width=method.width,
        free=config.rollout.dispatch == "free",
    )
