"""Standard trajectory JSONL, as UI-S1 publishes it, in both its swipe conventions; and back again.

Every key of the source is kept. What the import changes is remembered under `import` (of the line and of the step), so that
`export_uis1` restores the original content: vertical swipes that were stored inverted, the names of the screenshots, and
that a line had no episode_id.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agent.errors import DataError
from agent.types import ACTION_NAMES
from envs.conventions import swipe_convention
from envs.imports import hub
from envs.imports.draft import Desk, Format, Line, Mapped, Offer, Options, Unit, encoded, files_of

_OURS = ("swipes", "import")

ACTIONS = tuple(Mapped(name, name) for name in ACTION_NAMES)


def units(sources: Sequence[Path], options: Options) -> list[Unit]:
    """A folder that holds `episodes.jsonl` stands for that file."""
    sources = [s / "episodes.jsonl" if (s / "episodes.jsonl").is_file() else s for s in sources]
    files = files_of(sources, ("*.jsonl", *hub.PATTERNS), "standard trajectory JSONL files, or their folder")
    return [Unit(path.parent.name if path.name == "episodes.jsonl" else path.name, (path,)) for path in files]


def read(unit: Unit, desk: Desk) -> Iterator[Offer]:
    (path,) = unit.paths
    if hub.is_table(path):
        convention = _Convention(desk)
        for _, row in hub.rows(path, desk):
            convention.add(_plain(row))
        rows = ((where, partial(_plain, row)) for where, row in hub.rows(path, desk))
    else:
        convention = _Convention(desk)
        for where, text in _texts(path, desk):
            convention.add(_parsed_or_none(text, where))
        rows = ((where, partial(_parsed, text, where)) for where, text in _texts(path, desk))
    inverted = convention.inverted(unit.name)
    for number, (where, parse) in enumerate(rows, 1):
        yield where, partial(_offer, parse, unit, number, inverted, desk, where)


UIS1 = Format(
    "uis1",
    ACTIONS,
    units,
    read,
    (
        "All keys of the source are kept; boxes stay where the source has them (`bbox` of the action, `candidate_bbox` of "
        "check_options).",
        "`import` holds what was changed; `guiderail data export` restores the source's content from it.",
    ),
)


class _Convention:
    """The swipe convention is a property of the whole file: a first pass keeps its swipes and nothing else."""

    def __init__(self, desk: Desk):
        self.desk = desk
        self.lines: list[Line] = []

    def add(self, line: Any) -> None:
        if not isinstance(line, dict) or not isinstance(line.get("steps"), list):
            return
        steps = [s for s in line["steps"] if isinstance(s, dict) and isinstance(s.get("action_content"), dict)]
        swipes = [
            {"action_content": s["action_content"], "check_options": s.get("check_options")}
            for s in steps
            if s["action_content"].get("action") == "swipe"
        ]
        if swipes:
            self.lines.append({"steps": swipes, "swipes": line.get("swipes")})

    def inverted(self, name: str) -> bool:
        asked = self.desk.options.swipes
        if asked != "detect":
            self.desk.note(f"{name}: swipes taken as stored {asked}, as told")
            return asked == "inverted"
        found = swipe_convention(self.lines)
        if found.evidence:
            self.desk.note(f"{name}: {found.evidence}".replace("exchanged on load", "exchanged on import"))
        return found.stored == "inverted"


def _texts(path: Path, desk: Desk) -> Iterator[tuple[str, bytes]]:
    consumed = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if number == 1:
                text = text.removeprefix(b"\xef\xbb\xbf")
            if text.strip():
                yield f"{path}:{number}", text
            consumed += len(text)
            desk.tick(consumed)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"not JSON: {error}"[:300]) from None


def _parsed_or_none(text: bytes, where: str) -> Any:
    try:
        return _parsed(text, where)
    except DataError:
        return None


def _plain(value: Any) -> Any:
    """A table row as JSON would have it: Arrow gives every struct every key of its column, absent ones as None."""
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return value
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _offer(parse: Any, unit: Unit, number: int, inverted: bool, desk: Desk, where: str) -> Line:
    line = parse()
    if not isinstance(line, dict) or not isinstance(line.get("goal"), str):
        raise DataError(where, "expected an object with a goal per line")
    steps = line.get("steps")
    if not isinstance(steps, list) or not steps:
        raise DataError(where, f"steps is {reprlib.repr(steps)}, expected a list with at least one step")
    inverted = inverted and line.get("swipes") != "finger"
    changed: Line = {"swipes": "inverted"} if inverted else {}
    if "episode_id" not in line:
        line["episode_id"] = f"{Path(unit.name).stem}-{number}"
        changed["episode_id"] = None
    elif isinstance(line["episode_id"], bool) or not isinstance(line["episode_id"], int | str):
        raise DataError(where, f"episode_id is {reprlib.repr(line['episode_id'])}, expected a string or an integer")
    made = [_step(step, unit.paths[0], inverted, desk, f"{where} step {i}") for i, step in enumerate(steps)]
    earlier = {key: line.pop(key) for key in _OURS if key in line}
    return line | {"steps": made, "import": changed | ({"earlier": earlier} if earlier else {})}


def _step(recorded: Any, path: Path, inverted: bool, desk: Desk, where: str) -> Line:
    content = recorded.get("action_content") if isinstance(recorded, dict) else None
    name = content.get("action") if isinstance(content, dict) else None
    if not isinstance(content, dict) or name not in ACTION_NAMES:
        raise DataError(where, f"action {reprlib.repr(name)}, expected one of {', '.join(ACTION_NAMES)}")
    made = dict(recorded)
    if inverted and name == "swipe":
        made["action_content"] = exchanged(content, where)
    changed: Line = {"earlier": made.pop("import")} if "import" in made else {}
    picture = recorded.get("screenshot")
    if desk.options.screen is None:
        if isinstance(picture, str):
            changed["screenshot"] = picture
        made["screenshot"] = desk.put(encoded(_image(picture, path, desk, where), where))
    if "box_origin" not in made and _boxes(made):
        made["box_origin"], changed["box_origin"] = "annotation", "added"
    return made | ({"import": changed} if changed else {}) | {"was": name}


def _boxes(step: Mapping[str, Any]) -> bool:
    options = step.get("check_options") or {}
    boxed = (step["action_content"].get("bbox"), step.get("bbox"), options.get("candidate_bbox"))
    return any(box for box in boxed)


def _image(picture: Any, path: Path, desk: Desk, where: str) -> bytes:
    if isinstance(picture, dict) or (hub.is_table(path) and not isinstance(picture, str)):
        return hub.image(picture, where)
    if not isinstance(picture, str) or not picture:
        raise DataError(where, f"screenshot is {reprlib.repr(picture)}, expected the path of an image")
    relative = os.path.normpath(picture)
    if relative == ".." or relative.startswith(("../", "..\\")):
        raise DataError(where, f"screenshot {picture!r} leaves the folder of the data")
    folder = desk.options.images or path.parent
    # --images names the folder that the paths count from, or the one that holds the files themselves.
    tried = [folder / relative, *([folder / Path(relative).name] if desk.options.images else [])]
    for file in tried:
        if file.is_file():
            return file.read_bytes()
    raise DataError(
        where,
        f"screenshot {tried[0]} is missing; name its folder with --images, or import without images with --screen",
    )


def exchanged(content: Mapping[str, Any], where: str) -> Line:
    """The action with start and end of a vertical swipe exchanged; its own inverse."""
    try:
        (x1, y1), (x2, y2) = content["coordinate"], content["coordinate2"]
        vertical = abs(x2 - x1) <= abs(y2 - y1)
    except (KeyError, TypeError, ValueError):
        raise DataError(where, f"the swipe {reprlib.repr(dict(content))} has no two points") from None
    if not vertical:
        return dict(content)
    return dict(content) | {"coordinate": content["coordinate2"], "coordinate2": content["coordinate"]}


# ----------------------------------------------------------------------------------------------------------- export


def export_uis1(source: Path, target: Path, swipes: Literal["stored", "finger", "inverted"] = "stored") -> int:
    """Write an imported `episodes.jsonl` as UI-S1 JSONL; returns the number of lines. Complete or not at all.

    What came from UI-S1 JSONL gets its own content back: JSON-equal to the source line by line, numbers included. swipes:
    "stored" as the source had them (finger motion for all other formats). Screenshots keep their present path, relative to
    the source's folder, unless the source had a name of its own.
    """
    count = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    partial_file = target.with_name(f".{target.name}.part")
    with source.open("rb") as lines, partial_file.open("w", encoding="utf-8", newline="\n") as out:
        for number, text in enumerate(lines, 1):
            if text.strip():
                out.write(
                    json.dumps(_restored(_parsed(text, f"{source}:{number}"), swipes, f"{source}:{number}")) + "\n"
                )
                count += 1
    os.replace(partial_file, target)
    return count


def _restored(line: Any, swipes: str, where: str) -> Line:
    """Undo one import; data that were imported again (merged) carry the earlier one inside."""
    if not isinstance(line, dict) or not isinstance(line.get("steps"), list):
        raise DataError(where, "expected an object with steps per line")
    changed: Line = line.get("import", {})
    earlier: Line = changed.get("earlier", {})
    inverted = changed.get("swipes") == "inverted" if swipes == "stored" else swipes == "inverted" and not earlier
    whole: Line = {key: value for key, value in line.items() if key not in _OURS} | earlier
    if "episode_id" in changed:
        whole["episode_id"] = changed["episode_id"]
        if whole["episode_id"] is None:
            del whole["episode_id"]
    whole["steps"] = [_restored_step(step, inverted, f"{where} step {i}") for i, step in enumerate(line["steps"])]
    return _restored(whole, swipes, where) if "import" in whole else whole


def _restored_step(step: Line, inverted: bool, where: str) -> Line:
    changed: Line = step.get("import", {})
    added = ("import", "box_origin") if changed.get("box_origin") == "added" else ("import",)
    whole: Line = {key: value for key, value in step.items() if key not in added}
    if inverted and step["action_content"]["action"] == "swipe":
        whole["action_content"] = exchanged(step["action_content"], where)
    if "screenshot" in changed:
        whole["screenshot"] = changed["screenshot"]
    return whole | ({"import": changed["earlier"]} if "earlier" in changed else {})
