"""A worker process under supervision: started, listened to, killed with all its children, and started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

OPENING = 180.0
"""Seconds for a process to start and open its connection."""


class Started(Protocol):
    """A process on this machine or on another one."""

    opening: Future[Connection]

    def alive(self) -> bool:
        """Only asked while nothing else tells."""

    def ended(self) -> str:
        """How, in words."""

    def end(self, patience: float) -> None:
        """Kill it and whatever it started. patience: seconds for it to end by itself, now that its connection is closed."""


Start = Callable[[int, Callable[..., None], tuple[Any, ...]], Started]
"""(number, run, arguments) -> a process that calls run(connection, *arguments)."""


class Here:
    """A process on this machine, which leads a process group of its own."""

    def __init__(self, number: int, run: Callable[..., None], arguments: tuple[Any, ...]):
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=run, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.opening: Future[Connection] = Future()
        self.opening.set_result(ours)

    def alive(self) -> bool:
        return self.process.is_alive()

    def ended(self) -> str:
        self.process.join(5)
        code = self.process.exitcode
        return "does not end" if code is None else f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def end(self, patience: float) -> None:
        self.process.join(patience)
        if self.process.pid is not None:
            kill_group(self.process.pid)
        self.process.kill()
        self.process.join(5)


@dataclass
class Supervised:
    """One process, as its supervisor sees it. run(connection, *arguments): its main function, which pickles, and which ends
    when the supervisor closes the connection. heard: when it last said something. start: what starts it. opened: whether the
    connection of the present process has been open."""

    number: int
    run: Callable[..., None]
    arguments: tuple[Any, ...]
    process: Started | None = None
    connection: Connection | None = None
    heard: float = 0.0
    start_at: float = 0.0
    start: Start = Here
    opened: bool = False

    def start_if_due(self) -> bool:
        """Start it when it is time to. Returns whether its connection opened now."""
        if self.process is None:
            if time.monotonic() < self.start_at:
                return False
            self.process = self.start(self.number, self.run, self.arguments)
            self.heard, self.opened = time.monotonic(), False
        opening = self.process.opening
        if self.opened or not opening.done() or opening.exception() is not None:
            return False
        self.connection, self.heard, self.opened = opening.result(), time.monotonic(), True
        return True

    def failure(self, silence: float, idle: bool) -> str | None:
        """Why this process must be replaced; None when it need not be. idle: it owes nothing, and so may be silent."""
        if self.process is None:
            return None
        if not self.opened:
            return self._unopened(self.process.opening)
        if self.connection is None or not self.process.alive():
            return f"worker {self.number} died: {self.process.ended()}"
        if not idle and time.monotonic() - self.heard > silence:
            return f"worker {self.number} sent nothing for {silence:g} s"
        return None

    def _unopened(self, opening: Future[Connection]) -> str | None:
        if opening.done():
            error = opening.exception()
            return None if error is None else f"worker {self.number} did not start: {error}"
        late = time.monotonic() - self.heard > OPENING
        return f"worker {self.number} did not start in {OPENING:g} s" if late else None

    def stop(self, patience: float) -> None:
        """End the process and whatever it started. patience: seconds for it to end by itself, now that its connection is
        closed."""
        open_ = self.connection is not None
        self.disconnect()
        if self.process is not None:
            self.process.end(patience if open_ else 0)
        self.process = None

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def kill_group(pid: int) -> None:
    """The process group that this process leads."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
