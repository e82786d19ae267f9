"""AndroidControl (GZIP TFRecord, one record = one episode): T actions, T+1 screenshots, accessibility forests.

Schema: google-research/android_control. Splits and sub-splits are two JSON files beside the shards.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Screenshot
from guiderail.agent.untrusted import read_file
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
    encoded,
    files_of,
    scroll_motion,
    step,
)
from guiderail.envs.imports.tfrecord import Example, TFRecords, parse_example
from guiderail.envs.imports.tree import boxes_at, boxes_named, parse_forest
from guiderail.envs.recordings import tables

WAIT_SECONDS = 2  # the recording says only "wait"; UI-S1's converter writes 2

ACTIONS = (
    Mapped("click", "click"),
    Mapped("long_press", "long_press", "2 s; the recording has no duration"),
    Mapped("scroll", "swipe", "the label names where the view goes; turned into finger motion once, here"),
    Mapped("open_app", "open"),
    Mapped("input_text", "type"),
    Mapped("type", "type", "documented, hardly ever present; its point is left out"),
    Mapped("navigate_home", "system_button", "Home"),
    Mapped("navigate_back", "system_button", "Back"),
    Mapped("wait", "wait", f"{WAIT_SECONDS} s"),
    Mapped("(none)", "terminate", "appended on the last screenshot, unless --no-terminate"),
)


@dataclass(frozen=True)
class Recording:
    """One episode as recorded. trees: serialized forests, empty when the source has none."""

    id: int
    goal: str
    screenshots: Sequence[bytes | memoryview]
    actions: Sequence[Any]
    instructions: Sequence[str | None]
    trees: Sequence[bytes | memoryview] = ()
    sizes: Sequence[tuple[int, int]] = ()


def units(sources: Sequence[Path], options: Options) -> list[Unit]:
    what = "AndroidControl's android_control-000NN-of-00020 files, or the folder that holds them"
    files = files_of(sources, ("android_control-*", "*.tfrecord*", *tables.PATTERNS), what)
    split_tables(options, files[0].parent)
    return [Unit(path.name, (path,)) for path in files]


def read(unit: Unit, context: Context) -> Iterator[Entry]:
    (path,) = unit.paths
    splits = split_tables(context.options, path.parent)
    if tables.is_table(path):
        for where, row in tables.rows(path, context.tick):
            yield where, partial(_from_row, row, splits, context, where)
        return
    records = TFRecords(path, context.options.check_crc)
    for payload in records:
        where = records.where
        yield where, partial(_from_payload, payload, splits, context, where)
        context.tick(records.consumed)


ANDROID_CONTROL = Format(
    "androidcontrol",
    ACTIONS,
    units,
    read,
    (
        "Scrolls: up and down labels name where the view goes and are inverted. Left and right labels are taken as the "
        "finger's (scroll = uis1, as in UI-S1's files) or inverted too (scroll = content).",
        "Screenshot i is what the expert saw before action i; there is one more screenshot than actions.",
        "Boxes are visible accessibility nodes that hold the expert's point; `bbox` is the smallest. The boxes of `open` "
        "steps are nodes named like the app.",
    ),
)


# --------------------------------------------------------------------------------------------------------- splits


def split_tables(options: Options, beside: Path) -> dict[str, dict[int, tuple[str, ...]]]:
    """{"split": {id: names}, "subsplits": {id: names}} from splits.json and test_subsplits.json; {} without them."""
    folder = options.splits or beside
    tables = {}
    for key, name in (("split", "splits.json"), ("subsplits", "test_subsplits.json")):
        file = folder / name
        if file.is_file():
            tables[key] = _split_table(file)
    if (options.split or options.splits) and "split" not in tables:
        raise SetupError(f"there is no splits.json in {folder}; download it, or name its folder with --splits")
    if options.split and options.split not in {name for names in tables["split"].values() for name in names}:
        raise SetupError(f"{folder / 'splits.json'} has no split {options.split!r}")
    return tables


def _split_table(file: Path) -> dict[int, tuple[str, ...]]:
    try:
        table: dict[int, tuple[str, ...]] = {}
        for name, ids in json.loads(read_file(file, f"{file}:1", "split file")).items():
            for id_ in ids:
                table[int(id_)] = (*table.get(int(id_), ()), str(name))
        return table
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(f"{file}:1", f"expected {{split name: [episode ids]}}: {error}") from None


# -------------------------------------------------------------------------------------------------------- records


def _from_payload(
    payload: memoryview, splits: Mapping[str, Mapping[int, tuple[str, ...]]], context: Context, where: str
) -> Line:
    example = parse_example(payload, where)
    widths, heights = (_get(example, f"screenshot_{side}s", int, where, False) for side in ("width", "height"))
    recording = Recording(
        id=_one(example, "episode_id", int, where),
        goal=_text(_one(example, "goal", memoryview, where), "goal", where),
        screenshots=_get(example, "screenshots", memoryview, where),
        actions=[_json(raw, where) for raw in _get(example, "actions", memoryview, where, False)],
        instructions=[
            _text(raw, "step_instructions", where)
            for raw in _get(example, "step_instructions", memoryview, where, False)
        ],
        trees=_get(example, "accessibility_trees", memoryview, where, context.options.boxes),
        sizes=list(zip(widths, heights, strict=False)),
    )
    return _line(recording, splits, context, where)


def _from_row(
    row: Mapping[str, Any], splits: Mapping[str, Mapping[int, tuple[str, ...]]], context: Context, where: str
) -> Line:
    """A Hugging Face row: screenshots as images or as base64 texts; no accessibility trees."""
    actions = tables.need(row, ("actions",), where)
    recording = Recording(
        id=int(tables.need(row, ("episode_id",), where)),
        goal=str(tables.need(row, ("goal",), where)),
        screenshots=[
            tables.image(value, where) for value in tables.need(row, ("screenshots", "screenshots_b64"), where)
        ],
        actions=[_json(raw.encode(), where) if isinstance(raw, str) else _known(raw) for raw in actions],
        instructions=[None if text is None else str(text) for text in tables.need(row, ("step_instructions",), where)],
    )
    return _line(recording, splits, context, where)


def _known(action: Mapping[str, Any]) -> dict[str, Any]:
    """Arrow structs give every action every key; those it does not have are None."""
    return {key: value for key, value in action.items() if value is not None}


def _get(example: Example, name: str, kind: type, where: str, required: bool = True) -> list[Any]:
    values = example.get(name, [])
    if required and not values:
        hint = "; import without boxes with --no-boxes" if name == "accessibility_trees" else ""
        raise DataError(where, f"the feature {name!r} is missing{hint}")
    if values and not isinstance(values[0], kind):
        raise DataError(where, f"the feature {name!r} holds {type(values[0]).__name__}, expected {kind.__name__}")
    return list(values)


def _one(example: Example, name: str, kind: type, where: str) -> Any:
    values = _get(example, name, kind, where)
    if len(values) != 1:
        raise DataError(where, f"the feature {name!r} has {len(values)} values, expected 1")
    return values[0]


def _text(raw: bytes | memoryview, what: str, where: str) -> str:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise DataError(where, f"{what} is not UTF-8: {error}") from None


def _json(raw: bytes | memoryview, where: str) -> Any:
    try:
        return json.loads(bytes(raw))
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"an action is not JSON: {error}"[:300]) from None


# ---------------------------------------------------------------------------------------------------------- lines


def _line(
    recording: Recording, splits: Mapping[str, Mapping[int, tuple[str, ...]]], context: Context, where: str
) -> Line:
    options = context.options
    named = {key: list(table.get(recording.id, ())) for key, table in splits.items()}
    if options.split is not None and options.split not in named["split"]:
        raise Dropped(f"not in split {options.split}", listed=False)
    count = len(recording.actions)
    if not count:
        raise Dropped("no actions recorded")
    for what, values, expected in (
        ("screenshots", recording.screenshots, (count + 1,)),
        ("step_instructions", recording.instructions, (count,)),
        ("accessibility_trees", recording.trees, (count + 1, 0)),
        ("screenshot sizes", recording.sizes, (count + 1, 0)),
    ):
        if len(values) not in expected:
            raise DataError(where, f"{count} actions come with {len(values)} {what}, expected {expected[0]}")
    shots = [encoded(data, f"{where} step {i}") for i, data in enumerate(recording.screenshots)]
    for i, (shot, size) in enumerate(zip(shots, recording.sizes, strict=False)):
        if (shot.width, shot.height) != size:
            raise DataError(
                f"{where} step {i}", f"the screenshot is {shot.width}x{shot.height}, its record says {size}"
            )
    steps = [_step(recording, i, shots[i], options, f"{where} step {i}") for i in range(count)]
    if options.terminate:
        content = {"action": "terminate", "status": "success"}
        steps.append(step("", (shots[-1].width, shots[-1].height), content, where, was="(none)"))
    for made, shot in zip(steps, shots, strict=False):
        made["screenshot"] = context.put(shot)
    line: Line = {"goal": recording.goal, "is_successful": True, "episode_id": recording.id, "steps": steps}
    if named.get("split"):
        line["split"] = named["split"][0]
    if named.get("subsplits"):
        line["subsplits"] = named["subsplits"]
    return line | {"terminate": "appended" if options.terminate else "not recorded"}


def _step(recording: Recording, index: int, shot: Screenshot, options: Options, where: str) -> Line:
    action, screen = recording.actions[index], (shot.width, shot.height)
    content, direction = _content(action, screen, options, where)
    boxes: list[PixelBox] = []
    if recording.trees and options.boxes and content["action"] in ("click", "long_press", "open"):
        forest = parse_forest(recording.trees[index], where)
        if content["action"] == "open":
            boxes = boxes_named(forest, content["text"], screen)
        else:
            boxes = boxes_at(forest, tuple(content["coordinate"]), screen)
    return step(
        "",
        screen,
        content,
        where,
        was=action["action_type"],
        boxes=boxes,
        origin="tree",
        direction=direction,
        step_instruction=recording.instructions[index],
    )


def _content(action: Any, screen: tuple[int, int], options: Options, where: str) -> tuple[Line, str | None]:
    """The recorded action in our format, and the scroll label when it is a scroll."""
    kind = action.get("action_type") if isinstance(action, dict) else None
    try:
        match kind:
            case "click":
                return {"action": "click", "coordinate": _point(action)}, None
            case "long_press":
                return {"action": "long_press", "coordinate": _point(action), "time": 2}, None
            case "scroll":
                return scroll_motion(action["direction"], screen, options.scroll), action["direction"]
            case "open_app":
                return {"action": "open", "text": _string(action["app_name"])}, None
            case "input_text" | "type":
                return {"action": "type", "text": _string(action["text"])}, None
            case "navigate_home" | "navigate_back":
                return {"action": "system_button", "button": kind.removeprefix("navigate_").title()}, None
            case "wait":
                return {"action": "wait", "time": WAIT_SECONDS}, None
    except (KeyError, TypeError) as error:
        raise DataError(where, f"the action {reprlib.repr(action)} lacks {error}, or its value is wrong") from None
    known = ", ".join(row.theirs for row in ACTIONS[:-1])
    raise DataError(where, f"unknown action {reprlib.repr(action)}, expected action_type to be one of {known}")


def _point(action: Mapping[str, Any]) -> list[float]:
    for key in ("x", "y"):
        if isinstance(action[key], bool) or not isinstance(action[key], int | float) or not abs(action[key]) < 1e6:
            raise TypeError(key)
    return [action["x"], action["y"]]


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value
