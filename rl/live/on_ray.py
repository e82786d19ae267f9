"""Workers of the fleet on the hosts of a Ray cluster.

Ray chooses a host and starts an agent there. The agent starts the worker as a process of its own, which calls back over TCP, and
kills it with its children. What workers say does not pass through Ray: a `Connection` is what the fleet has on one machine, too.
Whoever calls must know a secret of this run, before anything that it says is unpickled. The kernel of each end asks the other one
for a sign of life, so the orders of a host that has vanished go to others after half a minute.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError, get_context
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from typing import Any

from guiderail.rl.live.process import Here, Start, kill_group

_HANDSHAKE = 20  # seconds
_KILLED = 10.0  # seconds for an agent to say that it has killed its worker
_BEATS = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


@contextmanager
def starting(executor: str) -> Iterator[Start]:
    """What starts workers: processes, or ray. Where Ray is not running in this process, it joins the cluster of RAY_ADDRESS, or
    else starts Ray on this machine, until the end."""
    if executor != "ray":
        yield Here
        return
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    actor: Any = ray.remote(num_cpus=1, max_restarts=0)(Agent)
    start = CalledBack(ray.util.get_node_ip_address(), lambda: _RayAgent(actor.remote()))
    try:
        yield start
    finally:
        start.close()
        if started:
            ray.shutdown()


class CalledBack:
    """Starts workers by agents, and waits for them to call. address: of this machine, as their hosts see it. agent: makes an
    `Agent` somewhere."""

    def __init__(self, address: str, agent: Callable[[], Any]) -> None:
        self._agent = agent
        self.secret = secrets.token_bytes(32)
        self._awaited: dict[str, Future[Connection]] = {}
        self._socket = socket.create_server((address, 0), backlog=128)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        threading.Thread(target=self._listen, daemon=True).start()

    def __call__(self, number: int, run: Callable[..., None], arguments: tuple[Any, ...]) -> _Away:
        name, opening = secrets.token_hex(8), Future[Connection]()
        self._awaited[name] = opening
        agent = self._agent()
        agent.start(self.address, self.secret, name, run, arguments)
        return _Away(agent, opening)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which ends `accept`
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._greet, args=(caller,), daemon=True).start()

    def _greet(self, caller: socket.socket) -> None:
        """A caller that knows the secret and a name that is awaited is the worker of that name."""
        _keep_alive(caller)
        _read_within(caller, _HANDSHAKE)
        connection = Connection(os.dup(caller.fileno()))
        try:
            deliver_challenge(connection, self.secret)
            answer_challenge(connection, self.secret)
            awaited = self._awaited.pop(connection.recv_bytes(64).decode(), None)
        except (OSError, EOFError, ValueError, AuthenticationError):
            awaited = None
        _read_within(caller, 0)
        caller.close()
        if awaited is None:
            connection.close()
        else:
            awaited.set_result(connection)


class _Away:
    """A worker on some host."""

    def __init__(self, agent: Any, opening: Future[Connection]):
        self._agent, self.opening = agent, opening

    def alive(self) -> bool:
        return True  # a dead one's connection is closed

    def ended(self) -> str:
        return "its connection was closed"

    def end(self, patience: float) -> None:
        self._agent.end(patience)


class _RayAgent:
    """An `Agent` in a Ray actor."""

    def __init__(self, actor: Any):
        self._actor = actor

    def start(self, *arguments: Any) -> None:
        self._actor.start.remote(*arguments)

    def end(self, patience: float) -> None:
        import ray

        with suppress(ray.exceptions.RayError):
            ray.get(self._actor.end.remote(patience), timeout=patience + _KILLED)
        ray.kill(self._actor)


class Agent:
    """On the worker's host: starts it and ends it."""

    def start(self, address: tuple[str, int], secret: bytes, name: str, run: Any, arguments: tuple[Any, ...]) -> None:
        self.process = get_context("spawn").Process(target=_call, args=(address, secret, name, run, arguments))
        self.process.start()

    def end(self, patience: float) -> None:
        self.process.join(patience)
        if self.process.pid is not None:
            kill_group(self.process.pid)


def _call(address: tuple[str, int], secret: bytes, name: str, run: Any, arguments: tuple[Any, ...]) -> None:
    os.setsid()
    connection: Any = Client(address, authkey=secret)
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        _keep_alive(line)
    connection.send_bytes(name.encode())
    run(connection, *arguments)


def _read_within(line: socket.socket, seconds: int) -> None:
    """0: without a limit. A socket's own timeout would not hold for a `Connection`."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


def _keep_alive(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in _BEATS.items():
        if hasattr(socket, option):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
