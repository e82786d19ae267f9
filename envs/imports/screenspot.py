"""ScreenSpot-v2 and ScreenSpot-Pro: one instruction, one screenshot and one box become an episode of one click.

A trap: v2's boxes are [x, y, width, height], Pro's are [x1, y1, x2, y2], both in pixels. A box that is possible only in the
other format is an error that says so.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Screenshot
from guiderail.agent.untrusted import is_file, read_file, stays_in
from guiderail.envs.imports.draft import (
    Context,
    Entry,
    Format,
    Line,
    Mapped,
    Options,
    PixelBox,
    Unit,
    clipped,
    encoded,
    files_of,
    step,
)
from guiderail.envs.recordings import tables
from guiderail.envs.recordings.conventions import SLACK

ACTIONS = (Mapped("box", "click", "the box's centre"),)
# Where the images lie beside the annotation files in the published archives.
_FOLDERS = ("screenspotv2_image", "images", "../images", ".")
_COPIED = (
    "data_type",
    "data_source",
    "platform",
    "application",
    "group",
    "ui_type",
    "instruction_cn",
)


def units_v2(sources: Sequence[Path], options: Options) -> list[Unit]:
    what = "screenspot_mobile_v2.json, screenspot_desktop_v2.json, screenspot_web_v2.json, or their folder"
    return _units(files_of(sources, ("screenspot_*.json", *tables.PATTERNS), what), options)


def units_pro(sources: Sequence[Path], options: Options) -> list[Unit]:
    sources = [s / "annotations" if (s / "annotations").is_dir() else s for s in sources]
    what = "ScreenSpot-Pro's folder, or its annotations/*.json"
    return _units(files_of(sources, ("*.json", *tables.PATTERNS), what), options)


def _units(files: list[Path], options: Options) -> list[Unit]:
    if options.split:
        raise SetupError("ScreenSpot is a test set without splits; leave --split out")
    return [Unit(path.name, (path,)) for path in files]


def read(unit: Unit, context: Context, *, corners: bool) -> Iterator[Entry]:
    (path,) = unit.paths
    if tables.is_table(path):
        for number, (where, row) in enumerate(tables.rows(path, context.tick), 1):
            yield where, partial(_from_row, row, f"{path.stem}-{number}", corners, context, where)
        return
    try:
        items = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:1", f"not JSON: {error}"[:300]) from None
    if not isinstance(items, list):
        raise DataError(f"{path}:1", f"a JSON {type(items).__name__}, expected a list of items")
    for number, item in enumerate(items, 1):
        where = f"{path}:{number}"
        yield where, partial(_from_file, item, path, f"{path.stem}-{number}", corners, context, where)
        context.tick(path.stat().st_size * number // len(items))


_ABOUT = "The click of each episode is the centre of the annotated box; the box, not the point, is the truth."
SCREENSPOT_V2 = Format("screenspot-v2", ACTIONS, units_v2, partial(read, corners=False), (_ABOUT,))
SCREENSPOT_PRO = Format("screenspot-pro", ACTIONS, units_pro, partial(read, corners=True), (_ABOUT,))


def _from_file(item: Any, path: Path, id_: str, corners: bool, context: Context, where: str) -> Line:
    if not isinstance(item, dict) or not isinstance(item.get("img_filename"), str):
        raise DataError(where, f"{reprlib.repr(item)}, expected an object with img_filename")
    folders = [context.options.images] if context.options.images else [path.parent / name for name in _FOLDERS]
    name = Path(item["img_filename"])
    if name.is_absolute() or ".." in name.parts:
        raise DataError(where, f"img_filename {str(name)!r} leaves the folder of the images")
    found = next(
        (folder / name for folder in folders if is_file(folder / name) and stays_in(folder, folder / name)), None
    )
    if found is None:
        tried = ", ".join(str(folder) for folder in folders)
        raise DataError(where, f"the image {name} is in none of {tried}; name its folder with --images")
    return _line(item, encoded(read_file(found, where), where), str(item.get("id", id_)), corners, context, where)


def _from_row(row: Mapping[str, Any], id_: str, corners: bool, context: Context, where: str) -> Line:
    shot = encoded(tables.image(tables.need(row, ("image",), where), where), where)
    row = row | {"img_filename": row.get("img_filename") or row.get("file_name")}  # type: ignore[operator]
    return _line(row, shot, str(row.get("id") or id_), corners, context, where)


def _line(item: Mapping[str, Any], shot: Screenshot, id_: str, corners: bool, context: Context, where: str) -> Line:
    goal = item.get("instruction")
    if not isinstance(goal, str):
        raise DataError(where, f"instruction is {reprlib.repr(goal)}, expected a text")
    size = item.get("img_size")
    if size is not None and size != [shot.width, shot.height]:
        raise DataError(where, f"the image is {shot.width}x{shot.height}, img_size says {reprlib.repr(size)}")
    screen = shot.width, shot.height
    box = _box(item.get("bbox"), screen, corners, where)
    center = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    content = {"action": "click", "coordinate": center}
    made = step(context.put(shot), screen, content, where, was="box", boxes=[box], origin="annotation")
    meta = {key: item[key] for key in _COPIED if item.get(key) is not None}
    return {"goal": goal, "episode_id": id_, "steps": [made], **meta}


def _box(value: Any, screen: tuple[int, int], corners: bool, where: str) -> PixelBox:
    """Corners in pixels. A box that overshoots the image by a few pixels is clipped."""
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 for v in value)
    ):
        raise DataError(where, f"bbox is {reprlib.repr(value)}, expected four numbers")
    a, b, c, d = value
    x1, y1, x2, y2 = (a, b, c, d) if corners else (a, b, a + c, b + d)
    shape = "[x1, y1, x2, y2]" if corners else "[x, y, width, height]"
    if all(0 <= v <= 1 for v in value):
        raise DataError(where, f"bbox {value} looks like fractions of the image, expected {shape} in pixels")
    if x2 <= x1 or y2 <= y1 or x2 > screen[0] + SLACK or y2 > screen[1] + SLACK or min(x1, y1) < -SLACK:
        other = "screenspot-v2" if corners else "screenspot-pro"
        raise DataError(
            where,
            f"bbox {value} is not {shape} on a {screen[0]}x{screen[1]} image; is this {other}, whose boxes are written "
            "differently?",
        )
    return clipped([(x1, y1, x2, y2)], screen)[0]
