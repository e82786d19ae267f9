"""Recordings as a data set of the Hub: parquet files with the screenshots in them, and a card.

`datasets.load_dataset(FOLDER)` shows the pictures, and Guiderail reads the folder, or its copy on the Hub, as it reads the
JSONL: episode for episode the same (`envs.recordings.sources` says what a row is).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from guiderail.agent.disk import new_folder, write_whole
from guiderail.agent.errors import SetupError
from guiderail.agent.origin import install
from guiderail.envs.imports.folder import lines_of
from guiderail.envs.recordings.episodes import Dataset, load_episodes
from guiderail.envs.recordings.sources import Table, recordings_file

GROUP = 2**26
"""Bytes of screenshots in a row group, which a reader may hold at once."""
SHARD = 2**29
"""Bytes of screenshots in a file."""

_TEXT = {"dtype": "string", "_type": "Value"}
FEATURES: dict[str, Any] = {
    "episode_id": _TEXT,
    "goal": _TEXT,
    "screenshots": {"feature": {"_type": "Image"}, "_type": "List"},
    "steps": {"feature": _TEXT, "_type": "List"},
    "meta": _TEXT,
}
"""As `datasets` writes them into a parquet file."""


def export_hf(data: str | Path | Table, out: Path, split: str = "train") -> dict[str, Any]:
    """Write recordings into the new folder `out`; returns {"written", "episodes", "steps", "files"}.

    data: as `recordings_file` takes it. Raises SetupError where `out` holds something or a screenshot is missing, DataError
    for the first broken episode.
    """
    if not split.replace("_", "").isalnum():
        raise SetupError(f"split {split!r}: expected letters and digits, such as train or test")
    file = recordings_file(data)
    loaded = load_episodes(file)
    with new_folder(out) as folder:
        shards = _write(loaded, file, folder / "data")
        for number, path in enumerate(shards):
            path.rename(path.with_name(f"{split}-{number:05d}-of-{len(shards):05d}.parquet"))
        steps = sum(len(episode.steps) for episode in loaded.episodes)
        write_whole(folder / "README.md", _card(loaded, steps, split, file).encode())
    return {"written": str(out), "episodes": len(loaded.episodes), "steps": steps, "files": len(shards)}


def _write(loaded: Dataset, file: Path, folder: Path) -> list[Path]:
    pa, pq = _pyarrow()
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("episode_id", "goal")),
            ("screenshots", pa.list_(picture)),
            ("steps", pa.list_(pa.string())),
            ("meta", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    folder.mkdir()
    shards, writer, written = list[Path](), None, 0
    try:
        for group, size in _groups(_rows(loaded, file)):
            if writer is None or written + size > SHARD:
                if writer is not None:
                    writer.close()
                shards.append(folder / f"{len(shards)}.parquet")
                writer, written = pq.ParquetWriter(shards[-1], schema), 0
            writer.write_table(pa.Table.from_pylist(group, schema))
            written += size
    finally:
        if writer is not None:
            writer.close()
    return shards


def _rows(loaded: Dataset, file: Path) -> Iterator[dict[str, Any]]:
    """The lines as they are: what a step or a line holds beside the known fields comes back too."""
    for episode, (_, _, line) in zip(loaded.episodes, lines_of(file), strict=True):
        steps = [{key: value for key, value in step.items() if key != "screenshot"} for step in line["steps"]]
        meta = {key: value for key, value in line.items() if key not in ("steps", "goal", "episode_id")}
        names = [str(step.get("screenshot")).rpartition("/")[2] for step in line["steps"]]
        yield {
            "episode_id": episode.id,
            "goal": episode.goal,
            "screenshots": [
                {"bytes": step.screenshot.encoded(), "path": name}
                for step, name in zip(episode.steps, names, strict=True)
            ],
            "steps": [json.dumps(step, ensure_ascii=False) for step in steps],
            "meta": json.dumps(meta, ensure_ascii=False),
        }


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """(rows of a row group, bytes of their screenshots)."""
    group, size = list[dict[str, Any]](), 0
    for row in rows:
        group.append(row)
        size += sum(len(picture["bytes"]) for picture in row["screenshots"])
        if size >= GROUP:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise SetupError(f"parquet files are written by pyarrow; run: {install('data')}") from None


def _card(loaded: Dataset, steps: int, split: str, file: Path) -> str:
    head = {
        "pretty_name": "GUI recordings",
        "tags": ["gui-agent", "guiderail"],
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}]}],
    }
    before = file.parent / "DATASET.md"
    source = f"\n## Where they come from\n\n{before.read_text('utf-8')}" if before.is_file() else ""
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---
# Recorded GUI episodes

{len(loaded.episodes)} episodes, {steps} steps. One row is one episode: its goal, a screenshot for each step, and the steps as JSON texts:
the expert's action, with coordinates in pixels of its screenshot, and what else was recorded. `meta` holds the other fields
of the episode, `swipes` among them: "finger" says that swipes are stored as the finger moves.

    datasets.load_dataset(FOLDER_OR_HUB_ID, split="{split}")     # rows with pictures
    guiderail gate FOLDER_OR_HUB_ID                              # each expert's action agrees with itself
    guiderail train tiny_semi_online data.train=FOLDER_OR_HUB_ID

SHA-256 of the lines that they were made from: `{loaded.digest}`.
{source}"""
