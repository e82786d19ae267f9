"""Live attempts as work: jobs, the loop a worker runs, the board that hands jobs out, the journal, the score."""

from __future__ import annotations

import fcntl
import os
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.codec import action_to_json
from agent.dialogue import Dialogue
from agent.errors import EnvCrashed, GuiderailError, SetupError
from agent.policy import GREEDY, Policy, Request, Sampling
from agent.screen import ScreenTransform, Vision
from agent.types import Completion, Prompt
from envs.attempts import Attempt, Demonstrable, LiveTask, Patience, Site, attempt
from rl.rollout import Asking, Key, drive
from rl.runlog import drop_rollouts, read_rollouts
from rl.statistics import over_tasks

Row = dict[str, Any]
Images = dict[str, bytes]
"""PNG bytes by content hash (SHA-256, hex)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt to make. trial: which repetition of the task, from 0. tries: how often a machine has failed on it."""

    task: str
    trial: int = 0
    tries: int = 0


@dataclass
class Bench:
    """What one worker works with. policy None: each task's own expert acts. width: attempts under way at once."""

    site: Site
    dialogue: Dialogue
    policy: Policy | None
    sampling: Sampling = GREEDY
    seed: int = 0
    width: int = 1
    patience: Patience = field(default_factory=Patience)


Done = Callable[[Job, Row, Images], None]
Beat = Callable[[], None]


def work(bench: Bench, jobs: Iterator[Job], done: Done, beat: Beat = lambda: None) -> None:
    """Make attempts until `jobs` has none left and none is under way. beat: called at every sign of life.

    An iterator that said "no more" is asked again while attempts are under way: a failed one may have come back.
    """

    def finished(job: Job, made: Attempt) -> None:
        done(job, attempt_row(made, trial=job.trial, tries=job.tries), images_of(made))

    def walk(job: Job) -> Generator[Prompt, Completion, None]:
        try:
            task = bench.site.task(job.task)
            made = yield from attempt(task, dialogue=bench.dialogue, patience=bench.patience)
        except Exception as error:
            made = _unforeseen(job, error)
        finished(job, made)

    def show(job: Job) -> Attempt:
        try:
            return play(bench.site.task(job.task), bench.dialogue, bench.patience, beat)
        except Exception as error:
            return _unforeseen(job, error)

    def keyed(job: Job) -> tuple[Key, Asking[None]]:
        return (bench.seed, job.task, job.trial, job.tries), walk(job)

    if bench.policy is not None:
        drive(map(keyed, jobs), _Beating(bench.policy, beat), bench.sampling, width=bench.width)
        return
    for job in jobs:
        finished(job, show(job))


def _unforeseen(job: Job, error: Exception) -> Attempt:
    """What a world raises that it should not: the attempt has no score, the others go on. Our own errors pass."""
    if isinstance(error, GuiderailError | ConnectionError | EOFError):
        raise error
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return Attempt(job.task, "", "crashed", None, (), f"{type(error).__name__} at {where}: {error}")


def play(task: LiveTask, dialogue: Dialogue, patience: Patience | None = None, beat: Beat = lambda: None) -> Attempt:
    """An attempt by the task's own expert, which sees more than the screen. Raises SetupError where there is none."""
    if not isinstance(task, Demonstrable):
        raise SetupError(f"{task.id} has no expert; give --model, --server or --agent random")
    going = attempt(task, dialogue=dialogue, patience=patience)
    try:
        prompt = next(going)
        while True:
            beat()
            try:
                text = dialogue.say(*task.expert(), prompt.screen.screenshot)
            except EnvCrashed as crash:
                prompt = going.throw(crash)
            else:
                prompt = going.send(Completion(text))
    except StopIteration as stop:
        result: Attempt = stop.value
        return result


class _Beating:
    """A policy that gives a sign of life before and after every batch."""

    def __init__(self, policy: Policy, beat: Beat):
        self._policy, self._beat = policy, beat

    @property
    def name(self) -> str:
        return self._policy.name

    @property
    def vision(self) -> Vision:
        return self._policy.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self._beat()
        answers = self._policy.complete(requests, sampling)
        self._beat()
        return answers


class Board:
    """Jobs still to do. An attempt whose machine failed goes back on it, at most `retries` times, then it is recorded
    as unscored with its cause. An iterator: "no more" may change while jobs are out."""

    def __init__(self, jobs: Sequence[Job], retries: int, record: Callable[[Row, Images], None]):
        self._waiting, self._out = deque(jobs), set[Job]()
        self._retries, self._record = retries, record

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if not self._waiting:
            raise StopIteration
        job = self._waiting.popleft()
        self._out.add(job)
        return job

    @property
    def over(self) -> bool:
        return not self._waiting and not self._out

    def done(self, job: Job, row: Row, images: Images) -> None:
        """Every job is answered for once: what comes for a job that is not out is dropped."""
        if job not in self._out:
            return
        self._out.remove(job)
        if row["ending"] == "crashed" and job.tries < self._retries:
            self._waiting.append(replace(job, tries=job.tries + 1))
        else:
            self._record(row, images)

    def lost(self, job: Job, reason: str) -> None:
        """The worker that had this job is gone."""
        self.done(job, attempt_row(Attempt(job.task, "", "crashed", None, (), reason), **_numbers(job)), {})


def _numbers(job: Job) -> dict[str, int]:
    return {"trial": job.trial, "tries": job.tries}


# ------------------------------------------------------------------------------------------------------- the journal


def attempt_row(one: Attempt, **more: Any) -> Row:
    """One line of rollouts.jsonl for a live attempt; screenshots by content hash, their files are in images/."""
    return {
        "task": one.task,
        "goal": one.goal,
        "ending": one.ending,
        "success": one.success,
        "reason": one.reason,
        **more,
        "turns": [
            {
                "index": turn.index,
                "screenshot": turn.screenshot.digest,
                "screen": list(turn.screen),
                "text": turn.completion.text,
                "thought": turn.thought,
                "action": None if turn.action is None else action_to_json(turn.action, ScreenTransform(*turn.screen)),
                "note": turn.note,
            }
            for turn in one.turns
        ],
    }


def images_of(one: Attempt) -> Images:
    return {turn.screenshot.digest: turn.screenshot.encoded() for turn in one.turns}


def keep_images(folder: Path, images: Images) -> None:
    """Each image once, as folder/HASH.png, whole or not at all."""
    folder.mkdir(exist_ok=True)
    for digest, data in images.items():
        path = folder / f"{digest}.png"
        if not path.exists():
            partial = path.with_suffix(".part")
            partial.write_bytes(data)
            os.replace(partial, path)


def scored_rows(folder: Path) -> list[Row]:
    """What an interrupted run has scored already. A last line that was cut off by the end of the process is removed from
    the file, and so are attempts without a score: they are to be made again."""
    path = folder / "rollouts.jsonl"
    if not path.exists():
        return []
    whole = path.read_bytes()
    if not whole.endswith(b"\n"):
        os.truncate(path, whole.rfind(b"\n") + 1)
    drop_rollouts(folder, lambda row: row.get("success") is None)
    return [*read_rollouts(folder)]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No second process may write this run at the same time. The lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupError(
                f"{folder} is being written by another process; wait for it or give another --out"
            ) from None
        yield


# --------------------------------------------------------------------------------------------------------- the score


def live_score(rows: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """{success, interval, n, unscored, endings, crashes, unscored_attempts, flips, by_group} of the lines of a journal.

    interval: 95 %, `over_tasks`. groups: task -> names under which it also counts, the first of which is its template.
    flips: among tasks with two or more scored trials, those whose trials disagree.
    """
    members: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    endings: dict[str, int] = defaultdict(int)
    for row in rows:
        endings[row["ending"]] += 1
        for name in groups.get(row["task"], ()):
            members[name].append(row)
    lost = [row for row in rows if row["success"] is None]
    templates = {task: names[0] for task, names in groups.items() if names}
    return _success(rows, templates) | {
        "endings": dict(sorted(endings.items())),
        "crashes": sorted({row["reason"] for row in lost}),
        "unscored_attempts": [{key: row[key] for key in ("task", "trial", "reason")} for row in lost],
        "flips": _flips(rows),
        "by_group": {name: _success(group, templates) for name, group in sorted(members.items())},
    }


def _success(rows: Sequence[Mapping[str, Any]], templates: Mapping[str, str]) -> dict[str, Any]:
    scored = [(row["task"], bool(row["success"])) for row in rows if row["success"] is not None]
    right, n = sum(success for _, success in scored), len(scored)
    return {
        "success": right / n if n else None,
        "interval": over_tasks(scored, templates),
        "n": n,
        "unscored": len(rows) - n,
    }


def _flips(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row["success"] is not None:
            outcomes[row["task"]].append(row["success"])
    repeated = {task: trials for task, trials in outcomes.items() if len(trials) > 1}
    flipped = sorted(task for task, trials in repeated.items() if len(set(trials)) > 1)
    return {"rate": len(flipped) / len(repeated) if repeated else None, "tasks": len(repeated), "flipped": flipped}
