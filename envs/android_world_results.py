"""AndroidWorld's results: episodes as JSON lines, its pickled checkpoints read without running them, its averages."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import pickle
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from agent.errors import DataError

ALLOWED = {
    ("datetime", "datetime"),
    ("collections", "OrderedDict"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}
LIMIT = 2 * 2**30
"""Unpacked bytes of one checkpoint at most."""


class Opaque:
    """Stands for an object of AndroidWorld's own classes in a pickle; holds nothing and does nothing."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Plain(pickle.Unpickler):
    """Plain data and numpy arrays. Nothing else is looked up, so nothing else can be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        if module.startswith("android_world."):
            return Opaque
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a result")


def read_pickles(folder: Path) -> list[dict[str, Any]]:
    """The episodes of AndroidWorld's IncrementalCheckpointer (TASK_INSTANCE.pkl.gz), as JSON has them, in name order.

    Raises DataError for files that are damaged, too large or hold anything but plain data.
    """
    found: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*.pkl.gz")):
        try:
            with gzip.open(file) as packed:
                data = packed.read(LIMIT + 1)
            if len(data) > LIMIT:
                raise DataError(f"{file}:1", f"unpacks to more than {LIMIT} bytes")
            episodes = _Plain(io.BytesIO(data)).load()
        except (
            pickle.UnpicklingError,
            OSError,
            EOFError,
            ValueError,
            TypeError,
            AttributeError,
            IndexError,
            KeyError,
        ) as error:
            raise DataError(f"{file}:1", f"no readable checkpoint ({type(error).__name__}: {error})") from None
        if not isinstance(episodes, list) or not all(isinstance(e, dict) for e in episodes):
            raise DataError(f"{file}:1", f"expected a list of episodes, got {type(episodes).__name__}")
        found += [episode_json(file.name.removesuffix(".pkl.gz"), e) for e in episodes]
    return found


def episode_json(instance: str, episode: Mapping[str, Any]) -> dict[str, Any]:
    """An episode as JSON can hold it: NaN becomes null, times ISO texts, arrays their shapes, the rest its type's name."""
    return {"instance": instance} | {str(k): _json(v) for k, v in episode.items()}


def _json(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    if hasattr(value, "shape") and getattr(value, "shape", ()) != ():
        return {"shape": list(value.shape)}
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    return {"type": type(value).__name__}


def write_episode(file: Path, episode: Mapping[str, Any]) -> None:
    """Append one line; it is on the disk when this returns."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(episode, ensure_ascii=False, allow_nan=False) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def read_episodes(file: Path) -> list[dict[str, Any]]:
    """The last line of each instance, in the order in which they first came. A torn last line is left out, so that
    episode is run again. Raises DataError for other lines that are no JSON objects."""
    if not file.is_file():
        return []
    lines = file.read_text("utf-8").split("\n")
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            episode = json.loads(line)
            found[str(episode["instance"])] = episode
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise DataError(f"{file}:{number}", f"no episode ({error})") from None
            file.write_text("".join(f"{good}\n" for good in lines[: number - 1]), "utf-8")
    return list(found.values())


def averages(episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """AndroidWorld's macro average (over tasks, of the average over a task's trials) in both ways of counting.

    success_as_upstream leaves crashed episodes out, success_with_crashed counts them as failures. Tasks of which every
    episode crashed appear in the second only. None where there is nothing to average.
    """
    scored: dict[str, list[float]] = defaultdict(list)
    counted: dict[str, list[float]] = defaultdict(list)
    crashed = 0
    for episode in episodes:
        name, value = str(episode["task_template"]), episode.get("is_successful")
        gone = episode.get("exception_info") is not None or value is None
        crashed += gone
        counted[name].append(0.0 if gone else float(value or 0.0))
        if not gone:
            scored[name].append(float(value or 0.0))
    return {
        "success_as_upstream": fmean(map(fmean, scored.values())) if scored else None,
        "success_with_crashed": fmean(map(fmean, counted.values())) if counted else None,
        "tasks": len(counted),
        "episodes": len(episodes),
        "crashed": crashed,
    }
