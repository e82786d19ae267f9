"""Every number of a bundle, computed from its attempts alone; building claims them and verifying computes them again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter, ValidationError

from guiderail.envs.recordings.match import MatchRules
from guiderail.envs.recordings.progress import agreed
from guiderail.launch.submission.facts import Facts
from guiderail.launch.submission.schema import canonical
from guiderail.rl.live.score import End, rates
from guiderail.rl.score.sop import Scored, score
from guiderail.rl.score.statistics import over_tasks

RECORDINGS = ("sop", "offline", "screenspot")
HEADLINE = {"sop": "TSR", "offline": "SR", "screenspot": "accuracy"}


def headline(kind: str) -> str:
    """The name of the success rate of this kind of run."""
    return HEADLINE.get(kind, "success")


def matched(one: Facts) -> int:
    """Turns before the first one that does not agree."""
    exact = [turn.verdict is not None and turn.verdict.exact for turn in one.turns]
    return exact.index(False) if False in exact else len(exact)


def success(kind: str, one: Facts) -> bool | None:
    """Along a recording what the verdicts say, live what the check found. None, unscored: after a crash, where nothing was
    checked, and where a person took part."""
    if one.ended == "crashed" or one.helped:
        return None
    if kind in RECORDINGS:
        return matched(one) == (one.steps if kind == "sop" else 1)
    return one.success


def contradiction(kind: str, one: Facts, loose: bool = False) -> str | None:
    """What in an attempt contradicts its outcome or the kind of its run; None when nothing does. loose: whether the rules of
    the run are, which read answers that hold no action."""
    crashed, judged = one.ended == "crashed", [turn.verdict is not None for turn in one.turns]
    if kind in RECORDINGS:
        if one.success is not None:
            return f"success is {one.success}; along a recording only the verdicts say, here {success(kind, one)}"
        if not crashed and not (judged and all(judged)):
            return "an attempt at a recording has a verdict on every turn"
        if kind == "sop" and (one.steps is None or len(judged) > one.steps):
            return f"{len(judged)} turns along a recording of {one.steps} steps"
        if kind != "sop" and not crashed and len(judged) != 1:
            return f"{len(judged)} turns, a single step has one"
        return _impossible(one, loose)
    if any(judged):
        return "a turn has a verdict; that of a live attempt has none"
    used = kind == "run"
    if (one.success is None) != crashed and not (used and not crashed):
        return "the outcome is null exactly after a crash"
    if one.helped and not used:
        return "a person took part; an evaluation is the agent's alone"
    if one.success and one.ended != "finished" and one.checked_by != "person":
        return f"success is true, but it ended with {one.ended}"
    return None


def _impossible(one: Facts, loose: bool) -> str | None:
    """The first verdict that no rules give."""
    for index, turn in enumerate(one.turns, one.start or 0):
        if (verdict := turn.verdict) is None:
            continue
        if verdict.exact and not verdict.type_ok:
            return f"turn {index} is exact without type_ok; what agrees has the right type"
        if verdict.type_ok and not verdict.readable:
            return f"turn {index} has type_ok without readable; only what is read has a type"
        if verdict.readable and not turn.acted and not loose:
            return f"turn {index} is readable with action null; only loose rules read an answer without an action"
    return None


_RULES = TypeAdapter(MatchRules)


def match_rules(kind: str, content: Mapping[str, Any] | None) -> MatchRules | None:
    """The rules of a run along recordings, None of a live one. Raises ValueError for what are no rules."""
    if kind not in RECORDINGS:
        if content is not None:
            raise ValueError("a live run is not matched with rules, expected null")
        return None
    if content is None:
        raise ValueError("null, expected the match rules of the run")
    if unknown := set(content) - {field.name for field in fields(MatchRules)}:
        raise ValueError(f"match rules have no {min(unknown)[:80]!r}")
    try:
        return _RULES.validate_json(canonical(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}, got {str(first['input'])[:80]!r}") from None


def numbers(kind: str, rows: Sequence[Facts], rules: MatchRules | None) -> dict[str, Any]:
    """{name of the success rate, intervals, n, unscored, with_crashes_as_failures, tasks, trials, ...}; rates are
    fractions of 1. Crashed attempts are left out of the headline and counted as failures beside it."""
    known = [(row, success(kind, row)) for row in rows]
    scored = [(row, right) for row, right in known if right is not None]
    values = [(row.task, float(right)) for row, right in scored]
    templates = {row.task: row.group for row, _ in scored if row.group is not None and kind not in RECORDINGS}
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
        typed = [(row.unit, float(_verdict(row, "type_ok"))) for row, _ in scored]
        result["interval"] = list(over_tasks([(row.unit, float(right)) for row, right in scored], {}))
        result |= {"TM": fmean(v for _, v in typed) if typed else None, "TM_interval": list(over_tasks(typed, {}))}
    if kind not in RECORDINGS:
        result |= _live(scored) | rates([End(row.ended, ok, row.progress, row.dirty) for row, ok in scored])
    groups: dict[str, list[float]] = defaultdict(list)
    for row, right in scored:
        if row.group is not None:
            groups[row.group].append(float(right))
    if groups:
        result["by_group"] = {g: {name: fmean(v), "n": len(v)} for g, v in sorted(groups.items())}
    tokens = [turn.tokens for row in rows for turn in row.turns]
    return result | {
        "turns": len(tokens),
        "tokens": sum(t for t in tokens if t is not None) if any(t is not None for t in tokens) else None,
    }


def _sop(rows: Sequence[Facts], rules: MatchRules) -> dict[str, Any]:
    walks = []
    for row in rows:
        done, wiped = agreed((turn.verdict for turn in row.turns), rules)
        walks.append(Scored(row.unit, row.steps or 1, done, row.ended == "crashed", wiped))
    found = score(walks, rules)
    return {key: found[key] for key in ("PG", "TSR", "Score")} | {
        f"{key}_interval": list(found["intervals"][key]) for key in ("PG", "Score")
    }


def _live(scored: Sequence[tuple[Facts, bool]]) -> dict[str, Any]:
    """Macro mean over tasks, pass@k without bias (1 - C(n-c, k) / C(n, k), mean over tasks), flip rate."""
    if not scored:
        return {"mean_over_tasks": None, "pass_at": {}, "flip_rate": None}
    by_task: dict[str, list[bool]] = defaultdict(list)
    for row, right in scored:
        by_task[row.task].append(right)
    most = min(map(len, by_task.values()))
    failing = [_all_fail(len(trials), sum(trials), most) for trials in by_task.values()]
    repeated = [trials for trials in by_task.values() if len(trials) > 1]
    return {
        "mean_over_tasks": fmean(fmean(trials) for trials in by_task.values()),
        "pass_at": {str(k): fmean(1 - task[k - 1] for task in failing) for k in range(1, most + 1)},
        "flip_rate": fmean(len(set(trials)) > 1 for trials in repeated) if repeated else None,
    }


def _all_fail(n: int, right: int, most: int) -> list[float]:
    """C(n - c, k) / C(n, k) for k from 1 to `most`: that k of n attempts, c of them right, all fail."""
    shares, share = [], 1.0
    for i in range(most):
        share *= max(0, n - right - i) / (n - i)
        shares.append(share)
    return shares


def _verdict(row: Facts, name: str) -> bool:
    return bool(row.turns and row.turns[0].verdict is not None and getattr(row.turns[0].verdict, name))
