"""Records: one small file per checkpoint with a header and the results task by task."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from guiderail.agent.disk import write_whole
from guiderail.agent.errors import DataError

SUFFIX = ".jsonl.gz"
Line = dict[str, Any]


def write_record(path: Path, header: Mapping[str, Any], lines: Iterable[Line]) -> None:
    """Header and lines as gzipped JSONL, whole or not at all; the same content gives the same bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in (header, *lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, gzip.compress(text.encode(), mtime=0))


def read_record(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """(header, lines). Raises DataError."""
    with _opened(path) as file:
        header, *lines = map(json.loads, file)
    return header, lines


def read_header(path: Path) -> dict[str, Any]:
    """A record's header alone. Raises DataError."""
    with _opened(path) as file:
        header: dict[str, Any] = json.loads(file.readline())
    return header


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            yield file
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}:1", f"not a record of a study: {error}") from None


def weights_digest(folder: Path) -> str | None:
    """SHA-256 over the safetensors of a model folder, first 16 hex digits; None where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()[:16] if files else None
