"""guiderail report: run folders as pages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.disk import locked
from guiderail.agent.errors import SetupError
from guiderail.launch import parts, show
from guiderail.launch.options import Json

MARK = "assets/report.css"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, or folders that hold some")],
    out: Annotated[Path, typer.Option(help="folder to write; replaces an earlier report there")],
    data: Annotated[str | None, typer.Option(help="where the recording is now, if it moved")] = None,
    width: Annotated[int, typer.Option(help="width to which wider screenshots are scaled, in pixels", min=1)] = 480,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="also write SVG and PNG figures for papers")] = True,
    watch: Annotated[bool, typer.Option("--watch", help="rewrite the report until all runs are finished")] = False,
    every: Annotated[float, typer.Option(help="seconds between two rewrites of --watch", min=0)] = 10.0,
    as_json: Json = False,
) -> None:
    """Pages that open from disk: learning curves, every trajectory, where agent and expert disagree, before and after."""
    parts.require("jinja2", "report")
    parts.require("matplotlib", "report")
    from rich.table import Table

    from guiderail.launch.report.pages import build

    check_out(runs, out)
    with locked(out):
        while True:
            pages = build(runs, out, data=data, width=width, plots=plots and not watch)
            going = [page.run.name for page in pages if page.run.metrics is None]
            if not watch or not going:
                break
            show.err.print(
                f"{out / 'index.html'}: {', '.join(going)} under way", style="dim", highlight=False, markup=False
            )
            time.sleep(every)
        if watch and plots:
            pages = build(runs, out, data=data, width=width)
    result = {"index": str(out / "index.html"), "runs": len(pages), "episodes": sum(len(p.entries) for p in pages)}
    table = Table("report", str(out / "index.html"))
    table.add_row("runs", ", ".join(page.run.name for page in pages))
    table.add_row("episodes or groups", str(result["episodes"]))
    for page in pages:
        for remark in page.remarks:
            show.err.print(f"{page.run.name}: {remark}", style="yellow", highlight=False, markup=False)
    show.result(result, as_json, table)


def check_out(runs: Sequence[Path], out: Path) -> None:
    """Raises SetupError where a report in `out` would replace something else."""
    if out.is_dir() and any(path.name != ".lock" for path in out.iterdir()) and not (out / MARK).is_file():
        raise SetupError(f"{out} is not empty and not a report; give another --out")
    if any(out.resolve() == run.resolve() for run in runs):
        raise SetupError(f"{out} is a run folder; give another --out, such as {out}-report")
