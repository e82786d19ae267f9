"""Before and after: two runs of one kind on the same tasks, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from launch import show
from launch.report.entries import Entry, matched, turns_of
from launch.report.runs import Run
from rl.statistics import mcnemar, paired_difference

SHOWN = 50
MOST_PAIRS = 12
Outcomes = dict[str, dict[str, Any]]


def comparable(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """Pairs (before, after) of evaluations of one kind on the same tasks (the longer run's first, where their number differs),
    rules and temperature. A model comes after the one it was trained from, else the older run comes first; with many runs,
    each against the first of its kind."""
    by_what: dict[str, list[int]] = {}
    trained = {run.folder.resolve(): run for run in runs if run.kind == "train"}
    for i, run in sorted(enumerate(runs), key=lambda pair: _trainings(pair[1], dict(trained))):
        if run.kind not in ("train", "gate", "rejudge") and run.metrics is not None:
            rules = (run.record.get("rules") or {}).get("name")
            data = (run.record.get("data") or {}).get("digest")
            asked = run.record.get("tasks")
            chosen = None if isinstance(asked, int) else asked  # a number of tasks: the first of the same ones
            world = [chosen, *(run.record.get(key) for key in ("world", "split", "size", "style", "seed"))]
            by_what.setdefault(repr((run.kind, rules, run.record.get("temperature"), data or world)), []).append(i)
    pairs: list[tuple[int, int]] = []
    for members in by_what.values():
        every = list(combinations(members, 2))
        pairs += every if len(every) <= MOST_PAIRS else [(members[0], other) for other in members[1:]]
    return pairs


def _trainings(run: Run, trained: dict[Path, Run]) -> int:
    """How many of these runs, one after the other, made the model that this one evaluates. Uses `trained` up."""
    model, found = run.record.get("model"), 0
    while isinstance(model, str) and (source := trained.pop(Path(model).parent.resolve(), None)):
        model, found = source.record["config"]["model"]["path"], found + 1
    return found


def compare(before: tuple[Run, list[Entry]], after: tuple[Run, list[Entry]]) -> dict[str, Any]:
    """{words, counts, templates, broken, mended}. Right is a whole walk (offline: a step; live: a task that was scored)."""
    run, entries = before
    old, new = outcomes(run.kind, entries), outcomes(run.kind, after[1])
    both = [name for name in old if name in new]
    pairs = [(old[name], new[name]) for name in both]
    metrics = {"sop": ("PG", "TSR"), "offline": ("TM", "SR")}.get(run.kind, ("success",))
    words = [change(metric, pairs) for metric in metrics] if pairs else ["no task was scored in both"]
    if len(both) < len(old.keys() | new.keys()):
        words.append(
            f"{len(old.keys() | new.keys()) - len(both)} tasks were scored in one of the two only and are left out"
        )
    whole = metrics[-1]
    counts = {"both": 0, "broken": 0, "mended": 0, "neither": 0}
    names = {(True, True): "both", (True, False): "broken", (False, True): "mended", (False, False): "neither"}
    lists: dict[str, list[dict[str, Any]]] = {"broken": [], "mended": []}
    for a, b in pairs:
        name = names[a[whole] == 1, b[whole] == 1]
        counts[name] += 1
        if name in lists and len(lists[name]) < SHOWN:
            lists[name].append(
                {"goal": a["goal"] or a["key"], "before": a["link"], "after": b["link"]}
                | {"before_words": a["words"], "after_words": b["words"]}
            )
    return {"words": words, "counts": counts, "templates": _templates(pairs, whole), **lists}


def outcomes(kind: str, entries: list[Entry]) -> Outcomes:
    """What was right, by task."""
    found: Outcomes = {}
    for entry in entries:
        for rollout in entry["rollouts"]:
            about = {"goal": entry["goal"], "key": entry["key"], "template": entry["template"]}
            if kind == "offline":
                for turn in rollout["turns"]:
                    right = {"SR": float(turn["outcome"] == "e"), "TM": float(turn["outcome"] in "et")}
                    where = {
                        "link": (entry["key"], rollout["sample"], turn["t"]),
                        "words": turn["why"] or turn["outcome"],
                    }
                    found[f"{entry['key']}/{turn['t']}"] = about | right | where
                continue
            if rollout["ended"] == "crashed" or (entry["live"] and rollout["success"] is None):
                continue
            at = matched(rollout)
            last = rollout["turns"][-1]["t"] if rollout["turns"] else 0
            where = {"link": (entry["key"], rollout["sample"], last if at is None else at)}
            if entry["live"]:
                ended = str(rollout["ended"]).replace("_", " ")
                right = {"success": float(rollout["success"])}
                found[f"{entry['key']}/{rollout['sample']}"] = about | where | right | {"words": ended}
                continue
            steps = max(1, len(entry["steps"]))
            reached = steps if at is None else at
            words = "right to the end" if at is None else f"step {at}: {rollout['turns'][-1]['why']}"
            right = {"PG": reached / steps, "TSR": float(at is None), "success": float(at is None)}
            found[entry["key"]] = about | where | right | {"words": words}
    return found


def change(metric: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """From (before, after) of each task, both with its `key` and the metric: "TSR 12.0 % → 15.0 %: +3.0 points [-1.0, +7.0],
    p = 0.2; not distinguishable on 40". Pairs may come in any order; they are resampled in that of their keys."""
    pairs = sorted(pairs, key=lambda pair: pair[0]["key"])
    old, new = fmean(a[metric] for a, _ in pairs), fmean(b[metric] for _, b in pairs)
    interval = paired_difference([(a["key"], b[metric], a[metric]) for a, b in pairs])
    yes_or_no = metric in ("TSR", "success")
    p = mcnemar([(a[metric] == 1, b[metric] == 1) for a, b in pairs]) if yes_or_no else None
    apart = p < 0.05 if p is not None else not interval[0] <= 0 <= interval[1]
    text = f"{metric} {100 * old:.1f} % → {100 * new:.1f} %: {show.points(new - old, interval, p)}"
    return f"{text}; {('better' if new > old else 'worse') if apart else 'not distinguishable'} on {len(pairs)}"


def _templates(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], metric: str) -> list[dict[str, Any]]:
    by_name: dict[str, list[tuple[float, float]]] = {}
    for a, b in pairs:
        by_name.setdefault(a["template"], []).append((a[metric], b[metric]))
    rows = [
        {"name": name, "n": len(v), "before": fmean(a for a, _ in v), "after": fmean(b for _, b in v)}
        for name, v in by_name.items()
    ]
    return sorted(rows, key=lambda row: (row["after"] - row["before"], row["name"]))


def early_late(entries: list[Entry]) -> list[dict[str, Any]]:
    """[{name, before, after}]: exact turns by the expert's action, first against last third of a training run's
    generations; empty with fewer than three."""
    generations = sorted({entry["generation"] for entry in entries if entry["generation"] is not None})
    third = len(generations) // 3
    if third == 0:
        return []
    early, late = set(generations[:third]), set(generations[-third:])
    counts: dict[str, dict[str, list[bool]]] = {}
    for entry, _, turn, step in turns_of(entries):
        part = "before" if entry["generation"] in early else "after" if entry["generation"] in late else None
        if part and "expert" in step:
            for name in (step["expert"]["name"], "every action"):
                counts.setdefault(name, {"before": [], "after": []})[part].append(turn["outcome"] == "e")
    rows = [
        {"name": name.replace("_", " "), **{part: fmean(values) for part, values in both.items()}}
        for name, both in counts.items()
        if both["before"] and both["after"]
    ]
    return sorted(rows, key=lambda row: (row["name"] == "every action", row["name"]))
