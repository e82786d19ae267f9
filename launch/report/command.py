"""guiderail report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from agent.errors import SetupError
from launch import parts, show

MARK = "assets/report.css"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, or folders that hold some")],
    out: Annotated[Path, typer.Option(help="folder to write; pages of an earlier report are replaced")],
    data: Annotated[str | None, typer.Option(help="where the recording is now, if it moved")] = None,
    width: Annotated[int, typer.Option(help="widest screenshot kept, in pixels")] = 480,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="SVG and PNG files for papers")] = True,
    watch: Annotated[
        bool, typer.Option("--watch", help="write it anew while the runs go on, until all are finished")
    ] = False,
    every: Annotated[float, typer.Option(help="seconds between two looks of --watch")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Pages that open from disk: what was run, curves, every trajectory, the divergence atlas, before and after."""
    parts.require("jinja2", "report")
    parts.require("matplotlib", "report")
    from rich.table import Table

    from launch.report.pages import build

    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise SetupError(f"{out} holds something else than a report; give another --out")
    if any(out.resolve() == run.resolve() for run in runs):
        raise SetupError(f"{out} is a run folder; give another --out, such as {out}-report")
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
