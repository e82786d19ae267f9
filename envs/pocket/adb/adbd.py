"""An adb daemon in front of a pocket phone, so that a real adb client can use it like a phone on the network.

    with Adbd(Phone(new_state(0))) as daemon:
        ...                              # adb connect 127.0.0.1:PORT; adb shell input tap 80 90; adb pull /sdcard/a .

Client and daemon exchange messages of the adb transport (packages/modules/adb/protocol.txt): CNXN, OPEN, OKAY, WRTE, CLSE,
each with six little-endian words (command, arg0, arg1, length, checksum, command ^ 0xffffffff). Each OPEN names a service:
shell (version 1: raw; version 2: packets with an exit status), exec, sync (STAT, LIST, SEND, RECV), root. There is no
authentication: the daemon listens on the loopback interface only.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from guiderail.envs.pocket.adb.shell import execute
from guiderail.envs.pocket.adb.stream import Closed, Stream
from guiderail.envs.pocket.adb.sync import serve_sync
from guiderail.envs.pocket.files import Files
from guiderail.envs.pocket.phone import Phone

VERSION, MAX_DATA = 0x01000000, 256 * 1024
BANNER = b"device::ro.product.name=pocket;ro.product.model=Pocket;ro.product.device=pocket;features=shell_v2,fixed_push_mkdir"
BIGGEST = 1 << 20
STDIN, STDOUT, EXIT, CLOSE_STDIN = 0, 1, 3, 4


class Adbd:
    """phone: may be exchanged at any time; `lock` is held while a command works on it. port: 0 takes a free one."""

    def __init__(self, phone: Phone, port: int = 0):
        self.phone = phone
        self.lock = threading.RLock()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._closing = False
        threading.Thread(target=self._accept, name="adbd", daemon=True).start()

    @property
    def serial(self) -> str:
        """What `adb connect` takes and `adb -s` is given."""
        return f"127.0.0.1:{self.port}"

    def execute(self, line: str) -> tuple[int, bytes]:
        with self.lock:
            return execute(self.phone, line)

    @contextmanager
    def files(self) -> Iterator[Files]:
        """The storage of the present phone, while nobody else works on it."""
        with self.lock:
            yield self.phone.state.files

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), name="adbd-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        connection = _Connection(self, client)
        try:
            connection.run()
        except (OSError, Closed):
            pass
        finally:
            connection.end()
            self._open.discard(client)
            client.close()

    def drop(self) -> None:
        """Cut all connections, as if the cable of a phone were pulled."""
        for client in list(self._open):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._open.discard(client)

    def close(self) -> None:
        self._closing = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.drop()

    def __enter__(self) -> Adbd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Connection:
    """One client: reads messages and hands them to the streams they belong to."""

    def __init__(self, daemon: Adbd, client: socket.socket):
        self.daemon, self._client = daemon, client
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self.max_data = 4096

    def run(self) -> None:
        while True:
            command, arg0, arg1, length, _, magic = struct.unpack("<4s5I", self._read(24))
            if magic != int.from_bytes(command, "little") ^ 0xFFFFFFFF or length > BIGGEST:
                raise Closed("not an adb message")
            data = self._read(length)
            stream = self._streams.get(arg1)
            if command == b"CNXN":
                self.max_data = min(max(arg1, 4096), MAX_DATA)
                self.send(b"CNXN", VERSION, MAX_DATA, BANNER)
            elif command == b"OPEN":
                self._opened(arg0, data)
            elif command == b"OKAY" and stream:
                stream.ready.release()
            elif command == b"WRTE" and stream:
                stream.incoming.put(data)
                self.send(b"OKAY", stream.local, stream.remote)
            elif command == b"CLSE" and stream:
                self._streams.pop(stream.local)
                stream.end()

    def _opened(self, remote: int, data: bytes) -> None:
        name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        service = find_service(name, self.daemon)
        if service is None:
            self.send(b"CLSE", 0, remote)
            return
        self._last += 1
        stream = Stream(self.send, self._last, remote, self.max_data)
        self._streams[stream.local] = stream
        self.send(b"OKAY", stream.local, remote)
        threading.Thread(target=self._work, args=(service, stream), name="adbd-stream", daemon=True).start()

    def _work(self, service: Callable[[Stream], None], stream: Stream) -> None:
        with suppress(OSError, Closed):
            service(stream)
        if self._streams.pop(stream.local, None):
            try:
                self.send(b"CLSE", stream.local, stream.remote)
            except OSError:
                self.end()

    def send(self, command: bytes, arg0: int, arg1: int, data: bytes = b"") -> None:
        magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
        head = struct.pack("<4s5I", command, arg0, arg1, len(data), sum(data) & 0xFFFFFFFF, magic)
        with self._sending:
            self._client.sendall(head + data)

    def _read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self._client.recv(size - len(found))
            if not piece:
                raise Closed("the client has gone")
            found += piece
        return bytes(found)

    def end(self) -> None:
        for stream in list(self._streams.values()):
            stream.end()
        self._streams.clear()


def find_service(name: str, daemon: Adbd) -> Callable[[Stream], None] | None:
    """The service that an OPEN asks for; None for what a pocket phone does not offer."""
    kind, _, rest = name.partition(":")
    head = kind.split(",")
    if head[0] == "shell":
        return lambda stream: _shell(stream, daemon, rest, "v2" in head[1:])
    if kind == "exec":
        return lambda stream: stream.write(daemon.execute(rest)[1])
    if kind == "sync":
        return lambda stream: serve_sync(stream, daemon.files)
    if kind == "reboot":
        return lambda stream: stream.write(daemon.execute("reboot")[1])
    if kind == "root":
        return lambda stream: stream.write(b"adbd is already running as root\n")
    return None


def _shell(stream: Stream, daemon: Adbd, line: str, packets: bool) -> None:
    """Run one line. Without one, run what the client types until it closes its input or types exit."""
    status, output = daemon.execute(line) if line else (0, b"")
    if line:
        _say(stream, output, packets)
    elif not packets:
        stream.write(b"no interactive shell here: give a command\n")
    else:
        status = _interactive(stream, daemon)
    if packets:
        stream.write(struct.pack("<BIB", EXIT, 1, status & 255))


def _say(stream: Stream, output: bytes, packets: bool) -> None:
    if output:
        stream.write((struct.pack("<BI", STDOUT, len(output)) if packets else b"") + output)


def _interactive(stream: Stream, daemon: Adbd) -> int:
    buffer, status = b"", 0
    while True:
        kind, length = struct.unpack("<BI", stream.read(5))
        data = stream.read(min(length, BIGGEST))
        if kind == CLOSE_STDIN:
            return status
        buffer += data if kind == STDIN else b""
        while b"\n" in buffer.replace(b"\r", b"\n"):
            line, _, buffer = buffer.replace(b"\r", b"\n").partition(b"\n")
            if line.strip() == b"exit":
                return status
            status, output = daemon.execute(line.decode("utf-8", "surrogateescape"))
            _say(stream, output, True)
