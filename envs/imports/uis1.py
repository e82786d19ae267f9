"""Standard trajectory JSONL as UI-S1 publishes it, in both swipe conventions, and its export.

Every key of the source is kept. What the import changes is recorded under `import` (of the line and of the step), so that
`export_uis1` restores the original content: vertical swipes that were stored inverted, the names of the screenshots, and
that a line had no episode_id.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from guiderail.agent.errors import DataError
from guiderail.agent.types import ACTION_NAMES
from guiderail.agent.untrusted import is_file, read_file, stays_in
from guiderail.envs.imports.draft import Context, Entry, Format, Line, Mapped, Options, Unit, encoded, files_of
from guiderail.envs.recordings import tables
from guiderail.envs.recordings.conventions import UNDETERMINED, swipe_convention
from guiderail.envs.recordings.sources import line_of

_OURS = ("swipes", "import")

ACTIONS = tuple(Mapped(name, name) for name in ACTION_NAMES)


def units(sources: Sequence[Path], options: Options) -> list[Unit]:
    """A folder that holds `episodes.jsonl` stands for that file."""
    sources = [s / "episodes.jsonl" if (s / "episodes.jsonl").is_file() else s for s in sources]
    files = files_of(sources, ("*.jsonl", *tables.PATTERNS), "standard trajectory JSONL files, or their folder")
    return [Unit(path.parent.name if path.name == "episodes.jsonl" else path.name, (path,)) for path in files]


def read(unit: Unit, context: Context) -> Iterator[Entry]:
    (path,) = unit.paths
    convention = _Convention(context)
    for _, parse in _rows(path, context):
        with suppress(DataError):  # said in the second pass
            convention.add(parse())
    stored = convention.stored(unit.name)
    for number, (where, parse) in enumerate(_rows(path, context), 1):
        yield where, partial(_entry, parse, unit, number, stored, context, where)


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
    """The swipe convention is a property of the whole file. A first pass collects the swipes alone."""

    def __init__(self, context: Context):
        self.context = context
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

    def stored(self, name: str) -> str:
        asked = self.context.options.swipes
        if asked != "detect":
            self.context.note(f"{name}: swipes taken as stored {asked}, as asked for")
            return asked
        found = swipe_convention(self.lines)
        if found.evidence:
            doubt = f"warning: swipes {UNDETERMINED}: " if found.stored == UNDETERMINED else ""
            self.context.note(f"{name}: {doubt}{found.evidence}".replace("exchanged on load", "exchanged on import"))
        return found.stored


def _rows(path: Path, context: Context) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(where, what reads it) of each line or row of the file."""
    if tables.is_table(path):
        for where, row in tables.rows(path, context.tick):
            yield where, partial(line_of, row, where)
    else:
        for where, text in _texts(path, context):
            yield where, partial(_parsed, text, where)


def _texts(path: Path, context: Context) -> Iterator[tuple[str, bytes]]:
    consumed = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if number == 1:
                text = text.removeprefix(b"\xef\xbb\xbf")
            if text.strip():
                yield f"{path}:{number}", text
            consumed += len(text)
            context.tick(consumed)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"not JSON: {error}"[:300]) from None


def _entry(parse: Any, unit: Unit, number: int, stored: str, context: Context, where: str) -> Line:
    line = parse()
    if not isinstance(line, dict) or not isinstance(line.get("goal"), str):
        raise DataError(where, "expected an object with a goal per line")
    steps = line.get("steps")
    if not isinstance(steps, list) or not steps:
        raise DataError(where, f"steps is {reprlib.repr(steps)}, expected a list with at least one step")
    stored = "finger" if line.get("swipes") == "finger" else stored
    inverted = stored == "inverted"
    changed: Line = {} if stored == "finger" else {"swipes": stored}
    if "episode_id" not in line:
        line["episode_id"] = f"{Path(unit.name).stem}-{number}"
        changed["episode_id"] = None
    elif isinstance(line["episode_id"], bool) or not isinstance(line["episode_id"], int | str):
        raise DataError(where, f"episode_id is {reprlib.repr(line['episode_id'])}, expected a string or an integer")
    made = [_step(step, unit.paths[0], inverted, context, f"{where} step {i}") for i, step in enumerate(steps)]
    earlier = {key: line.pop(key) for key in _OURS if key in line}
    return line | {"steps": made, "import": changed | ({"earlier": earlier} if earlier else {})}


def _step(recorded: Any, path: Path, inverted: bool, context: Context, where: str) -> Line:
    content = recorded.get("action_content") if isinstance(recorded, dict) else None
    name = content.get("action") if isinstance(content, dict) else None
    if not isinstance(content, dict) or name not in ACTION_NAMES:
        raise DataError(where, f"action {reprlib.repr(name)}, expected one of {', '.join(ACTION_NAMES)}")
    made = dict(recorded)
    changed: Line = {"earlier": made.pop("import")} if "import" in made else {}
    picture, screen = recorded.get("screenshot"), context.options.screen
    size = (1, 1) if screen is None or screen == "infer" else screen
    if screen is None:
        if isinstance(picture, str):
            changed["screenshot"] = picture
        shot = encoded(_image(picture, path, context, where), where)
        made["screenshot"], size = context.put(shot), (shot.width, shot.height)
    if inverted and name == "swipe":
        changed["exchanged"] = _is_vertical(content, size, where)
        if changed["exchanged"]:
            made["action_content"] = _exchanged(content)
    if "box_origin" not in made and _boxes(made):
        made["box_origin"], changed["box_origin"] = "annotation", "added"
    return made | ({"import": changed} if changed else {}) | {"was": name}


def _boxes(step: Mapping[str, Any]) -> bool:
    options = step.get("check_options") or {}
    boxed = (step["action_content"].get("bbox"), step.get("bbox"), options.get("candidate_bbox"))
    return any(box for box in boxed)


def _image(picture: Any, path: Path, context: Context, where: str) -> bytes:
    if isinstance(picture, dict) or (tables.is_table(path) and not isinstance(picture, str)):
        return tables.image(picture, where)
    if not isinstance(picture, str) or not picture:
        raise DataError(where, f"screenshot is {reprlib.repr(picture)}, expected the path of an image")
    relative = os.path.normpath(picture)
    if relative == ".." or relative.startswith(("../", "..\\")):
        raise DataError(where, f"screenshot {picture!r} leaves the folder of the data")
    folder = context.options.images or path.parent
    # --images names the folder that the paths count from, or the one that holds the files themselves.
    # An absolute path counts where the file is in one of them.
    tried = [folder / relative, *([folder / Path(relative).name] if context.options.images else [])]
    hint = "; name its folder with --images, or import without images with --screen"
    inside = [file for file in tried if any(stays_in(place, file) for place in (folder, path.parent))]
    file = next((file for file in inside if is_file(file)), (inside or tried)[0])
    if not inside:
        raise DataError(where, f"screenshot {picture!r} is not in the folder of the data, and is not copied{hint}")
    return read_file(file, where, hint=hint)


def _is_vertical(content: Mapping[str, Any], size: tuple[int, int], where: str) -> bool:
    """As fractions of the screen, which is how UI-S1 and `Swipe.direction` compare. size: width and height; (1, 1) where they are
    not known, so that pixels are compared."""
    try:
        (x1, y1), (x2, y2) = content["coordinate"], content["coordinate2"]
        return bool(abs(x2 - x1) / size[0] <= abs(y2 - y1) / size[1])
    except (KeyError, TypeError, ValueError):
        raise DataError(where, f"the swipe {reprlib.repr(dict(content))} does not have two points") from None


def _exchanged(content: Mapping[str, Any]) -> Line:
    """The swipe with start and end exchanged. Doing it twice changes nothing."""
    return dict(content) | {"coordinate": content["coordinate2"], "coordinate2": content["coordinate"]}


# ----------------------------------------------------------------------------------------------------------- export


def export_uis1(source: Path, target: Path, swipes: Literal["stored", "finger", "inverted"] = "stored") -> int:
    """Write an imported `episodes.jsonl` as UI-S1 JSONL, completely or not at all. Returns the number of lines.

    Lines that came from UI-S1 JSONL are JSON-equal to their source again, numbers included. swipes: "stored" writes them as
    the source had them (finger motion for all other formats). Screenshots keep their present path, relative to the source's
    folder, unless the source had a name for them.
    """
    count = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    partial_file = target.with_name(f".{target.name}.part")
    with source.open("rb") as lines, partial_file.open("w", encoding="utf-8", newline="\n") as out:
        for number, text in enumerate(lines, 1):
            if text.strip():
                where = f"{source}:{number}"
                line = _parsed(text, where)
                try:
                    out.write(json.dumps(_restored(line, swipes, where)) + "\n")
                except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
                    raise DataError(where, f"not a line that was imported: {type(error).__name__} {error}") from None
                count += 1
    os.replace(partial_file, target)
    return count


def _restored(line: Any, swipes: str, where: str) -> Line:
    """Undo one import. Data that were imported twice (merged) hold the first import inside the second."""
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
    content = step["action_content"]
    if inverted and content["action"] == "swipe":
        # Where the step does not say whether it was exchanged, as before 0.2.0, it is what looks vertical in pixels.
        turned = changed["exchanged"] if "exchanged" in changed else _is_vertical(content, (1, 1), where)
        whole["action_content"] = _exchanged(content) if turned else content
    if "screenshot" in changed:
        whole["screenshot"] = changed["screenshot"]
    return whole | ({"import": changed["earlier"]} if "earlier" in changed else {})
