"""guiderail evaluate android, android-world, aitw, and judge: emulators, devices, AndroidWorld, a judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agent.errors import SetupError
from envs.attempts import Patience, World
from envs.emulator import EmulatorSpec
from launch import parts, show
from launch.evaluate import (
    Adapter,
    Agent,
    Dialect,
    Images,
    Json,
    Model,
    Out,
    Seed,
    Served,
    Server,
    Temperature,
    Tokens,
    ask,
)
from launch.live import (
    AttemptTimeout,
    Executor,
    How,
    Repeats,
    Resume,
    Retries,
    StepTimeout,
    Workers,
    report,
    score_live,
)

Avd = Annotated[
    str | None, typer.Option(help="AVD to start copies of, one per worker; default: connect to running ones")
]
Snapshot = Annotated[str, typer.Option(help="emulator snapshot to load before each task")]
ConsolePort = Annotated[int, typer.Option(help="console port of worker 0; worker k uses this + 2k")]
GrpcPort = Annotated[int, typer.Option(help="gRPC port of worker 0; worker k uses this + k")]
Window = Annotated[bool, typer.Option("--window", help="show the emulators")]
Apps = Annotated[Path | None, typer.Option(help='JSON object {"app name": "package/activity"} for the open action')]
JudgeServer = Annotated[str, typer.Option(help="OpenAI-compatible server of the judge, with /v1")]
JudgeModel = Annotated[str, typer.Option(help="model id of the judge")]
JudgeMode = Annotated[str, typer.Option(help="what the judge sees: final or trajectory")]


def emulator(
    avd: str | None, snapshot: str, console_port: int, grpc_port: int, window: bool, apps: Path | None
) -> EmulatorSpec:
    return EmulatorSpec(
        avd=avd,
        snapshot=snapshot,
        console_port=console_port,
        grpc_port=grpc_port,
        headless=not window,
        apps=_apps(apps),
    )


def _apps(file: Path | None) -> dict[str, str]:
    try:
        table = json.loads(file.read_text("utf-8")) if file else {}
    except (OSError, ValueError) as error:
        raise SetupError(f"--apps {file}: {error}; give a JSON object") from None
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise SetupError(f"--apps {file}: expected a JSON object of texts")
    return table


def _score(
    name: str,
    title: str,
    world: World,
    who: parts.Ask,
    how: How,
    out: Path | None,
    details: dict[str, Any],
    as_json: bool,
) -> None:
    result = score_live(name, world, who, how, out, {"world": name, **details})
    if name == "android-world":
        result |= {"macro": macro(result["by_group"])}
    report(title, who, result, as_json, "task:")


def macro(by_group: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """AndroidWorld's average over tasks: without the attempts whose machine crashed, as it counts, and with them as
    failures. Success here needs "terminate: success" and the whole of a composite task."""
    tasks = [row for name, row in by_group.items() if name.startswith("task:")]
    scored = [row["success"] for row in tasks if row["n"]]
    counted = [(row["success"] or 0.0) * row["n"] / (row["n"] + row["unscored"]) for row in tasks]
    return {
        "success_as_upstream": sum(scored) / len(scored) if scored else None,
        "success_with_crashed": sum(counted) / len(counted) if counted else None,
        "tasks": len(tasks),
    }


def android(
    tasks: Annotated[Path, typer.Argument(help="task file, JSON lines: id, goal, check, expect (setup, max_steps)")],
    model: Model = None,
    adapter: Adapter = None,
    server: Server = None,
    served: Served = None,
    agent: Agent = None,
    dialect: Dialect = None,
    images: Images = None,
    tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    serial: Annotated[str, typer.Option(help="one device by its adb serial or HOST:PORT instead of emulators")] = "",
    settle: Annotated[float, typer.Option(help="seconds the screen needs after an action")] = 1.0,
    avd: Avd = None,
    snapshot: Snapshot = "",
    console_port: ConsolePort = 5554,
    grpc_port: GrpcPort = 8554,
    window: Window = False,
    apps: Apps = None,
    workers: Workers = 1,
    executor: Executor = "processes",
    repeats: Repeats = 1,
    retries: Retries = 1,
    step_timeout: StepTimeout = 600.0,
    attempt_timeout: AttemptTimeout = 3600.0,
    resume: Resume = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Success on tasks of your own, on emulators or a device; a command on the device decides."""
    from dataclasses import replace

    from envs.android_tasks import AndroidTasks

    if serial and workers > 1:
        raise SetupError("--serial names one device; leave --workers at 1")
    spec = replace(emulator(avd, snapshot, console_port, grpc_port, window, apps), settle=settle)
    who = ask(model, adapter, server, served, agent, dialect, images, tokens)
    patience = Patience(step_timeout, attempt_timeout)
    how = How(temperature, seed, workers, workers, executor, repeats, retries, patience, resume)
    details = {"tasks": str(tasks), "serial": serial, "emulator": asdict(spec)}
    _score("android", f"Android, {tasks.name}", AndroidTasks(str(tasks), spec, serial), who, how, out, details, as_json)


def android_world(
    model: Model = None,
    adapter: Adapter = None,
    server: Server = None,
    served: Served = None,
    agent: Agent = None,
    dialect: Dialect = None,
    images: Images = None,
    tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    tasks: Annotated[
        str, typer.Option(help="task names with commas; default: all 116, on pocket the 35 it can hold")
    ] = "",
    task_seed: Annotated[int, typer.Option(help="AndroidWorld's own task_random_seed")] = 30,
    combinations: Annotated[int, typer.Option(help="AndroidWorld's own n_task_combinations")] = 1,
    device: Annotated[
        str, typer.Option(help="emulator, or pocket: the simulated phone with stand-in apps")
    ] = "emulator",
    avd: Avd = None,
    snapshot: Snapshot = "",
    console_port: ConsolePort = 5554,
    grpc_port: GrpcPort = 8554,
    window: Window = False,
    workers: Workers = 1,
    executor: Executor = "processes",
    repeats: Repeats = 1,
    retries: Retries = 1,
    step_timeout: StepTimeout = 600.0,
    attempt_timeout: AttemptTimeout = 7200.0,
    resume: Resume = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """AndroidWorld with its own suite, seeds, budgets and checks. Success on pocket is not AndroidWorld's score."""
    parts.require("android_env", "android")
    from envs.android_world_live import AndroidWorldTasks

    if device not in ("emulator", "pocket"):
        raise SetupError(f"--device {device!r}: expected emulator or pocket")
    spec = emulator(avd, snapshot, console_port, grpc_port, window, None) if device == "emulator" else None
    names = tuple(name.strip() for name in tasks.split(",") if name.strip()) or None
    world = AndroidWorldTasks(names, task_seed, combinations, emulator=spec)
    who = ask(model, adapter, server, served, agent, dialect, images, tokens)
    patience = Patience(step_timeout, attempt_timeout)
    how = How(temperature, seed, workers, workers, executor, repeats, retries, patience, resume)
    details = {"tasks": tasks, "task_seed": task_seed, "combinations": combinations, "device": device}
    _score("android-world", f"AndroidWorld on {device}", world, who, how, out, details, as_json)


def aitw(
    checkout: Annotated[Path, typer.Argument(help="a DigiRL checkout, for its task lists")],
    judge_server: JudgeServer,
    judge_model: JudgeModel,
    judge_mode: JudgeMode = "final",
    judgements: Annotated[Path, typer.Option(help="where verdicts are kept, with their reasons")] = Path("judgements"),
    tasks: Annotated[
        str, typer.Option(help="general_test, general_train, webshop_test or webshop_train")
    ] = "general_test",
    limit: Annotated[int, typer.Option(help="the first lines of the list")] = 96,
    max_steps: Annotated[int, typer.Option(help="0: 10 for general, 20 for webshop")] = 0,
    model: Model = None,
    adapter: Adapter = None,
    server: Server = None,
    served: Served = None,
    agent: Agent = None,
    dialect: Dialect = None,
    images: Images = None,
    tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    avd: Avd = None,
    snapshot: Snapshot = "",
    console_port: ConsolePort = 5554,
    grpc_port: GrpcPort = 8554,
    window: Window = False,
    apps: Apps = None,
    workers: Workers = 1,
    executor: Executor = "processes",
    repeats: Repeats = 1,
    retries: Retries = 1,
    step_timeout: StepTimeout = 600.0,
    attempt_timeout: AttemptTimeout = 3600.0,
    resume: Resume = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """AITW online (DigiRL's lists) on emulators; a vision-language model judges the screen when the agent says done."""
    from envs.aitw import LISTS, AitwTasks, JudgeSpec

    name = next((one for one in LISTS if one == tasks), None)
    if name is None:
        raise SetupError(f"--tasks {tasks!r}: expected one of {', '.join(LISTS)}")
    spec = emulator(avd, snapshot, console_port, grpc_port, window, apps)
    judge = JudgeSpec(judge_server, judge_model, str(judgements), _mode(judge_mode))
    world = AitwTasks(str(checkout), judge, spec, name, limit, max_steps or None)
    who = ask(model, adapter, server, served, agent, dialect, images, tokens)
    patience = Patience(step_timeout, attempt_timeout)
    how = How(temperature, seed, workers, workers, executor, repeats, retries, patience, resume)
    details = {"list": tasks, "limit": limit, "max_steps": max_steps, "judge": asdict(judge), "emulator": asdict(spec)}
    _score("aitw", f"AITW {tasks}", world, who, how, out, details, as_json)


def _mode(text: str) -> Any:
    if text not in ("final", "trajectory"):
        raise SetupError(f"--judge-mode {text!r}: expected final or trajectory")
    return text


def judge(
    run: Annotated[Path, typer.Argument(help="a run folder with rollouts.jsonl and images/")],
    judge_server: JudgeServer,
    judge_model: JudgeModel,
    judge_mode: JudgeMode = "final",
    judgements: Annotated[Path, typer.Option(help="where verdicts are kept, with their reasons")] = Path("judgements"),
    labels: Annotated[
        Path | None, typer.Option(help='people\'s verdicts, JSON lines {"task": ..., "success": ...}')
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a model judge stored attempts again, without a device; with --labels also how far it agrees with people."""
    from envs.aitw import JudgeSpec
    from envs.judge import agreement, read_labels, rejudge
    from rl.runlog import read_rollouts
    from rl.statistics import wilson

    asked = JudgeSpec(judge_server, judge_model, str(judgements), _mode(judge_mode)).build()
    rows = [row for row in read_rollouts(run) if row["ending"] != "crashed"]
    verdicts = rejudge(rows, run / "images", asked)
    good, n = sum(v.success for v in verdicts.values()), len(verdicts)
    result: dict[str, Any] = {
        "judge": judge_model,
        "mode": judge_mode,
        "n": n,
        "success": good / n if n else None,
        "interval": wilson(good, n),
        "verdicts": {task: {"success": v.success, "reason": v.reason} for task, v in verdicts.items()},
    }
    if labels is not None:
        result["agreement"] = agreement(verdicts, read_labels(labels))
        result["agreement"]["interval"] = wilson(result["agreement"]["agreed"], result["agreement"]["n"])
    table = Table("judged", "")
    table.add_row("success", f"{show.percent(result['success'])} % of {n}")
    if labels is not None:
        table.add_row(
            "agrees with people", f"{show.percent(result['agreement']['agreement'])} % of {result['agreement']['n']}"
        )
    show.result(show.strict(result), as_json, table)


COMMANDS: tuple[Callable[..., None], ...] = (android, android_world, aitw, judge)
