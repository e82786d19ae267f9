"""The viewer's data as scripts: an index, and chunks loaded on demand. A page opened from disk cannot fetch files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guiderail.launch.report.entries import Entry, matched

CHUNK_BYTES = 400_000


def scripts(
    entries: Sequence[Entry], method: Mapping[str, Any], folder: str, again: bool = False
) -> Iterator[tuple[str, str]]:
    """(file name, content): chunk-N.js holds entries; index.js comes last and lists all of them. method: the run's config
    section, for the discount of returns. folder: of the run, for commands to copy. again: whether the console can take its
    attempts up again."""
    rows: list[dict[str, Any]] = []
    for number, chunk in enumerate(_chunks(entries)):
        name = f"chunk-{number}"
        yield f"{name}.js", f'guiderail.put("{name}",[{",".join(text for _, text in chunk)}]);\n'
        rows += [_index_row(entry, name) for entry, _ in chunk]
    credit = {"gamma": method.get("gamma", 0.0), "returns": method.get("returns", "paper")}
    index = {"entries": rows, "credit": credit, "folder": folder, "first": telling(entries)} | (
        {"again": True} if again else {}
    )
    yield "index.js", f'guiderail.put("index",{script_json(index)});\n'


def telling(entries: Sequence[Entry]) -> list[Any] | None:
    """[key, sample, step] of the turn that shows most at a first look: the first wrong turn of the rollout that was right
    longest before it, from a group that was trained on and holds right and wrong rollouts, if there is one. Live: the end of
    an attempt that failed although the agent said it was done, if there is one."""
    best: tuple[Any, ...] = ()
    found = None
    for entry in entries:
        ends = [_right(entry, rollout) for rollout in entry["rollouts"]]
        for rollout, right in zip(entry["rollouts"], ends, strict=True):
            if not rollout["turns"]:
                continue
            at = rollout["turns"][-1]["t"] if entry["live"] else matched(rollout) or 0
            wrong = next((turn for turn in rollout["turns"] if turn["t"] == at), rollout["turns"][0])
            rank = (
                entry["signal"] in (None, "kept"),
                right is False,
                True in ends and False in ends,
                wrong["outcome"] != "u" and rollout["ended"] in ("finished", "mismatch"),
                min(at, 4),  # a few right steps tell a story, many hide it
            )
            if not best or rank > best:
                best, found = rank, [entry["key"], rollout["sample"], at]
    return found


def _right(entry: Entry, rollout: Mapping[str, Any]) -> bool | None:
    """Whether a rollout is right at every turn, or an attempt succeeded; None where that is not known."""
    if entry["live"]:
        return None if rollout["success"] is None else bool(rollout["success"])
    return rollout["ended"] != "crashed" and matched(rollout) is None


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
    """paths: per rollout [letters of its turns, capital where patched; whether every turn was right]."""
    paths = []
    for rollout in entry["rollouts"]:
        letters = "".join(t["outcome"].upper() if "repair" in t else t["outcome"] for t in rollout["turns"])
        paths.append([letters, _right(entry, rollout)])
    names = ("key", "episode", "generation", "signal", "template")
    row = {**{name: entry[name] for name in names}, "goal": entry["goal"][:300], "chunk": chunk, "paths": paths}
    turns = [*entry["steps"], *(turn for rollout in entry["rollouts"] for turn in rollout["turns"])]
    return row | ({"taught": True} if any("taught" in turn or "shown" in turn for turn in turns) else {})


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: nothing in it can end the script or one of its lines."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
