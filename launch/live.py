"""guiderail evaluate pocket, miniwob, ...: scoring in live worlds, in parallel, resumably."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from agent.errors import SetupError
from envs.attempts import Patience, World
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
from rl.live import Bench, Board, Job, Row, alone, keep_images, live_score, scored_rows
from rl.runlog import RunLog, read_json
from rl.workers import run_here, run_processes, run_ray

Workers = Annotated[
    int, typer.Option(help="processes; each loads its own --model, so serve a large one and give --server")
]
Width = Annotated[int, typer.Option(help="devices running side by side, over all workers")]
Executor = Annotated[str, typer.Option(help="processes (this machine) or ray (many)")]
Repeats = Annotated[int, typer.Option(help="attempts per task; more than one also gives the flip rate")]
Retries = Annotated[int, typer.Option(help="how often an attempt is made again after its machine failed")]
StepTimeout = Annotated[float, typer.Option(help="seconds for one look or act before the machine counts as broken")]
AttemptTimeout = Annotated[float, typer.Option(help="seconds for a whole attempt")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with the run in --out: make what has no score yet")]


LINE_EVERY = 10.0
SCORED = ("task", "trial", "ending", "success", "reason")
"""What the score needs of a line of the journal."""

DEVICES: dict[str, Literal["android_env", "adb"]] = {"android_env": "android_env", "adb": "adb"}


@dataclass(frozen=True, slots=True)
class How:
    """How attempts are run; what they are is in the world, who makes them in the ask."""

    temperature: float = 0.0
    seed: int = 0
    width: int = 1
    workers: int = 1
    executor: str = "processes"
    repeats: int = 1
    retries: int = 1
    patience: Patience = field(default_factory=Patience)
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Equip:
    """`rl.workers.Equip`: a worker's site and policy, built where the worker runs."""

    world: World
    who: parts.Ask
    how: How

    def __call__(self, worker: int) -> Bench:
        if self.how.workers > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.how.workers)))
        actor = parts.acting(self.who)
        return Bench(
            self.world.open(worker),
            actor.dialogue,
            None if self.who.agent == "expert" else actor.policy,
            parts.sampling(actor.voice, self.how.temperature),
            self.how.seed,
            max(1, self.how.width // self.how.workers),
            self.how.patience,
        )


def score_live(
    name: str, world: World, who: parts.Ask, how: How, out: Path | None, details: Mapping[str, Any]
) -> dict[str, Any]:
    """Make every attempt of a world that the run folder does not hold a score of, and score them all.

    name: the kind of run. details: what else describes the world, for the record; a resumed run must have the same.
    """
    if how.executor not in ("processes", "ray") or min(how.workers, how.repeats, how.width) < 1 or how.retries < 0:
        raise SetupError(
            f"{how}: expected executor processes or ray, workers, repeats and width from 1, retries from 0"
        )
    if how.resume and out is None:
        raise SetupError("--resume goes on with the run in a folder; give it as --out")
    listed = world.listed()
    templates = {task: names[0].partition(":")[2] for task, names in listed if names}
    jobs = [Job(task, trial) for trial in range(how.repeats) for task, _ in listed]
    voice = asdict(parts.voice(who))
    asked = {
        "model": parts.named(who),
        "voice": voice,
        "temperature": how.temperature,
        "seed": how.seed,
        "repeats": how.repeats,
        **details,
    }
    with alone(out) if out else nullcontext():
        rows = _resumed(out, asked) if out and how.resume else []
        log = RunLog(out, name, asked | {"how": asdict(how)}, resume=how.resume) if out else None
        known = {(row["task"], row["trial"]) for row in rows}
        with _progress(name, len(jobs), rows) as tick:

            def record(row: Row, images: Mapping[str, bytes]) -> None:
                if log is not None:
                    keep_images(log.folder / "images", dict(images))
                    log.rollout({"template": templates.get(row["task"]), **row})
                rows.append({key: row[key] for key in SCORED})
                tick()

            todo = [job for job in jobs if (job.task, job.trial) not in known]
            _run(Board(todo, how.retries, record), Equip(world, who, how), how)
        result = live_score(rows, dict(listed))
        if log is not None:
            log.finish(show.strict(result))
    return result


def _run(board: Board, equip: Equip, how: How) -> None:
    if board.over:
        return
    if how.executor == "ray":
        parts.require("ray", "ray")
        run_ray(board, equip, how.workers, max(1, how.width // how.workers), silence=how.patience.attempt)
    elif how.workers > 1:
        run_processes(board, equip, how.workers, silence=how.patience.attempt)
    else:
        run_here(board, equip)


def _resumed(out: Path, asked: Mapping[str, Any]) -> list[Row]:
    """Scored attempts of the run in `out`, which must have been asked for the same."""
    if not (out / "run.json").exists():
        return []
    before = read_json(out / "run.json")
    for key, value in asked.items():
        if before.get(key) != json.loads(json.dumps(value)):
            raise SetupError(f"{out} was run with {key} {before.get(key)!r}, not {value!r}; give another --out")
    return [{key: row[key] for key in SCORED} for row in scored_rows(out)]


@contextmanager
def _progress(name: str, total: int, rows: Sequence[Mapping[str, Any]]) -> Iterator[Callable[[], None]]:
    """On standard error: a bar on a terminal, else a line now and then."""
    started, made, said = time.monotonic(), len(rows), time.monotonic()

    def standing() -> str:
        scored = [row["success"] for row in rows if row["success"] is not None]
        rate = show.percent(sum(scored) / len(scored) if scored else None)
        return f"success {rate} %, unscored {len(rows) - len(scored)}"

    with show.progress() as bar:
        task = bar.add_task(name, total=total, completed=made, note="")

        def tick() -> None:
            nonlocal said
            bar.update(task, completed=len(rows), note=standing())
            now = time.monotonic()
            if not show.err.is_terminal and now - said >= LINE_EVERY:
                said = now
                left = (now - started) / (len(rows) - made) * (total - len(rows))
                show.err.print(f"{name}: {len(rows)}/{total}, {standing()}, {left:.0f} s left", markup=False)

        yield tick


def report(title: str, who: parts.Ask, result: Mapping[str, Any], as_json: bool, hidden: str = "template:") -> None:
    """The table or the JSON object, and what could not be scored on standard error."""
    for one in result["unscored_attempts"]:
        show.err.print(f"unscored: {one['task']} trial {one['trial']}: {one['reason']}", markup=False, highlight=False)
    flips = result["flips"]
    if flips["rate"] is not None:
        show.err.print(f"{len(flips['flipped'])} of {flips['tasks']} repeated tasks flip between success and failure")
    rows = {n: r for n, r in result["by_group"].items() if not n.startswith(hidden)}
    table = show.scores(title, {parts.named(who): result, **rows}, ("success",))
    show.result(result, as_json, table)


def pocket(
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
    tasks: Annotated[int, typer.Option(help="how many live tasks")] = 100,
    split: Annotated[str, typer.Option(help="train, test or heldout")] = "test",
    size: Annotated[str, typer.Option(help="screen in pixels, WxH")] = "160x288",
    style: Annotated[str, typer.Option(help="easy or free")] = "easy",
    device: Annotated[str, typer.Option(help="android_env, or adb: the real adb client and the phone's own daemon")] = (
        "android_env"
    ),
    width: Width = 32,
    workers: Workers = 1,
    executor: Executor = "processes",
    repeats: Repeats = 1,
    retries: Retries = 1,
    step_timeout: StepTimeout = 120.0,
    attempt_timeout: AttemptTimeout = 3600.0,
    resume: Resume = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Online success on live simulated phones, checked on the phone's state; pop-ups and disturbed starts included."""
    parts.require("android_env", "android")
    from envs.pocket.live import PocketTasks

    screen = parts.parse_screen(size)
    if not isinstance(screen, tuple):
        raise SetupError(f"--size {size!r}: expected WIDTHxHEIGHT")
    who = ask(model, adapter, server, served, agent, dialect, images, tokens)
    road = DEVICES.get(device)
    if road is None:
        raise SetupError(f"--device {device!r}: expected {' or '.join(DEVICES)}")
    patience = Patience(step_timeout, attempt_timeout)
    how = How(temperature, seed, width, workers, executor, repeats, retries, patience, resume)
    world = {"world": "pocket", "tasks": tasks, "split": split, "size": list(screen), "style": style, "device": device}
    result = score_live("pocket", PocketTasks(tasks, seed, split, style, screen, road), who, how, out, world)
    report(f"live pocket, {split} tasks", who, result, as_json)


def miniwob(
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
    suite: Annotated[str, typer.Option(help="smoke, tiny, experts, android-world, all, or page names")] = "smoke",
    seeds: Annotated[int, typer.Option(help="episodes per task, from seeds --seed, --seed + 1, ...")] = 3,
    scale: Annotated[int, typer.Option(help="screenshot pixels per page pixel; the page has 160x210")] = 2,
    max_steps: Annotated[int, typer.Option(help="steps per attempt")] = 30,
    width: Width = 1,
    workers: Workers = 1,
    executor: Executor = "processes",
    repeats: Repeats = 1,
    retries: Retries = 1,
    step_timeout: StepTimeout = 120.0,
    attempt_timeout: AttemptTimeout = 3600.0,
    resume: Resume = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Success on MiniWoB++ in headless Chromium: the page's raw reward, without its clock. Not comparable with the same
    names on Android, where the pages are shown by a WebView."""
    parts.require("miniwob", "web")
    from envs.miniwob.tasks import WebTasks

    who = ask(model, adapter, server, served, agent, dialect, images, tokens)
    patience = Patience(step_timeout, attempt_timeout)
    how = How(temperature, seed, max(width, workers), workers, executor, repeats, retries, patience, resume)
    world = {"world": "miniwob", "suite": suite, "seeds": seeds, "scale": scale, "max_steps": max_steps}
    result = score_live("miniwob", WebTasks(suite, seeds, seed, scale, max_steps), who, how, out, world)
    report(f"MiniWoB++ {suite}", who, result, as_json)


def record_miniwob(
    out: Annotated[Path, typer.Option(help="folder to write: episodes.jsonl, images/, DATASET.md")],
    suite: Annotated[str, typer.Option(help="experts, tiny, smoke, or names of pages with commas")] = "experts",
    seeds: Annotated[int, typer.Option(help="episodes per page, from seeds --seed, --seed + 1, ...")] = 3,
    seed: Seed = 0,
    scale: Annotated[int, typer.Option(help="screenshot pixels per page pixel; the page has 160x210")] = 2,
    max_steps: Annotated[int, typer.Option(help="steps per episode")] = 30,
    as_json: Json = False,
) -> None:
    """Record scripted experts on MiniWoB++ pages as standard JSONL and PNGs with true boxes; only successes are kept."""
    parts.require("miniwob", "web")
    from envs.miniwob.record import record
    from envs.miniwob.tasks import WebTasks

    world = WebTasks(suite, seeds, seed, scale, max_steps)
    with show.progress() as bar:
        task = bar.add_task("recording", total=len(world.listed()), note="")
        card = record(out, world, lambda: bar.advance(task))
    table = Table("recorded", "")
    for key, value in card.items():
        table.add_row(key, str(value))
    show.result(card, as_json, table)


COMMANDS: tuple[Callable[..., None], ...] = (pocket, miniwob)
