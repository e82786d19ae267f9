"""The lines of a training run: each generation's groups with their credit, and the units that were passed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guiderail.rl.credit.samples import StepSample
from guiderail.rl.rollout.plan import Generation, Group
from guiderail.rl.runs.log import RunLog, drop_lines, prompt_digest, read_lines
from guiderail.rl.runs.rows import rollout_row

PASSED_OVER, LESSONS = "passed_over.jsonl", "lessons.jsonl"


def log_generation(log: RunLog, made: Generation, lengths: Mapping[str, int]) -> None:
    """lengths: steps of each recording, by episode; a unit that is not in it is a live task."""
    for weighed in made.weighed:
        if weighed.reason != "fits":
            log.line(asdict(weighed), PASSED_OVER)
    for group in made.groups:
        for row in group_rows(group, lengths):
            log.line(row)


def drop_generations(folder: Path, first: int) -> None:
    """Remove the lines of generation `first` and later: a resumed run is about to write them again."""
    for name in ("rollouts.jsonl", PASSED_OVER, LESSONS):
        drop_lines(folder, lambda row: int(row["generation"]) >= first, name)


def passed_over(folder: Path, generation: int) -> set[int]:
    """The visits of a generation whose units were not sampled."""
    rows = read_lines(folder, PASSED_OVER) if (folder / PASSED_OVER).is_file() else ()
    return {int(row["visit"]) for row in rows if row["generation"] == generation}


def lesson(folder: Path, generation: int, turn: Mapping[str, Any], unit: str, sample: int) -> dict[str, Any]:
    """What a teacher said of this turn of a line (`rl.train.lessons.lines`); empty where it was not taught."""
    rows = read_lines(folder, LESSONS) if (folder / LESSONS).is_file() else ()
    where = (generation, unit, sample, turn["index"], turn.get("token_ids"))
    keys = ("generation", "unit", "sample", "index", "token_ids")
    return next((row for row in rows if tuple(row[key] for key in keys) == where), {})


def group_rows(group: Group, lengths: Mapping[str, int]) -> list[dict[str, Any]]:
    """One line per rollout. A turn with credit also has its prompt's digest and the sampled tokens."""
    where: dict[str, Any] = {"generation": group.generation, "visit": group.visit, "signal": group.signal}
    where |= {"behind": group.behind} if group.behind else {}
    where |= {"shown": len(group.shown)} if group.shown else {}
    rows = []
    for rollout, samples in zip(group.rollouts, group.samples, strict=True):
        credit = [
            credit_row(s) | {"prompt": prompt_digest(s.prompt), "token_ids": list(s.completion.token_ids)}
            for s in samples
        ]
        rows.append(rollout_row(rollout, steps=lengths.get(rollout.unit), credit=credit, **where))
    return rows


def credit_row(sample: StepSample) -> dict[str, float]:
    """What a line holds of a turn's credit."""
    return {
        "reward": sample.reward,
        "return": sample.ret,
        "episode_advantage": sample.advantage_episode,
        "step_advantage": sample.advantage_step,
        "advantage": sample.advantage,
    }
