"""Android in the Wild (GZIP TFRecord, one record = one step). Steps are put together by episode.

Schema: google-research/android_in_the_wild. Traps: pixels are raw, not PNG; points and boxes are y first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Screenshot
from guiderail.agent.untrusted import read_file
from guiderail.envs.imports.draft import (
    Context,
    Dropped,
    Entry,
    Format,
    Fragment,
    Line,
    Mapped,
    Options,
    PixelBox,
    Unit,
    enclosing,
    files_of,
    step,
)
from guiderail.envs.imports.tfrecord import Example, TFRecords, parse_example
from guiderail.envs.live.device import encode_png

TAP = 0.04  # the data set's own rule: a touch that lifts within this distance is a tap

ACTIONS = (
    Mapped("dual_point (tap)", "click", f"touch and lift at most {TAP} of the screen apart; the touch point"),
    Mapped("dual_point (drag)", "swipe", "touch to lift; points are y first"),
    Mapped("type", "type"),
    Mapped("press_back", "system_button", "Back"),
    Mapped("press_home", "system_button", "Home"),
    Mapped("press_enter", "system_button", "Enter"),
    Mapped("status_complete", "terminate", "success"),
    Mapped("status_impossible", "terminate", "failure"),
)
_PLAIN: dict[int, tuple[str, Line]] = {
    5: ("press_back", {"action": "system_button", "button": "Back"}),
    6: ("press_home", {"action": "system_button", "button": "Home"}),
    7: ("press_enter", {"action": "system_button", "button": "Enter"}),
    10: ("status_complete", {"action": "terminate", "status": "success"}),
    11: ("status_impossible", {"action": "terminate", "status": "failure"}),
}


@dataclass
class _Open:
    """An episode that is still missing steps. Its screenshots are on disk already."""

    where: str
    length: int
    head: Line
    steps: dict[int, Line] = field(default_factory=dict)


def units(sources: Sequence[Path], options: Options) -> list[Unit]:
    files = files_of(sources, ("*.tfrecord*", "*-of-*"), "the TFRecord files of Android in the Wild, or their folder")
    _split_of(options)
    return [Unit(f"{path.parent.name}/{path.name}", (path,)) for path in files]


def read(unit: Unit, context: Context) -> Iterator[Entry]:
    (path,) = unit.paths
    splits = _split_of(context.options)
    records = TFRecords(path, context.options.check_crc)
    unfinished: dict[str, _Open] = {}
    for payload in records:
        yield records.where, partial(_record, payload, unfinished, splits, context, records.where)
        context.tick(records.consumed)
    for id_, episode in unfinished.items():
        yield episode.where, partial(Fragment, id_, episode.length, episode.head, episode.steps)


AITW = Format(
    "aitw",
    ACTIONS,
    units,
    read,
    (
        "Screenshots were raw pixels and are stored as PNG.",
        "Boxes are the recorded OCR and icon detections that hold the touch point; `bbox` is the smallest.",
    ),
)


def _split_of(options: Options) -> Mapping[str, str]:
    """{episode id: split} of the file that --splits names; {} without one."""
    if options.splits is None:
        if options.split:
            raise SetupError("--split needs --splits FILE, one of the data set's split files (standard.json, ...)")
        return {}
    if not options.splits.is_file():
        raise SetupError(f"{options.splits} is not a file; give one of the data set's split files with --splits")
    try:
        table = json.loads(read_file(options.splits, f"{options.splits}:1", "split file"))
        return {str(id_): str(name) for name, ids in table.items() for id_ in ids}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(f"{options.splits}:1", f"expected {{split name: [episode ids]}}: {error}") from None


def _record(
    payload: memoryview, unfinished: dict[str, _Open], splits: Mapping[str, str], context: Context, where: str
) -> Line | None:
    """Add one step to its episode. Returns the episode's line when no step is missing any more."""
    example = parse_example(payload, where)
    id_ = _string(example, "episode_id", where)
    if context.options.split is not None and splits.get(id_) != context.options.split:
        raise Dropped(f"steps of episodes not in split {context.options.split}", listed=False)
    index, length = _one(example, "step_id", where), _one(example, "episode_length", where)
    if not 0 <= index < length:
        raise DataError(where, f"step_id {index} of an episode of {length} steps")
    goal = _string(example, "goal_info", where)
    if id_ not in unfinished:
        head: Line = {"goal": goal, "episode_id": id_}
        head |= {key: _string(example, key, where) for key in ("current_activity", "device_type") if example.get(key)}
        if example.get("android_api_level"):
            head["android_api_level"] = _one(example, "android_api_level", where)
        head |= {"split": splits[id_]} if id_ in splits else {}
        unfinished[id_] = _Open(where, length, head)
    episode = unfinished[id_]
    if episode.length != length or index in episode.steps or episode.head["goal"] != goal:
        raise DataError(where, f"step {index} of {length} of episode {id_} contradicts what {episode.where} began")
    shot = _screenshot(example, where)
    made = _step(example, shot, context.options, where)
    made["screenshot"] = context.put(shot)
    episode.steps[index] = made
    if len(episode.steps) < length:
        return None
    del unfinished[id_]
    return episode.head | {"steps": [episode.steps[i] for i in range(length)]}


def _step(example: Example, shot: Screenshot, options: Options, where: str) -> Line:
    screen = shot.width, shot.height
    kind = _one(example, "results/action_type", where)
    boxes: list[PixelBox] = []
    if kind in _PLAIN:
        was, content = _PLAIN[kind]
    elif kind == 3:
        was, content = "type", {"action": "type", "text": _string(example, "results/type_action", where)}
    elif kind == 4:
        (y0, x0), (y1, x1) = (_floats(example, f"results/yx_{name}", where, 2) for name in ("touch", "lift"))
        start, end = [x0 * screen[0], y0 * screen[1]], [x1 * screen[0], y1 * screen[1]]
        if math.dist((x0, y0), (x1, y1)) <= TAP:
            was, content = "dual_point (tap)", {"action": "click", "coordinate": start}
            boxes = enclosing(_boxes(example, screen, where), start, screen) if options.boxes else []
        else:
            was, content = "dual_point (drag)", {"action": "swipe", "coordinate": start, "coordinate2": end}
    else:
        raise DataError(where, f"action_type {kind}, expected 3 to 7, 10 or 11")
    return step("", screen, content, where, was=was, boxes=boxes, origin="detector")


def _boxes(example: Example, screen: tuple[int, int], where: str) -> list[PixelBox]:
    """(y, x, height, width) fractions -> corners in pixels."""
    flat = np.asarray(example.get("image/ui_annotations_positions", []), float)
    if flat.size % 4 or not np.isfinite(flat).all():
        raise DataError(where, f"{flat.size} numbers of ui_annotations_positions, expected four finite ones per box")
    width, height = screen
    return [(x * width, y * height, (x + w) * width, (y + h) * height) for y, x, h, w in flat.reshape(-1, 4).tolist()]


def _screenshot(example: Example, where: str) -> Screenshot:
    shape = [_one(example, f"image/{side}", where) for side in ("height", "width", "channels")]
    raw = _first(example, "image/encoded", memoryview, where)
    if shape[2] != 3 or min(shape) < 1 or len(raw) != math.prod(shape):
        raise DataError(where, f"{len(raw)} bytes of pixels for height, width, channels {shape}")
    return encode_png(Image.frombuffer("RGB", (shape[1], shape[0]), raw, "raw", "RGB", 0, 1))


def _first(example: Example, name: str, kind: type, where: str) -> Any:
    values = example.get(name, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        raise DataError(where, f"the feature {name!r} holds {len(values)} values, expected one {kind.__name__}")
    return values[0]


def _one(example: Example, name: str, where: str) -> int:
    return int(_first(example, name, int, where))


def _string(example: Example, name: str, where: str) -> str:
    try:
        return bytes(_first(example, name, memoryview, where)).decode()
    except UnicodeDecodeError as error:
        raise DataError(where, f"{name} is not UTF-8: {error}") from None


def _floats(example: Example, name: str, where: str, count: int) -> list[float]:
    values = example.get(name, [])
    if len(values) != count or not all(isinstance(v, float) and math.isfinite(v) for v in values):
        raise DataError(where, f"the feature {name!r} is {values}, expected {count} numbers")
    return [float(v) for v in values]
