"""The overview in numbers and words: headlines, dropped groups, patches, time and tokens by stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from guiderail.launch.report import names
from guiderail.launch.report.entries import Entry
from guiderail.launch.report.runs import Curves, Run
from guiderail.rl.score import floors
from guiderail.rl.score.statistics import clustered, over_tasks, wilson

HEADLINES = ("PG", "TSR", "Score", "TM", "GR", "SR", "success", "accuracy")
REASONS = ("all right", "all wrong", "alike")


def headline(run: Run, entries: list[Entry]) -> list[dict[str, Any]]:
    """[{name, title, value, low, high, words}]: rates with 95 % intervals. Of an unfinished evaluation: over the episodes done so
    far. Of training: over the last generation."""
    metrics = run.metrics or {}
    if run.kind == "gate":
        return _gate(metrics)
    if run.kind == "rejudge":
        rows = metrics.get("profiles", metrics)
        return [
            _rate(f"{key} · {name}", row[key], row["intervals"][key], key)
            for name, row in rows.items()
            for key in ("Score", "SR")
            if isinstance(row, Mapping) and isinstance(row.get(key), int | float)
        ]
    if run.kind == "train":
        return _latest(entries, bool(run.config.get("online", {}).get("expert")))
    rows = []
    for key in HEADLINES:
        interval = (metrics.get("intervals") or {}).get(key, metrics.get("interval"))
        if isinstance(metrics.get(key), int | float) and interval is not None:
            rows.append(_rate(key, metrics[key], interval, key))
    return (rows or _so_far(run.kind, entries)) + _floor(run)


def _floor(run: Run) -> list[dict[str, Any]]:
    """What agents that do not look score in the same live world, where that is known."""
    if run.record.about.model in floors.WORDS:
        return []
    found = {f"success of {words}": row for words, row in floors.rows(run.record.about.world).items()}
    return [_rate(name, row["success"], row["interval"], name) for name, row in found.items()]


def _rate(name: str, value: float, interval: Sequence[float], key: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "value": float(value),
        "low": float(interval[0]),
        "high": float(interval[1]),
        "title": names.title(name),
        "words": names.words(key),
    }


def _gate(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    oracle = metrics.get("oracle", {})
    n, exact = int(oracle.get("steps", 0)), int(oracle.get("exact", 0))
    rows = [_rate("The expert against itself", exact / n, wilson(exact, n))] if n else []
    return rows + [
        {
            "name": f"probe: {name}",
            "title": f"Probe: {name.replace('_', ' ')}",
            "words": "PG of an agent that does not look.",
        }
        | dict.fromkeys(("value", "low", "high"), row["PG"])
        for name, row in metrics.get("probes", {}).items()
    ]


def _latest(entries: list[Entry], expert: bool) -> list[dict[str, Any]]:
    """Exact turns, rollouts right at every step and live success, of the last generation's groups. expert: whether live turns
    were compared with an expert; where not, nothing says that they disagree."""
    last = max((entry["generation"] for entry in entries if entry["generation"] is not None), default=None)
    recent = [entry for entry in entries if entry["generation"] == last] if last is not None else []
    judged = [entry for entry in recent if expert or not entry["live"]]
    turns = [(e["key"], float(t["outcome"] == "e")) for e in judged for r in e["rollouts"] for t in r["turns"]]
    whole = [
        (e["key"], float(all(t["outcome"] == "e" for t in r["turns"])))
        for e in judged
        for r in e["rollouts"]
        if r["turns"]
    ]
    scored = [
        (e["key"], float(r["success"])) for e in recent if e["live"] for r in e["rollouts"] if r["success"] is not None
    ]
    rows = (
        [
            _mean(f"Turns that agree with the expert, generation {last}", turns, "rollout/exact"),
            _mean(f"Rollouts right to the end, generation {last}", whole, "rollout/finished"),
        ]
        if turns and whole
        else []
    )
    return rows + ([_attempts(f"Live success, generation {last}", scored, "rollout/success")] if scored else [])


def learned(entries: list[Entry]) -> dict[str, str] | None:
    """{words, cls}: how the agreement with the expert changed from the first generation to the last; None for fewer than two
    generations of recordings."""
    numbers = sorted({e["generation"] for e in entries if e["generation"] is not None and not e["live"]})
    if len(numbers) < 2:
        return None
    first, last = (
        [
            (e["key"], float(t["outcome"] == "e"))
            for e in entries
            if e["generation"] == number
            for r in e["rollouts"]
            for t in r["turns"]
        ]
        for number in (numbers[0], numbers[-1])
    )
    if not first or not last:
        return None
    old, new = _mean("", first, ""), _mean("", last, "")
    apart = old["high"] < new["low"] or new["high"] < old["low"]
    cls = ("better" if new["value"] > old["value"] else "worse") if apart else "same"
    rates = [f"{100 * row['value']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" for row in (old, new)]
    words = f"Turns that agree with the expert: {rates[0]} in generation {numbers[0]}, {rates[1]} in generation {numbers[-1]}"
    return {"words": f"{words}. Each generation samples other recordings.", "cls": cls}


def _so_far(kind: str, entries: list[Entry]) -> list[dict[str, Any]]:
    if kind in ("sop", "offline", "screenspot"):
        turns = [(e["key"], float(t["outcome"] == "e")) for e in entries for r in e["rollouts"] for t in r["turns"]]
        return [_mean("Turns that agree so far", turns, "rollout/exact")] if turns else []
    scored = [(e["key"], float(r["success"])) for e in entries for r in e["rollouts"] if r["success"] is not None]
    return [_attempts("Live success so far", scored, "success")] if scored else []


def _attempts(name: str, values: Sequence[tuple[str, float]], key: str = "") -> dict[str, Any]:
    """Of (task, success): attempts at one task are not independent, the interval is over tasks."""
    return _rate(name, fmean(value for _, value in values), over_tasks(values, {}), key)


def _mean(name: str, values: Sequence[tuple[str, float]], key: str) -> dict[str, Any]:
    return _rate(name, fmean(value for _, value in values), clustered(values, resamples=500), key)


def groups(entries: list[Entry]) -> dict[str, Any] | None:
    """{n, kept, shares, words, generations: [{generation, n, kept, all right, all wrong, alike}]}; None without groups."""
    signals = [(entry["generation"], entry["signal"]) for entry in entries if entry["signal"] is not None]
    if not signals:
        return None
    counts = Counter(signal for _, signal in signals)
    n = len(signals)
    dropped = n - counts["kept"]
    parts = [f"{100 * counts[reason] / n:.0f} % {reason}" for reason in REASONS if counts[reason]]
    words = f"{100 * dropped / n:.0f} % of {n} groups carry no signal" + (f": {', '.join(parts)}" if parts else "")
    if not counts["kept"]:
        words = f"nothing was learned: {words}"
    by_generation: dict[int, Counter[str]] = {}
    for generation, signal in signals:
        by_generation.setdefault(int(generation or 0), Counter())[signal] += 1
    rows = [
        {"generation": g, "n": sum(c.values()), **{name: c[name] for name in ("kept", *REASONS)}}
        for g, c in sorted(by_generation.items())
    ]
    return {"n": n, "kept": counts["kept"], "words": words, "generations": rows, "counts": dict(counts)}


def patches(entries: list[Entry]) -> list[dict[str, Any]]:
    """[{strategy, n, share, goes_on}]: repaired turns, their share of all turns, and how often the next turn agreed."""
    counts: Counter[str] = Counter()
    after: dict[str, list[bool]] = {}
    turns_total = 0
    for entry in entries:
        for rollout in entry["rollouts"]:
            turns = rollout["turns"]
            turns_total += len(turns)
            for turn, following in zip(turns, [*turns[1:], None], strict=True):
                if "repair" in turn:
                    counts[turn["repair"]["strategy"]] += 1
                    if following is not None:
                        after.setdefault(turn["repair"]["strategy"], []).append(following["outcome"] == "e")
    return [
        {
            "strategy": name,
            "n": n,
            "share": n / max(1, turns_total),
            "goes_on": fmean(after[name]) if after.get(name) else None,
        }
        for name, n in counts.most_common()
    ]


def stages(run: Run, entries: list[Entry], curves: Curves) -> list[dict[str, Any]]:
    """[{stage, seconds, tokens, turns}], as far as the run recorded them."""
    turns = sum(len(rollout["turns"]) for entry in entries for rollout in entry["rollouts"])
    tokens = sum(turn["tokens"] for entry in entries for rollout in entry["rollouts"] for turn in rollout["turns"])
    if run.kind != "train":
        return [{"stage": "answering", "seconds": None, "tokens": tokens or None, "turns": turns}] if turns else []
    speeds, counts = dict(curves.get("rollout/turns_per_second", [])), dict(curves.get("rollout/turns", []))
    sampling = sum(counts[step] / speed for step, speed in speeds.items() if speed > 0 and step in counts)
    updating = sum(value for _, value in curves.get("step_time", []))
    total = (run.metrics or {}).get("seconds")
    rows = []
    if sampling:
        rows.append({"stage": "sampling rollouts", "seconds": sampling, "tokens": tokens, "turns": turns})
    if updating:
        trained = sum(value for _, value in curves.get("update/tokens", []))
        samples = sum(value for _, value in curves.get("update/samples", []))
        rows.append(
            {"stage": "updating weights", "seconds": max(0.0, updating - sampling), "tokens": trained, "turns": samples}
        )
    if total is not None:
        seen = curves.get("num_tokens", [])
        rest = float(total) - updating
        read = seen[-1][1] if seen and not updating else None
        rows.append({"stage": "loading, saving, the rest" if updating else "training", "seconds": rest, "tokens": read})
        rows.append({"stage": "in all", "seconds": float(total), "tokens": None, "turns": None})
    return [{"turns": None} | row for row in rows]


def by_template(entries: list[Entry]) -> list[dict[str, Any]]:
    """[{name, value, low, high, n}]: rollouts right at every step (live: tasks done), by template, the worst first. Those that a
    machine crashed are left out."""
    outcomes: dict[str, list[tuple[str, float]]] = {}
    for entry in entries:
        for rollout in entry["rollouts"]:
            if rollout["ended"] == "crashed":
                continue
            if entry["live"]:
                if rollout["success"] is None:
                    continue
                right = bool(rollout["success"])
            else:
                right = rollout["ended"] == "finished" and all(t["outcome"] == "e" for t in rollout["turns"])
            outcomes.setdefault(entry["template"], []).append((entry["key"], float(right)))
    rows = [_attempts(name, values) | {"n": len(values)} for name, values in outcomes.items()]
    return sorted(rows, key=lambda row: (row["value"], row["name"]))
