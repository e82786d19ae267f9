"""guiderail evaluate android, android-world, aitw, judge: emulators, devices, AndroidWorld, a judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.envs.aitw.judge import AnyJudge, Judgement, Mode
from guiderail.envs.aitw.tasks import LISTS, AitwTasks, JudgeSpec
from guiderail.envs.android.emulator import EmulatorSpec
from guiderail.envs.android_world.client import PYTHON, python_of
from guiderail.envs.live.attempts import World
from guiderail.launch import show
from guiderail.launch.agents import AgentSpec
from guiderail.launch.evaluate.live import LiveOptions, report, score_live
from guiderail.launch.going_on import NOTHING_SCORED
from guiderail.launch.options import Fixed, Json, Out, one_of, spread

_emulator_option = partial(typer.Option, rich_help_panel="Emulators")
_judge_option = partial(typer.Option, rich_help_panel="Judge")


@dataclass(frozen=True, slots=True)
class Emulators:
    """Which emulators attempts are made on."""

    avd: Annotated[
        str | None, _emulator_option(help="AVD to start copies of, one per worker; default: use running emulators")
    ] = None
    snapshot: Annotated[str, _emulator_option(help="emulator snapshot to load before each task")] = ""
    console_port: Annotated[int, _emulator_option(help="console port of worker 0; worker k uses this + 2k")] = 5554
    grpc_port: Annotated[int, _emulator_option(help="gRPC port of worker 0; worker k uses this + k")] = 8554
    window: Annotated[bool, _emulator_option("--window", help="show the emulators")] = False
    apps: Annotated[
        Path | None, _emulator_option(help='JSON object {"app name": "package/activity"} for the open action')
    ] = None

    def spec(self) -> EmulatorSpec:
        """Raises SetupError for an --apps file that cannot be read."""
        return EmulatorSpec(
            avd=self.avd,
            snapshot=self.snapshot,
            console_port=self.console_port,
            grpc_port=self.grpc_port,
            headless=not self.window,
            apps=read_apps(self.apps),
        )


def read_apps(file: Path | None) -> dict[str, str]:
    """App name -> "package/activity", of --apps. Raises SetupError."""
    try:
        table = json.loads(file.read_text("utf-8")) if file else {}
    except (OSError, ValueError) as error:
        raise SetupError(f"--apps {file}: {error}; give a JSON object") from None
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise SetupError(f"--apps {file}: expected a JSON object whose values are strings")
    return table


@dataclass(frozen=True, slots=True)
class Judging:
    """Which model judges attempts."""

    judge_server: Annotated[str, _judge_option(help="OpenAI-compatible server of the judge, with /v1")]
    judge_model: Annotated[str, _judge_option(help="model id of the judge")]
    judge_mode: Annotated[
        str, _judge_option(help="what the judge sees: final (frame), trajectory (last 20), or rubric (all, in windows)")
    ] = "final"
    judgements: Annotated[Path, _judge_option(help="folder that keeps verdicts with their reasons")] = Path(
        "judgements"
    )

    def spec(self) -> JudgeSpec:
        mode = one_of("--judge-mode", self.judge_mode, get_args(Mode))
        return JudgeSpec(self.judge_server, self.judge_model, str(self.judgements), mode)


@spread
def android(
    tasks: Annotated[
        Path, typer.Argument(help="task file, JSON lines: id, goal, check, expect (setup, max_steps)", metavar="TASKS")
    ],
    who: AgentSpec,
    emulators: Emulators,
    serial: Annotated[str, typer.Option(help="one device by its adb serial or HOST:PORT instead of emulators")] = "",
    settle: Annotated[float, typer.Option(help="seconds the screen needs after an action")] = 1.0,
    live: Annotated[LiveOptions, Fixed("width")] = LiveOptions(step_timeout=600.0),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Success on your own tasks, on emulators or a device. A command on the device decides."""
    from guiderail.envs.android.tasks import AndroidTasks

    if serial and live.workers > 1:
        raise SetupError("--serial names one device; leave --workers at 1")
    spec = replace(emulators.spec(), settle=settle)
    details = {"tasks": str(tasks), "serial": serial, "emulator": asdict(spec)}
    result = _score("android", AndroidTasks(str(tasks), spec, serial), who, live, out, details)
    report(f"Android, {tasks.name}", who, result, as_json, "task:", out)


@spread
def android_world(
    who: AgentSpec,
    tasks: Annotated[
        str, typer.Option(help="task names with commas; default: all 116, on pocket the 113 that it supports")
    ] = "",
    task_seed: Annotated[int, typer.Option(help="AndroidWorld's own task_random_seed")] = 30,
    combinations: Annotated[int, typer.Option(help="AndroidWorld's own n_task_combinations")] = 1,
    device: Annotated[
        str, typer.Option(help="emulator, or pocket: the simulated phone with stand-in apps")
    ] = "emulator",
    android_world_python: Annotated[
        str | None, typer.Option(help=f"Python of AndroidWorld's own environment; default: {PYTHON}", metavar="PATH")
    ] = None,
    setup: Annotated[
        bool,
        typer.Option("--setup", help="first install AndroidWorld's apps on the emulators (once per AVD; downloads)"),
    ] = False,
    emulators: Annotated[Emulators, Fixed("apps")] = Emulators(),
    live: Annotated[LiveOptions, Fixed("width")] = LiveOptions(step_timeout=600.0, attempt_timeout=7200.0),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """AndroidWorld with its own suite, seeds, budgets and checks. A score on pocket is not an AndroidWorld score."""
    from guiderail.envs.android_world.tasks import AndroidWorldTasks

    on = one_of("--device", device, ("emulator", "pocket"))
    if setup and (on == "pocket" or emulators.snapshot):
        raise SetupError("--setup installs apps on emulators; loading a --snapshot would undo it: give one of the two")
    names = tuple(name.strip() for name in tasks.split(",") if name.strip()) or None
    spec = emulators.spec() if on == "emulator" else None
    python = python_of(android_world_python)
    world = AndroidWorldTasks(python, names, task_seed, combinations, emulator=spec, setup=setup)
    details = {"tasks": tasks, "task_seed": task_seed, "combinations": combinations, "device": device}
    details |= {"emulator": asdict(spec)} if spec else {}
    result = _score("android-world", world, who, live, out, details)
    report(f"AndroidWorld on {device}", who, result | {"macro": macro(result["by_group"])}, as_json, "task:", out)


@spread
def aitw(
    checkout: Annotated[Path, typer.Argument(help="a DigiRL checkout, for its task lists", metavar="CHECKOUT")],
    judging: Judging,
    who: AgentSpec,
    emulators: Emulators,
    tasks: Annotated[str, typer.Option(help=", ".join(LISTS))] = "general_test",
    limit: Annotated[int, typer.Option(help="only the first N tasks of the list", metavar="N")] = 96,
    max_steps: Annotated[int, typer.Option(help="0: 10 for general, 20 for webshop")] = 0,
    live: Annotated[LiveOptions, Fixed("width")] = LiveOptions(step_timeout=600.0),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """AITW online (DigiRL's lists) on emulators. A vision-language model judges the screen when the agent says done."""
    name, spec, judge = one_of("--tasks", tasks, LISTS), emulators.spec(), judging.spec()
    world = AitwTasks(str(checkout), judge, spec, name, limit, max_steps or None)
    details = {"list": tasks, "limit": limit, "max_steps": max_steps, "judge": asdict(judge), "emulator": asdict(spec)}
    report(f"AITW {tasks}", who, _score("aitw", world, who, live, out, details), as_json, "task:", out)


def _score(
    name: str, world: World, who: AgentSpec, live: LiveOptions, out: Path | None, details: Mapping[str, Any]
) -> dict[str, Any]:
    """One attempt per worker at a time."""
    return score_live(name, world, who, replace(live, width=live.workers), out, details)


def macro(by_group: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """AndroidWorld's average over tasks, twice: without the attempts whose machine crashed, as AndroidWorld computes it,
    and with them as failures. Success here needs "terminate: success" and the whole of a composite task."""
    tasks = [row for name, row in by_group.items() if name.startswith("task:")]
    scored = [row["success"] for row in tasks if row["n"]]
    counted = [(row["success"] or 0.0) * row["n"] / (row["n"] + row["unscored"]) for row in tasks]
    return {
        "success_as_upstream": sum(scored) / len(scored) if scored else None,
        "success_with_crashed": sum(counted) / len(counted) if counted else None,
        "tasks": len(tasks),
    }


@spread
def judge(
    run: Annotated[Path, typer.Argument(help="a run folder with rollouts.jsonl and images/", metavar="RUN")],
    judging: Judging,
    labels: Annotated[
        Path | None, typer.Option(help='people\'s verdicts, JSON lines {"task": ..., "success": ...}')
    ] = None,
    as_json: Json = False,
) -> None:
    """A model judges stored attempts again, without a device. With --labels: also how often it agrees with people."""
    from guiderail.envs.aitw.judge import agreement, read_labels
    from guiderail.rl.runs.log import reading
    from guiderail.rl.score.statistics import wilson

    judge = judging.spec().build()
    with reading(run):
        verdicts, silent = _verdicts(run, judge)
    for name, why in silent.items():
        show.err.print(f"no verdict: {name}: {why}", markup=False, highlight=False)
    good, n = sum(v.success for v in verdicts.values()), len(verdicts)
    result: dict[str, Any] = {
        "judge": judging.judge_model,
        "mode": judging.judge_mode,
        "n": n,
        "success": good / n if n else None,
        "interval": wilson(good, n),
        "verdicts": {task: {"success": v.success, "reason": v.reason} for task, v in verdicts.items()},
        "no_verdict": silent,
    }
    table = Table("judged", "")
    table.add_row("success", f"{show.percent(result['success'])} % of {n}")
    if labels is not None:
        agreed = result["agreement"] = agreement(verdicts, read_labels(labels))
        agreed["interval"] = wilson(agreed["agreed"], agreed["n"])
        table.add_row("agrees with people", f"{show.percent(agreed['agreement'])} % of {agreed['n']}")
    show.result(show.strict(result), as_json, table)
    if silent and not verdicts:
        raise typer.Exit(NOTHING_SCORED)


def _verdicts(run: Path, judge: AnyJudge) -> tuple[dict[str, Judgement], dict[str, str]]:
    """(verdicts, the other attempts with the reason why the judge gave none). Raises SetupError for a run without screens."""
    from guiderail.envs.aitw.judge import rejudge
    from guiderail.rl.runs.log import read_rollouts

    verdicts: dict[str, Judgement] = {}
    silent: dict[str, str] = {}
    for row in read_rollouts(run):
        if any("screenshot" not in turn for turn in row["turns"]):
            raise SetupError(
                f"{run} keeps no screenshots of its own; give a run in a live world, such as of evaluate android"
            )
        try:
            verdicts |= rejudge([row] if row["ended"] != "crashed" else [], run / "images", judge)
        except EnvCrashed as crash:
            silent[f"{row['unit']}#{row['sample']}"] = str(crash)
    return verdicts, silent
