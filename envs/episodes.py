"""Where data enters: trajectory JSONL and its screenshots -> Episodes, checked once so that nothing later has to.

One line is one task: `{goal, steps: [{action_content, screenshot, ...}], episode_id?, ...}` with coordinates in pixels of
the original screenshot (UI-S1's published format). Every complaint starts with file:line. Recorded points and boxes
may overshoot their screen by a few pixels and are then moved to its edge; beyond that they are errors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from agent.codec import action_from_json, action_to_json
from agent.errors import DataError, SetupError, UnreadableAction
from agent.screen import ScreenTransform
from agent.types import (
    Action,
    Box,
    Click,
    Direction,
    Episode,
    LongPress,
    Point,
    Screenshot,
    Step,
    Swipe,
    TargetBox,
)
from envs.conventions import SLACK, Size, infer_screens, swipe_convention

Swipes = Literal["detect", "finger", "inverted"]
_KNOWN_KEYS = frozenset({"goal", "steps", "episode_id", "swipes"})


@dataclass(frozen=True)
class Dataset:
    """What was loaded. dropped: messages of skipped lines. swipes: how the file stores vertical swipes ("finger",
    "inverted", "undetermined"); the episodes hold finger motion in any case. notes: sentences for the user about what was
    decided. digest: SHA-256 of the JSONL file; each screenshot has its own."""

    episodes: tuple[Episode, ...]
    dropped: tuple[str, ...]
    swipes: str
    notes: tuple[str, ...]
    digest: str


def load_episodes(
    path: Path | str,
    *,
    screen: Size | Literal["infer"] | None = None,
    swipes: Swipes = "detect",
    skip_bad: bool = False,
    limit: int | None = None,
) -> Dataset:
    """Read a .jsonl file, or the `episodes.jsonl` of a folder.

    screen: None takes each size from its screenshot, which must be there and whole; (width, height) or "infer" opens no
    image. swipes: how vertical swipes are stored; a line that says `"swipes": "finger"` itself is believed. skip_bad:
    a broken episode goes to `dropped`. limit: the first so many good episodes; conventions are still decided from the
    whole file. Raises SetupError when there is no such file, DataError for the first broken episode or when none is left.
    """
    if limit is not None and limit < 1:
        raise SetupError(f"limit {limit}: expected at least 1 episode")
    file = _file(Path(path))
    raw = file.read_bytes()
    lines = list(_lines(file, raw))
    readable = [line for _, _, line in lines if isinstance(line, dict)]
    notes: list[str] = []
    stored: str = swipes
    if swipes == "detect":
        convention = swipe_convention(readable)
        stored = convention.stored
        notes += [convention.evidence] if convention.evidence else []
    sizes: Iterator[Size | None] = iter([_size(screen)] * len(readable))
    if screen == "infer":
        inferred, note = infer_screens(readable)
        sizes, notes = iter(inferred), [*notes, note]

    edge = _Edge(file.parent, exchange=stored == "inverted")
    episodes: dict[str, Episode] = {}
    dropped: list[str] = []
    for where, number, line in lines:
        if limit is not None and len(episodes) >= limit:
            break
        try:
            if isinstance(line, DataError):
                raise line
            episode = edge.episode(line, where, f"{file.stem}-{number}", next(sizes))
            if episode.id in episodes:
                raise DataError(where, f"episode_id {episode.id!r} was already used at {episodes[episode.id].source}")
            episodes[episode.id] = episode
        except DataError as error:
            if not skip_bad:
                raise
            dropped.append(str(error))
    if not episodes:
        raise DataError(f"{file}:1", f"no usable episode; {dropped[0] if dropped else 'the file is empty'}")
    return Dataset(tuple(episodes.values()), tuple(dropped), stored, tuple(notes), hashlib.sha256(raw).hexdigest())


def _file(path: Path) -> Path:
    file = path / "episodes.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise SetupError(f"no recorded episodes at {file}; give a .jsonl file or a folder that holds episodes.jsonl")
    return file


def _size(screen: Size | str | None) -> Size | None:
    if screen is None or isinstance(screen, str):
        return None
    if min(screen) < 1:
        raise SetupError(f"screen {screen[0]}x{screen[1]}: both sides must be positive; give it as in 1080x2400")
    return screen


def _lines(file: Path, raw: bytes) -> Iterator[tuple[str, int, dict[str, Any] | DataError]]:
    """(file:line, line number, object or what is wrong) of every line that is not blank."""
    for number, text in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not text.strip():
            continue
        where = f"{file}:{number}"
        try:
            line = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            yield where, number, DataError(where, f"not JSON: {error}"[:300])
            continue
        if not isinstance(line, dict):
            yield where, number, DataError(where, f"a JSON {type(line).__name__}, expected one object per line")
            continue
        yield where, number, line


@dataclass(frozen=True)
class _Edge:
    """Checks and converts. exchange: vertical swipes are stored inverted. seen: sizes of images already checked."""

    folder: Path
    exchange: bool
    seen: dict[Path, Size] = field(default_factory=dict)

    def episode(self, line: Mapping[str, Any], where: str, fallback_id: str, size: Size | None) -> Episode:
        goal = _string(line.get("goal"), "goal", where)
        if not goal.strip():
            raise DataError(where, "goal is blank, expected the user's task")
        id_ = line.get("episode_id", fallback_id)
        if isinstance(id_, bool) or not isinstance(id_, int | str) or id_ == "":
            raise DataError(where, f"episode_id is {reprlib.repr(id_)}, expected a string or an integer")
        steps = line.get("steps")
        if not isinstance(steps, list) or not steps:
            raise DataError(where, f"steps is {reprlib.repr(steps)}, expected a list with at least one step")
        exchange = self.exchange and line.get("swipes") != "finger"
        made = tuple(self.step(step, f"{where} step {i}", size, exchange) for i, step in enumerate(steps))
        meta = {key: value for key, value in line.items() if key not in _KNOWN_KEYS}
        return Episode(_string(str(id_), "episode_id", where), goal, made, where, meta)

    def step(self, step: Any, where: str, size: Size | None, exchange: bool) -> Step:
        if not isinstance(step, dict) or not isinstance(step.get("action_content"), dict):
            raise DataError(where, "no action_content, expected an object such as {'action': 'wait'}")
        content = step["action_content"]
        screenshot = self.screenshot(step.get("screenshot"), where, size)
        screen = ScreenTransform(screenshot.width, screenshot.height)
        try:
            action = _on_screen(action_from_json(content, screen), screen, where)
        except UnreadableAction as error:
            raise DataError(where, str(error)) from None
        if exchange and isinstance(action, Swipe) and action.direction in ("up", "down"):
            action = Swipe(action.end, action.start)
        options = step.get("check_options") or {}
        if not isinstance(options, dict):
            raise DataError(where, f"check_options is {reprlib.repr(options)}, expected an object")
        thought = step.get("thought") if step.get("thought") is not None else step.get("motivation")
        if isinstance(thought, str) and ("<think>" in thought or "</think>" in thought):
            raise DataError(where, "thought holds a think tag, expected only what stands inside it")
        instruction, origin = step.get("step_instruction"), step.get("box_origin")
        return Step(
            screenshot,
            action,
            _boxes(step, content, options, screen, where),
            None if thought is None else _string(thought, "thought", where),
            None if instruction is None else _string(instruction, "step_instruction", where),
            _label(options.get("direction"), where) if isinstance(action, Swipe) else None,
            None if origin is None else _string(origin, "box_origin", where),
        )

    def screenshot(self, name: Any, where: str, size: Size | None) -> Screenshot:
        if name is None and size is not None:
            return Screenshot(*size, source=where)
        if not isinstance(name, str) or not name:
            raise DataError(where, f"screenshot is {reprlib.repr(name)}, expected the path of an image")
        # Relative paths come with the data and must stay in its folder. An absolute one is a place that somebody set up on
        # this machine, and UI-S1's own files use them.
        relative = os.path.normpath(name)
        if relative == ".." or relative.startswith(("../", "..\\")):
            raise DataError(where, f"screenshot {name!r} leaves the folder of the data")
        path = self.folder / relative
        if size is None:
            if path not in self.seen:
                self.seen[path] = image_size(path, where)
            size = self.seen[path]
        return Screenshot(*size, path=path, source=where)


def image_size(path: Path, where: str) -> Size:
    """(width, height) from the header of a PNG or JPEG whose end is there too; pixels are not decoded. DataError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as file, Image.open(file, formats=("PNG", "JPEG")) as image:
            size, kind = image.size, image.format
            file.seek(max(0, path.stat().st_size - 1024))
            tail = file.read()
    except UnidentifiedImageError:
        raise DataError(where, f"screenshot {path} is no PNG or JPEG image") from None
    except FileNotFoundError:
        raise DataError(
            where, f"screenshot {path} is missing (without images, give the screen's size or let it be inferred)"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(where, f"screenshot {path} cannot be read: {error}") from None
    if (b"IEND\xaeB`\x82" if kind == "PNG" else b"\xff\xd9") not in tail:
        raise DataError(where, f"screenshot {path} is cut off: the end of the {kind} is missing")
    return size


def _string(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(where, f"{what} is {reprlib.repr(value)}, expected a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(where, f"{what} {reprlib.repr(value)} holds half of a surrogate pair")
    return value


def _label(value: Any, where: str) -> Direction | None:
    if value is not None and value not in ("up", "down", "left", "right"):
        raise DataError(where, f"direction is {reprlib.repr(value)}, expected up, down, left or right")
    return cast(Direction | None, value)


def _on_screen(action: Action, screen: ScreenTransform, where: str) -> Action:
    """The action with points that overshoot by up to SLACK pixels moved to the edge; DataError beyond that."""

    def moved(point: Point) -> Point:
        inside = Point(min(max(point.x, 0.0), 1.0), min(max(point.y, 0.0), 1.0))
        if max(abs(point.x - inside.x) * screen.width, abs(point.y - inside.y) * screen.height) > SLACK:
            at = f"({point.x * screen.width:g}, {point.y * screen.height:g})"
            raise DataError(where, f"the point {at} is outside the {screen.width}x{screen.height} screen")
        return inside

    match action:
        case Click(point) | LongPress(point):
            return replace(action, point=moved(point))
        case Swipe(start, end):
            return Swipe(moved(start), moved(end))
    return action


def _boxes(
    step: Mapping[str, Any], content: Mapping[str, Any], options: Mapping[str, Any], screen: ScreenTransform, where: str
) -> tuple[TargetBox, ...]:
    """The step's target boxes, equal ones once: `bbox` of the action or the step, then `candidate_bbox`."""
    listed = options.get("candidate_bbox") or []
    if not isinstance(listed, list):
        raise DataError(where, f"candidate_bbox is {reprlib.repr(listed)}, expected a list of boxes")
    flat = len(listed) == 4 and not isinstance(listed[0], list)
    found = [(box, "bbox") for box in (content.get("bbox"), step.get("bbox")) if box is not None]
    found += [(listed, "bbox")] if flat else [(box, "candidate") for box in listed]
    boxes: dict[Box, TargetBox] = {}
    for value, origin in found:
        box = _box(value, screen, where)
        boxes.setdefault(box, TargetBox(box, origin))
    return tuple(boxes.values())


def _box(value: Any, screen: ScreenTransform, where: str) -> Box:
    corners = value if isinstance(value, list) and len(value) == 4 else []
    if not corners or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in corners):
        raise DataError(where, f"box {reprlib.repr(value)}, expected [left, top, right, bottom] in pixels")
    left, top, right, bottom = corners
    if left > right or top > bottom:
        raise DataError(where, f"box {value} has no inside, expected two corners: [left, top, right, bottom]")
    width, height = screen.width, screen.height
    if right < -SLACK or bottom < -SLACK or left > width + SLACK or top > height + SLACK:
        raise DataError(where, f"box {value} is outside the {width}x{height} screen")
    x1, x2 = (min(max(x, 0), width) / width for x in (left, right))
    y1, y2 = (min(max(y, 0), height) / height for y in (top, bottom))
    return Box(x1, y1, x2, y2)


# ------------------------------------------------------------------------------------------------------------- writing


def save_episodes(path: Path, episodes: Sequence[Episode]) -> None:
    """Write standard JSONL, complete or not at all. Coordinates are pixels of the original screenshots, to 1/1000.

    Every line says `"swipes": "finger"`. Screenshots inside the file's folder are named relative to it, others by their
    absolute path; those held in memory are written to `images/`. Boxes other than a leading
    one of origin "bbox" read back as "candidate".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for number, episode in enumerate(episodes):
            line: dict[str, Any] = {**episode.meta, "goal": episode.goal, "episode_id": episode.id, "swipes": "finger"}
            line["steps"] = [_step_json(step, path.parent, f"{number}_{i}") for i, step in enumerate(episode.steps)]
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(partial, path)


def _step_json(step: Step, folder: Path, name: str) -> dict[str, Any]:
    width, height = step.screenshot.width, step.screenshot.height

    def pixels(*fractions: float) -> list[float]:
        exact = (round(f * side, 3) for f, side in zip(fractions, (width, height) * 2, strict=False))
        return [int(v) if v == math.floor(v) else v for v in exact]

    content = action_to_json(step.action, ScreenTransform(width, height))
    match step.action:
        case Click(point) | LongPress(point):
            content["coordinate"] = pixels(point.x, point.y)
        case Swipe(start, end):
            content |= {"coordinate": pixels(start.x, start.y), "coordinate2": pixels(end.x, end.y)}
    written: dict[str, Any] = {"action_content": content}
    if (image := _image_name(step.screenshot, folder, name)) is not None:
        written["screenshot"] = image
    texts = {"thought": step.thought, "step_instruction": step.instruction, "box_origin": step.box_origin}
    for key, text in texts.items():
        if text is not None:
            written[key] = text
    boxes = ((target.origin, target.box) for target in step.boxes)
    targets = [(origin, pixels(box.left, box.top, box.right, box.bottom)) for origin, box in boxes]
    if targets and targets[0][0] == "bbox":
        content["bbox"] = targets.pop(0)[1]
    check: dict[str, Any] = {"candidate_bbox": [box for _, box in targets]} if targets else {}
    if step.scroll_label is not None:
        check["direction"] = step.scroll_label
    if check:
        written["check_options"] = {"action": step.action.name, **check}
    return written


def _image_name(screenshot: Screenshot, folder: Path, name: str) -> str | None:
    if screenshot.path is None and screenshot.data is None:
        return None
    if screenshot.path is not None:
        path = screenshot.path.absolute()
        return path.relative_to(folder.absolute()).as_posix() if path.is_relative_to(folder.absolute()) else str(path)
    image = folder / "images" / f"{name}.{'png' if screenshot.encoded()[:4] == bytes((0x89, 80, 78, 71)) else 'jpg'}"
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(screenshot.encoded())
    return f"images/{image.name}"
