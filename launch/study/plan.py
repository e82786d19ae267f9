"""A study as plain data: worlds, exams, recipes, arms, seeds. One YAML; unknown keys are errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import nearest
from guiderail.rl.config import read_yaml
from guiderail.rl.sections import Section

CONFIGS = Path(__file__).parents[1] / "configs"


class World(Section):
    """Simulated phones to draw tasks from. Recordings and live tasks are the same draws; live ones are disturbed.
    informative: share of recorded steps whose thought says what was done or read."""

    split: str
    seed: int
    style: str = "easy"
    informative: float = Field(default=0.5, ge=0, le=1)


class Exam(Section):
    """What one checkpoint is scored on, in numbers per world: live tasks, SOP episodes and episodes for one-step accuracy,
    all greedy; and live tasks and SOP episodes sampled at temperature 1, as the policy that RL trains.

    minutes: an estimate of how long that takes, used until a record says how long it took.
    """

    live: dict[str, int]
    sop: dict[str, int]
    steps: dict[str, int]
    live_sampled: dict[str, int] = Field(default_factory=dict)
    sop_sampled: dict[str, int] = Field(default_factory=dict)
    minutes: float


class Recipe(Section):
    """A training config and `section.key: value` overrides. minutes: as in `Exam`.

    own: KEY=VALUE words for `record attempts pocket`: the arm trains on the successes that its start has in these attempts,
    sampled with the job's seed, in place of the experts' recordings. recordings: the world that these are of.
    """

    config: str
    own: str = ""
    recordings: str = "train"
    set: dict[str, Any] = Field(default_factory=dict)
    minutes: float


class Arm(Section):
    """One way of training. after: the arm whose checkpoint it starts from ("": the base model). recipe "": nothing is
    trained; `model`, a finished checkpoint, or the base is scored.

    set: overrides on top of the recipe's. seeds: default the study's; an arm that starts from this one with another seed
    takes the first. against: arms it is compared with, task by task and seed by seed. part: the table it belongs to.
    """

    title: str
    recipe: str = ""
    model: str = ""
    after: str = ""
    set: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    exam: str = "full"
    against: tuple[str, ...] = ()
    part: str = "comparison"


class Plan(Section):
    """A study. times: every training has this many times the updates of its recipe."""

    base: str
    times: int = Field(1, ge=1)
    size: tuple[int, int] = (160, 288)
    episodes: int = Field(ge=1)
    seeds: tuple[int, ...]
    worlds: dict[str, World]
    exams: dict[str, Exam]
    recipes: dict[str, Recipe]
    arms: dict[str, Arm]

    @model_validator(mode="after")
    def _names(self) -> Plan:
        for name, arm in self.arms.items():
            for said, known in (
                (arm.after, ["", *self.arms]),
                (arm.recipe, ["", *self.recipes]),
                (arm.exam, self.exams),
                *((other, self.arms) for other in arm.against),
            ):
                if said not in known:
                    raise ValueError(f"arm {name}: unknown {said!r}{nearest(said, [*known])}")
            if arm.recipe and arm.model:
                raise ValueError(f"arm {name}: give a recipe or a finished model")
            if arm.recipe and "training.max_steps" not in {**self.recipes[arm.recipe].set, **arm.set}:
                raise ValueError(f"arm {name}: its recipe sets no training.max_steps")
            if arm.after and not (self.arms[arm.after].recipe or self.arms[arm.after].model):
                raise ValueError(f"arm {name}: {arm.after} trains nothing to start from")
        for key, recipe in self.recipes.items():
            if recipe.recordings not in self.worlds:
                raise ValueError(
                    f"recipe {key}: unknown world {recipe.recordings!r}{nearest(recipe.recordings, self.worlds)}"
                )
        for key, exam in self.exams.items():
            for world in (*exam.live, *exam.sop, *exam.steps, *exam.live_sampled, *exam.sop_sampled, "train"):
                if world not in self.worlds:
                    raise ValueError(f"exam {key}: unknown world {world!r}{nearest(world, self.worlds)}")
        return self

    def recorded(self, world: str) -> int:
        """The number of episodes to record of this world: as many as training or the longest exam needs."""
        wanted = [part.get(world, 0) for e in self.exams.values() for part in (e.sop, e.steps, e.sop_sampled)]
        return self.episodes if world in {"train", *(r.recordings for r in self.recipes.values())} else max(wanted)


@dataclass(frozen=True, slots=True)
class Job:
    """One arm with one seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


def plan_file(plan: Path) -> Path:
    """The file of a plan that is asked for by its shipped name, such as pocket, or by its path."""
    shipped = CONFIGS / "study" / f"{plan}.yaml"
    return shipped if plan.parent == Path() and not plan.exists() and shipped.exists() else plan


def load_plan(path: Path, base: str | None = None, times: int | None = None) -> Plan:
    """Read and check a plan; `base` replaces the model it starts from, `times` how long it trains. Raises SetupError."""
    content = read_yaml(path, "plan", "base, worlds, exams, recipes, arms")
    replaced = {key: value for key, value in (("base", base), ("times", times)) if value}
    try:
        return Plan.model_validate(content | replaced)
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        raise SetupError(f"{path}: {said}") from None


def jobs(plan: Plan, only: Sequence[str] = ()) -> list[Job]:
    """Part by part in the plan's order; in each part, every arm with the first seed, then with the second, ... `only`: these
    arms or parts."""
    parts = list(dict.fromkeys(arm.part for arm in plan.arms.values()))
    for name in only:
        if name not in plan.arms and name not in parts:
            raise SetupError(f"no arm {name!r}{nearest(name, [*plan.arms, *parts])}")
    chosen = {name: arm for name, arm in plan.arms.items() if not only or name in only or arm.part in only}
    every = sorted({seed for arm in chosen.values() for seed in seeds_of(plan, arm)})
    return [
        Job(name, seed)
        for part in parts
        for seed in every
        for name, arm in chosen.items()
        if arm.part == part and seed in seeds_of(plan, arm)
    ]


def seeds_of(plan: Plan, arm: Arm) -> tuple[int, ...]:
    return arm.seeds or plan.seeds


def source(plan: Plan, job: Job) -> Job | None:
    """The job whose checkpoint this one starts from; None for the base model."""
    after = plan.arms[job.arm].after
    if not after:
        return None
    seeds = seeds_of(plan, plan.arms[after])
    return Job(after, job.seed if job.seed in seeds else seeds[0])


_LENGTH = ("training.max_steps", "method.max_turns")


def overrides(plan: Plan, job: Job) -> dict[str, Any]:
    arm = plan.arms[job.arm]
    values = {**plan.recipes[arm.recipe].set, **arm.set, "training.seed": job.seed}
    return values | {key: plan.times * values[key] for key in _LENGTH if key in values}


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """KEY=VALUE arguments for `guiderail train`. JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]
