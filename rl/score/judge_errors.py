"""How often a judge is wrong, where the truth is known: agreement, false passes, false fails, and by item of its rubrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from guiderail.envs.aitw.judge import kappa
from guiderail.rl.score.statistics import wilson


@dataclass(frozen=True, slots=True)
class Judged:
    """One attempt. truth: what the exact check of the state found. items: (text, whether the judge found it held): reached, or
    never happened; empty for judges without rubrics."""

    world: str
    group: str
    goal: str
    truth: bool
    verdict: bool
    items: tuple[tuple[str, bool], ...] = ()


def errors(judged: Sequence[Judged]) -> dict[str, Any]:
    """The rates over all attempts, by world, and by group: {..., by_world, by_group, items}."""
    worlds, groups = defaultdict(list), defaultdict(list)
    for one in judged:
        worlds[one.world].append(one)
        groups[f"{one.world}:{one.group}"].append(one)
    return rates(judged) | {
        "by_world": {name: rates(of) for name, of in sorted(worlds.items())},
        "by_group": {name: rates(of) for name, of in sorted(groups.items())},
        "items": items(judged),
    }


def rates(judged: Sequence[Judged]) -> dict[str, Any]:
    """n, and of it agreed; false_passes of the `failed`, where only the judge saw success; false_fails of the `succeeded`.
    Each rate is None where nothing could be counted, and has its 95 % Wilson interval. kappa: Cohen's, None where it is not
    defined (without attempts, or with one and the same verdict by both on all of them)."""
    n, right = len(judged), sum(one.truth for one in judged)
    agreed = sum(one.truth == one.verdict for one in judged)
    passes = sum(one.verdict and not one.truth for one in judged)
    fails = sum(one.truth and not one.verdict for one in judged)
    return {
        "n": n,
        "succeeded": right,
        "failed": n - right,
        **_rate("agreement", agreed, n),
        **_rate("false_pass", passes, n - right),
        **_rate("false_fail", fails, right),
        "kappa": kappa([(one.verdict, one.truth) for one in judged]),
    }


def _rate(name: str, count: int, n: int) -> dict[str, Any]:
    return {name: count / n if n else None, f"{name}_count": count, f"{name}_interval": list(wilson(count, n))}


def items(judged: Sequence[Judged]) -> dict[str, Any]:
    """In an attempt that truly succeeded every item holds, so each that the judge did not find held is its mistake: `missed`
    of `n`. worst: items by how often they alone turned a success into a failure. In failed attempts nothing tells which item
    truly failed; `all_held` of `failed` are the false passes."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in judged:
        if not one.truth:
            continue
        unseen = [text for text, held in one.items if not held]
        for text, held in one.items:
            row = counts[one.goal, text]
            row[0] += 1
            row[1] += not held
            row[2] += unseen == [text]
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1][2], -entry[1][1]))
    worst = [
        {"goal": goal, "item": text, "n": n, "missed": missed, "alone": alone}
        for (goal, text), (n, missed, alone) in ranked
        if missed
    ]
    wrong = [one for one in judged if not one.truth and one.items]
    total, missed = (sum(row[k] for row in counts.values()) for k in (0, 1))
    return {
        "n": total,
        **_rate("missed", missed, total),
        "worst": worst[:20],
        "failed": len(wrong),
        "all_held": sum(all(held for _, held in one.items) for one in wrong),
    }
