"""What a run says about itself, in words: model, data, rules, seeds, versions, configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from guiderail.launch.report.runs import Run
from guiderail.rl.runs.record import RunRecord

KINDS = {
    "train": "Training",
    "sop": "Semi-online performance (SOP)",
    "offline": "Single steps under the expert's history",
    "pocket": "Live on simulated phones",
    "world": "Live in a world of the user's own",
    "run": "Used",
    "screenspot": "ScreenSpot",
    "rejudge": "Judged again",
    "gate": "Oracle gate and blind probes",
}


def lead(run: Run) -> str:
    """One sentence about the run."""
    method, data = run.config.get("method", {}), run.record.about.data
    kind = f"{method.get('algorithm', '')} training".strip() if run.kind == "train" else KINDS.get(run.kind, run.kind)
    parts = [kind[:1].upper() + kind[1:]]
    if model(run):
        parts.append(f"of {model(run)}" if run.kind != "train" else f"from {model(run)}")
    if data is not None:
        parts.append(f"on {data.path}")
    ending = "under way" if run.metrics is None else "finished"
    return f"{' '.join(parts)}; started {when(run.record)}, {ending}."


def when(record: RunRecord) -> str:
    """2026-11-22 14:06 UTC, from run.json's 2026-11-22T14:06:26Z."""
    text = record.started or "at an unknown time"
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith("Z") and len(text) == 20 else text


def model(run: Run) -> str:
    """What acted, or what training started from."""
    about = run.record.about
    return str(about.model or run.config.get("model", {}).get("path") or about.of or "")


def facts(run: Run, recording: str) -> list[tuple[str, str]]:
    """The few that everybody asks for. recording: where the expert's side came from."""
    about, metrics, method = run.record.about, run.metrics or {}, run.config.get("method", {})
    legs = len(run.record.legs)
    rows = [
        ("command", " ".join(["guiderail", *run.record.legs[-1].command])),
        ("started", f"{legs} times: it was resumed" if legs > 1 else None),
        ("model", model(run)),
        ("rules", (about.rules or {}).get("name") or ", ".join(about.profiles or ()) or method.get("rules")),
        ("recording", recording if about.data else None),
        ("its SHA-256", about.data.digest if about.data else None),
        ("seed", about.seed if about.seed is not None else run.config.get("training", {}).get("seed")),
        ("temperature", about.temperature if about.temperature is not None else method.get("temperature")),
        ("commit", _commits(run.record)),
        ("scored", metrics.get("n")),
        ("unscored", metrics.get("unscored")),
        ("model written to", metrics.get("model")),
        ("run folder", run.folder),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _commits(record: RunRecord) -> str:
    """Of every leg, each once: "abc, def with local changes"."""
    known = [f"{leg.commit} with local changes" if leg.dirty else leg.commit for leg in record.legs if leg.commit]
    return ", ".join(dict.fromkeys(known))


def more_facts(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything the run folder says, by heading."""
    about, last = run.record.about, run.record.legs[-1]
    rest = about.model_dump(mode="json", exclude={"config", "rules"}, exclude_defaults=True)
    legs = [leg.model_dump(mode="json", exclude={"about", "versions"}) for leg in run.record.legs]
    return [
        ("Configuration", flat(run.config) if run.config else []),
        ("Rules in full", flat(about.rules) if about.rules else []),
        ("Versions", flat(last.versions)),
        ("Everything else in run.json", flat({"kind": run.kind, **rest, "legs": dict(enumerate(legs))})),
        ("metrics.json", flat(run.metrics or {})[:200]),
    ]


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    if isinstance(value, Mapping) and value:
        return [row for key, item in value.items() for row in flat(item, f"{name}.{key}" if name else str(key))]
    return [
        (name, "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    ]
