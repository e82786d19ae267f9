"""The plan that `guiderail train` prints before it starts, for the machine it runs on. What cannot fit is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.types import Episode
from guiderail.launch import show
from guiderail.launch.plan import machines, page, planned, seconds
from guiderail.launch.plan.lengths import Lengths, lengths_of
from guiderail.launch.plan.machines import GIB, GPU, Cluster
from guiderail.launch.plan.memory import total
from guiderail.launch.plan.seconds import Assumed
from guiderail.launch.plan.setting import setting_of
from guiderail.launch.plan.shape import Shape, base_of, shape_of
from guiderail.rl.config import Config

PROCESS, CACHES = 1.0 * GIB, 1.0 * GIB
"""What Python and its libraries take, and the most that the encoder keeps of pixels (agent/local/encode.py)."""


def check(
    config: Config,
    episodes: Sequence[Episode],
    dialogue: Dialogue,
    tokens: Callable[[str], int],
    device: tuple[str, int] | None,
    first: bool,
) -> None:
    """Print what the run will take, on the process that is `first`. tokens: of a text. device: name and bytes of this
    process's GPU, None on a CPU. Raises SetupError, on every process, for a run that cannot fit."""
    if config.live:
        return
    shape, where = shape_of(base_of(config.model.path)), config.data.train if config.data is not None else ""

    def measure(one: Config) -> Lengths:
        vision = replace(
            dialogue.vision,
            max_pixels=min(dialogue.vision.max_pixels, one.model.max_pixels or dialogue.vision.max_pixels),
        )
        seen = replace(dialogue, vision=vision, images=one.model.images)
        return lengths_of(episodes, seen, shape.tower.merge, tokens, one.method.expert_thoughts, where)

    lines = _on_gpus(config, shape, measure, device) if device is not None else _on_cpus(config, shape, measure)
    for line in lines if first else ():
        show.err.print(f"plan: {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _on_gpus(config: Config, shape: Shape, measure: planned.Measure, device: tuple[str, int]) -> list[str]:
    name, memory = device
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cluster = Cluster(known(name, memory), here, int(os.environ.get("WORLD_SIZE", "1")) // here)
    made = planned.plan(config, shape, measure(config), cluster, Assumed())
    if not made.fits:
        raise planned.refusal(made, planned.smaller(config, shape, measure, cluster, Assumed()))
    lines = [f"{made.memory.peak / GIB:.1f} of {memory / GIB:.1f} GiB per GPU ({_most(made.memory.parts)})"]
    if cluster.gpu.tflops:
        each = sum(made.spent.seconds.values()) / 3600
        paid = f", ${made.cost:.0f} at ${cluster.gpu.price:g} a GPU and hour ({cluster.gpu.priced})"
        lines.append(
            f"about {page.time_of(made.hours)} in at most {made.spent.generations} generations of {page.time_of(each)}{paid}; "
            "`guiderail plan` shows the parts"
        )
    return lines


def known(name: str, memory: int) -> GPU:
    """The table's GPU of this name, with the memory that it has here; without speed and price where the table has none."""
    for row in machines.gpus().values():
        model = row.name.partition("-")[0]
        if model.upper() in name.replace(" ", "").upper() and abs(row.memory * GIB - memory) < 0.1 * memory:
            return replace(row, memory=memory / GIB)
    return GPU(name, memory / GIB, 0.0, 0.0, 0.0, 0.0, "")


def _on_cpus(config: Config, shape: Shape, measure: planned.Measure) -> list[str]:
    lengths = measure(config)
    setting = setting_of(config, shape, gpu=False)
    world, here = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    held, rows = planned.memory_of(config, shape, setting, lengths, world, Assumed(), None)
    picture = max((patches for ask in lengths.asks for patches in ask.patches), default=0) * shape.tower.pixels * 4
    need = here * (held.peak + PROCESS + min(CACHES, picture * sum(lengths.steps)))
    has = machine_memory()
    if need > has:
        gpu = GPU("this machine", has / here / GIB, 0.0, 0.0, 0.0, 0.0, "")
        raise planned.refusal(planned.Planned(Cluster(gpu, here), setting, held, rows, seconds.UNKNOWN), {})
    return [
        f"{need / GIB:.1f} of {has / GIB:.1f} GiB of memory; prompts up to {lengths.longest.tokens} tokens; micro-batches up to "
        f"{rows.sequences} x {rows.longest}"
    ]


def _most(parts: dict[str, float]) -> str:
    largest = sorted(parts.items(), key=lambda item: item[1], reverse=True)[:4]
    rest = total(parts) - sum(size for _, size in largest)
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in [*largest, ("rest", rest)] if size >= 0.05 * GIB)


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        return min(whole, int(limit.read_text()))
    except (OSError, ValueError):
        return whole
