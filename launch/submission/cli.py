"""guiderail submit ...: a result as a bundle that a stranger can verify."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from guiderail.agent.disk import locked, write_whole
from guiderail.agent.errors import SetupError
from guiderail.agent.registry import nearest
from guiderail.launch import parts, show
from guiderail.launch.going_on import going_on, then
from guiderail.launch.options import Json
from guiderail.launch.submission import archive, scores
from guiderail.launch.submission.board import board as make_board
from guiderail.launch.submission.board import pages
from guiderail.launch.submission.build import build as make_bundle
from guiderail.launch.submission.compare import compare as compare_bundles
from guiderail.launch.submission.export import EXPORTS
from guiderail.launch.submission.export import export as export_files
from guiderail.launch.submission.lint import board_of
from guiderail.launch.submission.lint import lint as findings
from guiderail.launch.submission.schema import Declarations
from guiderail.launch.submission.verify import MOST_PROBLEMS, Checked, Problem
from guiderail.launch.submission.verify import verify as check

app = typer.Typer(no_args_is_help=True, help="Bundle a result so that anybody can verify it; export and compare.")

Bundle = Annotated[Path, typer.Argument(help="a bundle made by submit build", metavar="BUNDLE")]


@app.command()
def build(
    run: Annotated[Path, typer.Argument(help="run folder of guiderail evaluate", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="bundle to write, a .zip")],
    name: Annotated[str | None, typer.Option(help="what the agent is called; default: its model")] = None,
    sign: Annotated[Path | None, typer.Option(help="Ed25519 private key (PEM) to sign with")] = None,
    data: Annotated[str | None, typer.Option(help="recordings it was scored on, to bring their screenshots")] = None,
    human_help: Annotated[
        bool | None, typer.Option("--human-help/--no-human-help", help="whether a person helped in any attempt")
    ] = None,
    trained_on_test: Annotated[
        bool | None,
        typer.Option(
            "--trained-on-test/--not-trained-on-test", help="whether the model has seen these tasks in training"
        ),
    ] = None,
    best_of: Annotated[int, typer.Option(min=1, help="attempts behind each counted one")] = 1,
    link: Annotated[str, typer.Option(help="where bundle or model can be found")] = "",
    notes: Annotated[str, typer.Option(help="anything else that a reader should know")] = "",
    as_json: Json = False,
) -> None:
    """Bundle a finished evaluation: rows, screenshots, provenance, hashes; secrets and paths of this machine taken out."""
    declared = Declarations(
        human_help=human_help, trained_on_test=trained_on_test, best_of=best_of, link=link, notes=notes
    )
    with going_on(out):
        members = make_bundle(run, declared, name, sign, data)
        out.parent.mkdir(parents=True, exist_ok=True)
        archive.write(out, members)
    _show(_checked(out), as_json, f"{out}, {out.stat().st_size} bytes")
    then(f"guiderail submit verify {shlex.quote(str(out))}")


@app.command()
def verify(
    bundle: Bundle,
    key: Annotated[str | None, typer.Option(help="public key, hex, that must have signed it")] = None,
    as_json: Json = False,
) -> None:
    """Check a bundle with nothing but itself: schema, hashes, completeness, seeds, budgets, every number from its rows."""
    checked = check(bundle)
    if key is not None and checked.signed_by != key:
        said = "not signed" if checked.signed_by is None else f"signed by {checked.signed_by}"
        checked.problems.append(Problem(archive.SIGNATURE, f"{said}, expected {key[:80]}"))
    _show(checked, as_json, str(bundle))
    if checked.problems:
        raise typer.Exit(1)
    then(f"guiderail submit lint {shlex.quote(str(bundle))}")


@app.command()
def lint(
    bundle: Bundle,
    train: Annotated[str | None, typer.Option(help="recordings that were trained on, to look for overlap")] = None,
    as_json: Json = False,
) -> None:
    """What an honest reader would ask: subset, budget, best-of-n, self-judging, single trial, overlap with training."""
    found = findings(_checked(bundle), _screens_of(train) if train else frozenset())
    table = Table("lint", title=str(bundle), title_justify="left", show_header=False)
    for line in found or ["nothing to remark"]:
        table.add_row(line)
    show.result({"findings": found}, as_json, table)
    then(
        f"guiderail submit export {shlex.quote(str(bundle))} --to BOARD --out FOLDER",
        f"guiderail submit board {shlex.quote(str(bundle.parent))} --out FOLDER",
    )


@app.command()
def export(
    bundle: Bundle,
    to: Annotated[str, typer.Option(help=f"one of {', '.join(EXPORTS)}")],
    out: Annotated[Path, typer.Option(help="folder to write to")],
    as_json: Json = False,
) -> None:
    """The files a public board asks for, and the text to paste."""
    if to not in EXPORTS:
        raise SetupError(f"--to {to!r}{nearest(to, EXPORTS)}")
    files = export_files(_checked(bundle), to)
    _write(out, files)
    table = Table("written", show_header=False)
    for name in files:
        table.add_row(str(out / name))
    show.result({"files": [str(out / name) for name in files]}, as_json, table)


@app.command()
def compare(first: Bundle, second: Bundle, as_json: Json = False) -> None:
    """Two bundles, paired on tasks and trials both attempted; flips, and "not distinguishable" where that is so."""
    result = compare_bundles(_checked(first), _checked(second))
    table = Table("", str(first), str(second), "first against second", title_justify="left")
    rates = (show.percent(result["first"]), show.percent(result["second"]))
    table.add_row(f"{result['metric']} %", *rates, result["words"])
    show.result(result, as_json, table)


@app.command()
def board(
    folder: Annotated[Path, typer.Argument(help="folder with bundles (*.zip)", metavar="FOLDER")],
    out: Annotated[Path, typer.Option(help="folder to write: index.html, README.md, board.json")],
    as_json: Json = False,
) -> None:
    """A leaderboard page; bundles that do not verify are named, not ranked; published rows stand apart."""
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder; give one with bundles made by guiderail submit build")
    content = make_board(folder)
    _write(out, pages(content))
    table = Table("", "agent", "%", "interval", title=str(out / "index.html"), title_justify="left")
    for name, rows in content["worlds"].items():
        for row in rows:
            table.add_row(name, row["name"], row["value"], row["interval"])
    for row in content["refused"]:
        table.add_row("refused", row["file"], "", row["why"])
    show.result(content, as_json, table)


def _write(folder: Path, files: dict[str, str]) -> None:
    """Each file whole, by one process at a time."""
    with going_on(folder), locked(folder):
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, text.encode())


def _checked(bundle: Path) -> Checked:
    checked = check(bundle)
    if checked.problems:
        first = checked.problems[0]
        raise SetupError(
            f"{bundle} does not verify: {first.place}: {first.what}; see: guiderail submit verify {bundle}"
        )
    return checked


def _screens_of(data: str) -> frozenset[str]:
    episodes = parts.dataset(data, None, "detect", True, None).episodes
    return frozenset(step.screenshot.digest for episode in episodes for step in episode.steps)


def _show(checked: Checked, as_json: bool, title: str) -> None:
    manifest = checked.manifest
    result: dict[str, Any] = {
        "ok": not checked.problems,
        "root": checked.root,
        "signed_by": checked.signed_by,
        "attempts": len(checked.attempts),
        "screenshots": len(checked.screenshots),
        "problems": [{"place": p.place, "what": p.what} for p in checked.problems],
        "scores": manifest.scores if manifest and not checked.problems else None,
    }
    table = Table("", "", title=title, title_justify="left", show_header=False)
    table.add_row("root", checked.root)
    table.add_row("signed by", checked.signed_by or "nobody")
    if manifest is not None:
        name = scores.headline(manifest.kind)
        rate = (
            f"{show.percent(manifest.scores[name], manifest.scores['interval'])} %"
            if not checked.problems
            else "not verified"
        )
        table.add_row(f"{manifest.name}, {board_of(checked)}", f"{name} {rate}, {len(checked.attempts)} attempts")
    for problem in checked.problems:
        table.add_row(problem.place, problem.what)
    count = len(checked.problems)
    more = " or more; the search ended there" if count >= MOST_PROBLEMS else ""
    table.add_row("verified", "yes" if not count else f"NO: {count} problem{'s'[: count != 1]}{more}")
    show.result(result, as_json, table)
