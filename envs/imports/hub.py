"""Hugging Face datasets on disk, as a source of rows: parquet files, or the Arrow files that `save_to_disk` writes.

Read with pyarrow alone, a few rows at a time.
"""

from __future__ import annotations

import base64
import binascii
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import DataError, SetupError
from envs.imports.draft import Desk

PATTERNS = ("*.parquet", "*.arrow", "*/*.parquet", "*/*.arrow")
_ROWS = 16  # a row may hold a dozen screenshots


def is_table(path: Path) -> bool:
    return path.suffix in (".parquet", ".arrow")


def rows(path: Path, desk: Desk) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:row", row as plain Python values) of every row, counted from 1."""
    try:
        pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise SetupError(f"{path.name} is an Arrow table; run: pip install pyarrow") from None
    number, size, total = 0, path.stat().st_size, 0
    try:
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            batches, total = file.iter_batches(_ROWS), file.metadata.num_rows
        else:
            batches = _arrow_batches(path, pa)
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
            if total:
                desk.tick(size * number // total)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}:{number + 1}", f"cannot be read as {path.suffix[1:]}: {error}") from None


def _arrow_batches(path: Path, pa: Any) -> Iterator[Any]:
    """`save_to_disk` writes the stream format, other tools the file format."""
    with pa.memory_map(str(path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            source.seek(0)
            file = pa.ipc.open_file(source)
            stream = (file.get_batch(i) for i in range(file.num_record_batches))
        for batch in stream:
            for start in range(0, batch.num_rows, _ROWS):
                yield batch.slice(start, _ROWS)


def need(row: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The first of these columns that is there and not null."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise DataError(where, f"no column {' or '.join(names)}; the row has {', '.join(row)}")


def image(value: Any, where: str) -> bytes:
    """The bytes of an image cell: {"bytes", "path"} as `datasets.Image` stores it, bare bytes, or base64 text."""
    if isinstance(value, dict) and value.get("bytes") is not None:
        value = value["bytes"]
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value.partition("base64,")[2] or value, validate=True)
        except binascii.Error:
            pass
    raise DataError(
        where, "an image is neither bytes nor base64; a table that only names image files cannot be imported"
    )
