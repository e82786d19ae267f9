"""guiderail study pocket | score | table | plots."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.errors import SetupError
from launch import parts, show
from launch.study.plan import SHIPPED, Job, load_plan
from launch.study.records import weights_digest, write_record
from launch.study.run import Study, prepare, training_of
from launch.study.run import run as run_study

app = typer.Typer(
    no_args_is_help=True, help="Compare ways of training over seeds: one plan, small records, tables, plots."
)

PlanOption = Annotated[Path, typer.Option("--plan", help="YAML: worlds, exams, recipes, arms, seeds")]
Records = Annotated[Path, typer.Option(help="folder of records, one small file per checkpoint: what to keep")]
OutFolder = Annotated[Path, typer.Option("--out", help="models, recordings and logs; all of it can be made again")]
Base = Annotated[str | None, typer.Option(help="model the arms start from, in place of the plan's")]
Times = Annotated[int | None, typer.Option(min=1, help="train so many times as long as the plan says: for a GPU")]


@app.command()
def pocket(
    out: OutFolder = Path("runs/study"),
    records: Records = Path("docs/study"),
    minutes: Annotated[float, typer.Option(help="start no job that would not be done by then")] = 150.0,
    workers: Annotated[int, typer.Option(help="jobs side by side, one thread each")] = 2,
    only: Annotated[list[str] | None, typer.Option(help="this arm or part (may be given several times)")] = None,
    plan: PlanOption = SHIPPED,
    base: Base = None,
    times: Times = None,
) -> None:
    """Train and score what has no record yet, seed by seed. Stop it at any time; the same command goes on."""
    parts.require("torch", "train")
    parts.require("android_env", "android")
    if workers < 1:
        raise SetupError(f"--workers {workers}: expected at least 1")
    run_study(Study(load_plan(plan, base, times), plan, out, records), only or [], minutes, workers)


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="model folder or hub id")],
    arm: Annotated[str, typer.Option(help="arm of the plan, or a new name: then with the short exam and no training")],
    seed: Annotated[int, typer.Option()] = 0,
    out: OutFolder = Path("runs/study"),
    records: Records = Path("docs/study"),
    plan: PlanOption = SHIPPED,
    base: Base = None,
    times: Times = None,
) -> None:
    """Put one checkpoint through a study's exam and leave its record; any model, also one the study did not train."""
    parts.require("torch", "train")
    parts.require("android_env", "android")
    from agent.shipped import shipped
    from launch.study.score import examine
    from rl.runlog import versions

    chosen, job = load_plan(plan, base, times), Job(arm, seed)
    study = Study(chosen, plan, out, records)
    prepare(study)
    known = chosen.arms.get(arm)
    wall, cpu = time.monotonic(), time.process_time()
    lines = list(examine(chosen, known.exam if known else "short", model, out / "data"))
    header = {
        "study": 1,
        "arm": arm,
        "seed": seed,
        "exam": known.exam if known else "short",
        "times": chosen.times,
        "train": training_of(study, job) if known else None,
        "score": {"wall": round(time.monotonic() - wall, 1), "cpu": round(time.process_time() - cpu, 1)},
        "base": {"name": Path(chosen.base).name, "weights": weights_digest(Path(shipped(chosen.base)))},
        "weights": weights_digest(Path(shipped(model))),
        "worlds": {name: world.model_dump() for name, world in chosen.worlds.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    write_record(study.record(job), header, lines)
    show.err.print(f"{study.record(job)}: {len(lines)} lines", highlight=False)


@app.command()
def table(
    records: Records = Path("docs/study"),
    out: Annotated[Path | None, typer.Option(help="markdown file; default: standard output")] = None,
    plan: PlanOption = SHIPPED,
) -> None:
    """Every number of the study from its records alone, as markdown: rates, differences, costs, correlations."""
    from launch.study.tables import markdown

    text = markdown(load_plan(plan), records)
    if out is None:
        print(text, end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


@app.command()
def plots(
    records: Records = Path("docs/study"),
    out: Annotated[Path | None, typer.Option(help="folder for PNG and SVG; default: that of the records")] = None,
    plan: PlanOption = SHIPPED,
) -> None:
    """Online success by arm, what the thoughts carry, and metrics against online success: PNG and SVG."""
    parts.require("matplotlib", "report")
    from launch.study.plots import draw

    for path in draw(load_plan(plan), records, out or records):
        show.err.print(str(path), highlight=False)
