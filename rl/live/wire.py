"""Values between processes over a pipe, with every screenshot sent once.

A prompt shows screenshots that were sent before, and a finished attempt holds all of them. Both ends remember them, so a hash
stands for one that the other end has, and equal screenshots become one object there. Both forget those of a message that is the
last about them. Of those that no last message comes for, the oldest are forgotten beyond a limit in bytes.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
from collections import OrderedDict
from multiprocessing.connection import Connection
from typing import Any

from guiderail.agent.types import Screenshot

KEPT = 256 << 20
"""Bytes of screenshots that each end remembers per direction. The newest one is always remembered."""


class Wire:
    """One end. Both processes are ours: what comes is unpickled. seconds: for which the other end may take, or give, nothing of a
    message that has begun; None: for ever. After that it counts as gone."""

    def __init__(self, connection: Connection, seconds: float | None = None):
        self.connection = connection
        if seconds is not None:
            _set_deadlines(connection, seconds)
        self._sent = _Kept()
        self._got = _Kept()

    def send(self, value: Any, last: bool = False) -> None:
        """last: the screenshots in it are not sent again. Raises OSError when the other end is gone."""
        buffer = io.BytesIO()
        pickler = _Pickler(buffer, self._sent)
        pickler.dump((last, value))
        if last:
            self._sent.forget(pickler.named)
        self.connection.send_bytes(buffer.getvalue())

    def receive(self) -> Any:
        """Raises EOFError or OSError when the other end is gone."""
        unpickler = _Unpickler(io.BytesIO(self.connection.recv_bytes()), self._got)
        last, value = unpickler.load()
        if last:
            self._got.forget(unpickler.named)
        return value


def _set_deadlines(connection: Connection, seconds: float) -> None:
    """Of the socket below. A read or write that waits longer raises BlockingIOError."""
    spell = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            same.setsockopt(socket.SOL_SOCKET, option, spell)


class _Kept(OrderedDict[str, Screenshot]):
    """The last screenshots by hash, in the order in which they last crossed."""

    size = 0

    def remember(self, digest: str, shot: Screenshot) -> None:
        if digest not in self:
            self.size += _bytes(shot)
        self[digest] = shot
        self.move_to_end(digest)
        while self.size > KEPT and len(self) > 1:
            self.size -= _bytes(self.popitem(last=False)[1])

    def forget(self, digests: set[str]) -> None:
        for digest in digests & self.keys():
            self.size -= _bytes(self.pop(digest))


def _bytes(shot: Screenshot) -> int:
    return len(shot.data or b"")


class _Pickler(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, sent: _Kept):
        super().__init__(buffer, protocol=pickle.HIGHEST_PROTOCOL)
        self._sent, self.named = sent, set[str]()

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Screenshot) or value.data is None:
            return None
        known = value.digest in self._sent
        self.named.add(value.digest)
        self._sent.remember(value.digest, value)
        return value.digest, None if known else (value.width, value.height, value.data)


class _Unpickler(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, got: _Kept):
        super().__init__(buffer)
        self._got, self.named = got, set[str]()

    def persistent_load(self, name: Any) -> Screenshot:
        digest, content = name
        self.named.add(digest)
        shot = self._got[digest] if content is None else Screenshot(content[0], content[1], data=content[2])
        self._got.remember(digest, shot)
        return shot
