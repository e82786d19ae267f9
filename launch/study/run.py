"""Run the jobs of a study: train, score, leave a record. Whatever stops it, at most the running jobs are lost."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guiderail.agent.disk import locked
from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.shipped import shipped
from guiderail.launch import show
from guiderail.launch.disk_error import disk_error
from guiderail.launch.going_on import NOTHING_LEARNED
from guiderail.launch.study.plan import CONFIGS, Job, Plan, as_arguments, jobs, overrides, source
from guiderail.launch.study.records import SUFFIX, read_header, weights_digest
from guiderail.rl.runs.log import read_json, read_record, write_json

WAIT = 5.0
SAFETY = 1.15
"""Estimates of how long a job takes are multiplied by this."""


@dataclass
class Study:
    """out: folder of models, recordings and logs, all of which can be made again. records: folder of what is kept.

    taken: jobs running in this process. elsewhere: whether a job that could start now is still
    run by the children of a process that was killed.
    """

    plan: Plan
    plan_path: Path
    out: Path
    records: Path
    taken: set[Job] = field(default_factory=set)
    elsewhere: bool = False
    failed: dict[Job, str] = field(default_factory=dict)

    def record(self, job: Job) -> Path:
        return self.records / f"{job.name}{SUFFIX}"

    def model(self, job: Job | None) -> str:
        """The model that this job scores: what it trains, else the finished model that its arm names, else the base."""
        if job is None or not self.plan.arms[job.arm].recipe:
            return (self.plan.arms[job.arm].model if job else "") or self.plan.base
        return str(self.out / job.name / "train" / "model")

    def trained(self, job: Job | None) -> bool:
        if job is None or not self.plan.arms[job.arm].recipe:
            return True
        return (self.out / job.name / "train" / "metrics.json").is_file()

    def todo(self, only: Sequence[str]) -> list[Job]:
        """Jobs without a record, each after the jobs whose models it needs and that are missing."""
        wanted: list[Job] = []
        for job in jobs(self.plan, only):
            if self.record(job).exists():
                continue
            chain: list[Job] = []
            before = source(self.plan, job)
            while before is not None and not self.trained(before):
                chain.append(before)
                before = source(self.plan, before)
            wanted += [j for j in [*reversed(chain), job] if j not in wanted]
        return wanted

    def estimate(self, job: Job) -> float:
        """Seconds that this job still takes: as long as its arm took before, else as the plan estimates."""
        arm = self.plan.arms[job.arm]
        known = [read_header(path) for path in self.records.glob(f"{job.arm}-*{SUFFIX}")]
        train = max((h["train"]["wall"] for h in known if h["train"]), default=0.0) if arm.recipe else 0.0
        exam = max((h["score"]["wall"] for h in known), default=60 * self.plan.exams[arm.exam].minutes)
        if arm.recipe and not train:
            train = 60 * self.plan.times * self.plan.recipes[arm.recipe].minutes
        return SAFETY * ((0 if self.trained(job) else train) + (0 if self.record(job).exists() else exam))


def prepare(study: Study) -> None:
    """Make the recordings that are missing."""
    from guiderail.envs.pocket.record import record

    for name, world in study.plan.worlds.items():
        folder, episodes = study.out / "data" / name, study.plan.recorded(name)
        if episodes and not (folder / "episodes.jsonl").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            record(
                folder,
                episodes,
                world.seed,
                world.split,
                study.plan.size,
                world.style,
                informative=world.informative,
            )


def claim_folders(study: Study) -> None:
    """Write what the plan starts from, weights and training length, to out/base.json.

    Raises SetupError when models in `out` or records were made from something else: results must not mix.
    """
    plan, kept = study.plan, study.out / "base.json"
    finished = {name: arm.model for name, arm in plan.arms.items() if arm.model}
    now: dict[str, Any] = {name: weights_digest(Path(shipped(name))) for name in [plan.base, *finished.values()]}
    now["times"] = plan.times
    known = []
    for path in sorted(study.records.glob(f"*{SUFFIX}")):
        header = read_header(path)
        known += [(path, plan.base, header["base"]["weights"]), (path, "times", header.get("times", 1))]
        if header["arm"] in finished:
            known.append((path, finished[header["arm"]], header["weights"]))
    if kept.exists():
        known += [(study.out, name, before) for name, before in read_json(kept).items() if name in now]
    for place, name, before in known:
        if before != now[name]:
            raise SetupError(
                f"{place} was made with {name} {before}, now it is {now[name]}; give other --out and --records"
            )
    study.out.mkdir(parents=True, exist_ok=True)
    write_json(kept, now)


def run(study: Study, only: Sequence[str], minutes: float, workers: int) -> None:
    """Run the jobs without a record, `workers` at a time. A job that would not end within the minutes left is not started.
    Raises SetupError where another process runs this study."""
    with locked(study.out):
        _run(study, only, minutes, workers)


def _run(study: Study, only: Sequence[str], minutes: float, workers: int) -> None:
    claim_folders(study)
    prepare(study)
    end, turn = time.monotonic() + 60 * minutes, threading.Condition()
    todo = study.todo(only)
    show.err.print(f"{len(jobs(study.plan, only))} jobs, {len(todo)} to do, {minutes:g} minutes", highlight=False)

    def work() -> None:
        while True:
            with turn:
                while (found := _next(study, todo, end)) is None:
                    if not study.taken and not study.elsewhere:
                        return
                    turn.wait(WAIT)
                job, lock = found
                study.taken.add(job)
            try:
                _do(study, job, lock)
            except Exception as error:
                study.failed[job] = why(error)
                show.err.print(f"{job.name} failed: {why(error)}", style="red", markup=False, highlight=False)
            finally:
                os.close(lock)
                with turn:
                    study.taken.discard(job)
                    todo.remove(job)
                    turn.notify_all()

    _in_threads(work, workers)
    left = len(study.todo(only))
    show.err.print(
        f"{left} jobs left; run the same command to continue" if left else "all jobs have records", highlight=False
    )
    if study.failed:
        raise SetupError(
            f"{len(study.failed)} jobs failed: {', '.join(job.name for job in study.failed)}; see their logs"
        )


def _in_threads(work: Callable[[], None], workers: int) -> None:
    """Raises what ended one of them, once all have ended."""
    broken: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            broken.append(error)

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]


def why(error: Exception) -> str:
    """What is said of a job that failed."""
    if isinstance(error, OSError):
        error = disk_error(error)
    return str(error) if isinstance(error, GuiderailError) else f"{type(error).__name__}: {error}"


def _next(study: Study, todo: list[Job], end: float) -> tuple[Job, int] | None:
    """The first job that can start and end in time, with the lock of its folder."""
    study.elsewhere = False
    for job in todo:
        if job in study.taken or not study.trained(source(study.plan, job)):
            continue
        if time.monotonic() + study.estimate(job) > end:
            continue
        lock = _lock(study.out / job.name)
        if lock is not None:
            return job, lock
        study.elsewhere = True
    return None


def _lock(folder: Path) -> int | None:
    """The open lock of a job's folder; None while another process holds it. The programs that the job starts inherit it: if
    this process is killed, they hold it until they end, so that no second one trains into the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def _do(study: Study, job: Job, lock: int) -> None:
    started = time.monotonic()
    if not study.trained(job):
        _train(study, job, lock)
    if not study.record(job).exists():
        _examine(study, job, lock)
    show.err.print(f"{job.name}: {time.monotonic() - started:.0f} s", highlight=False)


def _train(study: Study, job: Job, lock: int) -> None:
    """`guiderail train`, and before it the recording of own attempts where the recipe asks for it; its cost goes to cost.json."""
    plan, folder = study.plan, study.out / job.name
    recipe, start = plan.recipes[plan.arms[job.arm].recipe], study.model(source(plan, job))
    data = study.out / "data" / recipe.recordings
    shutil.rmtree(folder / "train", ignore_errors=True)
    spent: dict[str, float] = {}
    if recipe.own:
        data = folder / "own"
        shutil.rmtree(data, ignore_errors=True)
        asked = ["record", "attempts", "pocket", *recipe.own.split(), "--model", start, "--seed", str(job.seed)]
        spent = _spend(study, [*asked, "--out", str(data)], folder / "own.log", lock)
    named = {"model.path": start, "data.train": str(data)}
    config = CONFIGS / recipe.config
    arguments = [*as_arguments(named | overrides(plan, job)), "--out", str(folder / "train")]
    cost = _spend(study, ["train", str(config), *arguments], folder / "train.log", lock)
    write_json(folder / "cost.json", {key: round(value + spent.get(key, 0.0), 1) for key, value in cost.items()})


def _examine(study: Study, job: Job, lock: int) -> None:
    folder = study.out / job.name
    asked = ["study", "score", study.model(job), "--arm", job.arm, "--seed", str(job.seed), "--base", study.plan.base]
    asked += ["--times", str(study.plan.times)]
    where = ["--plan", str(study.plan_path), "--out", str(study.out), "--records", str(study.records)]
    _spend(study, [*asked, *where], folder / "score.log", lock)


def _spend(study: Study, arguments: Sequence[str], log: Path, lock: int) -> dict[str, float]:
    """Run a guiderail command to its end; {wall, cpu} in seconds, its own children included. Raises SetupError where it
    failed; a training that learned nothing did not: that is a result, too.

    All arms have the same vision tower, so they share one folder of vision features."""
    started = time.monotonic()
    environment = {"OMP_NUM_THREADS": "1", "GUIDERAIL_FEATURES": str(study.out / "features")}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "guiderail.launch.cli", *arguments],
            stdout=file,
            stderr=file,
            env=os.environ | environment,
            pass_fds=(lock,),
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, NOTHING_LEARNED):
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise SetupError(f"{arguments[0]} ended with {process.returncode}: {' '.join(said)} (full log: {log})")
    return {"wall": round(time.monotonic() - started, 1), "cpu": round(used.ru_utime + used.ru_stime, 1)}


def training_of(study: Study, job: Job) -> dict[str, Any] | None:
    """Settings and cost of this checkpoint's training, for the record's header. None where nothing was trained."""
    arm = study.plan.arms[job.arm]
    if not arm.recipe:
        return None
    recipe, folder = study.plan.recipes[arm.recipe], study.out / job.name
    about, result = read_record(folder / "train").about, read_json(folder / "train" / "metrics.json")
    config = about.config or {}
    before = source(study.plan, job)
    cost = folder / "cost.json"  # missing when this program was killed and the training that it had started went on
    return {
        **(read_json(cost) if cost.exists() else {"wall": round(result["seconds"], 1), "cpu": None}),
        "updates": result["updates"],
        "turns": result["sampled_turns"] + (read_json(folder / "own/attempts.json")["turns"] if recipe.own else 0),
        "after": before.name if before else "base",
        "config": {section: config[section] for section in ("method", "training")},
        "images": config["model"]["images"],
        "data": about.data and about.data.digest,
    }
