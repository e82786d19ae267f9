"""Run folders as the report reads them: what they say about themselves, their curves, and the recording they name."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Episode
from guiderail.envs.imports.tfrecord import TFRecords
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.sources import recordings_file
from guiderail.launch import parts
from guiderail.rl.runs.log import read_json, read_record
from guiderail.rl.runs.record import RunRecord

Curves = dict[str, list[tuple[int, float]]]
_NOT_RUNS = ("images", "model", "runs", "screenshots", "data", "assets", "figures")


@dataclass(frozen=True)
class Run:
    """One run folder. record: run.json. metrics: metrics.json, None while the run is under way."""

    name: str
    folder: Path
    record: RunRecord
    metrics: Mapping[str, Any] | None

    @property
    def kind(self) -> str:
        return self.record.kind

    @property
    def config(self) -> Mapping[str, Any]:
        """The sections of a training's config; empty for other runs."""
        return self.record.about.config or {}


@dataclass(frozen=True)
class Recording:
    """The expert's side of a run. state: a sentence for people about where it came from or why it is not there."""

    episodes: Mapping[str, Episode] = field(default_factory=dict)
    state: str = "this run names no recording"
    found: bool = False


def discover(folders: Sequence[Path]) -> list[Run]:
    """Every run in or below the given folders, oldest first, under names that are unique. Raises SetupError."""
    found: dict[Path, str] = {}
    for folder in folders:
        below = list(_run_folders(folder))
        if not below:
            raise SetupError(
                f"{folder} holds no run: no run.json in it or below it; give what was --out of "
                "guiderail train or guiderail evaluate"
            )
        found |= {
            path: folder.resolve().name if path == folder else path.relative_to(folder).as_posix() for path in below
        }
    names = list(found.values())
    unique = {path: name if names.count(name) == 1 else str(path) for path, name in found.items()}
    runs = [_run(path, name) for path, name in unique.items()]
    return sorted(runs, key=lambda run: run.record.started or "")


def _run_folders(folder: Path) -> Iterator[Path]:
    for place, below, files in os.walk(folder):
        if "run.json" in files:
            yield Path(place)
        below[:] = sorted(d for d in below if d not in _NOT_RUNS and not d.startswith(("checkpoint-", ".")))


def _run(folder: Path, name: str) -> Run:
    file = folder / "metrics.json"
    metrics = read_json(file) if file.is_file() else None
    if not isinstance(metrics, dict | None):
        raise DataError(f"{file}:1", f"a JSON {type(metrics).__name__}, expected one object")
    return Run(name, folder, read_record(folder), metrics)


# ------------------------------------------------------------------------------------------------------ the recording


def read_recording(file: Path, screen: Any, swipes: str) -> Mapping[str, Episode]:
    """By id. What the file's own images do not give is inferred."""
    given = parts.parse_screen(screen if isinstance(screen, str) else None)
    episodes: dict[str, Episode] = {}
    for size in (given, "infer"):
        try:
            loaded = load_episodes(file, screen=size, swipes=swipes, skip_bad=True)  # type: ignore[arg-type]
        except DataError:
            continue
        episodes = {episode.id: episode for episode in loaded.episodes} | episodes
        if not loaded.dropped:
            break
    return episodes


Read = Callable[[Path, Any, str], Mapping[str, Episode]]


def recording(run: Run, override: str | None, read: Read = read_recording) -> Recording:
    """The episodes this run was about, if their file is where run.json says (or `override`) and unchanged.

    Another file's targets drawn over these screenshots would be lies, so a wrong digest means no recording. Episodes
    whose images are gone keep their targets, on sizes inferred from the coordinates.
    """
    source = run.record.about.data
    if source is None:
        return Recording()
    path = Path(override) if override else _place(run.folder, source.path)
    try:
        file = recordings_file(path, download=False)
    except (SetupError, DataError):
        return Recording(state=f"recording not found at {path}; give its place with --data")
    digest, expected = hashlib.sha256(file.read_bytes()).hexdigest(), source.digest
    if digest != expected:
        return Recording(
            state=f"{path} has changed since this run (SHA-256 {digest[:12]}, expected {expected[:12]}): "
            "the expert's side is left out; give the right file with --data"
        )
    episodes = read(file, source.screen, parts.recorded_swipes(source.swipes))
    without = sum(not _has_image(episode) for episode in episodes.values())
    state = f"{path}, unchanged since the run" + (f"; {without} episodes lack screenshots" if without else "")
    return Recording(episodes, state, True)


def _place(folder: Path, path: str) -> Path:
    """Where a path of the record leads: from here, else from the folder that the run's command was started in, which is most
    often one that holds the run."""
    places = [Path(path), *(parent / path for parent in folder.resolve().parents)]
    return next((place for place in places if place.exists()), places[0])


def _has_image(episode: Episode) -> bool:
    return all(step.screenshot.path is not None and step.screenshot.path.is_file() for step in episode.steps)


# ----------------------------------------------------------------------------------------------------------- the curves


def curves(folder: Path) -> Curves:
    """Every number logged while training, by name: [(update, value)]. TensorBoard's files where there are any, since they
    grow while a run is under way; else the last checkpoint's trainer_state.json."""
    values: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("runs/**/events.out.tfevents.*"), key=lambda f: f.stat().st_mtime):
        for step, name, value in _events(file):
            values.setdefault(name.removeprefix("train/"), {})[step] = value
    if not values:
        states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda f: f.stat().st_mtime)
        for row in read_json(states[-1]).get("log_history", []) if states else ():
            for name, value in row.items():
                if isinstance(value, int | float) and name != "step":
                    values.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in sorted(values.items())}


def _events(file: Path) -> Iterator[tuple[int, str, float]]:
    """(step, tag, value) of every scalar of a TensorBoard file. The last record may still be under way."""
    try:
        for record in TFRecords(file):
            step, found = 0, []
            for number, value in _wire(memoryview(bytes(record))):
                if number == 2 and isinstance(value, int):
                    step = value
                if number == 5 and isinstance(value, memoryview):
                    found += [scalar for n, item in _wire(value) if n == 1 and (scalar := _scalar(item))]
            yield from ((step, tag, value) for tag, value in found)
    except (DataError, ValueError, IndexError, struct.error):
        return


def _scalar(item: int | memoryview) -> tuple[str, float] | None:
    """Summary.Value: tag is field 1, simple_value field 2."""
    parts_ = dict(_wire(item)) if isinstance(item, memoryview) else {}
    tag, value = parts_.get(1), parts_.get(2)
    if not isinstance(tag, memoryview) or not isinstance(value, memoryview) or len(value) != 4:
        return None
    return bytes(tag).decode("utf-8", "replace"), float(struct.unpack("<f", value)[0])


def _wire(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: numbers of varints, bytes of everything else."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}[tag & 7] if tag & 7 in (1, 5) else len(message) + 1
        if position + size > len(message):
            raise ValueError("a field longer than its message")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
