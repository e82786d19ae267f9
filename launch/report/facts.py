"""What a run says about itself, in words: model, data, rules, seeds, versions, configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from launch.report.runs import Run

KINDS = {
    "train": "Training",
    "sop": "Semi-online performance (SOP)",
    "offline": "Single steps under the expert's history",
    "pocket": "Live on simulated phones",
    "screenspot": "ScreenSpot",
    "rejudge": "Judged again",
    "gate": "Oracle gate and blind probes",
}


def lead(run: Run) -> str:
    """One sentence about the run."""
    record = run.record
    method = (record.get("config") or {}).get("method") or {}
    kind = f"{method.get('algorithm', '')} training".strip() if run.kind == "train" else KINDS.get(run.kind, run.kind)
    parts = [kind[:1].upper() + kind[1:]]
    if model(run):
        parts.append(f"of {model(run)}" if run.kind != "train" else f"from {model(run)}")
    if (record.get("data") or {}).get("path"):
        parts.append(f"on {record['data']['path']}")
    ending = "under way" if run.metrics is None else "finished"
    return f"{' '.join(parts)}; started {when(record)}, {ending}."


def when(record: Mapping[str, Any]) -> str:
    """2026-11-22 14:06 UTC, from run.json's 2026-11-22T14:06:26Z."""
    text = str(record.get("started", "at an unknown time"))
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith("Z") and len(text) == 20 else text


def model(run: Run) -> str:
    """What acted, or what training started from."""
    config = run.record.get("config") or {}
    return str(run.record.get("model") or (config.get("model") or {}).get("path") or run.record.get("of") or "")


def facts(run: Run, recording: str) -> list[tuple[str, str]]:
    """The few that everybody asks for. recording: where the expert's side came from."""
    record, metrics = run.record, run.metrics or {}
    data, rules = record.get("data") or {}, record.get("rules") or {}
    method = (record.get("config") or {}).get("method") or {}
    named = (
        rules.get("name")
        if isinstance(rules, Mapping)
        else ", ".join(map(str, rules))
        if isinstance(rules, list)
        else rules
    )
    rows = [
        ("command", " ".join(["guiderail", *map(str, record.get("command", []))])),
        ("model", model(run)),
        ("rules", named or method.get("rules")),
        ("recording", data.get("path") and recording),
        ("its SHA-256", data.get("digest")),
        ("seed", record.get("seed", (record.get("config") or {}).get("training", {}).get("seed"))),
        ("temperature", record.get("temperature", method.get("temperature"))),
        ("commit", (record.get("versions") or {}).get("commit")),
        ("scored", metrics.get("n")),
        ("unscored", metrics.get("unscored")),
        ("model written to", metrics.get("model")),
        ("run folder", run.folder),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "", [])]


def more_facts(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything the run folder says, by heading."""
    record = run.record
    rest = {key: value for key, value in record.items() if key not in ("config", "versions", "rules", "command")}
    return [
        ("Configuration", flat(record.get("config") or {})),
        ("Rules in full", flat(record["rules"]) if isinstance(record.get("rules"), Mapping) else []),
        ("Versions", flat(record.get("versions") or {})),
        ("Everything else in run.json", flat(rest)),
        ("metrics.json", flat(run.metrics or {})[:200]),
    ]


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    if isinstance(value, Mapping) and value:
        return [row for key, item in value.items() for row in flat(item, f"{name}.{key}" if name else str(key))]
    return [
        (name, "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    ]
