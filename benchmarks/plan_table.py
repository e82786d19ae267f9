"""benchmarks/plan.json as the table of benchmarks/README.md. `python benchmarks/plan_table.py` writes it there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START, END = "<!-- plan -->\n", "<!-- end -->\n"


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| case | layers, tower | GiB measured | planned | T operations counted | planned |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['case']} | {row['layers'][0]}, {row['layers'][1]} | {row['memory'] / 2**30:.2f} | "
            f"{row['planned_memory'] / row['memory'] - 1:+.0%} | {row['flops'] / 1e12:.2f} | "
            f"{row['planned_flops'] / row['flops'] - 1:+.1%} |"
        )


def filled(page: str, rows: list[dict[str, Any]]) -> str:
    """The page with its table as the rows have it."""
    before, _, after = page.partition(START)
    return before + START + "\n".join(lines(rows)) + "\n" + END + after.partition(END)[2]


if __name__ == "__main__":
    page = HERE / "README.md"
    page.write_text(filled(page.read_text(), json.loads((HERE / "plan.json").read_text())["rows"]))
