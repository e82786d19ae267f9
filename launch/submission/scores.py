"""Every number of a bundle, computed from its attempts alone; building claims them and verifying computes them again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import comb
from statistics import fmean
from typing import Any

from envs.match import MatchRules
from launch.submission.schema import Attempt
from rl.sop import Scored, score
from rl.statistics import over_tasks

RECORDINGS = ("sop", "offline", "screenspot")
HEADLINE = {"sop": "TSR", "offline": "SR", "screenspot": "accuracy"}


def headline(kind: str) -> str:
    """The name of the success rate of this kind of run."""
    return HEADLINE.get(kind, "success")


def matched(one: Attempt) -> int:
    """Turns before the first one that does not agree."""
    exact = [turn.verdict is not None and turn.verdict.exact for turn in one.turns]
    return exact.index(False) if False in exact else len(exact)


def outcome(kind: str, one: Attempt) -> str | None:
    """What contradicts this attempt's success flag, from its own turns and ending; None when nothing does."""
    if (one.success is None) != (one.ending == "crashed"):
        return "success is null exactly when the ending is crashed"
    if one.success is None:
        return None
    if kind in RECORDINGS:
        if not one.turns or any(turn.verdict is None for turn in one.turns):
            return "an attempt at a recording has a verdict on every turn"
        right = matched(one) == (one.steps if kind == "sop" else 1)
        return None if one.success == right else f"success is {one.success}, its verdicts say {right}"
    if one.success and one.ending != "finished":
        return f"success is true, but the ending is {one.ending}"
    return None


def numbers(kind: str, rows: Sequence[Attempt], rules: Mapping[str, Any] | None) -> dict[str, Any]:
    """{name of the success rate, intervals, n, unscored, with_crashes_as_failures, tasks, trials, ...}; rates are
    fractions of 1. Crashed attempts are left out of the headline and counted as failures beside it."""
    scored = [row for row in rows if row.success is not None]
    values = [(row.task, float(bool(row.success))) for row in scored]
    templates = {row.task: row.group for row in scored if row.group is not None and kind not in RECORDINGS}
    name, n = headline(kind), len(values)
    result: dict[str, Any] = {
        name: fmean(v for _, v in values) if values else None,
        "interval": list(over_tasks(values, templates)),
        "n": n,
        "unscored": len(rows) - n,
        "with_crashes_as_failures": sum(v for _, v in values) / len(rows) if rows else None,
    }
    if kind == "sop" and rules is not None:
        result |= _sop(rows, rules)
    if kind == "offline":
        typed = [(_episode(row), float(_verdict(row, "type_ok"))) for row in scored]
        result["interval"] = list(over_tasks([(_episode(row), float(bool(row.success))) for row in scored], {}))
        result |= {"TM": fmean(v for _, v in typed) if typed else None, "TM_interval": list(over_tasks(typed, {}))}
    if kind not in RECORDINGS:
        result |= _live(scored)
    groups: dict[str, list[float]] = defaultdict(list)
    for row in scored:
        if row.group is not None:
            groups[row.group].append(float(bool(row.success)))
    if groups:
        result["by_group"] = {g: {name: fmean(v), "n": len(v)} for g, v in sorted(groups.items())}
    tokens = [turn.tokens for row in rows for turn in row.turns]
    return result | {
        "turns": len(tokens),
        "tokens": sum(t for t in tokens if t is not None) if any(t is not None for t in tokens) else None,
    }


def _sop(rows: Sequence[Attempt], rules: Mapping[str, Any]) -> dict[str, Any]:
    walks = [
        Scored(
            row.task,
            row.steps or 1,
            matched(row),
            row.success is None,
            any(
                turn.verdict is not None and not (turn.verdict.readable and turn.verdict.judgeable)
                for turn in row.turns
            ),
        )
        for row in rows
    ]
    found = score(walks, MatchRules(**rules))
    return {key: found[key] for key in ("PG", "TSR", "Score")} | {
        f"{key}_interval": list(found["intervals"][key]) for key in ("PG", "Score")
    }


def _live(scored: Sequence[Attempt]) -> dict[str, Any]:
    """Macro mean over tasks, pass@k without bias (1 - C(n-c, k) / C(n, k), mean over tasks), flip rate."""
    by_task: dict[str, list[bool]] = defaultdict(list)
    for row in scored:
        by_task[row.task].append(bool(row.success))
    most = min(map(len, by_task.values()), default=0)
    repeated = [trials for trials in by_task.values() if len(trials) > 1]
    return {
        "mean_over_tasks": fmean(fmean(trials) for trials in by_task.values()) if by_task else None,
        "pass_at": {
            str(k): fmean(1 - comb(len(t) - sum(t), k) / comb(len(t), k) for t in by_task.values())
            for k in range(1, most + 1)
        },
        "flip_rate": fmean(len(set(trials)) > 1 for trials in repeated) if repeated else None,
    }


def _episode(row: Attempt) -> str:
    return row.task.rpartition("/")[0]


def _verdict(row: Attempt, name: str) -> bool:
    return bool(row.turns and row.turns[0].verdict is not None and getattr(row.turns[0].verdict, name))
