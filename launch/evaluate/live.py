"""guiderail evaluate pocket, miniwob: success in live worlds, attempt by attempt, in parallel; a run can be resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.errors import SetupError
from guiderail.agent.registry import Registry, origins
from guiderail.envs.live.attempts import Patience, World
from guiderail.launch import parts, show
from guiderail.launch.agents import AgentSpec, build_agent, sampling, voice
from guiderail.launch.before import check_out
from guiderail.launch.going_on import after_scoring, going_on
from guiderail.launch.options import Json, Out, Resume, Scale, Seed, Temperature, one_of, spread
from guiderail.launch.pocket_screen import PocketSize, PocketStyle, pocket_screen
from guiderail.launch.screens import other_screens, png_size
from guiderail.rl.live.executors import run_here, run_processes, run_ray
from guiderail.rl.live.jobs import Job, JobQueue, Row
from guiderail.rl.live.journal import keep_images, scored_rows
from guiderail.rl.live.score import live_score
from guiderail.rl.live.worker import Worker
from guiderail.rl.runs.log import run_log
from guiderail.rl.runs.record import About
from guiderail.rl.runs.rows import success
from guiderail.rl.score import floors

LINE_EVERY = 10.0
SCORED = ("unit", "sample", "ended", "outcome", "reason")
"""The keys of a recorded attempt that its score is computed from."""

RATES = {"PR": "progress", "FC": "false completion", "USE": "unexpected side effects"}
"""Of worlds that tell them, see `rl.live.score.rates`."""

EXECUTORS: tuple[Literal["processes", "ray"], ...] = ("processes", "ray")
DEVICES: tuple[Literal["android_env", "adb"], ...] = ("android_env", "adb")

_option = partial(typer.Option, rich_help_panel="Attempts")


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How attempts are made. Which tasks: the world. Who acts: `AgentSpec`."""

    temperature: Temperature = 0.0
    seed: Seed = 0
    width: Annotated[int, _option(help="attempts under way at once, over all workers")] = 1
    workers: Annotated[
        int, _option(help="processes; each loads its own --model: serve a large one and give --server")
    ] = 1
    executor: Annotated[str, _option(help="processes (on this machine) or ray (on many)")] = "processes"
    repeats: Annotated[int, _option(help="attempts per task; 2 or more also give the flip rate")] = 1
    retries: Annotated[int, _option(help="new tries of an attempt whose machine failed")] = 1
    step_timeout: Annotated[
        float, _option(help="seconds for one look or action, then the machine counts as failed")
    ] = 120.0
    attempt_timeout: Annotated[float, _option(help="seconds for a whole attempt, the request under way included")] = (
        3600.0
    )
    resume: Resume = False

    def __post_init__(self) -> None:
        one_of("--executor", self.executor, EXECUTORS)
        for name, least in (("width", 1), ("workers", 1), ("repeats", 1), ("retries", 0)):
            if (value := getattr(self, name)) < least:
                raise SetupError(f"--{name} {value}: expected {least} or more")

    @property
    def patience(self) -> Patience:
        return Patience(self.step_timeout, self.attempt_timeout)

    @property
    def width_of_worker(self) -> int:
        return max(1, self.width // self.workers)


@dataclass(frozen=True, slots=True)
class WorkerFactory:
    """`rl.live.executors.BuildWorker`: a worker's open world and policy, built where the worker runs."""

    world: World
    who: AgentSpec
    live: LiveOptions

    def __call__(self, worker: int) -> Worker:
        if self.live.workers > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.live.workers)))
        actor = build_agent(self.who)
        return Worker(
            self.world.open(worker),
            actor.dialogue,
            None if self.who.agent == "expert" else actor.policy,
            sampling(actor.voice, self.live.temperature),
            self.live.seed,
            self.live.width_of_worker,
            self.live.patience,
        )


def score_live(
    name: str,
    world: World,
    who: AgentSpec,
    live: LiveOptions,
    out: Path | None,
    details: Mapping[str, Any],
    named: Sequence[tuple[Registry[Any], str]] = (),
) -> dict[str, Any]:
    """Make every attempt that the run folder has no score for yet, and score all of them. "floors" are the scores of
    agents that do not look in the same world, by the words for them, as far as they are known; "floor" is the random one's.

    name: of the world, and the kind of run. details: what else describes the world, for the record; a resumed run must
    have the same. named: what was asked for by name besides the dialect.
    """
    if live.resume and out is None:
        raise SetupError("--resume continues the run in a folder; give the folder as --out")
    check_out(out, live.resume)
    listed = world.listed()
    if not listed:
        raise SetupError(f"{name} lists no task with these options")
    templates = {task: names[0].partition(":")[2] for task, names in listed if names}
    jobs = [Job(task, sample) for sample in range(live.repeats) for task, _ in listed]
    spoken = voice(who)
    asked = About(
        model=who.name,
        voice=asdict(spoken),
        temperature=live.temperature,
        seed=live.seed,
        repeats=live.repeats,
        world={"name": name, **details},
        parts=origins((DIALECTS, spoken.dialect), *named).get("parts"),
    )
    about = asked.model_copy(update={"options": asdict(live)})
    with going_on(out, "--resume"), run_log(out, name, about, resume=live.resume) as log:
        rows = [{key: row[key] for key in SCORED} for row in scored_rows(log.folder)] if log is not None else []
        known = {(row["unit"], row["sample"]) for row in rows}
        with _progress(name, len(jobs), rows) as tick:
            warned = False

            def record(row: Row, images: Mapping[str, bytes]) -> None:
                nonlocal warned
                warned = warned or other_screens(who.name, spoken, sorted({*map(png_size, images.values())}))
                if log is not None:
                    keep_images(log.folder / "images", dict(images))
                    log.line({"template": templates.get(row["unit"]), **row})
                rows.append({key: row[key] for key in SCORED})
                tick()

            todo = [job for job in jobs if (job.task, job.sample) not in known]
            _run(JobQueue(todo, live.retries, record), WorkerFactory(world, who, live), live)
        result = live_score(rows, dict(listed))
        if log is not None:
            log.finish(show.strict(result))
    floor = floors.floor_of(asked.world)
    return result | {"floor": floor.row() if floor else None, "floors": floors.rows(asked.world)}


def _run(queue: JobQueue, build: WorkerFactory, live: LiveOptions) -> None:
    if queue.finished:
        return
    if live.executor == "ray":
        parts.require("ray", "ray")
        run_ray(queue, build, live.workers, live.width_of_worker, silence=live.attempt_timeout)
    elif live.workers > 1:
        run_processes(queue, build, live.workers, silence=live.attempt_timeout)
    else:
        run_here(queue, build)


@contextmanager
def _progress(name: str, total: int, rows: Sequence[Mapping[str, Any]]) -> Iterator[Callable[[], None]]:
    """On standard error: a bar on a terminal, else a line from time to time."""
    started, made, said = time.monotonic(), len(rows), time.monotonic()

    def so_far() -> str:
        scored = [ok for row in rows if (ok := success(row)) is not None]
        rate = show.percent(sum(scored) / len(scored) if scored else None)
        return f"success {rate} %, unscored {len(rows) - len(scored)}"

    with show.progress() as bar:
        task = bar.add_task(name, total=total, completed=made, note="")

        def tick() -> None:
            nonlocal said
            bar.update(task, completed=len(rows), note=so_far())
            now = time.monotonic()
            if not show.err.is_terminal and now - said >= LINE_EVERY:
                said = now
                left = (now - started) / (len(rows) - made) * (total - len(rows))
                show.err.print(f"{name}: {len(rows)}/{total}, {so_far()}, {left:.0f} s left", markup=False)

        yield tick


def report(
    title: str,
    who: AgentSpec,
    result: Mapping[str, Any],
    as_json: bool,
    hidden: str = "template:",
    out: Path | None = None,
) -> None:
    """Print the table or the JSON object, and on standard error what could not be scored. hidden: prefix of the groups
    that the table leaves out. Ends the command with a code of its own where nothing was scored."""
    for one in result["unscored_attempts"]:
        show.err.print(f"unscored: {one['unit']} trial {one['sample']}: {one['reason']}", markup=False, highlight=False)
    flips = result["flips"]
    if flips["rate"] is not None:
        show.err.print(f"{len(flips['flipped'])} of {flips['tasks']} repeated tasks flip between success and failure")
    rows = {n: r for n, r in result["by_group"].items() if not n.startswith(hidden)}
    own = {words for agent, words in floors.WORDS.items() if agent == who.agent}
    below = {words: row for words, row in result["floors"].items() if words not in own}
    table = show.scores(title, {who.name: result, **rows, **below}, ("success",))
    if "PR" in result:
        shares = [f"{what} ({key}) {show.percent(result[key])} %" for key, what in RATES.items()]
        table.caption = ", ".join(shares)
    show.result(result, as_json, table)
    after_scoring(result, out, (one["reason"] for one in result["unscored_attempts"]))


# ------------------------------------------------------------------------------------------------------------ commands


@spread
def pocket(
    who: AgentSpec,
    tasks: Annotated[int, typer.Option(help="number of live tasks")] = 100,
    split: Annotated[str, typer.Option(help="train, test or heldout")] = "test",
    size: PocketSize = None,
    style: PocketStyle = "easy",
    device: Annotated[
        str, typer.Option(help="android_env, or adb: the real adb client and the phone's own daemon")
    ] = "android_env",
    live: LiveOptions = LiveOptions(width=32),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Live success on simulated phones, checked on the phone's state. Some tasks start with pop-ups and other apps open."""
    parts.require("android_env", "android")
    from guiderail.envs.pocket.world import PocketTasks

    screen, road = pocket_screen(style, size), one_of("--device", device, DEVICES)
    world = PocketTasks(tasks, live.seed, split, style, screen, road)
    details = {"tasks": tasks, "split": split, "size": list(screen), "style": style, "device": device}
    result = score_live("pocket", world, who, live, out, details)
    report(f"live pocket, {split} tasks", who, result, as_json, out=out)


@spread
def miniwob(
    who: AgentSpec,
    suite: Annotated[
        str, typer.Option(help="smoke, tiny, experts, android-world, pix2act, pix2act-experts, all, or page names")
    ] = "smoke",
    seeds: Annotated[int, typer.Option(help="episodes per task, from seeds --seed, --seed + 1, ...")] = 3,
    scale: Scale = 2,
    max_steps: Annotated[int, typer.Option(help="steps per attempt")] = 30,
    live: LiveOptions = LiveOptions(),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Success on MiniWoB++ in headless Chromium: the page's raw reward, without its clock.

    Not comparable with tasks of the same names on Android, where a WebView shows the pages."""
    parts.require("miniwob", "web")
    from guiderail.envs.miniwob.tasks import WebTasks

    world = WebTasks(suite, seeds, live.seed, scale, max_steps)
    details = {"suite": suite, "seeds": seeds, "scale": scale, "max_steps": max_steps}
    live = replace(live, width=max(live.width, live.workers))
    result = score_live("miniwob", world, who, live, out, details)
    report(f"MiniWoB++ {suite}", who, result, as_json, out=out)
