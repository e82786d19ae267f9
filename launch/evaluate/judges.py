"""guiderail judge: how good a judge is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from guiderail.agent.errors import SetupError
from guiderail.launch import show
from guiderail.launch.evaluate.android import Judging
from guiderail.launch.options import Json, spread

app = typer.Typer(no_args_is_help=True, help="Vision-language models as judges, and how far they can be trusted.")


@app.callback()
def _group() -> None:
    """Keeps `measure` a command of a group, because Typer would drop the name of an only command."""


@app.command()
@spread
def measure(
    runs: Annotated[
        list[Path], typer.Argument(help="runs in worlds that check their own state: pocket, miniwob", metavar="RUN")
    ],
    judging: Judging,
    width: Annotated[int, typer.Option(help="attempts judged at once")] = 4,
    limit: Annotated[int, typer.Option(help="only the first N attempts; 0: all", metavar="N")] = 0,
    as_json: Json = False,
) -> None:
    """How often a judge is wrong: its verdicts on stored attempts against exact checks of the state.

    False passes are failures that the judge lets pass, false fails are successes that it rejects."""
    from guiderail.rl.live.judged import judge_all, known_attempts
    from guiderail.rl.score.judge_errors import errors

    if width < 1 or limit < 0:
        raise SetupError(f"--width {width}, --limit {limit}: expected at least 1, and 0 or more")
    judge = judging.spec().build()
    known, others = known_attempts(runs)
    known = known[:limit] if limit else known
    with show.bar("judging", len(known)) as tick:
        judged, silent = judge_all(known, judge, width, tick)
    for name, why in silent.items():
        show.err.print(f"no verdict: {name}: {why}", markup=False, highlight=False)
    about = {"judge": judging.judge_model, "mode": judging.judge_mode, "not_checked": others, "no_verdict": silent}
    result = about | errors(judged)
    show.result(result, as_json, _table(result))
    if not judged:
        raise typer.Exit(4)


def _table(result: dict[str, Any]) -> Table:
    table = Table(
        "judged", "n", "agreement %", "false passes %", "false fails %", "kappa", title=f"judge {result['judge']}"
    )
    for name, row in [*result["by_world"].items(), ("all", result)]:
        kappa = "-" if row["kappa"] is None else f"{row['kappa']:.2f}"
        table.add_row(
            name, str(row["n"]), *(_rate(row, key) for key in ("agreement", "false_pass", "false_fail")), kappa
        )
    items = result["items"]
    if items["n"]:
        table.add_section()
        table.add_row("items of successes not seen", str(items["n"]), "", "", _rate(items, "missed"), "")
    return table


def _rate(row: dict[str, Any], key: str) -> str:
    return show.percent(row[key], row[f"{key}_interval"])
