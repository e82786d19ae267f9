"""One service of one client, as a stream of bytes both ways."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue

PATIENCE = 30.0
"""Seconds a service waits for its client before it gives up."""

Send = Callable[[bytes, int, int, bytes], None]
"""Sends one message of the transport: command, arg0, arg1, data."""


class Closed(Exception):
    """The other side of a stream or of the connection has gone."""


class Stream:
    """Reads what the client wrote. A write waits until the client has taken the previous piece. most: bytes per piece."""

    def __init__(self, send: Send, local: int, remote: int, most: int):
        self._send, self._most = send, most
        self.local, self.remote = local, remote
        self.ready = threading.Semaphore(1)
        self.incoming: Queue[bytes] = Queue()
        self._left = b""
        self._ended = False

    def end(self) -> None:
        self._ended = True
        self.incoming.put(b"")
        self.ready.release()

    def write(self, data: bytes) -> None:
        """Raises Closed when the client has gone or does not read."""
        for k in range(0, len(data), self._most):
            if not self.ready.acquire(timeout=PATIENCE) or self._ended:
                raise Closed("the client does not read")
            self._send(b"WRTE", self.local, self.remote, data[k : k + self._most])

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises Closed."""
        while len(self._left) < size:
            piece = b"" if self._ended and self.incoming.empty() else self.incoming.get()
            if not piece:
                raise Closed("the client has gone")
            self._left += piece
        found, self._left = self._left[:size], self._left[size:]
        return found
