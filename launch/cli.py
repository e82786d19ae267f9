"""guiderail: every command in the order of work. Their bodies are elsewhere: this is the table of contents."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from guiderail.agent import origin
from guiderail.agent.errors import GuiderailError
from guiderail.launch import before, configs, data, distill, explain, parts, pretrain, record, show, vllm_env
from guiderail.launch.console.command import console
from guiderail.launch.disk_error import disk_error
from guiderail.launch.evaluate import android, judges, live, mobilegym, recordings
from guiderail.launch.evaluate.rejudge import rejudge
from guiderail.launch.evaluate.world import world
from guiderail.launch.going_on import going_on
from guiderail.launch.hub.command import app as model
from guiderail.launch.options import Json
from guiderail.launch.plan import command as planning
from guiderail.launch.report.command import report
from guiderail.launch.run import run
from guiderail.launch.study.command import app as study
from guiderail.launch.submission.cli import app as submit
from guiderail.rl.config import load_config
from guiderail.rl.runs.ending import end_at_once

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

ORDER = [
    *(
        "doctor",
        "setup",
        "record",
        "import",
        "data",
        "gate",
        "init",
        "pretrain",
        "plan",
        "train",
        "distill",
        "evaluate",
        "rejudge",
        "judge",
        "study",
    ),
    *("run", "console", "report", "explain", "replay", "whatif", "submit", "model"),
]
START, DATA, TRAIN, SCORE, USE, LOOK, SHARE = "Start", "Data", "Train", "Score", "Use", "Look", "Share"


class InOrder(TyperGroup):
    """Lists commands in ORDER: Typer would list all groups after all commands."""

    def list_commands(self, ctx: object) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, evaluate and use GUI agents: semi-online reinforcement learning, then online.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"guiderail {origin.version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    pass


@app.command(rich_help_panel=START)
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="also import torch and look at its devices")] = False,
    workers: Annotated[int, typer.Option(help="emulators side by side whose ports to look at", min=1, max=65)] = 1,
    as_json: Json = False,
) -> None:
    """What this machine can and cannot do, and what to install."""
    from dataclasses import asdict

    from guiderail.launch.doctor.page import examine, page

    checks = examine(deep=deep, workers=workers)
    show.result({"checks": [asdict(check) for check in checks]}, as_json, page(checks, min(show.out.width, 100)))


app.add_typer(vllm_env.app, name="setup", rich_help_panel=START)

app.add_typer(record.app, name="record", rich_help_panel=DATA)
app.add_typer(data.import_app, name="import", rich_help_panel=DATA)
app.add_typer(data.data_app, name="data", rich_help_panel=DATA)
app.command(rich_help_panel=DATA)(recordings.gate)

app.add_typer(pretrain.init_app, name="init", rich_help_panel=TRAIN)
app.add_typer(pretrain.app, name="pretrain", rich_help_panel=TRAIN)
app.command(rich_help_panel=TRAIN)(planning.plan)


@app.command(rich_help_panel=TRAIN)
def train(
    config: configs.ConfigArg,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="values that replace the config's, such as method.gamma=0.9", metavar="KEY=VALUE"),
    ] = None,
    out: Annotated[Path, typer.Option(help="run folder to write")] = Path("runs/train"),
    resume: Annotated[bool, typer.Option("--resume", help="continue from the last checkpoint in --out")] = False,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="neither plan nor refuse what would not fit")] = False,
) -> None:
    """Train a model: SFT, offline, semi-online or online RL, as the config says."""
    chosen = load_config(configs.find(config), overrides or [])
    before.check(chosen, out, resume)
    parts.require("torch", "train")
    from guiderail.launch.train import run

    run(chosen, out, resume, not no_plan)


app.add_typer(distill.app, name="distill", rich_help_panel=TRAIN)

evaluate = typer.Typer(no_args_is_help=True, help="Score an agent on recordings or in live worlds.")
app.add_typer(evaluate, name="evaluate", rich_help_panel=SCORE)
for command in (recordings.sop, recordings.offline, recordings.likelihood, recordings.screenspot, pretrain.grounding):
    evaluate.command(rich_help_panel="On recordings and single screens")(command)
ON_ANDROID = (android.android, android.android_world, android.aitw, android.judge)
for command in (live.pocket, live.miniwob, mobilegym.mobilegym, *ON_ANDROID, world):
    evaluate.command(rich_help_panel="In live worlds")(command)
app.command(rich_help_panel=SCORE)(rejudge)
app.add_typer(judges.app, name="judge", rich_help_panel=SCORE)
app.add_typer(study, name="study", rich_help_panel=SCORE)

app.command(rich_help_panel=USE)(run)
app.command(rich_help_panel=USE)(console)

app.command(rich_help_panel=LOOK)(report)
app.command("explain", rich_help_panel=LOOK)(explain.explain_)
app.command(rich_help_panel=LOOK)(explain.replay)
app.command(rich_help_panel=LOOK)(explain.whatif)

app.add_typer(submit, name="submit", rich_help_panel=SHARE)
app.add_typer(model, name="model", rich_help_panel=SHARE)


def main() -> None:
    """Run the command, as `guiderail` does."""
    end_at_once(_main)


def _main() -> None:
    """Run the command. An error that Guiderail raises on purpose is one message and exit code 2, never a traceback."""
    try:
        with going_on():
            app()
    except BrokenPipeError:  # the reader of a pipe, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(disk_error(error))
    except GuiderailError as error:
        _fail(error)


def _fail(error: GuiderailError) -> None:
    show.err.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
