"""Hugging Face datasets on disk, as a source of rows: parquet files, or the Arrow files that `save_to_disk` writes.

Read with pyarrow alone, a few rows at a time.
"""

from __future__ import annotations

import base64
import binascii
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.origin import install

PATTERNS = ("*.parquet", "*.arrow", "*/*.parquet", "*/*.arrow")
MOST_ROWS = 10_000_000
MOST_TIMES, SMALL = 100, 2**28
"""A table may expand to so many times its file's bytes. Pictures do not compress, repeated text does. SMALL: bytes that
every file may expand to."""
ROWS = 16  # a row may hold a dozen screenshots


def is_table(path: Path) -> bool:
    return path.suffix in (".parquet", ".arrow")


def rows(path: Path, tick: Callable[[int], None] = lambda _: None) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:row", row as plain Python values) of every row, counted from 1. Raises DataError, also for a table that is
    much larger than its file: by what a parquet file says of itself, and by what was read so far. tick: gets the bytes read."""
    try:
        pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise SetupError(f"{path.name} is an Arrow table, which pyarrow can read; run: {install('data')}") from None
    number, size, total, read = 0, path.stat().st_size, 0, 0
    most = max(SMALL, MOST_TIMES * size)
    try:
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            total = file.metadata.num_rows
            batches = _parquet_batches(path, file, most)
        else:
            batches = _arrow_batches(path, pa)
        for batch in batches:
            read += batch.nbytes
            _within(path, number + 1, "bytes", read, most)
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
            if total:
                tick(size * number // total)
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise DataError(f"{path}:{number + 1}", f"cannot be read as {path.suffix[1:]}: {error}") from None


def _parquet_batches(path: Path, file: Any, most: int) -> Iterator[Any]:
    """One row group after the other; of large rows a few at a time."""
    about = file.metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    _within(path, 1, "rows", max(about.num_rows, sum(group.num_rows for group in groups)), MOST_ROWS)
    _within(path, 1, "bytes", sum(group.total_byte_size for group in groups), most)
    for i, group in enumerate(groups):
        rows = max(1, min(ROWS, SMALL // max(1, group.total_byte_size)))
        yield from file.iter_batches(rows, row_groups=[i])


def _within(path: Path, row: int, what: str, got: int, most: int) -> None:
    if got > most:
        raise DataError(
            f"{path}:{row}", f"the table has {got} {what}, at most {most} are read from a file of this size"
        )


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
            for start in range(0, batch.num_rows, ROWS):
                yield batch.slice(start, ROWS)


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
