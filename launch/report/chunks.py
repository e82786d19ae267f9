"""The viewer's data as scripts, since pages opened from disk cannot fetch: an index, and chunks loaded on demand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch.report.entries import Entry, matched

CHUNK_BYTES = 400_000


def scripts(entries: Sequence[Entry], method: Mapping[str, Any], folder: str) -> Iterator[tuple[str, str]]:
    """(file name, content): chunk-N.js holds entries, index.js, last, names them all. method: the run's config section, for
    how returns were discounted. folder: of the run, for commands to copy."""
    rows: list[dict[str, Any]] = []
    for number, chunk in enumerate(_chunks(entries)):
        name = f"chunk-{number}"
        yield f"{name}.js", f'guiderail.put("{name}",[{",".join(text for _, text in chunk)}]);\n'
        rows += [_index_row(entry, name) for entry, _ in chunk]
    credit = {"gamma": method.get("gamma", 0.0), "returns": method.get("returns", "paper")}
    yield "index.js", f'guiderail.put("index",{script_json({"entries": rows, "credit": credit, "folder": folder})});\n'


def _chunks(entries: Sequence[Entry]) -> Iterator[list[tuple[Entry, str]]]:
    chunk: list[tuple[Entry, str]] = []
    size = 0
    for entry in entries:
        text = script_json(entry)
        if chunk and size + len(text) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append((entry, text))
        size += len(text)
    if chunk:
        yield chunk


def _index_row(entry: Entry, chunk: str) -> dict[str, Any]:
    """paths: [letters of the turns, capital where patched; whether all of it was right]."""
    paths = []
    for rollout in entry["rollouts"]:
        letters = "".join(t["outcome"].upper() if "repair" in t else t["outcome"] for t in rollout["turns"])
        right = rollout["success"] if entry["live"] else rollout["ended"] != "crashed" and matched(rollout) is None
        paths.append([letters, right])
    names = ("key", "episode", "generation", "signal", "template")
    return {**{name: entry[name] for name in names}, "goal": entry["goal"][:300], "chunk": chunk, "paths": paths}


def script_json(value: Any) -> str:
    """JSON that may stand in a script: nothing in it can end the script or a line of it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
