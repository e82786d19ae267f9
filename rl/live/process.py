"""A worker process under supervision: started, listened to, killed with all its children, and started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any


@dataclass
class Supervised:
    """One process, as its supervisor sees it. run(connection, *arguments): its main function, which pickles, and which ends
    when the supervisor closes the pipe. heard: when it last said something."""

    number: int
    run: Callable[..., None]
    arguments: tuple[Any, ...]
    process: SpawnProcess | None = None
    connection: Connection | None = None
    heard: float = 0.0
    start_at: float = 0.0

    def start_if_due(self) -> bool:
        """Whether it was started now."""
        if self.process is not None or time.monotonic() < self.start_at:
            return False
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(target=self.run, args=(theirs, *self.arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.connection, self.heard = ours, time.monotonic()
        return True

    def failure(self, silence: float, idle: bool) -> str | None:
        """Why this process must be replaced; None when it need not be. idle: it owes nothing, and so may be silent."""
        if self.process is None:
            return None
        if self.connection is None or not self.process.is_alive():
            self.process.join(5)
            code = self.process.exitcode
            ended = "does not end" if code is None else f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return f"worker {self.number} died: {ended}"
        if not idle and time.monotonic() - self.heard > silence:
            return f"worker {self.number} sent nothing for {silence:g} s"
        return None

    def stop(self, patience: float) -> None:
        """End the process and whatever it started: it leads a process group of its own. patience: seconds for it to end by
        itself, now that its pipe is closed."""
        open_ = self.connection is not None
        self.disconnect()
        if self.process is not None and self.process.pid is not None:
            self.process.join(patience if open_ else 0)
            _kill_group(self.process.pid)
            self.process.kill()
            self.process.join(5)
        self.process = None

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
