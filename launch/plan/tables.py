"""The tables of docs/cluster.md. `python -m guiderail.launch.plan.tables docs/cluster.md` writes them again."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from guiderail.launch import configs
from guiderail.launch.plan import choose, machines, page
from guiderail.launch.plan.command import NONE_YET, measure_of
from guiderail.launch.plan.machines import GIB, Cluster
from guiderail.launch.plan.planned import Planned, plan
from guiderail.launch.plan.seconds import Assumed
from guiderail.launch.plan.shape import base_of, shape_of
from guiderail.rl.config import load_config

RECIPES = (
    ("lora_24g", "rtx4090-24g", 1, 1),
    ("lora_80g", "a100-80g", 1, 1),
    ("lora_80g", "h100-80g", 1, 1),
    ("full_8gpus", "h100-80g", 8, 1),
    ("qwen2_5_vl_7b", "h100-80g", 8, 4),
    ("qwen3_vl_8b", "h100-80g", 8, 4),
)
"""(config, GPU, GPUs of a machine, machines)."""

_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def recipe(name: str, gpu: str, count: int, nodes: int) -> Planned:
    config = load_config(configs.find(name), [f"data.train={NONE_YET}"])
    shape = shape_of(base_of(config.model.path))
    return plan(config, shape, measure_of(config)(config), Cluster(machines.gpus()[gpu], count, nodes), Assumed())


def recipes() -> Iterator[Sequence[str]]:
    """Each recipe where it is meant to run."""
    yield "recipe", "GPUs", "GiB per GPU", "a generation", "1,000 episodes", "$"
    for row in RECIPES:
        name, one = row[0], recipe(*row)
        each = page.time_of(sum(one.spent.seconds.values()) / 3600)
        yield f"`{name}`", one.cluster.name, page.held(one), each, page.time_of(one.hours), f"{one.cost:.0f}"


def parts() -> Iterator[Sequence[str]]:
    """Where the memory of each recipe is."""
    made = {row[0]: recipe(*row) for row in RECIPES}
    names = list(dict.fromkeys(part for one in made.values() for part in one.memory.parts))
    yield "GiB per GPU", *(f"`{name}`" for name in made)
    for part in names:
        yield part, *(f"{one.memory.parts.get(part, 0.0) / GIB:.1f}" for one in made.values())


def comparison() -> Iterator[Sequence[str]]:
    """The GPUs that hold full fine-tuning of the 8B, by what the run costs."""
    config = load_config(configs.find("full_8gpus"), [f"data.train={NONE_YET}"])
    shape = shape_of(base_of(config.model.path))
    candidates = choose.clusters(machines.gpus().values(), None, None)
    fitting = [
        one for one in choose.compare(config, shape, measure_of(config)(config), candidates, Assumed()) if one.fits
    ]
    yield "GPUs", "GiB per GPU", "hours", "$", "gradient_accumulation_steps"
    for one in fitting:
        yield one.cluster.name, page.held(one), f"{one.hours:.1f}", f"{one.cost:.0f}", str(one.setting.micro)


TABLES = {"recipes": recipes, "parts": parts, "comparison": comparison}


def markdown(rows: Iterator[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def filled(text: str) -> str:
    """The page with its tables as they are now."""
    return _PLACE.sub(lambda found: found[1] + markdown(TABLES[found[2]]()) + found[3], text)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
