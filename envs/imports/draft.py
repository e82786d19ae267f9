"""What every importer is made of: options, a unit of work, and the standard line it produces.

An importer reads one unit (a shard, or a few small files) and yields one `Entry` per recorded thing: where it stands, and a
function that makes the line. The function raises `Dropped` for what the format allows but no recording can use (an episode
without actions), and DataError for what breaks the format's rules.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Screenshot
from guiderail.agent.untrusted import MOST_PICTURE_BYTES, MOST_PIXELS, opened
from guiderail.envs.recordings.conventions import SLACK
from guiderail.envs.recordings.episodes import Swipes

Line = dict[str, Any]
PixelBox = tuple[float, float, float, float]
Origin = Literal["tree", "detector", "annotation"]
Scroll = Literal["uis1", "content"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; written into the card.

    check_crc: verify the checksum of every TFRecord payload. skip_bad: drop and list what breaks the format's rules
    instead of stopping. terminate: append a "terminate success" step on the screenshot after the last action where the
    format has one. boxes: read target boxes. scroll: how a scroll label becomes finger motion, see `scroll_motion`.
    split: import only these episodes. splits: where the split files are (default: beside the shards). images: folder of
    the screenshots. screen: "WxH" or "infer" imports recordings whose images are not there. swipes: how a JSONL file
    stores vertical swipes.
    """

    check_crc: bool = True
    skip_bad: bool = False
    terminate: bool = True
    boxes: bool = True
    scroll: Scroll = "uis1"
    split: str | None = None
    splits: Path | None = None
    images: Path | None = None
    screen: tuple[int, int] | Literal["infer"] | None = None
    swipes: Swipes = "detect"


@dataclass(frozen=True, slots=True)
class Unit:
    """What one process imports at a time, and imports again after a crash: one file, or a group of small ones."""

    name: str
    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


@dataclass(frozen=True, slots=True)
class Fragment:
    """Some steps of an episode whose other steps are in another unit. steps: by index."""

    id: str
    length: int
    head: Line
    steps: Mapping[int, Line]


class Dropped(Exception):
    """Left out on purpose. listed: False for what the user did not ask for, such as another split; it is counted only."""

    def __init__(self, reason: str, listed: bool = True):
        super().__init__(reason)
        self.listed = listed


Entry = tuple[str, Callable[[], Line | Fragment | None]]


class Context(Protocol):
    """What an importer works with. `put` stores a screenshot and returns its path relative to the output folder, `tick`
    reports how many bytes of the unit have been read, `note` adds a sentence to the card."""

    @property
    def options(self) -> Options: ...
    def put(self, screenshot: Screenshot) -> str: ...
    def tick(self, consumed: int) -> None: ...
    def note(self, sentence: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Mapped:
    """One row of a format's action table: the source's name of an action, ours ("" when dropped), and how it is converted."""

    theirs: str
    ours: str
    how: str = ""


@dataclass(frozen=True)
class Format:
    """units: splits the user's sources into work; raises SetupError when there is nothing. read: see the module."""

    name: str
    actions: tuple[Mapped, ...]
    units: Callable[[Sequence[Path], Options], list[Unit]]
    read: Callable[[Unit, Context], Iterator[Entry]]
    about: tuple[str, ...] = field(default=())


def files_of(sources: Sequence[Path], patterns: Sequence[str], what: str) -> list[Path]:
    """Files named directly, or found by pattern in folders (not below them). Each once, in order."""
    found: dict[Path, None] = {}
    for source in sources:
        inside = [path for pattern in patterns for path in sorted(source.glob(pattern)) if path.is_file()]
        if not source.exists():
            raise SetupError(f"{source} does not exist; give {what}")
        if source.is_dir() and not inside:
            raise SetupError(f"{source} holds no {' or '.join(patterns)}; give {what}")
        found |= dict.fromkeys(path.resolve() for path in (inside if source.is_dir() else [source]))
    return list(found)


# ------------------------------------------------------------------------------------------------------ one step


def step(
    screenshot: str,
    screen: tuple[int, int],
    content: Line,
    where: str,
    *,
    was: str,
    boxes: Sequence[PixelBox] = (),
    origin: Origin = "tree",
    direction: str | None = None,
    **texts: str | None,
) -> Line:
    """A step of the standard format. content: the action, coordinates in pixels of `screen` (width, height).

    was: the action's name in the source, counted for the card and then removed. boxes: smallest first; that one becomes
    the action's `bbox`, all of them `candidate_bbox`. texts: step_instruction, thought ... written when not None.
    """
    content = dict(content)
    for key in ("coordinate", "coordinate2"):
        if key in content:
            content[key] = _on_screen(content[key], screen, where)
    check: Line = {"action": content["action"]}
    if boxes:
        check["candidate_bbox"] = [[tidy(v) for v in box] for box in boxes]
    if direction is not None:
        check["direction"] = direction
    made: Line = {"action_content": content, "screenshot": screenshot}
    made |= {key: text for key, text in texts.items() if text is not None}
    if boxes and content["action"] in ("click", "long_press"):
        content["bbox"] = check["candidate_bbox"][0]
        check["coordinate"] = content["coordinate"]
    if len(check) > 1:
        made["check_options"] = check
    if boxes:
        made["box_origin"] = origin
    return made | {"was": was}


def _on_screen(point: Sequence[float], screen: tuple[int, int], where: str) -> list[float]:
    """Recorded points sometimes overshoot by a few pixels; they are moved to the edge. Beyond that: DataError."""
    inside = [min(max(float(v), 0.0), float(side)) for v, side in zip(point, screen, strict=True)]
    if not all(abs(a - b) <= SLACK for a, b in zip(point, inside, strict=True)):
        raise DataError(where, f"the point {list(point)} is outside the {screen[0]}x{screen[1]} screen")
    return [tidy(v) for v in inside]


def tidy(value: float) -> float:
    """Pixels to 1/1000, whole ones as int."""
    rounded = round(value, 3)
    return int(rounded) if rounded == math.floor(rounded) else rounded


def clipped(boxes: Iterable[PixelBox], screen: tuple[int, int]) -> list[PixelBox]:
    """The parts of the boxes that are on the screen; boxes that have none are left out."""
    width, height = screen
    inside = ((max(b[0], 0), max(b[1], 0), min(b[2], width), min(b[3], height)) for b in boxes)
    return [box for box in inside if box[0] < box[2] and box[1] < box[3]]


def enclosing(boxes: Iterable[PixelBox], point: Sequence[float], screen: tuple[int, int]) -> list[PixelBox]:
    """The boxes that hold the point, clipped to the screen, each once, smallest area first."""
    x, y = point
    held = {box for box in clipped(boxes, screen) if box[0] <= x <= box[2] and box[1] <= y <= box[3]}
    return sorted(held, key=lambda b: ((b[2] - b[0]) * (b[3] - b[1]), b))


def splits_of(line: Line) -> list[str]:
    """The splits that a line says it is in; other values than texts are not names."""
    subsplits = line.get("subsplits")
    listed = [line.get("split"), *(subsplits if isinstance(subsplits, list) else ())]
    return [name for name in listed if isinstance(name, str) and name]


_OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}
_PATHS = {
    "up": ((0.5, 0.75), (0.5, 0.25)),
    "down": ((0.5, 0.25), (0.5, 0.75)),
    "left": ((0.75, 0.5), (0.25, 0.5)),
    "right": ((0.25, 0.5), (0.75, 0.5)),
}


def scroll_motion(label: str, screen: tuple[int, int], scroll: Scroll) -> Line:
    """The finger motion of a scroll label: half the screen, through its middle, as UI-S1's converter draws it.

    AndroidControl's label says where the *view* goes, so the finger goes the other way. "uis1" inverts up and down only
    and takes left and right as the finger's, as in UI-S1's published files (method, section 4.4: 1,043 vertical and 168
    horizontal swipes of the test split); scores stay comparable. "content" inverts all four, which is what the step
    instructions of most horizontal scrolls say.
    """
    inverted = scroll == "content" or label in ("up", "down")
    start, end = _PATHS[_OPPOSITE[label] if inverted else label]
    ends = [[tidy(fraction * side) for fraction, side in zip(point, screen, strict=True)] for point in (start, end)]
    return {"action": "swipe", "coordinate": ends[0], "coordinate2": ends[1]}


# ----------------------------------------------------------------------------------------------------- one image


def encoded(data: bytes | memoryview, where: str) -> Screenshot:
    """An image file's bytes as a screenshot: PNG and JPEG as they are, WebP and GIF re-encoded as PNG.

    Pixels of PNG and JPEG are not decoded; a missing start or end is a DataError.
    """
    if len(data) > MOST_PICTURE_BYTES:
        raise DataError(where, f"the screenshot has {len(data)} bytes, at most {MOST_PICTURE_BYTES} are allowed")
    data = bytes(data)
    if not data:
        raise DataError(where, "the screenshot has 0 bytes")
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        if len(data) < 24 or data[12:16] != b"IHDR" or b"IEND\xaeB`\x82" not in data[-1024:]:
            raise DataError(where, f"the screenshot's PNG of {len(data)} bytes is cut off")
        width, height = struct.unpack(">II", data[16:24])
        if not 0 < width * height <= MOST_PIXELS:
            raise DataError(where, f"the screenshot says it is {width}x{height}")
        return Screenshot(width, height, data=data)
    from guiderail.envs.live.device import encode_png

    with opened(data, where, f"the screenshot of {len(data)} bytes") as image:
        if image.format != "JPEG":
            return encode_png(image.convert("RGB"))
        if b"\xff\xd9" not in data[-1024:]:
            raise DataError(where, f"the screenshot's JPEG of {len(data)} bytes is cut off")
        return Screenshot(image.width, image.height, data=data)
