"""guiderail import ... and guiderail data ...: getting recordings in, and looking at what one has."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from agent.errors import SetupError
from envs.imports.draft import Options
from envs.imports.folder import jsonl_of, one_episode, split_by, split_parts, stats
from envs.imports.run import Progress as Read
from envs.imports.run import run_import
from envs.imports.uis1 import export_uis1
from launch import parts, show
from launch.evaluate import DataArg, Json
from launch.sheet import contact_sheet

import_app = typer.Typer(no_args_is_help=True, help="Public trajectory formats -> standard JSONL and PNGs.")
data_app = typer.Typer(no_args_is_help=True, help="Look at recordings, split, merge and export them.")

Sources = Annotated[list[Path], typer.Argument(metavar="SRC...", help="files, or folders that hold them")]
OutDir = Annotated[Path, typer.Option("--out", help="folder to write: episodes.jsonl, images/, DATASET.md")]
Jobs = Annotated[int, typer.Option(help="processes; 0: one per core", min=0)]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="drop episodes that break the format's rules, and list them")]
Crc = Annotated[bool, typer.Option("--crc/--no-crc", help="verify the checksum of every record")]
Boxes = Annotated[bool, typer.Option("--boxes/--no-boxes", help="read target boxes")]
Split = Annotated[str | None, typer.Option(help="import only the episodes of this split")]
SplitsFile = Annotated[Path | None, typer.Option("--splits", help="the data set's split file")]
Images = Annotated[Path | None, typer.Option(help="folder of the screenshots, if not beside the annotations")]
Screen = Annotated[str | None, typer.Option(help="WxH or infer: import recordings whose images are not there")]
Swipes = Annotated[str, typer.Option(help="how the file stores vertical swipes: detect, finger, inverted")]


@import_app.command()
def androidcontrol(
    src: Sources,
    out: OutDir,
    jobs: Jobs = 0,
    skip_bad: SkipBad = False,
    crc: Crc = True,
    boxes: Boxes = True,
    terminate: Annotated[
        bool, typer.Option("--terminate/--no-terminate", help="append a terminate step on the last screenshot")
    ] = True,
    scroll: Annotated[
        str, typer.Option(help="scroll label -> finger: uis1 inverts up and down, content all four directions")
    ] = "uis1",
    split: Split = None,
    splits: Annotated[
        Path | None, typer.Option(help="folder of splits.json and test_subsplits.json, if not beside the shards")
    ] = None,
    as_json: Json = False,
) -> None:
    """AndroidControl: GZIP TFRecord shards as published, or Hugging Face tables of them."""
    kind = _one_of("--scroll", scroll, ("uis1", "content"))
    options = Options(crc, skip_bad, terminate, boxes, kind, split, splits)  # type: ignore[arg-type]
    _run("androidcontrol", src, out, options, jobs, as_json)


@import_app.command()
def aitw(
    src: Sources,
    out: OutDir,
    jobs: Jobs = 0,
    skip_bad: SkipBad = False,
    crc: Crc = True,
    boxes: Boxes = True,
    split: Split = None,
    splits: SplitsFile = None,
    as_json: Json = False,
) -> None:
    """Android in the Wild: GZIP TFRecord, one record per step."""
    options = Options(check_crc=crc, skip_bad=skip_bad, boxes=boxes, split=split, splits=splits)
    _run("aitw", src, out, options, jobs, as_json)


@import_app.command()
def odyssey(
    src: Sources,
    out: OutDir,
    jobs: Jobs = 0,
    skip_bad: SkipBad = False,
    boxes: Boxes = True,
    images: Images = None,
    split: Split = None,
    splits: SplitsFile = None,
    as_json: Json = False,
) -> None:
    """GUI-Odyssey: the data folder with annotations/ and screenshots/."""
    options = Options(skip_bad=skip_bad, boxes=boxes, images=images, split=split, splits=splits)
    _run("odyssey", src, out, options, jobs, as_json)


@import_app.command("screenspot-v2")
def screenspot_v2(
    src: Sources, out: OutDir, jobs: Jobs = 0, skip_bad: SkipBad = False, images: Images = None, as_json: Json = False
) -> None:
    """ScreenSpot-v2 (boxes are x, y, width, height): one click per episode."""
    _run("screenspot-v2", src, out, Options(skip_bad=skip_bad, images=images), jobs, as_json)


@import_app.command("screenspot-pro")
def screenspot_pro(
    src: Sources, out: OutDir, jobs: Jobs = 0, skip_bad: SkipBad = False, images: Images = None, as_json: Json = False
) -> None:
    """ScreenSpot-Pro (boxes are x1, y1, x2, y2): one click per episode."""
    _run("screenspot-pro", src, out, Options(skip_bad=skip_bad, images=images), jobs, as_json)


@import_app.command()
def uis1(
    src: Sources,
    out: OutDir,
    jobs: Jobs = 0,
    skip_bad: SkipBad = False,
    images: Images = None,
    screen: Screen = None,
    swipes: Swipes = "detect",
    as_json: Json = False,
) -> None:
    """Standard trajectory JSONL as UI-S1 publishes it, or Hugging Face tables of it."""
    kind = _one_of("--swipes", swipes, ("detect", "finger", "inverted"))
    options = Options(skip_bad=skip_bad, images=images, screen=parts.parse_screen(screen), swipes=kind)  # type: ignore[arg-type]
    _run("uis1", src, out, options, jobs, as_json)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise SetupError(f"{option} {value!r}: expected {' or '.join(known)}")
    return value


def _run(name: str, src: list[Path], out: Path, options: Options, jobs: int, as_json: bool) -> None:
    with _bar(f"import {name}") as tell:
        total = run_import(name, src, out, options, jobs or os.cpu_count() or 1, tell)
    for sentence in total["notes"]:
        show.err.print(sentence, style="dim", markup=False, highlight=False)
    shown = {key: total[key] for key in ("episodes", "steps", "images", "theirs", "boxes", "splits", "notes")}
    shown |= {"dropped": len(total["dropped"]), "out": str(out)}
    table = Table("imported", "", title=str(out), title_justify="left")
    for key in ("episodes", "steps", "images", "dropped"):
        table.add_row(key, str(shown[key]))
    table.add_section()
    for key, count in sorted(total["theirs"].items()):
        table.add_row(key, str(count))
    show.result(shown, as_json, table)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Read], None]]:
    """Bytes read, speed and remaining time on standard error; a line now and then where that is no terminal."""
    if not sys.stderr.isatty():
        yield _Lines(name)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("file {task.fields[units]}"), console=show.err, transient=True) as progress:
        tasks: list[TaskID] = []

        def tell(read: Read) -> None:
            # Bytes that an earlier run had read say nothing about the speed of this one.
            tasks[:] = tasks or [progress.add_task(name, total=read.total, completed=read.resumed, units="")]
            progress.update(tasks[0], completed=read.done, units=f"{read.units_done}/{read.units}")

        yield tell


class _Lines:
    def __init__(self, name: str, every: float = 30.0):
        self.name, self.every = name, every
        self.start = self.last = time.monotonic()

    def __call__(self, read: Read) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last = now
        speed = max(1.0, (read.done - read.resumed) / (now - self.start))
        show.err.print(
            f"{self.name}: {read.done / 1e6:.0f} of {read.total / 1e6:.0f} MB, {read.units_done} of {read.units} files, "
            f"{speed / 1e6:.1f} MB/s, {(read.total - read.done) / speed:.0f} s left"
        )


# ------------------------------------------------------------------------------------------------------------- data


@data_app.command("stats")
def data_stats(data: DataArg, as_json: Json = False) -> None:
    """Counts: episodes, actions, boxes by origin, swipes, splits, screenshots."""
    found = stats(Path(data))
    table = Table("", "", title=data, title_justify="left")
    for key, value in found.items():
        if isinstance(value, dict):
            table.add_section()
            for name, count in value.items():
                table.add_row(f"{key}: {name}", str(count))
        else:
            table.add_row(key, str(value))
    show.result(found, as_json, table)


@data_app.command("show")
def data_show(
    data: DataArg,
    episode: Annotated[str | None, typer.Argument(help="its episode_id; default: the first one")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG to write; default: <episode>.png")] = None,
    width: Annotated[int, typer.Option(help="of one screen, in pixels", min=60)] = 240,
    columns: Annotated[int, typer.Option(min=1)] = 6,
    screen: Screen = None,
    as_json: Json = False,
) -> None:
    """A contact sheet of one episode, with the expert's marks: boxes, point, swipe arrow, text."""
    found = one_episode(Path(data), episode, parts.parse_screen(screen))
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in found.id)
    target = out or Path(f"{safe}.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(found, width, columns).save(target)
    written: dict[str, Any] = {
        "written": str(target),
        "episode": found.id,
        "goal": found.goal,
        "steps": len(found.steps),
    }
    show.result(written, as_json, _pairs(written))


@data_app.command("split")
def data_split(
    data: DataArg,
    by: Annotated[str | None, typer.Option(help="a key of the lines: one file per value (split, template ...)")] = None,
    shares: Annotated[str | None, typer.Option("--parts", help="names and shares: train=0.9,test=0.1")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Json = False,
) -> None:
    """Write parts beside the file they come from; the images stay where they are."""
    if (by is None) == (shares is None):
        raise SetupError("data split needs one of --by KEY and --parts train=0.9,test=0.1")
    made = split_by(Path(data), by) if by is not None else split_parts(Path(data), _shares(str(shares)), seed)
    show.result(made, as_json, _pairs(made))


def _shares(text: str) -> dict[str, float]:
    try:
        return {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise SetupError(f"--parts {text!r}: expected names and shares, such as train=0.9,test=0.1") from None


@data_app.command("merge")
def data_merge(
    src: Sources,
    out: OutDir,
    jobs: Jobs = 1,
    skip_bad: SkipBad = False,
    screen: Screen = None,
    as_json: Json = False,
) -> None:
    """Several recordings into one folder: images once, all swipes as finger motion, ids that clash renamed."""
    options = Options(skip_bad=skip_bad, screen=parts.parse_screen(screen))
    _run("uis1", src, out, options, jobs, as_json)


@data_app.command("export")
def data_export(
    data: DataArg,
    out: Annotated[Path, typer.Option(help="UI-S1 JSONL to write")],
    swipes: Annotated[
        str, typer.Option(help="vertical swipes: stored (as the source had them), finger, inverted")
    ] = "stored",
    as_json: Json = False,
) -> None:
    """Write UI-S1's JSONL; what was imported from such a file gets its own content back."""
    kind: Literal["stored", "finger", "inverted"] = _one_of("--swipes", swipes, ("stored", "finger", "inverted"))  # type: ignore[assignment]
    if out.exists():
        raise SetupError(f"{out} exists already; choose another name")
    written = {"written": str(out), "episodes": export_uis1(jsonl_of(Path(data)), out, kind)}
    show.result(written, as_json, _pairs(written))


def _pairs(values: dict[str, Any]) -> Table:
    table = Table("", "", show_header=False)
    for key, value in values.items():
        table.add_row(key, str(value))
    return table
