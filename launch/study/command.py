"""guiderail study pocket | online | teach | score | table | plots."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.launch import parts, show
from guiderail.launch.options import spread
from guiderail.launch.study.plan import Job, load_plan, plan_file
from guiderail.launch.study.records import weights_digest, write_record
from guiderail.launch.study.run import Study, prepare, training_of
from guiderail.launch.study.run import run as run_study

app = typer.Typer(
    no_args_is_help=True, help="Compare ways of training over several seeds: one plan, small records, tables, plots."
)

PlanFile = Annotated[
    Path,
    typer.Option("--plan", help="a shipped plan (pocket, online, teach), or YAML: worlds, exams, recipes, arms, seeds"),
]
Records = Annotated[Path, typer.Option(help="folder of records, one small file per checkpoint; keep it")]


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """Which plan is carried out, and where."""

    out: Annotated[Path, typer.Option(help="folder of models, recordings and logs; can be made again")] = Path(
        "runs/study"
    )
    records: Records = Path("docs/study")
    plan: PlanFile = Path("pocket")
    base: Annotated[str | None, typer.Option(help="model that the arms start from, instead of the plan's")] = None
    times: Annotated[
        int | None, typer.Option(min=1, help="train N times as long as the plan says, for a GPU", metavar="N")
    ] = None

    def study(self) -> Study:
        plan = plan_file(self.plan)
        return Study(load_plan(plan, self.base, self.times), plan, self.out, self.records)


Minutes = Annotated[float, typer.Option(help="start no job that would not end within this time")]
Workers = Annotated[int, typer.Option(help="jobs at the same time, one thread each", min=1)]
Only = Annotated[list[str] | None, typer.Option(help="this arm or part (may be given several times)")]


@app.command()
@spread
def pocket(where: StudyOptions, minutes: Minutes = 150.0, workers: Workers = 2, only: Only = None) -> None:
    """What semi-online RL adds to SFT on simulated phones. Trains and scores what has no record yet, seed by seed. It can be
    stopped at any time; run it again to continue."""
    _run(where, minutes, workers, only)


@app.command()
@spread
def online(
    where: StudyOptions = StudyOptions(Path("runs/online-study"), Path("docs/study/online"), Path("online")),
    minutes: Minutes = 150.0,
    workers: Workers = 2,
    only: Only = None,
) -> None:
    """What online RL adds after semi-online RL, on simulated phones. It goes on as `study pocket` does."""
    _run(where, minutes, workers, only)


@app.command()
@spread
def teach(
    where: StudyOptions = StudyOptions(Path("runs/teach-study"), Path("docs/study/teach"), Path("teach")),
    minutes: Minutes = 150.0,
    workers: Workers = 2,
    only: Only = None,
) -> None:
    """What hindsight and recorded thoughts add to semi-online RL, on simulated phones. It goes on as `study pocket` does."""
    _run(where, minutes, workers, only)


def _run(where: StudyOptions, minutes: float, workers: int, only: list[str] | None) -> None:
    parts.require("torch", "train")
    parts.require("android_env", "android")
    run_study(where.study(), only or [], minutes, workers)


@app.command()
@spread
def score(
    model: Annotated[str, typer.Argument(help="model folder or hub id", metavar="MODEL")],
    where: StudyOptions,
    arm: Annotated[str, typer.Option(help="arm of the plan; a new name is scored with the plan's short exam")],
    seed: Annotated[int, typer.Option(help="seed that the checkpoint was trained with")] = 0,
) -> None:
    """Score one checkpoint as the plan says and write its record. Any model, also one that the study did not train."""
    parts.require("torch", "train")
    parts.require("android_env", "android")
    from guiderail.agent.origin import commit, versions
    from guiderail.agent.shipped import shipped
    from guiderail.launch.study.score import examine

    study, job = where.study(), Job(arm, seed)
    if study.record(job).exists():
        raise SetupError(f"{study.record(job)} is there already; delete it to score again, or give another --records")
    plan, known = study.plan, study.plan.arms.get(arm)
    trained = training_of(study, job) if known else None
    prepare(study)
    exam = known.exam if known else "short"
    wall, cpu = time.monotonic(), time.process_time()
    lines = list(examine(plan, exam, model, study.out / "data"))
    header = {
        "study": 1,
        "arm": arm,
        "seed": seed,
        "exam": exam,
        "times": plan.times,
        "train": trained,
        "score": {"wall": round(time.monotonic() - wall, 1), "cpu": round(time.process_time() - cpu, 1)},
        "base": {"name": Path(plan.base).name, "weights": weights_digest(Path(shipped(plan.base)))},
        "weights": weights_digest(Path(shipped(model))),
        "worlds": {name: world.model_dump() for name, world in plan.worlds.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "versions": versions() | {"commit": commit()[0]},
    }
    write_record(study.record(job), header, lines)
    show.err.print(f"{study.record(job)}: {len(lines)} lines", highlight=False)


@app.command()
def table(
    records: Records = Path("docs/study"),
    out: Annotated[Path | None, typer.Option(help="markdown file; default: standard output")] = None,
    plan: PlanFile = Path("pocket"),
) -> None:
    """All numbers of the study from its records, as markdown: rates, differences, costs, correlations."""
    from guiderail.launch.study.tables import markdown

    text = markdown(load_plan(plan_file(plan)), records)
    if out is None:
        print(text, end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


@app.command()
def plots(
    records: Records = Path("docs/study"),
    out: Annotated[Path | None, typer.Option(help="folder for PNG and SVG; default: the folder of the records")] = None,
    plan: PlanFile = Path("pocket"),
) -> None:
    """Online success by arm, ablations, and metrics against online success: PNG and SVG."""
    parts.require("matplotlib", "report")
    from guiderail.launch.study.plots import draw

    for path in draw(load_plan(plan_file(plan)), records, out or records):
        show.err.print(str(path), highlight=False)
