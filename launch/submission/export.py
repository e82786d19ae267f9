"""What each public board asks for, from a verified bundle: its files, and the text to paste.

Formats: AndroidWorld's sheet (a row, posted as an issue), ScreenSpot-Pro (leaderboard JSON by mail), BrowserGym (a JSON
array in a pull request), the hub's evaluation results (YAML in the model's repository), and plain CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import yaml

from agent.errors import SetupError
from launch.submission import scores
from launch.submission.lint import lint, world
from launch.submission.schema import Manifest
from launch.submission.verify import Checked

SHEET = (
    "Rank",
    "Release date",
    "Result source",
    "Model type",
    "Open?",
    "Model size",
    "Model",
    "Screen representation",
    "Success rate (pass@1)",
    "Number of trials",
    "Success rate (pass@k)",
    "Trajectory submissions",
    "Note",
)


def export(checked: Checked, to: str) -> dict[str, str]:
    """File name -> content. Raises SetupError for a board that does not take this kind of result."""
    if checked.manifest is None or checked.problems:
        raise SetupError(f"{checked.path} does not verify; see: guiderail submit verify {checked.path}")
    return EXPORTS[to](checked, checked.manifest)


def _needs(manifest: Manifest, board: str, *kinds: str) -> None:
    if manifest.kind not in kinds and world(manifest) not in kinds:
        raise SetupError(f"{board} takes results on {' or '.join(kinds)}, this is {world(manifest)}; use --to csv")


def _android_world(checked: Checked, manifest: Manifest) -> dict[str, str]:
    _needs(manifest, "AndroidWorld's sheet", "android_world")
    found = manifest.scores
    best = max(found["pass_at"], key=int, default=None)
    row = dict.fromkeys(SHEET, "") | {
        "Release date": str(manifest.provenance.get("started") or "")[:10],
        "Result source": "self-reported, re-computable bundle",
        "Model": manifest.name,
        "Screen representation": "screenshot",
        "Success rate (pass@1)": _percent(found["with_crashes_as_failures"]),
        "Number of trials": str(manifest.trials),
        "Success rate (pass@k)": f"{_percent(found['pass_at'][best])} (k={best})" if best and int(best) > 1 else "",
        "Trajectory submissions": _cell(manifest.declarations.link),
        "Note": _cell(manifest.declarations.notes),
    }
    row = {name: _cell(value) for name, value in row.items()}
    sheet = "\t".join(SHEET) + "\n" + "\t".join(row[name] for name in SHEET) + "\n"
    filled = "".join(f"- {name}: {value or '(please fill in)'}\n" for name, value in row.items() if name != "Rank")
    return {
        "android_world.tsv": sheet,
        "issue.md": f"# Leaderboard entry: {_cell(manifest.name)}\n\n{filled}\n{_evidence(checked)}",
    }


def _screenspot_pro(checked: Checked, manifest: Manifest) -> dict[str, str]:
    _needs(manifest, "ScreenSpot-Pro", "screenspot")
    by_group: dict[str, dict[str, float]] = {}
    hits: dict[str, list[bool]] = {}
    for row in checked.attempts:
        area, _, kind = (row.group or "").rpartition(" ")
        for name, column in ((area, kind), (area, "avg"), ("", kind), ("", "avg")):
            hits.setdefault(f"{name}\x1f{column}", []).append(bool(row.success))
    for key, values in sorted(hits.items()):
        name, column = key.split("\x1f")
        by_group.setdefault(name, {})[column] = round(100 * sum(values) / len(values), 1)
    overall = by_group.pop("")
    entry = {
        "link": manifest.declarations.link,
        "description": manifest.declarations.notes,
        "results": {"group": by_group, "application": {}, "overall": overall},
    }
    samples = [
        {"id": r.task, "group": r.group, "raw_response": r.turns[0].text if r.turns else "", "correct": r.success}
        for r in checked.attempts
    ]
    mail = f"Subject: ScreenSpot-Pro entry: {manifest.name}\n\nThe leaderboard JSON and one raw response per sample are attached.\n\n"
    return {
        "leaderboard.json": _json({manifest.name: entry}),
        "raw_responses.json": _json(samples),
        "mail.txt": mail + _evidence(checked),
    }


def _browsergym(checked: Checked, manifest: Manifest) -> dict[str, str]:
    _needs(manifest, "BrowserGym", "miniwob")
    low, high = manifest.scores["interval"]
    entry = {
        "agent_name": manifest.name,
        "study_id": checked.root[:36],
        "date_time": str(manifest.provenance.get("started") or ""),
        "benchmark": "MiniWoB",
        "score": round(100 * manifest.scores["with_crashes_as_failures"], 1),
        "std_err": round(100 * (high - low) / (2 * 1.96), 1),
        "benchmark_specific": "No",
        "benchmark_tuned": "Yes" if manifest.declarations.trained_on_test else "No",
        # Their protocol runs inside their own study runner, which this is not.
        "followed_evaluation_protocol": "No",
        "reproducible": "Yes" if manifest.provenance.get("commit") and manifest.provenance.get("weights") else "No",
        "comments": f"{len(manifest.tasks)} tasks, {manifest.trials} trial(s); root {checked.root}",
        "original_or_reproduced": "Original",
    }
    return {"miniwob.json": _json([entry]), "README.md": f"# {manifest.name}\n\n{_evidence(checked)}"}


def _hf_eval(checked: Checked, manifest: Manifest) -> dict[str, str]:
    name = scores.headline(manifest.kind)
    entry = {
        "dataset": {"id": world(manifest), "task_id": manifest.kind},
        "value": round(100 * manifest.scores[name], 2) if manifest.scores[name] is not None else None,
        "date": str(manifest.provenance.get("started") or "")[:10],
        "notes": f"{name}, {_interval(manifest)}, {len(manifest.tasks)} tasks x {manifest.trials}; bundle root {checked.root}",
    }
    if manifest.declarations.link:
        entry["source"] = {"url": manifest.declarations.link, "name": "submission bundle"}
    path = f".eval_results/{_slug(world(manifest))}.yaml"
    return {path: yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)}


def _csv(checked: Checked, manifest: Manifest) -> dict[str, str]:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("task", "trial", "seed", "success", "ending", "turns", "budget", "group", "reason"))
    for row in checked.attempts:
        success = "" if row.success is None else int(row.success)
        cells = (row.task, row.trial, row.seed, success, row.ending, len(row.turns), row.budget, row.group, row.reason)
        table.writerow([_harmless(cell) for cell in cells])
    return {"attempts.csv": file.getvalue()}


EXPORTS: dict[str, Callable[[Checked, Manifest], dict[str, str]]] = {
    "android-world": _android_world,
    "screenspot-pro": _screenspot_pro,
    "browsergym": _browsergym,
    "hf-eval": _hf_eval,
    "csv": _csv,
}


def _evidence(checked: Checked) -> str:
    """What stands behind the number, and what speaks against it."""
    manifest = checked.manifest
    assert manifest is not None
    rate = _percent(manifest.scores[scores.headline(manifest.kind)])
    lines = [
        f"{rate} % ({_interval(manifest)}), {len(manifest.tasks)} tasks x {manifest.trials} trial(s); "
        f"{_percent(manifest.scores['with_crashes_as_failures'])} % with crashed attempts as failures.",
        f"Every number can be computed again from the bundle (root SHA-256 {checked.root}): guiderail submit verify FILE",
        *(f"Note: {finding}" for finding in lint(checked)),
    ]
    return "\n".join(lines) + "\n"


def _interval(manifest: Manifest) -> str:
    low, high = manifest.scores["interval"]
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _cell(text: str) -> str:
    """One cell of a sheet: no tabs, line ends, or formula."""
    return str(_harmless(" ".join(str(text).split())))


def _harmless(value: Any) -> Any:
    """Spreadsheets run cells that begin like this."""
    return "'" + value if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)[:60] or "results"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
