"""Judge the attempts of finished runs whose outcome an exact check of the state decided, and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.envs.aitw.judge import AnyJudge, judge_row
from guiderail.rl.live.jobs import Row
from guiderail.rl.runs.log import read_record, read_rollouts
from guiderail.rl.score.judge_errors import Judged


@dataclass(frozen=True, slots=True)
class Known:
    """A stored attempt with its truth."""

    run: Path
    world: str
    row: Row

    @property
    def name(self) -> str:
        return f"{self.run}: {self.row['unit']}#{self.row['sample']}"


def known_attempts(runs: Sequence[Path]) -> tuple[list[Known], int]:
    """(attempts that ended with a check of the state and have screenshots, number of the others).

    Where an attempt gave up or ran out of steps, nothing looked at its state: it counts as failed by the rule that success
    must be claimed. Raises SetupError for a run that no state decided, and when no attempt is left.
    """
    found: list[Known] = []
    others = 0
    for run in runs:
        world = (read_record(run).about.world or {}).get("name")
        if world is None:
            raise SetupError(f"{run} is not a run in a live world; give runs of `guiderail evaluate pocket` or miniwob")
        before = len(found)
        for row in read_rollouts(run):
            outcome = row["outcome"]
            if (
                row["ended"] == "finished"
                and outcome
                and outcome.get("checked_by", "state") == "state"
                and row["turns"]
            ):
                found.append(Known(run, str(world), row))
            else:
                others += 1
        if len(found) == before:
            raise SetupError(f"{run} has no attempt that a check of the state decided; judge another run")
    return found, others


def judge_all(
    known: Sequence[Known], judge: AnyJudge, width: int, tick: Callable[[], None]
) -> tuple[list[Judged], dict[str, str]]:
    """(judged attempts, the others with the reason why the judge gave no verdict), `width` at a time."""

    def one(attempt: Known) -> Judged | str:
        try:
            return _judged(attempt, judge)
        except EnvCrashed as crash:
            return str(crash)
        finally:
            tick()

    judged: list[Judged] = []
    silent: dict[str, str] = {}
    with ThreadPoolExecutor(width) as pool:
        for attempt, made in zip(known, _until_error(pool, one, known), strict=True):
            if isinstance(made, str):
                silent[attempt.name] = made
            else:
                judged.append(made)
    return judged, silent


def _until_error(pool: ThreadPoolExecutor, one: Callable[[Known], Any], known: Sequence[Known]) -> Iterator[Any]:
    """Results in order. After an error nothing more is begun: a server that is gone is asked no further."""
    waiting = [pool.submit(one, attempt) for attempt in known]
    try:
        for future in waiting:
            yield future.result()
    finally:
        for future in waiting:
            future.cancel()


def _judged(attempt: Known, judge: AnyJudge) -> Judged:
    row = attempt.row
    made = judge_row(row, attempt.run / "images", judge)
    items = tuple((item.text, item.state == ("met" if item.kind == "reach" else "open")) for item in made.items)
    group = str(row.get("template") or row["unit"])
    return Judged(attempt.world, group, str(row["goal"]), bool(row["outcome"]["success"]), made.success, items)
