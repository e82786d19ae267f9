"""A chat server that fails in one chosen way, over plain sockets: what it sends is exactly what its table says."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

GOOD = json.dumps({"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}).encode()
MODELS = json.dumps({"data": [{"id": "m"}]}).encode()


class FaultyServer:
    """fault: a key of FAULTS, for every chat request; /v1/models is answered unless fault_of_get. asked: chat requests so far. open: connections
    that the client has not closed."""

    def __init__(self, fault: str):
        self.fault, self.asked, self.open = fault, 0, set[socket.socket]()
        self.fault_of_get = False
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self.open.add(client)
        try:
            head, rest = b"", b""
            while b"\r\n\r\n" not in head:
                if not (piece := client.recv(65536)):
                    return
                head += piece
            head, _, rest = head.partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                FAULTS[self.fault](client) if self.fault_of_get else client.sendall(answer(MODELS))
                return
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            while len(rest) < length:
                rest += client.recv(65536)
            with self.lock:
                self.asked += 1
            FAULTS[self.fault](client)
        except OSError:
            pass
        finally:
            self.open.discard(client)
            client.close()


def answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Content-Type: application/json", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def _hang(client: socket.socket) -> None:
    while client.recv(1024):
        pass


def _drip(client: socket.socket, whole: bytes) -> None:
    for byte in whole:
        client.sendall(bytes([byte]))
        time.sleep(0.05)


def _endless(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"1\r\n \r\n")
        time.sleep(0.02)


def _flood(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while True:
        client.sendall(piece)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _send(whole: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(whole)


BOMB = gzip.compress(b" " * 20_000_000)
FAULTS: dict[str, Callable[[socket.socket], None]] = {
    "hang": _hang,
    "slow headers": lambda client: _drip(client, answer(GOOD, "200 OK", "X-Long: " + "x" * 10_000)),
    "slow body": lambda client: _drip(client, answer(GOOD[:-1] + b" " * 10_000 + b"}")),
    "endless stream": _endless,
    "huge answer": _flood,
    "gzip bomb": _send(answer(BOMB, "200 OK", "Content-Encoding: gzip")),
    "429": _send(answer(b"{}", "429 Too Many Requests", "Retry-After: 20")),
    "500": _send(answer(b'{"error": "boom"}', "500 Internal Server Error")),
    "endless 500": lambda client: _drip(client, answer(b"x" * 10_000, "500 Internal Server Error")),
    "wrong schema": _send(answer(b'{"choices": [{"text": 7}]}')),
    "html": _send(answer(b"<html><body>Welcome</body></html>")),
    "truncated json": _send(answer(GOOD[:20])),
    "cut short": _send(answer(GOOD[:20], length=len(GOOD))),
    "reset": _reset,
    "redirect loop": _send(answer(b"", "307 Temporary Redirect", "Location: /v1/chat/completions")),
    "odd charset": _send(
        answer(b"zz", "500 Internal Server Error").replace(b"application/json", b"text/plain; charset=hex")
    ),
    "odd pause": _send(answer(b"{}", "503 Service Unavailable", "Retry-After: nan")),
}
CAUSES = {
    "hang": "no answer within",
    "slow headers": "no answer within",
    "slow body": "no answer within",
    "endless stream": "no answer within",
    "huge answer": "more than",
    "gzip bomb": "compressed",
    "429": "HTTP 429",
    "500": "HTTP 500: .*boom",
    "endless 500": "no answer within",
    "wrong schema": "without choices",
    "html": "not JSON: '<html>",
    "truncated json": "not JSON",
    "cut short": "RemoteProtocolError",
    "redirect loop": "TooManyRedirects",
    "odd charset": "HTTP 500: zz",
    "odd pause": "HTTP 503",
    "reset": "Re(ad|moteProtocol)Error",
}


@contextmanager
def faulty(fault: str) -> Iterator[FaultyServer]:
    server = FaultyServer(fault)
    try:
        yield server
    finally:
        server.listener.close()
        for client in list(server.open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
