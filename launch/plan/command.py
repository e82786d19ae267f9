"""guiderail plan: memory, hours and cost of a config before a machine is rented."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.processor import checkpoint_vision
from guiderail.agent.screen import Vision
from guiderail.agent.shipped import shipped
from guiderail.envs.recordings.episodes import Dataset
from guiderail.launch import configs, parts, show
from guiderail.launch.before import training_of
from guiderail.launch.options import Json
from guiderail.launch.plan import choose, machines, page, planned
from guiderail.launch.plan.lengths import Lengths, counter, lengths_of, typical
from guiderail.launch.plan.seconds import Assumed
from guiderail.launch.plan.shape import PUBLISHED, Shape, base_of, shape_of
from guiderail.rl.config import Config, load_config
from guiderail.rl.keys.training import checked
from guiderail.rl.sections import Data

NONE_YET = "none-yet"
_MOST_PIXELS = {"qwen2_5_vl": 12845056, "qwen3_vl": 16777216}  # of the published image processors


def plan(
    config: configs.ConfigArg,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="values that replace the config's, such as method.max_rows=2", metavar="KEY=VALUE"),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="only this GPU, such as h100-80g; default: all of the table")] = None,
    count: Annotated[int | None, typer.Option(help="GPUs of a machine; default: 1 to 8", min=1, max=64)] = None,
    nodes: Annotated[int | None, typer.Option(help="machines", min=1, max=4096)] = None,
    deadline: Annotated[
        float | None, typer.Option(help="hours that it may take: the cheapest GPUs that manage")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="dollars that it may cost: the fastest GPUs for them")] = None,
    data: Annotated[str | None, typer.Option(help="recordings, for their real lengths; default: the config's")] = None,
    screen: Annotated[str | None, typer.Option(help="WxH or infer, for recordings without images")] = None,
    prices: Annotated[Path | None, typer.Option(help="JSON with prices of your own, or GPUs of your own")] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="what is not known before, such as agreement=0.6; docs/cluster.md lists them"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Memory per GPU, hours and cost of a training, and the cheapest GPUs for it. Needs no GPU, and downloads nothing."""
    given = [*(overrides or []), *([f"data.train={data}"] if data else [])]
    chosen = load_config(configs.find(config), _with_data(given))
    checked(training_of(chosen)[0], chosen.method.algorithm)
    shape, measure = shape_of(base_of(chosen.model.path)), measure_of(chosen, screen)
    assumed, table = Assumed().but(assume or []), machines.gpus(prices)
    wanted = [machines.find(gpu, table)] if gpu else [*table.values()]
    plans = choose.compare(chosen, shape, measure(chosen), choose.clusters(wanted, count, nodes), assumed)
    best = choose.best(plans, deadline, budget)
    change = {} if best else planned.smaller(chosen, shape, measure, _largest(plans), assumed)
    if as_json:
        result = {
            "plans": [one.as_json() for one in plans],
            "best": best.cluster.name if best else None,
            "change": change,
        }
        show.result(result, True, page.comparison(plans, best))
    else:
        page.print_plan(plans, best, change, said(measure(chosen), plans[0]))


def said(lengths: Lengths, one: planned.Planned) -> str:
    """Where the numbers are from, in a line or two."""
    longest = lengths.longest
    return (
        f"{lengths.said}: {len(lengths.steps)} episodes, {lengths.mean_steps:.1f} steps, prompts up to {longest.tokens} tokens, "
        f"answers of {lengths.answer:.0f}. {one.cluster.gpu.name}: ${one.cluster.gpu.price:g} an hour ({one.cluster.gpu.priced}; "
        "--prices FILE). Hours rest on assumptions that --assume sets."
    )


def _largest(plans: list[planned.Planned]) -> machines.Cluster:
    return min(plans, key=lambda one: one.memory.peak / one.cluster.gpu.memory).cluster


def _with_data(given: list[str]) -> list[str]:
    """A config without recordings can be planned: they are then assumed."""
    return given if any(one.startswith("data.train=") for one in given) else [*given, f"data.train={NONE_YET}"]


def vision_of(model: str, shape: Shape) -> Vision:
    """The model's resize rule, from its folder or, for a published model, from its family's settings."""
    if model in PUBLISHED and not Path(shipped(model)).is_dir():
        factor = shape.tower.patch * shape.tower.merge
        return Vision(factor, 4 * factor**2, _MOST_PIXELS[shape.family])
    return checkpoint_vision(model)


def measure_of(config: Config, screen: str | None = None) -> planned.Measure:
    """What gives the lengths of this config's prompts, and of variants of it. The recordings are read once."""
    model = base_of(config.model.path)
    shape = shape_of(model)
    recorded: Dataset | None = None
    data = config.data or Data(train=NONE_YET)
    if data.train != NONE_YET:
        recorded = parts.dataset(data.train, screen, data.swipes, data.skip_bad, data.limit)
    tokens, exact = counter(model)
    tokens = functools.lru_cache(1 << 16)(tokens)
    how = data.train if recorded else "no recordings given, assumed 1080x2400"
    how += "" if exact else ", text at 4 characters a token"

    @functools.lru_cache(16)
    def lengths(images: int, most: int | None, least: int | None, thoughts: bool) -> Lengths:
        seen = vision_of(model, shape)
        vision = Vision(seen.factor, least or seen.min_pixels, most or seen.max_pixels)
        dialogue = Dialogue(vision, DIALECTS.find(config.model.dialect), images, config.model.window)
        episodes = recorded.episodes if recorded else typical()
        return lengths_of(episodes, dialogue, shape.tower.merge, tokens, thoughts, how)

    def measure(one: Config) -> Lengths:
        return lengths(one.model.images, one.model.max_pixels, one.model.min_pixels, one.method.expert_thoughts)

    return measure
