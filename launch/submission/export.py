"""What each public board asks for, from a verified bundle: its files, and the text to paste.

Formats: AndroidWorld's sheet (a row, posted as an issue), MobileGym's table (a row of its README, by pull request), ScreenSpot-Pro (leaderboard JSON by mail), BrowserGym (a JSON
array in a pull request), the hub's evaluation results (YAML in the model's repository), and plain CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import yaml

from guiderail.agent.errors import SetupError
from guiderail.agent.untrusted import printable
from guiderail.launch import show
from guiderail.launch.submission import scores
from guiderail.launch.submission.lint import board_of, lint
from guiderail.launch.submission.schema import Manifest
from guiderail.launch.submission.verify import Checked, first_answers

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
    return {name: printable(text) for name, text in EXPORTS[to](checked, checked.manifest).items()}


def _needs(found: str, board: str, wanted: str) -> None:
    if found != wanted:
        raise SetupError(f"{board} takes results on {wanted}, this is {found}; use --to csv")


def _android_world(checked: Checked, manifest: Manifest) -> dict[str, str]:
    _needs(board_of(checked), "AndroidWorld's sheet", "android-world")
    found = manifest.scores
    best = max(found["pass_at"], key=int, default=None)
    row = dict.fromkeys(SHEET, "") | {
        "Release date": str(manifest.provenance.get("started") or "")[:10],
        "Result source": "self-reported, re-computable bundle",
        "Model": manifest.name,
        "Screen representation": "screenshot",
        "Success rate (pass@1)": show.percent(found["with_crashes_as_failures"]),
        "Number of trials": str(manifest.samples),
        "Success rate (pass@k)": f"{show.percent(found['pass_at'][best])} (k={best})" if best and int(best) > 1 else "",
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
    _needs(board_of(checked), "ScreenSpot-Pro", "screenspot-pro")
    by_group: dict[str, dict[str, float]] = {}
    hits: dict[str, list[bool]] = {}
    for row in checked.attempts:
        area, _, kind = (row.group or "").rpartition(" ")
        for name, column in ((area, kind), (area, "avg"), ("", kind), ("", "avg")):
            hits.setdefault(f"{name}\x1f{column}", []).append(bool(scores.success(manifest.kind, row)))
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
        {
            "id": row.task,
            "group": row.group,
            "raw_response": said,
            "correct": scores.success(manifest.kind, row),
        }
        for row, said in zip(checked.attempts, first_answers(checked), strict=True)
    ]
    mail = f"Subject: ScreenSpot-Pro entry: {manifest.name}\n\nThe leaderboard JSON and one raw response per sample are attached.\n\n"
    return {
        "leaderboard.json": _json({manifest.name: entry}),
        "raw_responses.json": _json(samples),
        "mail.txt": mail + _evidence(checked),
    }


def _browsergym(checked: Checked, manifest: Manifest) -> dict[str, str]:
    _needs(manifest.kind, "BrowserGym", "miniwob")
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
        "comments": f"{len(manifest.tasks)} tasks, {manifest.samples} trial(s); root {checked.root}",
        "original_or_reproduced": "Original",
    }
    return {"miniwob.json": _json([entry]), "README.md": f"# {manifest.name}\n\n{_evidence(checked)}"}


def _hf_eval(checked: Checked, manifest: Manifest) -> dict[str, str]:
    name = scores.headline(manifest.kind)
    entry = {
        "dataset": {"id": board_of(checked), "task_id": manifest.kind},
        "value": round(100 * manifest.scores[name], 2) if manifest.scores[name] is not None else None,
        "date": str(manifest.provenance.get("started") or "")[:10],
        "notes": f"{name}, {_interval(manifest)}, {len(manifest.tasks)} tasks x {manifest.samples}; bundle root {checked.root}",
    }
    if manifest.declarations.link:
        entry["source"] = {"url": manifest.declarations.link, "name": "submission bundle"}
    path = f".eval_results/{_slug(board_of(checked))}.yaml"
    return {path: yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)}


def _csv(checked: Checked, manifest: Manifest) -> dict[str, str]:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("task", "trial", "seed", "success", "ending", "turns", "budget", "group", "reason"))
    for row in checked.attempts:
        right = scores.success(manifest.kind, row)
        result = ("" if right is None else int(right), row.ended, len(row.turns))
        cells = (row.task, row.sample, row.seed, *result, row.budget, row.group, row.reason)
        table.writerow([_harmless(cell) for cell in cells])
    return {"attempts.csv": file.getvalue()}


def _mobilegym(checked: Checked, manifest: Manifest) -> dict[str, str]:
    _needs(board_of(checked), "MobileGym's table", "mobilegym")
    found = manifest.scores
    # Its own runner counts attempts whose machine failed as no success, but leaves them out of SR: so does the headline.
    cells = (_cell(manifest.name).replace("|", "/"), *map(show.percent, (found["success"], found.get("PR"))))
    rest = ("-",) * 4 + tuple(show.percent(found.get(name)) for name in ("FC", "USE"))
    head = ("Model", "Overall SR", "PR", "L1 (n=20)", "L2 (n=73)", "L3 (n=83)", "L4 (n=80)", "FC", "USE")
    rows = (head, (":--", *[":-:"] * 8), (*cells, *rest))
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    levels = "The rates by level are in the run's metrics.json, as `level:L1` to `level:L4`; fill them in by hand.\n"
    return {"row.md": table, "pull_request.md": f"{table}\n{levels}\n{_evidence(checked)}"}


EXPORTS: dict[str, Callable[[Checked, Manifest], dict[str, str]]] = {
    "android-world": _android_world,
    "mobilegym": _mobilegym,
    "screenspot-pro": _screenspot_pro,
    "browsergym": _browsergym,
    "hf-eval": _hf_eval,
    "csv": _csv,
}


def _evidence(checked: Checked) -> str:
    """What stands behind the number, and what speaks against it."""
    manifest = checked.manifest
    assert manifest is not None
    rate = show.percent(manifest.scores[scores.headline(manifest.kind)])
    lines = [
        f"{rate} % ({_interval(manifest)}), {len(manifest.tasks)} tasks x {manifest.samples} trial(s); "
        f"{show.percent(manifest.scores['with_crashes_as_failures'])} % with crashed attempts as failures.",
        f"Every number can be computed again from the bundle (root SHA-256 {checked.root}): guiderail submit verify FILE",
        *(f"Note: {finding}" for finding in lint(checked)),
    ]
    return "\n".join(lines) + "\n"


def _interval(manifest: Manifest) -> str:
    low, high = manifest.scores["interval"]
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


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
