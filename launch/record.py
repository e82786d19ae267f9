"""guiderail record pocket, miniwob, android: trajectories of scripted experts, or of a person (--by-hand). record attempts:
those of a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.launch import parts, show
from guiderail.launch.agents import AgentSpec, build_agent, sampling
from guiderail.launch.console.byhand import (
    ByHand,
    HandOptions,
    android_places,
    miniwob_places,
    pocket_places,
    record_by_hand,
)
from guiderail.launch.going_on import going_on, then
from guiderail.launch.options import DataFolder, Json, Scale, Seed, Temperature, one_of, spread
from guiderail.launch.pocket_screen import PocketSize, PocketStyle, pocket_screen
from guiderail.rl.config import options_of
from guiderail.rl.live.own import Recording, write_attempts
from guiderail.rl.rollout.live import Site
from guiderail.rl.rollout.worlds import OURS, world_of

app = typer.Typer(
    no_args_is_help=True, help="Record scripted experts, what a person does (--by-hand), or a model's own attempts."
)


@app.command()
@spread
def pocket(
    out: DataFolder,
    hand: HandOptions,
    episodes: Annotated[int, typer.Option(help="number of episodes")] = 100,
    seed: Seed = 0,
    split: Annotated[
        str, typer.Option(help="train, test, or heldout: templates and an app that train lacks")
    ] = "train",
    size: PocketSize = None,
    style: PocketStyle = "easy",
    disturbed: Annotated[
        float,
        typer.Option(help="share of episodes that start as live tasks do: another app open, pop-ups, changed switches"),
    ] = 0.5,
    informative: Annotated[
        float, typer.Option(help="share of steps whose thought says what was done or read; the others are vague")
    ] = 0.5,
    by_hand: ByHand = False,
    as_json: Json = False,
) -> None:
    """Experts on the simulated phone, as standard JSONL and PNGs. The same options give the same bytes."""
    if by_hand:
        record_by_hand(out, hand, pocket_places(split, style, pocket_screen(style, size)), seed)
        return
    from guiderail.envs.pocket.record import record

    screen = pocket_screen(style, size)
    with going_on(out):
        card = record(out, episodes, seed, split, screen, style, disturbed, informative)
    show.result(card, as_json, show.pairs("recorded", card))
    _then(out)


@app.command()
@spread
def miniwob(
    out: DataFolder,
    hand: HandOptions,
    suite: Annotated[
        str, typer.Option(help="experts, tiny, smoke, pix2act-experts, or page names with commas")
    ] = "experts",
    seeds: Annotated[int, typer.Option(help="episodes per page, from seeds --seed, --seed + 1, ...")] = 3,
    seed: Seed = 0,
    scale: Scale = 2,
    max_steps: Annotated[int, typer.Option(help="steps per episode")] = 30,
    by_hand: ByHand = False,
    as_json: Json = False,
) -> None:
    """Experts on MiniWoB++ pages, as standard JSONL and PNGs with true target boxes. Only successes are kept."""
    parts.require("miniwob", "web")
    if by_hand:
        record_by_hand(out, hand, miniwob_places(suite, scale), seed)
        return
    from guiderail.envs.miniwob.record import record
    from guiderail.envs.miniwob.tasks import WebTasks

    world = WebTasks(suite, seeds, seed, scale, max_steps)
    with going_on(out), show.bar("recording", len(world.listed())) as tick:
        card = record(out, world, tick)
    show.result(card, as_json, show.pairs("recorded", card))
    _then(out)


@app.command()
@spread
def android(
    out: DataFolder,
    hand: HandOptions,
    serial: Annotated[str, typer.Option(help="as adb devices lists it, or HOST:PORT")],
    apps: Annotated[Path | None, typer.Option(help='JSON object {"app name": "package/activity"}')] = None,
    settle: Annotated[float, typer.Option(help="seconds the screen needs after an action")] = 1.0,
    by_hand: ByHand = False,
) -> None:
    """What a person does on a phone or emulator that adb reaches, with boxes from its accessibility tree."""
    if not by_hand:
        raise SetupError("no script operates a phone of your own; add --by-hand and do it yourself")
    record_by_hand(out, hand, android_places(serial, apps, settle), 0, asks_goal=True)


@app.command()
@spread
def attempts(
    world: Annotated[str, typer.Argument(help="pocket, miniwob, ..., or path/to/file.py:NAME", metavar="WORLD")],
    out: DataFolder,
    who: AgentSpec,
    options: Annotated[
        list[str] | None,
        typer.Argument(help="what the world's tasks are drawn from, such as n=200", metavar="KEY=VALUE"),
    ] = None,
    keep: Annotated[str, typer.Option(help="success, or all: which attempts are written")] = "success",
    repeats: Annotated[int, typer.Option(help="attempts per task", min=1)] = 1,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    width: Annotated[int, typer.Option(help="attempts under way at once", min=1)] = 32,
    as_json: Json = False,
) -> None:
    """A model's own attempts in a live world, as recordings: with target boxes, and which model and check they come from."""
    kept = one_of("--keep", keep, ("success", "all"))
    if (known := OURS.get(world)) is not None:
        if known.unrecorded:
            raise SetupError(known.unrecorded)
        parts.require(known.module, known.extra)
    made = world_of(world, options_of(options or []))
    actor = build_agent(who)
    names = [name for name, _ in made.listed()]
    with going_on(out), show.bar("recording", len(names) * repeats) as tick:
        session = made.open(0)
        try:
            site = Site(session, actor.dialogue)
            job = Recording(site, names, repeats, actor.policy, sampling(actor.voice, temperature), seed, width)
            source = {
                "agent": who.name,
                "world": world,
                "options": options_of(options or []),
                "temperature": temperature,
            }
            card = write_attempts(out, job, source | {"seed": seed}, kept == "success", tick)
        finally:
            session.close()
    show.result(card, as_json, show.pairs("recorded", card))
    _then(out)


def _then(out: Path) -> None:
    then(f"guiderail gate {shlex.quote(str(out))}")
