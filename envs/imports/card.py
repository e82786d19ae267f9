"""DATASET.md: what an imported folder holds, how it was made, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from guiderail.envs.imports.draft import Format, Options, Unit
from guiderail.envs.imports.writer import Journal

_SHOWN = 20


def card(form: Format, units: Sequence[Unit], options: Options, total: Journal) -> str:
    splits = sorted(total["splits"].items())
    settings = [(name, value) for name, value in asdict(options).items() if value is not None]
    sections = [
        f"# Imported from {form.name}\n",
        f"{total['episodes']} episodes, {total['steps']} steps, {total['images']} distinct screenshots. `episodes.jsonl` is "
        "standard trajectory JSONL; coordinates are pixels of the original screenshots, swipes are finger motion. Images are "
        "named after the SHA-256 of their bytes. Every step was read back and agrees with itself (oracle gate).\n",
        "".join(f"- {sentence}\n" for sentence in (*form.about, *total["notes"])),
        "## Actions\n",
        _table(("theirs", "ours", "how", "steps"), _actions(form, total["theirs"])),
        "## Boxes by origin\n",
        _table(("origin", "steps"), sorted(total["boxes"].items())) if total["boxes"] else "None.\n",
        *(("## Splits (sub-splits overlap)\n", _table(("split", "episodes"), splits)) if splits else ()),
        "## Left out\n",
        *_dropped(total),
        "## Options\n",
        _table(("option", "value"), settings),
        "## Sources\n",
        _table(("unit", "bytes"), [(unit.name, unit.size) for unit in units]),
    ]
    return "\n".join(sections)


def _actions(form: Format, theirs: dict[str, int]) -> list[tuple[object, ...]]:
    """Every row of the format's table, including those that never occurred."""
    return [
        (row.theirs, row.ours or "dropped", row.how, theirs.get(f"{row.theirs} -> {row.ours}", 0))
        for row in form.actions
    ]


def _dropped(total: Journal) -> list[str]:
    if not total["dropped"] and not total["unlisted"]:
        return ["Nothing.\n"]
    reasons = Counter(str(row["reason"]) for row in total["dropped"]) + Counter(total["unlisted"])
    parts = [_table(("reason", "episodes"), reasons.most_common(_SHOWN))]
    if total["dropped"]:
        parts.append(f"The first of {len(total['dropped'])}; all are in `dropped.jsonl`:\n")
        parts.append("".join(f"- {row['where']}: {row['reason']}\n" for row in total["dropped"][:_SHOWN]))
    return parts


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
