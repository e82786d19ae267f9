"""Recorded folders, line by line: what is in them, one episode, splits. Nothing here holds more than one line."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Episode
from guiderail.agent.untrusted import is_file
from guiderail.envs.imports.draft import splits_of
from guiderail.envs.recordings.conventions import Size, swipe_convention
from guiderail.envs.recordings.episodes import episode_of, load_episodes
from guiderail.envs.recordings.sources import recordings_file

Line = dict[str, Any]


def jsonl_of(path: Path) -> Path:
    """The file itself, or a folder's `episodes.jsonl`. Raises SetupError when there is none."""
    file = path / "episodes.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise SetupError(f"no recorded episodes at {file}; give a .jsonl file or a folder that holds episodes.jsonl")
    return file


def lines_of(file: Path) -> Iterator[tuple[str, bytes, Line]]:
    """(file:line, raw bytes, object) of every line that is not blank. Raises DataError."""
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if not raw.strip():
                continue
            where = f"{file}:{number}"
            try:
                line = json.loads(raw.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError) as error:
                raise DataError(where, f"not JSON: {error}"[:300]) from None
            steps = line.get("steps") if isinstance(line, dict) else None
            if not isinstance(steps, list) or not all(
                isinstance(s, dict) and isinstance(s.get("action_content"), dict) for s in steps
            ):
                raise DataError(where, "expected an object whose steps each have an action_content")
            yield where, raw, line


def episode_id(where: str, line: Mapping[str, Any]) -> str:
    """As the loader names it. where: "file:line"; blank lines count."""
    file, _, number = where.rpartition(":")
    return str(line.get("episode_id", f"{Path(file).stem}-{number}"))


def stats(path: str | Path) -> dict[str, Any]:
    """Counts of episodes, steps, actions, finger directions, box origins, splits, sources and images, and the lengths."""
    file = recordings_file(path)
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("actions", "boxes", "splits", "formats", "thoughts", "instructions")
    }
    lengths: Counter[int] = Counter()
    images: dict[str, bool] = {}
    swipes: list[Line] = []
    for _, _, line in lines_of(file):
        lengths[len(line["steps"])] += 1
        counts["splits"].update(splits_of(line))
        imported = line.get("import")
        counts["formats"][str(imported.get("format")) if isinstance(imported, dict) else "not imported here"] += 1
        for step in line["steps"]:
            _count(step, counts)
            name = step.get("screenshot")
            if isinstance(name, str) and name not in images:
                images[name] = is_file(file.parent / name)
        swipes.append({key: line.get(key) for key in ("swipes", "import")} | {"steps": _swipes(line)})
    steps = sum(length * n for length, n in lengths.items())
    return {
        "episodes": sum(lengths.values()),
        "steps": steps,
        "steps_per_episode": _spread(lengths),
        **{name: dict(counter.most_common()) for name, counter in counts.items()},
        "swipes": swipe_convention(swipes).evidence or "finger motion, as every line says itself",
        "screenshots": {"distinct": len(images), "missing": sum(not there for there in images.values())},
    }


def _count(step: Line, counts: dict[str, Counter[str]]) -> None:
    content, options = step["action_content"], step.get("check_options")
    options = options if isinstance(options, dict) else {}
    counts["actions"][str(content.get("action"))] += 1
    boxed = bool(content.get("bbox") or step.get("bbox") or options.get("candidate_bbox"))
    counts["boxes"]["steps with"] += boxed
    if boxed and "box_origin" in step:
        counts["boxes"][f"from {step['box_origin']}"] += 1
    counts["thoughts"]["steps with"] += bool(step.get("thought"))
    counts["instructions"]["steps with"] += bool(step.get("step_instruction"))


def _swipes(line: Line) -> list[Line]:
    return [
        {"action_content": step["action_content"], "check_options": step.get("check_options")}
        for step in line["steps"]
        if step["action_content"].get("action") == "swipe"
    ]


def _spread(lengths: Counter[int]) -> dict[str, float]:
    """Minimum, median and maximum of the episodes' lengths."""
    ordered = sorted(lengths.elements())
    if not ordered:
        return {}
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return {"min": ordered[0], "median": median, "max": ordered[-1]}


def one_episode(path: str | Path, wanted: str | None, screen: Size | str | None = None) -> Episode:
    """The episode with this id, the first one for None. Raises SetupError when there is no such id.

    Files whose lines do not say how their swipes are stored are loaded whole, because that is decided from all lines.
    """
    file = recordings_file(path)
    for where, _, line in lines_of(file):
        if wanted not in (None, episode_id(where, line)):
            continue
        if line.get("swipes") != "finger" or screen is not None:
            everything = load_episodes(file, screen=screen, skip_bad=True)  # type: ignore[arg-type]
            found = [e for e in everything.episodes if wanted is None or e.id == wanted]
            if not found:
                raise DataError(where, f"episode {wanted} is broken: {everything.dropped[:1]}")
            return found[0]
        return episode_of(line, file, where, episode_id(where, line))
    raise SetupError(f"{file} has no episode {wanted!r}; ids are the lines' episode_id")


def split_by(path: Path, key: str) -> dict[str, int]:
    """Write one file per value of the lines' `key` beside the source: `<value>.jsonl`. Returns episodes per file name."""
    file = jsonl_of(path)
    values = {str(line.get(key)) for _, _, line in lines_of(file)}
    if values <= {"None"}:
        raise SetupError(f"no line of {file} has a {key!r}; give another --by, or --parts train=0.9,test=0.1")
    if len(values) > 64:
        raise SetupError(f"{key!r} has {len(values)} different values and would give as many files")
    return _distribute(file, {value: value for value in values}, lambda where, line: str(line.get(key)))


def split_parts(path: Path, parts: Mapping[str, float], seed: int = 0) -> dict[str, int]:
    """Cut into parts of exact shares (rounded to episodes); which episode goes where depends on the seed and the episode ids alone."""
    if not parts or any(share <= 0 for share in parts.values()) or abs(sum(parts.values()) - 1) > 1e-6:
        raise SetupError(f"shares {dict(parts)}: expected positive ones that add up to 1")
    file = jsonl_of(path)
    ids = [episode_id(where, line) for where, _, line in lines_of(file)]
    order = sorted(ids, key=lambda id_: hashlib.sha256(f"{seed}:{id_}".encode()).digest())
    chosen: dict[str, str] = {}
    before = 0.0
    for name, share in parts.items():
        chosen |= dict.fromkeys(order[round(before * len(order)) : round((before + share) * len(order))], name)
        before += share
    return _distribute(file, {n: n for n in parts}, lambda where, line: chosen[episode_id(where, line)])


def _distribute(file: Path, names: Mapping[str, str], part_of: Any) -> dict[str, int]:
    targets = {value: file.with_name(f"{_file_name(name)}.jsonl") for value, name in names.items()}
    there = [target for target in targets.values() if target.exists()]
    if there or len(set(targets.values())) < len(targets):
        raise SetupError(f"{there[0] if there else file.parent} would be overwritten; move it away first")
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        partial = {value: target.with_name(f".{target.name}.part") for value, target in targets.items()}
        files = {value: stack.enter_context(target.open("wb")) for value, target in partial.items()}
        for where, raw, line in lines_of(file):
            value = part_of(where, line)
            files[value].write(raw.rstrip(b"\r\n") + b"\n")
            counts[targets[value].name] += 1
    for value, target in targets.items():
        os.replace(partial[value], target)
    return {target.name: counts[target.name] for target in targets.values()}


def _file_name(value: str) -> str:
    """Safe as a file name; values come from data."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in value).lstrip(".")[:80] or "_"
