"""Who does the jobs of a Board: this process, supervised processes on this machine, or Ray actors on many.

A worker that dies or hangs costs nothing but the attempts it had under way; they are made again by its replacement.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from agent.errors import GuiderailError, SetupError
from rl.live import Bench, Board, Images, Job, Row, work

Equip = Callable[[int], Bench]
"""Builds a worker's bench from the worker's number. Sent to other processes, so it must pickle."""

PATIENT_STARTS = 3
LONGEST_PAUSE = 30.0


def run_here(board: Board, equip: Equip) -> None:
    """All attempts in this process, batched over one policy."""
    bench = equip(0)
    try:
        work(bench, board, board.done)
    finally:
        bench.site.close()


# ------------------------------------------------------------------------------------------ processes on this machine


def run_processes(board: Board, equip: Equip, workers: int, silence: float) -> None:
    """`workers` processes; one that dies, or says nothing for `silence` seconds, is killed with all its children and
    replaced after a pause. Raises SetupError when a worker says so, and when replacements do not live to finish a job."""
    crew = [_Worker(number, equip) for number in range(workers)]
    fruitless = 0
    try:
        while not board.over:
            for connection in wait([w.connection for w in crew if w.connection], timeout=0.5):
                worker = next(w for w in crew if w.connection is connection)
                if worker.listen(board):
                    fruitless = 0
            for worker in crew:
                reason = worker.fate(silence)
                if reason is not None:
                    fruitless += 1
                    worker.bury(board, reason, pause=min(LONGEST_PAUSE, 2.0 ** (fruitless - 2)))
                    if fruitless > PATIENT_STARTS * workers:
                        raise SetupError(f"workers keep dying ({reason}); repair that, then go on with --resume")
                worker.revive()
                worker.feed(board)
    finally:
        for worker in crew:
            worker.end()


@dataclass
class _Worker:
    """The supervisor's view of one worker process."""

    number: int
    equip: Equip
    process: SpawnProcess | None = None
    connection: Connection | None = None
    heard: float = 0.0
    start_at: float = 0.0
    out: list[Job] = field(default_factory=list)
    hungry: bool = False

    def revive(self) -> None:
        if self.process is not None or time.monotonic() < self.start_at:
            return
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.equip, self.number), daemon=True)
        self.process.start()
        theirs.close()
        self.connection, self.heard, self.hungry = ours, time.monotonic(), False

    def listen(self, board: Board) -> bool:
        """Take one message; whether it was a finished attempt. A closed pipe is left for `fate` to find."""
        assert self.connection is not None
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
            self.connection = None
            return False
        self.heard = time.monotonic()
        match message:
            case ("next",):
                self.hungry = True
            case ("done", job, row, images):
                self.out.remove(job)
                board.done(job, row, images)
                return True
            case ("setup", text):
                raise SetupError(text)
        return False

    def feed(self, board: Board) -> None:
        """Answer a request for a job. "None now" is said only to workers that are busy; idle ones wait."""
        if not self.hungry or self.connection is None:
            return
        job = next(board, None)
        if job is None and not self.out:
            return
        if job is not None:
            self.out.append(job)
        self.hungry = False
        try:
            self.connection.send(job)
        except OSError:
            self.connection.close()
            self.connection = None

    def fate(self, silence: float) -> str | None:
        """Why this worker must be replaced, None when it need not."""
        if self.process is None:
            return None
        if self.connection is None or not self.process.is_alive():
            self.process.join(5)
            code = self.process.exitcode
            ended = "does not end" if code is None else f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return f"worker {self.number} died: {ended}"
        idle = self.hungry and not self.out
        if not idle and time.monotonic() - self.heard > silence:
            return f"worker {self.number} said nothing for {silence:g} s"
        return None

    def bury(self, board: Board, reason: str, pause: float) -> None:
        while self.connection is not None and self.connection.poll():
            self.listen(board)
        self.end()
        for job in self.out:
            board.lost(job, reason)
        self.out, self.start_at = [], time.monotonic() + pause

    def end(self) -> None:
        """The process and whatever it started: it leads a process group of its own."""
        if self.connection is not None:
            self.connection.close()
        if self.process is not None and self.process.pid is not None:
            self.process.join(2 if self.connection is not None and not self.out else 0)
            _kill_group(self.process.pid)
            self.process.kill()
            self.process.join(5)
        self.process = self.connection = None


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class _Asking:
    """The board as seen through a pipe."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        self._connection.send(("next",))
        job: Job | None = self._connection.recv()
        if job is None:
            raise StopIteration
        return job


def _serve(connection: Connection, equip: Equip, number: int) -> None:
    """A worker's life: ends when the supervisor closes the pipe, or ends itself."""
    os.setsid()
    try:
        bench = equip(number)
    except SetupError as error:
        connection.send(("setup", str(error)))
        return

    def done(job: Job, row: Row, images: Images) -> None:
        connection.send(("done", job, row, images))

    try:
        while True:
            work(bench, _Asking(connection), done, beat=lambda: connection.send(("alive",)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except SetupError as error:
        connection.send(("setup", str(error)))
    finally:
        bench.site.close()


# ------------------------------------------------------------------------------------------------------ many machines


def run_ray(board: Board, equip: Equip, workers: int, chunk: int, silence: float, address: str | None = None) -> None:
    """`workers` Ray actors, each given `chunk` jobs at a time. address: of a running cluster, else RAY_ADDRESS, else Ray
    is started on this machine. Actors that die, or all of them when none answers for `silence` seconds, are replaced."""
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    remote: Any = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
    crew: dict[int, Any] = {number: remote.remote(equip, number) for number in range(workers)}
    pending: dict[Any, tuple[int, list[Job]]] = {}
    fruitless = 0

    def replace(number: int, jobs: list[Job], reason: str) -> None:
        nonlocal fruitless
        fruitless += 1
        if fruitless > PATIENT_STARTS * workers:
            raise SetupError(f"actors keep dying ({reason}); repair that, then go on with --resume")
        for job in jobs:
            board.lost(job, f"actor {number}: {reason}")
        ray.kill(crew[number])
        crew[number] = remote.remote(equip, number)

    with ExitStack() as at_end:
        if started:
            at_end.callback(ray.shutdown)
        at_end.enter_context(redirect_stdout(sys.stderr))  # Ray tells of dead actors on standard output
        while not board.over:
            for number in set(crew) - {number for number, _ in pending.values()}:
                if jobs := [*islice(board, chunk)]:
                    pending[crew[number].work.remote(jobs)] = (number, jobs)
            ready, late = ray.wait([*pending], num_returns=1, timeout=silence)
            for reference in ready or late:
                number, jobs = pending.pop(reference)
                if not ready:
                    replace(number, jobs, f"said nothing for {silence:g} s")
                    continue
                try:
                    made = ray.get(reference)
                except ray.exceptions.RayActorError as error:
                    replace(number, jobs, f"died: {str(error).splitlines()[0]}")
                    continue
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, GuiderailError) else error from None
                fruitless = 0
                for job, row, images in made:
                    board.done(job, row, images)


class _Actor:
    """A worker in a Ray process."""

    def __init__(self, equip: Equip, number: int):
        self._bench = equip(number)

    def work(self, jobs: list[Job]) -> list[tuple[Job, Row, Images]]:
        made: list[tuple[Job, Row, Images]] = []
        work(self._bench, iter(jobs), lambda job, row, images: made.append((job, row, images)))
        return made
