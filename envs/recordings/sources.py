"""Recordings by name: JSONL and its folder, tables with embedded pictures, data sets of the Hub, `datasets` objects.

Whatever is given becomes a standard JSONL file on disk with its pictures beside it. Tables are unpacked once, into a cache
that is keyed by what they hold, so no more than a few rows are in memory at a time.

A row is one episode. `guiderail data export --to hf` writes these columns:

    episode_id, goal   text
    screenshots        list of images, one for each step
    steps              list of JSON texts: each step of the line, without its screenshot
    meta               JSON text: the other fields of the line

Read are also rows whose steps are objects, as in the JSONL, each with its image under `screenshot`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from guiderail.agent.disk import locked, write_whole
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.origin import install
from guiderail.agent.untrusted import MOST_PICTURE_BYTES, opened, read_file
from guiderail.envs.recordings import tables

Row = Mapping[str, Any]
WAIT = 3600.0
"""Seconds to wait for another process that unpacks the same tables, such as another rank of a training."""
_VERSION = "1"
_DOWNLOADED = ["*.jsonl", "*.parquet", "*.arrow", "*.png", "*.jpg", "*.jpeg"]
_PART = re.compile(r"-\d{5,}-of-\d{5,}$")


class Table(Protocol):
    """A `datasets.Dataset` or `datasets.IterableDataset`."""

    def with_format(self, kind: str, /) -> Any: ...


def recordings_file(source: str | Path | Table, *, download: bool = True) -> Path:
    """The JSONL file of recordings, with its pictures on this machine.

    source: a .jsonl file or the folder of an `episodes.jsonl`; a parquet or Arrow file, or a folder of them; OWNER/NAME of a
    data set on the Hub, which is downloaded; a `datasets` object. FOLDER:SPLIT and OWNER/NAME:SPLIT choose one of several
    splits. download: False takes of the Hub only what is on this machine already. Raises SetupError where there is nothing of the kind, DataError for rows that are no episodes.
    """
    if not isinstance(source, str | Path):
        return _of_object(source)
    name, split = str(source), ""
    if not Path(name).exists() and ":" in name:
        name, _, split = name.rpartition(":")
    path = Path(name)
    if not path.exists() and _may_be_on_the_hub(name):
        path = _downloaded(name, download)
    if path.is_file():
        return _of_tables([path]) if tables.is_table(path) else path
    file = path / f"{split or 'episodes'}.jsonl"
    if file.is_file():
        return file
    found = _tables_of(path, split) if path.is_dir() else []
    if not found:
        what = file if path.is_dir() or path.suffix != ".jsonl" else path
        raise SetupError(
            f"no recorded episodes at {what}; give a .jsonl file, a folder that holds episodes.jsonl or parquet files, or "
            "OWNER/NAME of a data set on the Hub"
        )
    return _of_tables(found)


def cache() -> Path:
    """Where tables are unpacked: GUIDERAIL_CACHE, or a folder of the user's cache. It can be deleted at any time."""
    if given := os.environ.get("GUIDERAIL_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guiderail"


# ------------------------------------------------------------------------------------------------------------ the Hub


def _may_be_on_the_hub(name: str) -> bool:
    """OWNER/NAME, where OWNER is no folder here: then it is a path that does not exist."""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", name)) and not Path(name).parent.exists() and ".jsonl" not in name


def _downloaded(name: str, download: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise SetupError(
            f"no recorded episodes at {name}; if it is on the Hub, huggingface_hub reads it: {install('data')}"
        ) from None
    try:
        made = snapshot_download(name, repo_type="dataset", allow_patterns=_DOWNLOADED, local_files_only=not download)
        return Path(made)
    except (OSError, ValueError, HfHubHTTPError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SetupError(
            f"no recorded episodes at {name}, and no data set of this name can be read from the Hub ({said}); give a folder, "
            f"run `hf download --repo-type dataset {name}`, or unset HF_HUB_OFFLINE"
        ) from None


# ------------------------------------------------------------------------------------------------------------- tables


def _tables_of(folder: Path, split: str) -> list[Path]:
    """The tables of one split, in order. Raises SetupError where there are several splits and none was chosen."""
    named: dict[str, dict[Path, list[Path]]] = {}
    for path in sorted(path for pattern in tables.PATTERNS for path in folder.glob(pattern) if path.is_file()):
        stem = _PART.sub("", path.stem)
        name = path.parent.name if stem == "data" and path.parent != folder else stem
        named.setdefault(name, {}).setdefault(path.parent, []).append(path)
    found: dict[str, list[Path]] = {}
    for name, places in named.items():  # configurations of a data set are folders with equal names in them
        for place, paths in places.items():
            whole = name if len(places) == 1 else (place.relative_to(folder) / name).as_posix()
            found[whole] = paths
    if (split and split not in found) or (not split and len(found) > 1):
        said = f"no split {split}" if split else "several splits"
        raise SetupError(
            f"{folder} has {said}; its tables are {', '.join(found)}; add one to its name, as in NAME:train"
        )
    return found[split] if split else next(iter(found.values()), [])


def _of_tables(paths: list[Path]) -> Path:
    """Unpacked once for files of this name, size and time of change."""
    stats = [(str(path.resolve()), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]
    folder = _cached(hashlib.sha256(json.dumps([_VERSION, stats]).encode()).hexdigest()[:32])
    file = folder / "episodes.jsonl"
    if not file.is_file():
        with locked(folder, wait=WAIT):
            if not file.is_file():
                _unpack((row for path in paths for row in tables.rows(path)), folder, tables.image)
    return file


def _of_object(source: Table) -> Path:
    """A `datasets` object has no name that lasts: it is unpacked each time, and kept under the digest of its lines."""
    if not hasattr(source, "with_format"):
        raise SetupError(f"recordings are {type(source).__name__}, expected a path, a Hub id or a datasets.Dataset")
    if isinstance(source, Mapping):
        raise SetupError(f"recordings have the splits {', '.join(source)}; give one of them, as in data['train']")
    made = _cached(f".{uuid.uuid4().hex}.part")
    try:
        _unpack(_object_rows(source.with_format("arrow")), made, _image_or_file)
        kept = _cached(hashlib.sha256((made / "episodes.jsonl").read_bytes()).hexdigest()[:32])
        try:
            os.replace(made, kept)
        except OSError:
            if not (kept / "episodes.jsonl").is_file():  # it was not there before
                raise
        return kept / "episodes.jsonl"
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _cached(name: str) -> Path:
    folder = cache() / "recordings"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise SetupError(
            f"{folder}, where tables are unpacked, cannot be written ({error.strerror}); set GUIDERAIL_CACHE=FOLDER"
        ) from None
    return folder / name


def _object_rows(plain: Any) -> Iterator[tuple[str, Row]]:
    number = 0
    for batch in plain.iter(batch_size=tables.ROWS):
        for row in batch.to_pylist():
            number += 1
            yield f"dataset:{number}", row


def _image_or_file(value: Any, where: str) -> bytes:
    """The user's own object may name files of this machine; a table that came from elsewhere may not."""
    if isinstance(value, dict) and value.get("bytes") is None and isinstance(value.get("path"), str):
        return read_file(Path(value["path"]), where)
    return tables.image(value, where)


# ---------------------------------------------------------------------------------------------------------- unpacking


def _unpack(rows: Iterable[tuple[str, Row]], folder: Path, image: Callable[[Any, str], bytes]) -> None:
    """Write rows as standard JSONL with pictures named after their content; `episodes.jsonl` comes last."""
    partial = folder / "episodes.jsonl.part"
    folder.mkdir(parents=True, exist_ok=True)
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for where, row in rows:
            line = line_of(row, where)
            for number, step in enumerate(line["steps"]):
                place = f"{where} step {number}"
                step["screenshot"] = _put(folder, image(step.get("screenshot"), place), place)
            try:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            except (UnicodeEncodeError, TypeError, RecursionError) as error:
                raise DataError(where, f"cannot be written as JSON: {error}"[:300]) from None
    os.replace(partial, folder / "episodes.jsonl")


def line_of(row: Row, where: str) -> dict[str, Any]:
    """The row as a line of the JSONL, with each step's image cell as its `screenshot`. Raises DataError."""
    steps, pictures, meta = tables.need(row, ("steps",), where), row.get("screenshots"), row.get("meta")
    if not isinstance(steps, list) or not steps:
        raise DataError(where, "steps is no list with at least one step")
    whole: dict[str, Any] = _plain(
        {key: value for key, value in row.items() if key not in ("steps", "screenshots", "meta")}
    )
    if meta is not None:
        whole = (_object(meta, "meta", where) if isinstance(meta, str) else {"meta": _plain(meta)}) | whole
    made = [
        _object(step, f"step {i}", where) if isinstance(step, str) else _plain(step) for i, step in enumerate(steps)
    ]
    if not all(isinstance(step, dict) for step in made):
        raise DataError(where, "a step is neither an object nor the JSON text of one")
    if pictures is not None:
        if not isinstance(pictures, list) or len(pictures) != len(steps):
            count = len(pictures) if isinstance(pictures, list) else "no list of"
            raise DataError(where, f"{count} screenshots for {len(steps)} steps, expected one for each")
        made = [step | {"screenshot": picture} for step, picture in zip(made, pictures, strict=True)]
    return whole | {"steps": made}


def _put(folder: Path, data: bytes, where: str) -> str:
    """Store a picture under the digest of its bytes; returns its name in the folder."""
    if len(data) > MOST_PICTURE_BYTES:
        raise DataError(where, f"the screenshot has {len(data)} bytes, at most {MOST_PICTURE_BYTES} are allowed")
    with opened(data, where, "the screenshot", ("PNG", "JPEG")) as picture:
        kind = "png" if picture.format == "PNG" else "jpg"
    digest = hashlib.sha256(data).hexdigest()
    path = folder / "images" / digest[:2] / f"{digest[:32]}.{kind}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return path.relative_to(folder).as_posix()


def _object(text: str, what: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"{what} is not JSON: {error}"[:300]) from None
    if not isinstance(value, dict):
        raise DataError(where, f"{what} is a JSON {type(value).__name__}, expected an object")
    return value


def _plain(value: Any) -> Any:
    """A cell as JSON would have it. Arrow gives every struct all keys of its column, with None for absent ones."""
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return value
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value
