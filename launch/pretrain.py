"""guiderail pretrain tiny: the recipe behind `tiny-base`; guiderail evaluate grounding: whether a model reads its screen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agent.errors import SetupError
from launch import parts, show
from launch.evaluate import Dialect, Json, Model, Out, Seed, Served, Server, Width, ask
from rl.runlog import RunLog

app = typer.Typer(no_args_is_help=True, help="Teach a model to read and to point, before it is an agent.")


@app.callback()
def _group() -> None:
    """Keeps `tiny` a sub-command while it is the only one."""


@app.command()
def tiny(
    out: Annotated[Path, typer.Option(help="model folder to write")],
    minutes: Annotated[float | None, typer.Option(help="training time; the schedule follows the clock")] = None,
    steps: Annotated[int | None, typer.Option(help="updates; equal arguments, equal bytes")] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last point saved in --out")] = False,
    every: Annotated[int, typer.Option(help="steps between two points that are saved and scored")] = 100,
) -> None:
    """A 1.7 M-parameter Qwen3-VL that reads words, finds elements and tells states on small screens, from nothing."""
    parts.require("torch", "train")
    parts.quiet()
    from rl.pretrain import Recipe, pretrain

    if minutes is None and steps is None:
        minutes = 30.0
    row = pretrain(
        out,
        Recipe(seed=seed),
        steps=steps,
        minutes=minutes,
        device=device,
        resume=resume,
        every=every,
        told=lambda row: show.err.print(_line(row), highlight=False, soft_wrap=True),
    )
    parts.Voice("brief", images=1, max_new_tokens=32, max_prompt_tokens=1024).save(out)
    show.err.print(f"pretrained in {row['minutes']:.1f} min, {row['step']} steps: {out}", highlight=False)


def _line(row: dict[str, Any]) -> str:
    """ "step 300, 4.1 min, loss .52: where .91/.97, state .88/.93, ..." with generic and Pocket screens side by side."""
    losses = sum(value for key, value in row.items() if key.startswith("loss_"))
    kinds = dict.fromkeys(key.partition("_")[2] for key in row if key.startswith(("generic_", "pocket_")))
    scores = (f"{kind} {row.get(f'generic_{kind}', 0):.2f}/{row.get(f'pocket_{kind}', 0):.2f}" for kind in kinds)
    return f"step {row['step']}, {row['minutes']:.1f} min, loss {losses:.2f}: {', '.join(scores)}"


def grounding(
    model: Model = "tiny-base",
    server: Server = None,
    served: Served = None,
    dialect: Dialect = None,
    seed: Seed = 0,
    screens: Annotated[int, typer.Option(help="random screens, and as many Pocket screens")] = 300,
    style: Annotated[str, typer.Option(help="of the Pocket screens: easy or free")] = "easy",
    width: Width = 64,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Named elements pointed at and states told, on random screens and on Pocket screens, free-running."""
    from rl.grounding import evaluate_grounding

    if screens < 1 or style not in ("easy", "free"):
        raise SetupError(f"--screens {screens}, --style {style!r}: expected at least 1, and easy or free")
    who = ask(None if server else model, None, server, served, None, dialect, 1, None)
    actor = parts.acting(who)
    details = {"model": actor.model, "voice": asdict(actor.voice), "seed": seed, "screens": screens, "style": style}
    log = RunLog(out, "grounding", details) if out else None
    with show.bar("screens", 2 * screens) as tick:
        result = evaluate_grounding(
            actor.policy,
            actor.dialogue,
            seed=seed,
            screens=screens,
            style=style,
            width=width,
            tick=tick,
        )
    if log is not None:
        log.finish(show.strict(result))
    show.result(result, as_json, _table(f"grounding, {actor.model}, seed {seed}", result))


def _table(title: str, result: dict[str, Any]) -> Table:
    table = Table("", "element %", "state %", "n", "same place always %", title=title, title_justify="left")
    for source, probe in result["probe"].items():
        rates = [result[source][what] for what in ("element", "state")]
        cells = [show.percent(rate["accuracy"], rate["interval"]) for rate in rates]
        table.add_row(source, *cells, " + ".join(str(r["n"]) for r in rates), show.percent(probe["accuracy"]))
    return table
