"""What a crash leaves on disk: files that are whole or absent, lines that are whole or absent, folders with one writer."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from guiderail.agent.errors import SetupError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SAID = (
    *(os.strerror(code) for code in _FULL),
    *(f"(os error {code})" for code in _FULL),
    *("PytorchStreamWriter failed", "basic_ios::clear: iostream error", ". unexpected pos "),
)
"""How libraries name a full disk that lose the error number: safetensors, torch.save."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is either there completely or not at all, also after a power cut."""
    write_pieces(path, [data])


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """As `write_whole`, of pieces that need not be in memory together."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync([path.parent])


def append_whole(path: Path, data: bytes) -> None:
    """Add to a file all of `data`; nothing of it where the disk is full."""
    with path.open("ab", buffering=0) as file:
        before, left = os.fstat(file.fileno()).st_size, memoryview(data)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


def cut_torn_line(path: Path) -> None:
    """Remove a last line without its end: the process that wrote it was killed."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        keep = end = size
        while end > 0:
            start = max(0, end - 2**16)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = end = start
        if keep < size:
            file.truncate(keep)


def sync(paths: Iterable[Path]) -> None:
    """Force files and folders out of the cache of the operating system."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that the disk is full (or the quota, or the largest file)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if not isinstance(error, OSError) and any(said in str(error) for said in _SAID):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Keeps a second process from writing into `folder`, which is made if needed, and removed if it is empty at the end.
    The lock ends with the process, however it ends. Raises SetupError where another process still has it after `wait`
    seconds."""
    path = folder / ".lock"
    file = _take(path, time.monotonic() + wait)
    try:
        yield
    finally:
        if _is(path, file):
            path.unlink()
        file.close()
        with suppress(OSError):  # it holds something
            folder.rmdir()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """As `locked`, around what reads a folder and must not see it change. One that cannot be written needs no lock."""
    if os.access(folder, os.W_OK):
        with locked(folder):
            yield
    else:
        yield


def _take(path: Path, deadline: float) -> IO[bytes]:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("wb")
        except (FileExistsError, NotADirectoryError):
            raise SetupError(f"{path.parent} is a file, or lies in one; give another --out") from None
        except PermissionError as error:
            raise SetupError(f"{path.parent} cannot be written ({error.strerror}); give another --out") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise SetupError(
                f"{path.parent} is being written by another process; wait for it or give another --out"
            ) from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): start no second run in it", path.parent, error.strerror)
            return file
        if _is(path, file):
            return file
        file.close()  # its last owner removed the file between our two calls: this lock is on nothing


def _is(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears at once and complete: yields `.NAME.part` beside it, which becomes `out` at the end, or is
    removed on an error. Raises SetupError when `out` already holds something or another process is writing it."""
    partial = out.parent / f".{out.name}.part"
    _refuse_filled(out)
    with locked(partial):
        try:
            _refuse_filled(out)  # the process that wrote it may have ended just before the lock
            _empty(partial)
            yield partial
            os.replace(partial, out)  # also over an empty folder
            (out / ".lock").unlink()
        except BaseException:
            if partial.exists():
                _empty(partial)
            raise


def _refuse_filled(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SetupError(f"{out} is not an empty folder; choose another one or delete it first")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


_log = logging.getLogger(__name__)
