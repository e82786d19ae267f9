"""GUI-Odyssey: one JSON annotation per episode, coordinates 0 to 1000, boxes by SAM2 (2025-07 release).

Schema: OpenGVLab/GUI-Odyssey introduction.md. Layout: annotations/*.json, screenshots/*.png, splits/*.json.
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
from guiderail.agent.untrusted import read_file, stays_in
from guiderail.envs.imports.draft import (
    Context,
    Dropped,
    Entry,
    Format,
    Line,
    Mapped,
    Options,
    PixelBox,
    Unit,
    clipped,
    encoded,
    step,
)

_PER_UNIT = 100
_KEYS = {"KEY_HOME": "Home", "KEY_BACK": "Back", "KEY_APPSELECT": "Menu"}

ACTIONS = (
    Mapped("CLICK", "click", "coordinates 0 to 1000"),
    Mapped("CLICK KEY_HOME", "system_button", "Home"),
    Mapped("CLICK KEY_BACK", "system_button", "Back"),
    Mapped("CLICK KEY_APPSELECT", "system_button", "Menu, the button that shows recent apps"),
    Mapped("LONG_PRESS", "long_press", "2 s; the recording has no duration"),
    Mapped("SCROLL", "swipe", "the recorded finger path"),
    Mapped("TYPE", "type", "spelled TEXT in some releases"),
    Mapped("COMPLETE", "terminate", "success"),
    Mapped("INCOMPLETE", "terminate", "failure"),
)


def units(sources: Sequence[Path], options: Options) -> list[Unit]:
    files: list[Path] = []
    for source in sources:
        found = (
            [source]
            if source.is_file()
            else sorted((source / "annotations").glob("*.json")) or sorted(source.glob("*.json"))
        )
        if not found:
            raise SetupError(f"{source} holds no annotations/*.json; give the data folder of GUI-Odyssey")
        files += [path.resolve() for path in found]
    files = list(dict.fromkeys(files))
    _split_of(options)
    groups = [files[i : i + _PER_UNIT] for i in range(0, len(files), _PER_UNIT)]
    return [Unit(f"{group[0].name} to {group[-1].name}", tuple(group)) for group in groups]


def read(unit: Unit, context: Context) -> Iterator[Entry]:
    consumed, splits = 0, _split_of(context.options)
    for path in unit.paths:
        yield f"{path}:1", partial(_episode, path, splits, context)
        consumed += path.stat().st_size
        context.tick(consumed)


ODYSSEY = Format(
    "odyssey",
    ACTIONS,
    units,
    read,
    (
        "`thought` is the recorded intention, `step_instruction` the low-level instruction, `action_description` the "
        "description of the screen, `context` the recorded context.",
        "Boxes are SAM2 segments around the touched thing, kept when they hold the recorded point.",
    ),
)


def _split_of(options: Options) -> Mapping[str, str]:
    """{annotation file name: split} of one splits/*_split.json; {} without one."""
    if options.splits is None:
        if options.split:
            raise SetupError("--split needs --splits FILE, one of splits/random_split.json, task_split.json ...")
        return {}
    if not options.splits.is_file():
        raise SetupError(f"{options.splits} is not a file; give one of splits/random_split.json, task_split.json ...")
    try:
        table = json.loads(read_file(options.splits, f"{options.splits}:1", "split file"))
        return {str(file): str(name) for name, files in table.items() for file in files}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(f"{options.splits}:1", f"expected {{split name: [annotation files]}}: {error}") from None


def _episode(path: Path, splits: Mapping[str, str], context: Context) -> Line:
    where, options = f"{path}:1", context.options
    split = splits.get(path.name)
    if options.split is not None and split != options.split:
        raise Dropped(f"not in split {options.split}", listed=False)
    try:
        episode = json.loads(read_file(path, where, "annotation"))
        task, recorded = episode["task_info"], episode["steps"]
        goal, id_ = task["instruction"], str(episode["episode_id"])
        device = episode.get("device_info", {})
        length = episode.get("step_length", len(recorded))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(where, f"not an annotation of GUI-Odyssey: {type(error).__name__} {error}"[:300]) from None
    if not isinstance(goal, str) or not isinstance(recorded, list):
        raise DataError(where, "instruction is not a text, or steps is not a list")
    if not recorded:
        raise Dropped("no actions recorded")
    if length != len(recorded):
        raise DataError(where, f"step_length is {length}, but there are {len(recorded)} steps")
    folder = options.images or path.parent.parent / "screenshots"
    pairs = [_step(step, folder, options, f"{where} step {i}") for i, step in enumerate(recorded)]
    for made, shot in pairs:
        made["screenshot"] = context.put(shot)
    line: Line = {"goal": goal, "episode_id": id_, "steps": [made for made, _ in pairs]}
    line |= {key: task[key] for key in ("category", "app", "meta_task") if key in task}
    line |= {"device": device["device_name"]} if isinstance(device, dict) and "device_name" in device else {}
    return line | ({"split": split} if split else {})


def _step(recorded: Any, folder: Path, options: Options, where: str) -> tuple[Line, Screenshot]:
    if not isinstance(recorded, dict) or not isinstance(recorded.get("screenshot"), str):
        raise DataError(where, "the step names no screenshot")
    name = Path(recorded["screenshot"]).name
    hint = "; name its folder with --images"
    if not stays_in(folder, folder / name):
        raise DataError(where, f"screenshot {folder / name} is a link that leaves its folder{hint}")
    shot = encoded(read_file(folder / name, where, hint=hint), where)
    screen = shot.width, shot.height
    was, content = _content(recorded.get("action"), recorded.get("info"), screen, where)
    boxes: list[PixelBox] = []
    if options.boxes and "coordinate" in content and content["action"] != "swipe":
        boxes = _boxes(recorded.get("sam2_bbox"), content["coordinate"], screen, where)
    texts = {
        "thought": recorded.get("intention"),
        "step_instruction": recorded.get("low_level_instruction"),
        "action_description": recorded.get("description"),
        "context": recorded.get("context"),
    }
    said = {key: text for key, text in texts.items() if isinstance(text, str) and text.strip()}
    return step("", screen, content, where, was=was, boxes=boxes, origin="detector", **said), shot


def _content(action: Any, info: Any, screen: tuple[int, int], where: str) -> tuple[str, Line]:
    match action:
        case "CLICK" if isinstance(info, str) and info in _KEYS:
            return f"CLICK {info}", {"action": "system_button", "button": _KEYS[info]}
        case "CLICK":
            return action, {"action": "click", "coordinate": _points(info, 1, screen, where)[0]}
        case "LONG_PRESS":
            return action, {"action": "long_press", "coordinate": _points(info, 1, screen, where)[0], "time": 2}
        case "SCROLL":
            start, end = _points(info, 2, screen, where)
            return action, {"action": "swipe", "coordinate": start, "coordinate2": end}
        case "TYPE" | "TEXT" if isinstance(info, str):
            return "TYPE", {"action": "type", "text": info}
        case "COMPLETE" | "INCOMPLETE":
            return action, {"action": "terminate", "status": "success" if action == "COMPLETE" else "failure"}
    raise DataError(where, f"action {reprlib.repr(action)} with info {reprlib.repr(info)} is not one of GUI-Odyssey's")


def _points(info: Any, count: int, screen: tuple[int, int], where: str) -> list[list[float]]:
    if not isinstance(info, list) or len(info) < count or not all(_numbers(point, 2) for point in info[:count]):
        raise DataError(where, f"info is {reprlib.repr(info)}, expected {count} points [x, y] from 0 to 1000")
    return [[v * side / 1000 for v, side in zip(point, screen, strict=True)] for point in info[:count]]


def _boxes(box: Any, point: list[float], screen: tuple[int, int], where: str) -> list[PixelBox]:
    if not box:
        return []
    if not _numbers(box, 4):
        raise DataError(where, f"sam2_bbox is {reprlib.repr(box)}, expected [x1, y1, x2, y2] from 0 to 1000")
    width, height = (side / 1000 for side in screen)
    inside = clipped([(box[0] * width, box[1] * height, box[2] * width, box[3] * height)], screen)
    return [b for b in inside if b[0] <= point[0] <= b[2] and b[1] <= point[1] <= b[3]]


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 for v in value)
    )
