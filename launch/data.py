"""guiderail import ... and guiderail data ...: import recordings, look at them, split, merge and export them."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

from guiderail.agent.errors import SetupError
from guiderail.envs.imports.draft import Options, Scroll
from guiderail.envs.imports.folder import one_episode, split_by, split_parts, stats
from guiderail.envs.imports.parquet import export_hf
from guiderail.envs.imports.run import Progress as Read
from guiderail.envs.imports.run import run_import
from guiderail.envs.imports.uis1 import export_uis1
from guiderail.envs.recordings.sources import recordings_file
from guiderail.launch import parts, show
from guiderail.launch.byhand.commands import from_review, from_runs
from guiderail.launch.going_on import going_on, then
from guiderail.launch.options import DataArg, DataFolder, Json, Seed, one_of, spread
from guiderail.launch.parts import SWIPES
from guiderail.launch.sheet import contact_sheet
from guiderail.launch.think import think

import_app = typer.Typer(no_args_is_help=True, help="Import public data sets as recordings: JSONL and PNG.")
data_app = typer.Typer(no_args_is_help=True, help="Look at recordings; split, merge and export them.")

Sources = Annotated[list[Path], typer.Argument(metavar="SRC...", help="files, or folders that hold them")]
Crc = Annotated[bool, typer.Option("--crc/--no-crc", help="verify the checksum of every record")]
Images = Annotated[Path | None, typer.Option(help="folder of the screenshots, if not beside the annotations")]
Screen = Annotated[str | None, typer.Option(help="WxH or infer: read recordings whose images are missing")]


@dataclass(frozen=True, slots=True)
class Work:
    """How files are read and written."""

    jobs: Annotated[int, typer.Option(help="processes; 0: one per core", min=0)] = 0
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="drop episodes that break the format's rules, and list them")
    ] = False
    as_json: Json = False


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a data set is imported."""

    boxes: Annotated[bool, typer.Option("--boxes/--no-boxes", help="read target boxes")] = True
    split: Annotated[str | None, typer.Option(help="import only the episodes of this split")] = None
    splits: Annotated[
        Path | None, typer.Option(help="split file, or folder of the split files, if not beside the data")
    ] = None


@import_app.command()
@spread
def androidcontrol(
    src: Sources,
    out: DataFolder,
    work: Work,
    part: Part,
    crc: Crc = True,
    terminate: Annotated[
        bool, typer.Option("--terminate/--no-terminate", help="append a terminate step on the last screenshot")
    ] = True,
    scroll: Annotated[
        str,
        typer.Option(
            help="how a scroll label becomes a finger motion: uis1 inverts up and down, content all four directions"
        ),
    ] = "uis1",
) -> None:
    """AndroidControl: GZIP TFRecord shards as published, or Hugging Face tables of them."""
    kind: Scroll = one_of("--scroll", scroll, ("uis1", "content"))
    options = Options(crc, work.skip_bad, terminate, part.boxes, kind, part.split, part.splits)
    _run("androidcontrol", src, out, work, options)


@import_app.command()
@spread
def aitw(src: Sources, out: DataFolder, work: Work, part: Part, crc: Crc = True) -> None:
    """Android in the Wild: GZIP TFRecord, one record per step."""
    options = Options(crc, work.skip_bad, boxes=part.boxes, split=part.split, splits=part.splits)
    _run("aitw", src, out, work, options)


@import_app.command()
@spread
def odyssey(src: Sources, out: DataFolder, work: Work, part: Part, images: Images = None) -> None:
    """GUI-Odyssey: the data folder with annotations/ and screenshots/."""
    options = Options(skip_bad=work.skip_bad, boxes=part.boxes, split=part.split, splits=part.splits, images=images)
    _run("odyssey", src, out, work, options)


@import_app.command("screenspot-v2")
@spread
def screenspot_v2(src: Sources, out: DataFolder, work: Work, images: Images = None) -> None:
    """ScreenSpot-v2 (boxes are x, y, width, height): one click per episode."""
    _run("screenspot-v2", src, out, work, Options(skip_bad=work.skip_bad, images=images))


@import_app.command("screenspot-pro")
@spread
def screenspot_pro(src: Sources, out: DataFolder, work: Work, images: Images = None) -> None:
    """ScreenSpot-Pro (boxes are x1, y1, x2, y2): one click per episode."""
    _run("screenspot-pro", src, out, work, Options(skip_bad=work.skip_bad, images=images))


@import_app.command()
@spread
def uis1(
    src: Sources,
    out: DataFolder,
    work: Work,
    images: Images = None,
    screen: Screen = None,
    swipes: Annotated[str, typer.Option(help=f"how the file stores vertical swipes: {', '.join(SWIPES)}")] = "detect",
) -> None:
    """Standard trajectory JSONL as UI-S1 publishes it, or Hugging Face tables of it."""
    kind, size = one_of("--swipes", swipes, SWIPES), parts.parse_screen(screen)
    _run("uis1", src, out, work, Options(skip_bad=work.skip_bad, images=images, screen=size, swipes=kind))


def _run(name: str, src: list[Path], out: Path, work: Work, options: Options) -> None:
    with going_on(out), _bar(f"import {name}") as update:
        total = run_import(name, src, out, options, work.jobs or os.cpu_count() or 1, update)
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
    show.result(shown, work.as_json, table)
    then(f"guiderail gate {shlex.quote(str(out))}")


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Read], None]]:
    """Bytes read, speed and remaining time on standard error: a bar on a terminal, else a line from time to time."""
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

        def update(read: Read) -> None:
            # The bytes that an interrupted run has read must not count for the speed of this one.
            tasks[:] = tasks or [progress.add_task(name, total=read.total, completed=read.resumed, units="")]
            progress.update(tasks[0], completed=read.done, units=f"{read.units_done}/{read.units}")

        yield update


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
    """Count episodes, actions, target boxes, swipes, splits and screenshots."""
    found = stats(data)
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
    episode: Annotated[str | None, typer.Argument(help="episode_id; default: the first one")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG to write; default: <episode>.png")] = None,
    width: Annotated[int, typer.Option(help="width of one screen, in pixels", min=60)] = 240,
    columns: Annotated[int, typer.Option(help="screens in one row", min=1)] = 6,
    screen: Screen = None,
    as_json: Json = False,
) -> None:
    """A contact sheet of one episode, with the expert's marks: boxes, point, swipe arrow, text."""
    found = one_episode(data, episode, parts.parse_screen(screen))
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in found.id)
    target = out or Path(f"{safe}.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(found, width, columns).save(target, "PNG")
    written: dict[str, Any] = {
        "written": str(target),
        "episode": found.id,
        "goal": found.goal,
        "steps": len(found.steps),
    }
    show.result(written, as_json, show.pairs("", written))


@data_app.command("split")
def data_split(
    data: DataArg,
    by: Annotated[
        str | None, typer.Option(help="a key of the lines, such as split or template: one file per value")
    ] = None,
    shares: Annotated[str | None, typer.Option("--parts", help="names and shares: train=0.9,test=0.1")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write parts beside the file they come from; the images stay where they are."""
    if (by is None) == (shares is None):
        raise SetupError("data split needs one of --by KEY and --parts train=0.9,test=0.1")
    made = split_by(Path(data), by) if by is not None else split_parts(Path(data), _shares(str(shares)), seed)
    show.result(made, as_json, show.pairs("", made))


def _shares(text: str) -> dict[str, float]:
    try:
        return {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise SetupError(f"--parts {text!r}: expected names and shares, such as train=0.9,test=0.1") from None


@data_app.command("merge")
@spread
def data_merge(
    src: Sources, out: DataFolder, work: Work = Work(jobs=1), images: Images = None, screen: Screen = None
) -> None:
    """Join recordings in one folder: each image once, all swipes as finger motion, clashing ids renamed."""
    _run("uis1", src, out, work, Options(skip_bad=work.skip_bad, images=images, screen=parts.parse_screen(screen)))


data_app.command("from-runs")(from_runs)
data_app.command("from-review")(from_review)
data_app.command("think")(think)


@data_app.command("export")
def data_export(
    data: DataArg,
    out: Annotated[Path, typer.Option(help="UI-S1 JSONL to write; with --to hf the folder")],
    to: Annotated[
        str, typer.Option(help="uis1: UI-S1's JSONL; hf: parquet with the pictures in it, for the Hub")
    ] = "uis1",
    swipes: Annotated[
        str, typer.Option(help="uis1: vertical swipes: stored (as the source had them), finger, inverted")
    ] = "stored",
    split: Annotated[str, typer.Option(help="hf: what the split is called")] = "train",
    as_json: Json = False,
) -> None:
    """Write UI-S1's JSONL, or a data set for the Hub. A file that was imported from UI-S1 gets its own content back."""
    kind: Literal["stored", "finger", "inverted"] = one_of("--swipes", swipes, ("stored", "finger", "inverted"))
    if one_of("--to", to, ("uis1", "hf")) == "hf":
        written = export_hf(data, out, split)
    elif out.exists():
        raise SetupError(f"{out} exists already; choose another name")
    else:
        written = {"written": str(out), "episodes": export_uis1(recordings_file(data), out, kind)}
    show.result(written, as_json, show.pairs("", written))
    if to == "hf":
        then(f"hf upload OWNER/NAME {shlex.quote(str(out))} . --repo-type dataset")
