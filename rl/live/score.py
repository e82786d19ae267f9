"""Success on live tasks, with its uncertainty, from the lines of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from guiderail.rl.runs.rows import success
from guiderail.rl.score.statistics import over_tasks


class End(NamedTuple):
    """How a scored attempt ended. progress, dirty (whether anything else was changed): None where the world does not tell."""

    ended: str
    success: bool
    progress: float | None
    dirty: bool | None


def rates(ends: Sequence[End]) -> dict[str, float]:
    """{PR, FC, USE} of a world that tells progress and side effects, as fractions of 1; {} of any other.

    PR: mean progress. FC, false completion: success was claimed, and was not one. USE: something else was changed. As
    MobileGym defines them, but over the scored attempts alone.
    """
    if not ends or any(one.progress is None or one.dirty is None for one in ends):
        return {}
    return {
        "PR": fmean(one.progress or 0.0 for one in ends),
        "FC": fmean(one.ended == "finished" and not one.success for one in ends),
        "USE": fmean(bool(one.dirty) for one in ends),
    }


def live_score(rows: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """{success, interval, n, unscored, endings, crashes, unscored_attempts, flips, by_group} of the lines of a run, and
    its `rates`.

    success: of the scored attempts, a fraction of 1. interval: 95 %, see `over_tasks`. groups: task -> groups that it
    counts under, the first of which is its template. flips: among tasks with at least two scored attempts, those whose
    attempts disagree.
    """
    members: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    endings: dict[str, int] = defaultdict(int)
    for row in rows:
        endings[row["ended"]] += 1
        for name in groups.get(row["unit"], ()):
            members[name].append(row)
    lost = [row for row in rows if success(row) is None]
    ends = [(row["ended"], row["outcome"]) for row in rows if row["outcome"] is not None]
    said = [(ended, o["success"], o.get("progress"), o.get("side_effects")) for ended, o in ends]
    templates = {task: names[0] for task, names in groups.items() if names}
    return _success(rows, templates) | {
        **rates([End(*one[:3], None if one[3] is None else bool(one[3])) for one in said]),
        "endings": dict(sorted(endings.items())),
        "crashes": sorted({row["reason"] for row in lost}),
        "unscored_attempts": [{key: row[key] for key in ("unit", "sample", "reason")} for row in lost],
        "flips": _flips(rows),
        "by_group": {name: _success(group, templates) for name, group in sorted(members.items())},
    }


def _success(rows: Sequence[Mapping[str, Any]], templates: Mapping[str, str]) -> dict[str, Any]:
    scored = [(row["unit"], bool(success(row))) for row in rows if success(row) is not None]
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
        if (right := success(row)) is not None:
            outcomes[row["unit"]].append(right)
    repeated = {task: attempts for task, attempts in outcomes.items() if len(attempts) > 1}
    flipped = sorted(task for task, attempts in repeated.items() if len(set(attempts)) > 1)
    return {"rate": len(flipped) / len(repeated) if repeated else None, "tasks": len(repeated), "flipped": flipped}
