"""A leaderboard page from a folder of bundles: HTML for people, Markdown for repositories, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.untrusted import printable
from guiderail.launch import parts, show
from guiderail.launch.submission import scores
from guiderail.launch.submission.archive import Refused
from guiderail.launch.submission.lint import board_of, lint
from guiderail.launch.submission.published import COLUMNS, SOURCE, published
from guiderail.launch.submission.verify import Checked, verify

RATES = ("PR", "FC", "USE")
"""Columns of worlds that tell progress and side effects (`rl.live.score.rates`)."""
_TEMPLATE = Path(__file__).with_name("board.html")


def board(folder: Path) -> dict[str, Any]:
    """{worlds: name -> rows, best first; refused: [{file, why}]; published, source, columns}. Bundles that do not verify
    are listed as refused, never ranked."""
    worlds: dict[str, list[dict[str, Any]]] = {}
    refused = []
    for path in sorted(folder.glob("*.zip")):
        try:
            checked = verify(path)
        except (Refused, SetupError) as error:
            refused.append({"file": printable(path.name), "why": printable(str(error).replace(f"{folder}/", ""))})
            continue
        if checked.manifest is None or checked.problems:
            first = checked.problems[0]
            refused.append({"file": printable(path.name), "why": printable(f"{first.place}: {first.what}")})
            continue
        worlds.setdefault(board_of(checked), []).append(_row(path, checked))
    for rows in worlds.values():
        rows.sort(key=lambda row: (-(row["rate"] if row["rate"] is not None else -1.0), row["name"], row["file"]))
    return {
        "worlds": dict(sorted(worlds.items())),
        "refused": refused,
        "published": published(),
        "source": SOURCE,
        "columns": COLUMNS,
    }


def _row(path: Path, checked: Checked) -> dict[str, Any]:
    manifest = checked.manifest
    assert manifest is not None
    name = scores.headline(manifest.kind)
    low, high = manifest.scores["interval"]
    return {
        "name": printable(manifest.name),
        "metric": name,
        "rate": manifest.scores[name],
        "value": show.percent(manifest.scores[name]),
        "interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "more": {rate: show.percent(manifest.scores[rate]) for rate in RATES if rate in manifest.scores},
        "with_crashes": show.percent(manifest.scores["with_crashes_as_failures"]),
        "tasks": len(manifest.tasks),
        "trials": manifest.samples,
        "unscored": manifest.scores["unscored"],
        "lint": lint(checked),
        "file": printable(path.name),
        "root": checked.root,
        "signed_by": checked.signed_by,
    }


def pages(content: dict[str, Any]) -> dict[str, str]:
    """File name -> text of the three pages."""
    parts.require("jinja2", "submit")
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(**content)
    data = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return {"index.html": html, "README.md": _markdown(content), "board.json": data}


def _markdown(content: dict[str, Any]) -> str:
    text = ["# Leaderboard\n"]
    for name, rows in content["worlds"].items():
        head = (
            "agent",
            f"{rows[0]['metric']} %",
            *(f"{rate} %" for rate in rows[0]["more"]),
            "95 % interval",
            "crashes as failures %",
            "tasks x trials",
            "bundle root",
        )
        cells = [
            (
                r["name"],
                r["value"],
                *r["more"].values(),
                r["interval"],
                r["with_crashes"],
                f"{r['tasks']} x {r['trials']}",
                r["root"][:16],
            )
            for r in rows
        ]
        text += [f"## {_plain(name)}\n", _table(head, cells)]
    if content["refused"]:
        text.append("## Refused\n")
        text.append("\n".join(f"- {_plain(one['file'])}: {_plain(one['why'])}" for one in content["refused"]) + "\n")
    text.append(f"## Published elsewhere, not re-scored\n\nFrom {content['source']}, in percent.\n")
    columns = content["columns"]
    published_rows = [(n, *(str(c.get(column, "-")) for column in columns)) for n, c in content["published"].items()]
    text.append(_table(("agent", *columns), published_rows))
    return "\n".join(text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_plain(cell) for cell in line) + " |\n" for line in lines)


def _plain(text: str) -> str:
    """Untrusted text in Markdown: no markup, no HTML, no new cells."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("\\" + c if c in "\\`*_[]|#!" else c for c in text)
