"""The demo's table, read from its run folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from guiderail.launch import show
from guiderail.launch.report.compare import change
from guiderail.rl.runs.log import read_json, read_rollouts
from guiderail.rl.runs.rows import success

AGENTS = {
    "tiny-sft": "tiny-sft (start)",
    "more-sft": "+ more SFT",
    "semi-online": "+ semi-online RL",
}


def table(folder: Path) -> Table:
    """One column per agent, one line per measure."""
    result = Table(
        box=box.SIMPLE,
        title=f"{folder}: answers sampled at temperature 1, 95 % intervals in brackets",
        title_justify="left",
    )
    result.add_column("")
    for title in AGENTS.values():
        result.add_column(title, justify="right", no_wrap=True)
    columns = [measures(folder, agent) for agent in AGENTS]
    for line in columns[0]:
        result.add_row(line, *(column[line] for column in columns))
    return result


def measures(folder: Path, agent: str) -> dict[str, str]:
    """Rates in percent with 95 % intervals; minutes of training in this run, and turns sampled for it."""
    sop, live = (read_json(folder / "scores" / agent / kind / "metrics.json") for kind in ("sop", "live"))
    memory = live["by_group"]["memory"]  # tasks whose screens do not show what was done or read before
    trained = folder / agent / "metrics.json"
    training = read_json(trained) if trained.exists() else {"seconds": 0, "sampled_turns": 0}
    return {
        "SOP PG": show.percent(sop["PG"], sop["intervals"]["PG"]),
        "SOP TSR": show.percent(sop["TSR"], sop["intervals"]["TSR"]),
        "live success": show.percent(live["success"], live["interval"]),
        "  of these, memory tasks": show.percent(memory["success"], memory["interval"]),
        "minutes of training": f"{training['seconds'] / 60:.1f}",
        "turns sampled for it": str(training["sampled_turns"]),
    }


def against_start(folder: Path) -> list[str]:
    """Live success of each trained agent against the start, on the tasks that both were scored on."""
    start, *trained = AGENTS
    before = _scored(folder, start)
    lines = []
    for agent in trained:
        after = _scored(folder, agent)
        pairs = [(before[task], after[task]) for task in before if task in after]
        lines.append(f"live, {AGENTS[agent]}: {change('success', pairs)}")
    return lines


def _scored(folder: Path, agent: str) -> dict[str, dict[str, Any]]:
    """By task. Attempts whose machine failed are left out."""
    rows = read_rollouts(folder / "scores" / agent / "live")
    scored = {row["unit"]: success(row) for row in rows}
    return {task: {"key": task, "success": right} for task, right in scored.items() if right is not None}


if __name__ == "__main__":
    console = Console(width=max(120, show.out.width))
    console.print(table(Path(sys.argv[1])))
    console.print("\n".join(against_start(Path(sys.argv[1]))), highlight=False)
