"""adb's file service: STAT, LIST, SEND and RECV, version 1 (packages/modules/adb/SYNC.TXT)."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager

from guiderail.envs.pocket.adb.stream import Stream
from guiderail.envs.pocket.files import LIMIT, FileError, Files

Storage = Callable[[], AbstractContextManager[Files]]
"""Lends the phone's files for as long as a `with` block runs."""

FOLDER, FILE = 0o040771, 0o100660
CHUNK = 64 * 1024
LONGEST_PATH = 1024


def serve_sync(stream: Stream, storage: Storage) -> None:
    """Answer requests until the client says QUIT or leaves."""
    while True:
        request, length = struct.unpack("<4sI", stream.read(8))
        if request == b"QUIT":
            return
        if length > LONGEST_PATH:
            _fail(stream, "path too long")
            return
        path = stream.read(length).decode("utf-8", "surrogateescape")
        try:
            if request == b"SEND":
                _send(stream, storage, path)
            elif request == b"RECV":
                _receive(stream, storage, path)
            elif request == b"STAT":
                stream.write(b"STAT" + _stat(storage, path))
            elif request == b"LIST":
                _list(stream, storage, path)
            else:
                raise FileError(f"unknown request {request!r}")
        except FileError as error:
            _fail(stream, str(error))
            if request not in (b"SEND", b"RECV"):
                return


def _fail(stream: Stream, message: str) -> None:
    data = message.encode("utf-8", "replace")
    stream.write(struct.pack("<4sI", b"FAIL", len(data)) + data)


def _stat(storage: Storage, path: str) -> bytes:
    """(mode, size, time); zeros for what does not exist."""
    with storage() as files:
        return _entry(files, path)


def _entry(files: Files, path: str) -> bytes:
    if path in files:
        return struct.pack("<III", FILE, len(files[path]), int(files.changed(path)))
    return struct.pack("<III", FOLDER if files.is_folder(path) else 0, 0, 0)


def _list(stream: Stream, storage: Storage, path: str) -> None:
    with storage() as files:
        found = [(name, _entry(files, posixpath.join(path, name))) for name in files.names(path)]
    for name, entry in found:
        data = name.encode("utf-8", "surrogateescape")
        stream.write(b"DENT" + entry + struct.pack("<I", len(data)) + data)
    stream.write(b"DONE" + bytes(16))


def _receive(stream: Stream, storage: Storage, path: str) -> None:
    with storage() as files:
        data = files[path]
    pieces = [data[k : k + CHUNK] for k in range(0, len(data), CHUNK)]
    framed = b"".join(struct.pack("<4sI", b"DATA", len(piece)) + piece for piece in pieces)
    stream.write(framed + struct.pack("<4sI", b"DONE", 0))


def _send(stream: Stream, storage: Storage, request: str) -> None:
    """`PATH,MODE`, then DATA pieces, then DONE with the time of change. All pieces are read before anything is refused,
    because the client listens only after DONE."""
    path = request.rpartition(",")[0]
    data, too_much = bytearray(), False
    while True:
        kind, number = struct.unpack("<4sI", stream.read(8))
        if kind == b"DONE":
            break
        if kind != b"DATA" or number > CHUNK:
            raise FileError(f"bad piece {kind!r}")
        piece = stream.read(number)
        too_much = too_much or len(data) + number > LIMIT
        if not too_much:
            data += piece
    if too_much:
        raise FileError(f"{path}: No space left on device")
    with storage() as files:
        folder = posixpath.dirname(path)
        if not files.is_folder(folder):
            files.make_folder(folder)
        files.write(path, bytes(data), float(number))
    stream.write(struct.pack("<4sI", b"OKAY", 0))
