"""The divergence atlas: every place where policy and expert part, counted. Pure functions over entries."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from guiderail.launch.report.entries import Entry, matched, turns_of

LINKS = 5
LAST = 12  # steps from this one on share a column


def template_steps(entries: list[Entry]) -> dict[str, Any]:
    """{columns, rows: [{template, cells: [{n, exact, link} | None], n, exact}]}: how often turns agree, by template and step;
    the worst templates first."""
    cells: dict[tuple[str, int], list[Any]] = defaultdict(lambda: [0, 0, None])
    for entry, rollout, turn, _ in turns_of(entries):
        cell = cells[entry["template"], min(turn["t"], LAST)]
        cell[0] += 1
        cell[1] += turn["outcome"] == "e"
        if cell[2] is None and turn["outcome"] != "e":
            cell[2] = link(entry, rollout, turn)
    columns = range(max((t for _, t in cells), default=-1) + 1)
    rows = []
    for template in {name for name, _ in cells}:
        found = [cells.get((template, t)) for t in columns]
        known = [cell for cell in found if cell]
        rows.append(
            {
                "template": template,
                "cells": [cell and {"n": cell[0], "exact": cell[1], "link": cell[2]} for cell in found],
                "n": sum(cell[0] for cell in known),
                "exact": sum(cell[1] for cell in known),
            }
        )
    rows.sort(key=lambda row: (row["exact"] / row["n"], row["template"]))
    return {"columns": [f"{t}+" if t == LAST else str(t) for t in columns], "rows": rows}


def confusion(entries: list[Entry]) -> dict[str, Any]:
    """{columns, rows: [{expert, cells: [{n, exact, share, link}], n}]}: what the expert did against what the policy said."""
    counts: dict[tuple[str, str], list[Any]] = defaultdict(lambda: [0, 0, None])
    for entry, rollout, turn, step in turns_of(entries):
        if "expert" not in step:
            continue
        cell = counts[step["expert"]["name"], said(turn)]
        cell[0] += 1
        cell[1] += turn["outcome"] == "e"
        if cell[2] is None or turn["outcome"] != "e":
            cell[2] = cell[2] or link(entry, rollout, turn)
    totals: Counter[str] = Counter()
    for (expert, _), cell in counts.items():
        totals[expert] += cell[0]
    experts = [name for name, _ in totals.most_common()]
    others = sorted({name for _, name in counts} - {*experts, "unreadable"})
    columns = [*experts, *others, "unreadable"]
    rows = []
    for expert in experts:
        row = []
        for name in columns:
            n, exact, where = counts.get((expert, name), (0, 0, None))
            row.append({"n": n, "exact": exact, "share": n / totals[expert], "link": where, "same": name == expert})
        rows.append({"expert": expert, "cells": row, "n": totals[expert]})
    return {"columns": columns, "rows": rows}


def first_divergence(entries: list[Entry]) -> dict[str, Any]:
    """{bars: [{label, n, share}], never, walks}: at which step walks first leave the expert's path. A walk
    that crashed on the path is none: nobody knows where it would have left."""
    counts: Counter[int] = Counter()
    never = walks = 0
    for entry in entries:
        for rollout in () if entry["live"] else entry["rollouts"]:
            at = matched(rollout)
            if at is None and rollout["ended"] == "crashed":
                continue
            walks += 1
            if at is None:
                never += 1
            else:
                counts[min(at, LAST)] += 1
    bars = [
        {"label": f"{t}+" if t == LAST else str(t), "n": counts[t], "share": counts[t] / max(1, walks)}
        for t in range(max(counts, default=-1) + 1)
    ]
    return {"bars": bars, "never": never, "walks": walks}


def clusters(entries: list[Entry], most: int = 30) -> list[dict[str, Any]]:
    """Like failures, most frequent first: {expert, said, gist, n, share, example, links}. Alike are those of one expert
    action, one kind of answer and one reason, numbers and quoted words aside."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    total = 0
    for entry, rollout, turn, step in turns_of(entries):
        if turn["outcome"] == "e":
            continue
        total += 1
        expert = step["expert"]["name"] if "expert" in step else "unknown"
        name = (expert, said(turn), gist(turn["why"]))
        group = groups.setdefault(name, {"n": 0, "example": turn["why"], "links": [], "seen": set()})
        group["n"] += 1
        if len(group["links"]) < LINKS and entry["key"] not in group["seen"]:
            group["seen"].add(entry["key"])
            group["links"].append(link(entry, rollout, turn))
    found = sorted(groups.items(), key=lambda item: -item[1]["n"])[:most]
    return [
        {"expert": expert, "said": name, "gist": words, "share": group["n"] / total}
        | {key: group[key] for key in ("n", "example", "links")}
        for (expert, name, words), group in found
    ]


def gist(why: str) -> str:
    """A reason without what is particular to one step: numbers, quoted words, positions."""
    text = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "…", why)
    text = re.sub(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", "#", text)
    return re.sub(r"\s+", " ", text).strip()[:160]


def screens(entries: list[Entry], most: int = 12) -> list[dict[str, Any]]:
    """The screens on which most turns diverge: {image, w, h, n, visits, points, boxes, expert, links}. points: where the
    policy put its finger when it was wrong, at most 200."""
    found: dict[str, dict[str, Any]] = {}
    for entry, rollout, turn, step in turns_of(entries):
        image = step.get("image")
        if image is None:
            continue
        row = found.setdefault(image, {"n": 0, "visits": 0, "points": [], "links": [], "step": step})
        row["visits"] += 1
        if turn["outcome"] == "e":
            continue
        row["n"] += 1
        where = (turn["said"] or {}).get("at")
        if where and len(row["points"]) < 200:
            row["points"].append(where)
        if len(row["links"]) < LINKS:
            row["links"].append(link(entry, rollout, turn))
        row["step"] = step
    worst = sorted(found.items(), key=lambda item: -item[1]["n"])[:most]
    return [
        {"image": image, **{key: row["step"][key] for key in ("w", "h", "expert", "boxes")}}
        | {key: row[key] for key in ("n", "visits", "points", "links")}
        for image, row in worst
        if row["n"]
    ]


def offsets(entries: list[Entry]) -> dict[str, Any]:
    """Clicks against the expert's point: {points: [[dx, dy, exact]], n, dx, dy, scale, words}. scale: [x, y], the factor
    that the policy's coordinates seem to be off by when they are proportional to the expert's (a wrong idea of the screen's
    size), None otherwise."""
    pairs = []
    for _, _, turn, step in turns_of(entries):
        there, here = (step.get("expert") or {}).get("at"), (turn["said"] or {}).get("at")
        if there and here and step["expert"]["name"] == turn["said"]["name"] != "swipe":
            pairs.append((here, there, turn["outcome"] == "e"))
    points = [[round(h[0] - e[0], 4), round(h[1] - e[1], 4), exact] for h, e, exact in pairs]
    if not points:
        return {"points": [], "n": 0, "words": "no click of either to compare"}
    dx, dy = median(p[0] for p in points), median(p[1] for p in points)
    scale = [_scale([(h[axis], e[axis]) for h, e, _ in pairs]) for axis in (0, 1)]
    sides = [_aside(dx, "right of", "left of"), _aside(dy, "below", "above")]
    words = f"the median click lands {' and '.join(filter(None, sides)) or 'on'} the expert's point"
    suspicious = [f"{name} by {s:.2f}" for name, s in zip(("x", "y"), scale, strict=True) if s and abs(s - 1) > 0.08]
    if suspicious:
        words += f"; coordinates look scaled ({', '.join(suspicious)}): is the answer in pixels of another size?"
    thin = max(1, len(points) // 1500)
    return {"points": points[::thin], "n": len(points), "dx": dx, "dy": dy, "scale": scale, "words": words}


def _aside(value: float, more: str, less: str) -> str:
    return f"{100 * abs(value):.1f} % of the screen {more if value > 0 else less}" if abs(value) >= 0.005 else ""


def _scale(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Slope through the origin, when the fit is tight enough (r > 0.95) to speak of a factor."""
    if len(pairs) < 10:
        return None
    ours, theirs = [p[0] for p in pairs], [p[1] for p in pairs]
    a, b = fmean(ours), fmean(theirs)
    covariance = sum((x - a) * (y - b) for x, y in pairs)
    spread = (sum((x - a) ** 2 for x in ours) * sum((y - b) ** 2 for y in theirs)) ** 0.5
    squares = sum(y * y for y in theirs)
    if spread == 0 or squares == 0 or covariance / spread < 0.95:
        return None
    return sum(x * y for x, y in pairs) / squares


def said(turn: dict[str, Any]) -> str:
    return turn["said"]["name"] if turn["said"] and turn["outcome"] != "u" else "unreadable"


def link(entry: Entry, rollout: dict[str, Any], turn: dict[str, Any]) -> tuple[str, int, int]:
    """What a deep link into the viewer names."""
    return entry["key"], rollout["sample"], turn["t"]
