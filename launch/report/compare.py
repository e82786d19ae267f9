"""Before and after: two runs of the same kind on the same tasks, compared task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from guiderail.launch import show
from guiderail.launch.report.entries import Entry, matched, turns_of
from guiderail.launch.report.runs import Run
from guiderail.launch.report.tasks import tasks_of
from guiderail.rl.score.statistics import Interval, paired_difference, paired_p

SHOWN = 50
MOST_PAIRS = 12
Outcomes = dict[str, dict[str, Any]]
Pairs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def comparable(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """Pairs (before, after) of evaluations of the same kind, tasks, rules and temperature. Runs on different numbers of the
    same tasks pair up.

    A model comes after the one it was trained from; otherwise the older run comes first. Where the pairs would be too many,
    every run is paired with the first of its kind only."""
    by_what: dict[str, list[int]] = {}
    trained = {run.folder.resolve(): run for run in runs if run.kind == "train"}
    for i, run in sorted(enumerate(runs), key=lambda pair: _trainings(pair[1], dict(trained))):
        if run.kind not in ("train", "gate", "rejudge") and run.metrics is not None:
            about = run.record.about
            data = about.data.digest if about.data else [sorted(tasks_of(about.world or {}).items()), about.seed]
            rules = (about.rules or {}).get("name")
            by_what.setdefault(repr((run.kind, rules, about.temperature, data)), []).append(i)
    pairs: list[tuple[int, int]] = []
    for members in by_what.values():
        every = list(combinations(members, 2))
        pairs += every if len(every) <= MOST_PAIRS else [(members[0], other) for other in members[1:]]
    return pairs


def _trainings(run: Run, trained: dict[Path, Run]) -> int:
    """How many of these training runs, in a chain, led to the model that this run evaluates. Removes them from `trained`."""
    model, found = run.record.about.model, 0
    while model is not None and (source := trained.pop(Path(model).parent.resolve(), None)):
        model, found = source.config["model"]["path"], found + 1
    return found


def compare(before: tuple[Run, list[Entry]], after: tuple[Run, list[Entry]]) -> dict[str, Any]:
    """{sentence, cls, words, counts, templates, broken, mended}; sentence: None where nothing was scored in both. What is right or wrong: a whole rollout; offline, a step; live, a scored task."""
    run, entries = before
    old, new = outcomes(run.kind, entries), outcomes(run.kind, after[1])
    both = [name for name in old if name in new]
    pairs = [(old[name], new[name]) for name in both]
    metrics = {"sop": ("PG", "TSR"), "offline": ("TM", "SR")}.get(run.kind, ("success",))
    words = [change(metric, pairs) for metric in metrics] if pairs else ["no task was scored in both"]
    if len(both) < len(old | new):
        words.append(f"{_left_out(run.kind, old, new)} were scored in only one of the two and are left out")
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
    found = measured(whole, pairs) if pairs else None
    sentence = found and said(run.name, after[0].name, found)
    cls = ("better" if found.new > found.old else "worse") if found and found.apart else "same"
    return {
        "sentence": sentence,
        "cls": cls,
        "words": words,
        "counts": counts,
        "templates": _templates(pairs, whole),
        **lists,
    }


def _left_out(kind: str, old: Outcomes, new: Outcomes) -> str:
    """How many have an outcome in only one of the two, and of what."""
    every, lost = old | new, old.keys() ^ new.keys()
    if kind == "offline":
        return f"{len(lost)} steps"
    repeated = len({row["key"] for row in every.values()}) < len(every)
    tasks = f"{len({every[name]['key'] for name in lost})} tasks"
    return f"{len(lost)} attempts at {tasks}" if repeated else tasks


def outcomes(kind: str, entries: list[Entry]) -> Outcomes:
    """What was right or wrong, by attempt; offline, by step. key: the task or the episode."""
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
            asked = [t for t, step in enumerate(entry["steps"]) if not step.get("history")]
            steps = max(1, len(asked))
            reached = steps if at is None else sum(t < at for t in asked)
            words = "right to the end" if at is None else f"step {at}: {rollout['turns'][-1]['why']}"
            right = {"PG": reached / steps, "TSR": float(at is None), "success": float(at is None)}
            found[entry["key"]] = about | where | right | {"words": words}
    return found


@dataclass(frozen=True, slots=True)
class Change:
    """One metric before and after, over the same n tasks; of a metric of steps, n steps. p: of McNemar's test, None for what is
    not yes or no, and where a task was attempted several times. apart: whether the difference is more than chance."""

    metric: str
    old: float
    new: float
    interval: Interval
    p: float | None
    apart: bool
    n: int


def change(metric: str, pairs: Pairs) -> str:
    """From (before, after) of each task, both with its `key` and the metric: "TSR 12.0 % → 15.0 %: +3.0 points [-1.0, +7.0],
    p = 0.2; not distinguishable on 40"."""
    found = measured(metric, pairs)
    text = f"{metric} {100 * found.old:.1f} % → {100 * found.new:.1f} %: "
    text += show.points(found.new - found.old, found.interval, found.p)
    verdict = ("better" if found.new > found.old else "worse") if found.apart else "not distinguishable"
    return f"{text}; {verdict} on {found.n}"


def said(before: str, after: str, found: Change) -> str:
    """The change as a sentence that names both runs: "rl is 7.1 points [4.2, 10.1] ahead of start in live success: 50.2 %
    against 43.1 % of the same 900 tasks (p = 2.4e-06)."."""
    by, (low, high) = found.new - found.old, found.interval
    name = {"success": "live success", "SR": "right single steps (SR)", "TSR": "episodes right to the end (TSR)"}.get(
        found.metric, found.metric
    )
    what = "steps" if found.metric in ("SR", "TM") else "tasks" if found.metric == "success" else "episodes"
    rates = f"{100 * found.new:.1f}\u00a0% against {100 * found.old:.1f}\u00a0% on the same {found.n}\u00a0{what}"
    rates += "" if found.p is None else f" (p\u00a0=\u00a0{found.p:.2g})"
    if not found.apart:
        points = f"{100 * by:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        return f"{after} and {before} cannot be told apart in {name}: {points}, {rates}."
    ends = sorted(100 * abs(end) if low * high > 0 else 100 * end * (1 if by > 0 else -1) for end in (low, high))
    points = f"{100 * abs(by):.1f} points [{ends[0]:.1f}, {ends[1]:.1f}]"
    return f"{after} is {points} {'ahead of' if by > 0 else 'behind'} {before} in {name}: {rates}."


def measured(metric: str, pairs: Pairs) -> Change:
    """The order of the pairs does not matter: they are resampled in the order of keys. Pairs of one key stay together."""
    pairs = sorted(pairs, key=lambda pair: pair[0]["key"])
    old, new = fmean(a[metric] for a, _ in pairs), fmean(b[metric] for _, b in pairs)
    values = [(a["key"], b[metric], a[metric]) for a, b in pairs]
    interval = paired_difference(values)
    p = paired_p(values) if metric in ("TSR", "success") else None
    apart = p < 0.05 if p is not None else not interval[0] <= 0 <= interval[1]
    n = len(pairs) if metric in ("SR", "TM") else len({key for key, _, _ in values})
    return Change(metric, old, new, interval, p, apart, n)


def _templates(pairs: Pairs, metric: str) -> list[dict[str, Any]]:
    by_name: dict[str, list[tuple[float, float]]] = {}
    for a, b in pairs:
        by_name.setdefault(a["template"], []).append((a[metric], b[metric]))
    rows = [
        {"name": name, "n": len(v), "before": fmean(a for a, _ in v), "after": fmean(b for _, b in v)}
        for name, v in by_name.items()
    ]
    return sorted(rows, key=lambda row: (row["after"] - row["before"], row["name"]))


def early_late(entries: list[Entry]) -> list[dict[str, Any]]:
    """[{name, before, after}]: share of exact turns by the expert's action, in the first and in the last third of a training
    run's generations. Empty with fewer than three generations."""
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
