"""guiderail: record, train, evaluate, re-judge. Every command's body is elsewhere; this is the table of contents."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agent.dialects import DIALECTS
from agent.dialogue import Dialogue
from agent.errors import GuiderailError, SetupError
from agent.screen import Vision
from launch import android, evaluate, explain, live, parts, pretrain, show
from launch.data import data_app, import_app
from launch.evaluate import DataArg, Json, Limit, Out, RulesOption, Screen, SkipBad, Swipes
from launch.rejudge import rejudge
from launch.report.command import report
from launch.study.command import app as study_app
from launch.submission.cli import app as submit_app

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_HELP = "Train and evaluate GUI agents with semi-online reinforcement learning."

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_HELP)
record_app = typer.Typer(no_args_is_help=True, help="Record expert trajectories.")
init_app = typer.Typer(no_args_is_help=True, help="Build models to start from.")
app.add_typer(record_app, name="record")
app.add_typer(init_app, name="init")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(import_app, name="import")
app.add_typer(data_app, name="data")
app.add_typer(submit_app, name="submit")
app.add_typer(pretrain.app, name="pretrain")
app.add_typer(study_app, name="study")
for command in (*live.COMMANDS, *android.COMMANDS):
    evaluate.app.command()(command)
evaluate.app.command()(pretrain.grounding)
record_app.command("miniwob")(live.record_miniwob)
app.command()(rejudge)
app.command()(report)
app.command("explain")(explain.explain_)
app.command()(explain.replay)
app.command()(explain.whatif)


@record_app.command("pocket")
def record_pocket(
    out: Annotated[Path, typer.Option(help="folder to write: episodes.jsonl, images/, DATASET.md")],
    episodes: Annotated[int, typer.Option()] = 100,
    seed: Annotated[int, typer.Option()] = 0,
    split: Annotated[
        str, typer.Option(help="train, test or heldout (templates and an app never trained on)")
    ] = "train",
    size: Annotated[str, typer.Option(help="screen in pixels, WxH")] = "160x288",
    style: Annotated[str, typer.Option(help="easy (text on a grid, few words) or free")] = "easy",
    disturbed: Annotated[
        float,
        typer.Option(help="share of episodes that go as live tasks do: another app open, pop-ups, flipped switches"),
    ] = 0.5,
    as_json: Json = False,
) -> None:
    """Record scripted experts on the simulated phone as standard JSONL and PNGs; the same arguments, the same bytes."""
    from envs.pocket.record import record

    screen = parts.parse_screen(size)
    if not isinstance(screen, tuple):
        raise SetupError(f"--size {size!r}: expected WIDTHxHEIGHT")
    card = record(out, episodes, seed, split=split, size=screen, style=style, disturbed=disturbed)
    table = Table("recorded", "")
    for key, value in card.items():
        table.add_row(key, str(value))
    show.result(card, as_json, table)


@init_app.command("tiny")
def init_tiny(
    data: DataArg,
    out: Annotated[Path, typer.Option(help="model folder to write")],
    family: Annotated[str, typer.Option(help="qwen3_vl or qwen2_5_vl")] = "qwen3_vl",
    seed: Annotated[int, typer.Option()] = 0,
    merge: Annotated[
        int, typer.Option(help="patches per image token and side; 1 shows more, 2 is 1.7 times as fast")
    ] = 2,
) -> None:
    """A randomly initialised vision-language model of 1 to 2 M parameters, its tokenizer trained on the data's words."""
    parts.require("torch", "train")
    from launch.train import build_tiny_for

    build_tiny_for(data, out, family, seed, merge)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML with sections model, data, method, training")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="method.gamma=0.9 ...")
    ] = None,
    out: Annotated[Path, typer.Option(help="run folder to write")] = Path("runs/train"),
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint in --out")] = False,
) -> None:
    """Train: SFT, offline RL or semi-online RL, as the config says."""
    parts.require("torch", "train")
    from launch.train import run

    run(config, overrides or [], out, resume)


@app.command()
def gate(
    data: DataArg,
    rules: RulesOption = "guiderail",
    dialect: Annotated[str, typer.Option(help="the voice the expert is put through")] = "guiderail",
    screen: Screen = None,
    swipes: Swipes = "detect",
    skip_bad: SkipBad = False,
    limit: Limit = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Oracle gate and blind probes: the expert must score 100 % against itself, agents that do not look near 0."""
    from envs.gate import blind_probes, oracle_gate
    from rl.runlog import RunLog

    loaded = parts.dataset(data, screen, swipes, skip_bad, limit)
    evaluate.notes(loaded)
    dialogue = Dialogue(Vision(), DIALECTS[dialect])
    chosen = parts.rules(rules)
    result: dict[str, Any] = {
        "oracle": oracle_gate(loaded, dialogue, chosen),
        "probes": blind_probes(loaded, dialogue, chosen),
        "rules": rules,
        "swipes": loaded.swipes,
    }
    if out is not None:
        RunLog(out, "gate", {"data": {"path": data, "digest": loaded.digest}, "rules": rules}).finish(result)
    show.result(result, as_json, _gate_table(data, result))
    if result["oracle"]["exact"] < result["oracle"]["steps"]:
        raise typer.Exit(1)


def _gate_table(data: str, result: dict[str, Any]) -> Table:
    table = Table("", "steps", "agree", title=f"gate on {data}, rules {result['rules']}", title_justify="left")
    oracle = result["oracle"]
    for name, row in [*sorted(oracle["by_action"].items()), ("every expert step", oracle)]:
        table.add_row(name, str(row["steps"]), f"{100 * row['exact'] / max(1, row['steps']):.1f} %")
    table.add_section()
    for name, row in result["probes"].items():
        table.add_row(f"probe: {name}", "", f"PG {show.percent(row['PG'])}, TSR {show.percent(row['TSR'])}")
    return table


@app.command()
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="also import torch and look at its devices")] = False,
    as_json: Json = False,
) -> None:
    """What this machine can and cannot do, and what to install."""
    from dataclasses import asdict

    from launch.doctor import examine, render

    checks = examine(deep=deep)
    show.result({"checks": [asdict(check) for check in checks]}, as_json, render(checks))


def main() -> None:
    """Errors made on purpose are one message and exit code 2, never a traceback."""
    try:
        app()
    except GuiderailError as error:
        show.err.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
