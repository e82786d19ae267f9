"""Databases as the phone's apps keep them: whole SQLite files in its storage, which adb pulls and pushes."""

from __future__ import annotations

import posixpath
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache
from typing import Any

from guiderail.envs.pocket.files import FileError
from guiderail.envs.pocket.state import State

Row = Mapping[str, Any]


def make(state: State, path: str, script: str) -> None:
    """A new database with the tables of an SQL script."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.executescript(script)
        state.files.make_folder(posixpath.dirname(path))
        state.files.write(path, base.serialize(), state.now)


def rows(state: State, path: str, query: str, *values: Any) -> list[Row]:
    """What a query finds. Nothing where the file is missing or is not such a database: adb may have put anything there."""
    return [dict(row) for row in _rows(state.files.get(path), query, values)]


@lru_cache(maxsize=64)
def _rows(data: bytes, query: str, values: tuple[Any, ...]) -> list[tuple[tuple[str, Any], ...]]:
    try:
        with closing(_opened(data)) as base:
            found = base.execute(query, values)
            names = [column[0] for column in found.description]
            return [tuple(zip(names, row, strict=True)) for row in found]
    except sqlite3.Error:
        return []


def run(state: State, path: str, script: str, *values: Any) -> list[Row]:
    """Execute one statement and store the database. Raises FileError with SQLite's message."""
    try:
        with closing(_opened(state.files[path])) as base:
            found = base.execute(script, values)
            names = [column[0] for column in found.description or ()]
            answer: list[Row] = [dict(zip(names, row, strict=True)) for row in found]
            base.commit()
            state.files.write(path, base.serialize(), state.now)
            return answer
    except (sqlite3.Error, OverflowError) as error:  # a number that SQLite cannot hold
        raise FileError(f"{path}: {error}") from None


def insert(state: State, path: str, table: str, row: Row) -> None:
    """Raises FileError."""
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" for _ in row)
    run(state, path, f"INSERT INTO {table} ({names}) VALUES ({marks})", *row.values())


def remove(state: State, path: str, table: str, key: str, value: Any) -> None:
    """Raises FileError."""
    run(state, path, f'DELETE FROM {table} WHERE "{key}" = ?', value)


def _opened(data: bytes) -> sqlite3.Connection:
    base = sqlite3.connect(":memory:")
    if data:
        base.deserialize(data)
    return base
