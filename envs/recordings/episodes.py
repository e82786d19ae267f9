"""Trajectory JSONL and its screenshots become Episodes, checked here once so that no later code has to check.

One line is one task: `{goal, steps: [{action_content, screenshot, ...}], episode_id?, ...}` with coordinates in pixels of
the original screenshot (UI-S1's published format). Every error starts with file:line. Recorded points and boxes may
overshoot their screen by a few pixels and are then moved to its edge. Further outside they are errors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from guiderail.agent.codec import action_from_json
from guiderail.agent.errors import DataError, SetupError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    Accepted,
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
from guiderail.agent.untrusted import open_file, opened, stays_in
from guiderail.envs.recordings.conventions import SLACK, Size, imported_from, infer_screens, swipe_convention
from guiderail.envs.recordings.sources import Table, recordings_file

Swipes = Literal["detect", "finger", "inverted"]
_KNOWN_KEYS = frozenset({"goal", "steps", "episode_id", "swipes"})
_THINK_TAG = re.compile("</?think>")


@dataclass(frozen=True)
class Dataset:
    """What was loaded. dropped: messages of skipped lines. swipes: how the file stores vertical swipes ("finger", "inverted",
    or `UNDETERMINED`); the episodes hold finger motion, if that is right. notes: sentences for the user about what was
    decided. digest: SHA-256 of the JSONL file, without the screenshots, which have their own."""

    episodes: tuple[Episode, ...]
    dropped: tuple[str, ...]
    swipes: str
    notes: tuple[str, ...]
    digest: str


def load_episodes(
    path: Path | str | Table,
    *,
    screen: Size | Literal["infer"] | None = None,
    swipes: Swipes = "detect",
    skip_bad: bool = False,
    limit: int | None = None,
) -> Dataset:
    """Read recordings: a .jsonl file, the folder of an `episodes.jsonl`, parquet files, OWNER/NAME of a data set on the Hub, or
    a `datasets` object (`recordings_file`).

    screen: None takes each size from its screenshot, which must be there and whole; (width, height) or "infer" opens no
    image. swipes: how vertical swipes are stored; a line with `"swipes": "finger"` is always taken as finger motion.
    skip_bad: broken episodes go to `dropped`. limit: the first N good episodes; conventions are still decided from the
    whole file. Raises SetupError when there is no such file, DataError for the first broken episode or when none is left.
    """
    if limit is not None and limit < 1:
        raise SetupError(f"limit {limit}: expected at least 1 episode")
    file = recordings_file(path)
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


def episode_of(
    line: Mapping[str, Any], file: Path, where: str, fallback_id: str, screen: Size | Literal["infer"] | None = None
) -> Episode:
    """One line of `file`, with swipes as finger motion. screen: as in `load_episodes`. Raises DataError."""
    size = infer_screens([line])[0][0] if screen == "infer" else screen
    return _Edge(file.parent, exchange=False).episode(line, where, fallback_id, size)


def untagged(thought: str) -> str:
    """An agent's thought as a recording may hold it: small models sometimes think of think tags."""
    return _THINK_TAG.sub("", thought).strip()


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
    """Checks and converts lines. exchange: vertical swipes are stored inverted. seen: sizes of images already checked.
    inside: folders and links that were found to stay in the folder of the data."""

    folder: Path
    exchange: bool
    seen: dict[Path, Size] = field(default_factory=dict)
    inside: set[Path] = field(default_factory=set)

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
        inverted = imported_from(line) == "inverted" if line.get("swipes") == "finger" else self.exchange
        exchange = inverted and line.get("swipes") != "finger"
        made = tuple(self.step(step, f"{where} step {i}", size, inverted, exchange) for i, step in enumerate(steps))
        if made[-1].history:
            raise DataError(
                f"{where} step {len(made) - 1}", "the last step is history only, expected one to learn from"
            )
        meta = {key: value for key, value in line.items() if key not in _KNOWN_KEYS}
        return Episode(_string(str(id_), "episode_id", where), goal, made, where, meta)

    def step(self, step: Any, where: str, size: Size | None, inverted: bool, exchange: bool) -> Step:
        """inverted: the source stores vertical swipes inverted. exchange: they have not been exchanged yet."""
        if not isinstance(step, dict) or not isinstance(step.get("action_content"), dict):
            raise DataError(where, "no action_content, expected an object such as {'action': 'wait'}")
        content = step["action_content"]
        screenshot = self.screenshot(step.get("screenshot"), where, size)
        screen = ScreenTransform(screenshot.width, screenshot.height)
        action, turned = _action(content, screen, where, inverted, exchange)
        options = step.get("check_options") or {}
        if not isinstance(options, dict):
            raise DataError(where, f"check_options is {reprlib.repr(options)}, expected an object")
        thought = step.get("thought") if step.get("thought") is not None else step.get("motivation")
        if isinstance(thought, str) and _THINK_TAG.search(thought):
            raise DataError(where, "thought holds a think tag, expected only what stands inside it")
        instruction, origin = step.get("step_instruction"), step.get("box_origin")
        history, accepted = step.get("history", False), step.get("also_accepted", [])
        if not isinstance(history, bool):
            raise DataError(where, f"history is {reprlib.repr(history)}, expected true or false")
        if not isinstance(accepted, list) or not all(isinstance(one, dict) for one in accepted):
            raise DataError(where, f"also_accepted is {reprlib.repr(accepted)}, expected a list of actions")
        return Step(
            screenshot,
            action,
            _boxes(step, content, options, screen, where),
            None if thought is None else _string(thought, "thought", where),
            None if instruction is None else _string(instruction, "step_instruction", where),
            _label(options.get("direction"), where) if isinstance(action, Swipe) else None,
            None if origin is None else _string(origin, "box_origin", where),
            turned,
            tuple(
                Accepted(
                    _action(one, screen, f"{where} also_accepted {i}", inverted, exchange)[0],
                    _boxes({}, one, {}, screen, where),
                )
                for i, one in enumerate(accepted)
            ),
            history,
        )

    def screenshot(self, name: Any, where: str, size: Size | None) -> Screenshot:
        if name is None and size is not None:
            return Screenshot(*size, source=where)
        if not isinstance(name, str) or not name:
            raise DataError(where, f"screenshot is {reprlib.repr(name)}, expected the path of an image")
        # A relative path comes with the data and must stay in its folder. An absolute one names a place that the user set up
        # on this machine; UI-S1's own files use such paths.
        relative = os.path.normpath(name)
        if relative == ".." or relative.startswith(("../", "..\\")):
            raise DataError(where, f"screenshot {name!r} leaves the folder of the data")
        path = self.folder / relative
        if not os.path.isabs(relative):
            self.check_links(path, where)
        if size is None:
            if path not in self.seen:
                self.seen[path] = image_size(path, where)
            size = self.seen[path]
        return Screenshot(*size, path=path, source=where)

    def check_links(self, path: Path, where: str) -> None:
        """Raises DataError for a picture that a link leads out of the folder. Folders are looked at once."""
        for place in (path.parent, path):
            if place not in self.inside and (place == path.parent or os.path.islink(path)):
                if not stays_in(self.folder, place):
                    out = "is a link that leaves the folder of the data"
                    raise DataError(where, f"screenshot {path} {out}; put it there, or name it by its absolute path")
                self.inside.add(place)


def image_size(path: Path, where: str) -> Size:
    """(width, height) from the header of a PNG or JPEG that is not cut off. Pixels are not decoded. Raises DataError."""
    hint = " (without images, give the screen's size or let it be inferred)"
    with open_file(path, where, "screenshot", hint=hint) as file:
        with opened(file, where, f"screenshot {path}", ("PNG", "JPEG")) as image:
            size, kind = image.size, image.format
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1024))
        tail = file.read()
    if (b"IEND\xaeB`\x82" if kind == "PNG" else b"\xff\xd9") not in tail:
        raise DataError(where, f"screenshot {path} is cut off: the end of the {kind} is missing")
    return size


def _action(
    content: Mapping[str, Any], screen: ScreenTransform, where: str, inverted: bool, exchange: bool
) -> tuple[Action, bool]:
    """The action, as finger motion, and whether the source stores it inverted."""
    try:
        action = _on_screen(action_from_json(content, screen), screen, where)
    except UnreadableAction as error:
        raise DataError(where, str(error)) from None
    turned = (
        inverted and isinstance(action, Swipe) and action.direction in ("up", "down") and action.start != action.end
    )
    if turned and exchange and isinstance(action, Swipe):
        action = Swipe(action.end, action.start)
    return action, turned


def _string(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(where, f"{what} is {reprlib.repr(value)}, expected a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(where, f"{what} {reprlib.repr(value)} holds one half of a surrogate pair")
    return value


def _label(value: Any, where: str) -> Direction | None:
    if value is not None and value not in ("up", "down", "left", "right"):
        raise DataError(where, f"direction is {reprlib.repr(value)}, expected up, down, left or right")
    return cast(Direction | None, value)


def _on_screen(action: Action, screen: ScreenTransform, where: str) -> Action:
    """The action, with points that overshoot by up to SLACK pixels moved to the edge. DataError for points further outside."""

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
    """The step's target boxes, each once: `bbox` of the action, of the step, then `candidate_bbox`. Only the first is a "bbox":
    UI-S1's training reads no other."""
    listed = options.get("candidate_bbox") or []
    if not isinstance(listed, list):
        raise DataError(where, f"candidate_bbox is {reprlib.repr(listed)}, expected a list of boxes")
    flat = len(listed) == 4 and not isinstance(listed[0], list)
    found = [(content["bbox"], "bbox")] if content.get("bbox") is not None else []
    found += [(step["bbox"], "candidate")] if step.get("bbox") is not None else []
    found += [(box, "candidate") for box in ([listed] if flat else listed)]
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
        raise DataError(where, f"box {value} has no area, expected two corners: [left, top, right, bottom]")
    width, height = screen.width, screen.height
    if right < -SLACK or bottom < -SLACK or left > width + SLACK or top > height + SLACK:
        raise DataError(where, f"box {value} is outside the {width}x{height} screen")
    x1, x2 = (min(max(x, 0), width) / width for x in (left, right))
    y1, y2 = (min(max(y, 0), height) / height for y in (top, bottom))
    return Box(x1, y1, x2, y2)
