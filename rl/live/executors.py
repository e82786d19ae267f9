"""Where workers run: in this process, in supervised processes on this machine, or as Ray actors on many machines.

A worker that dies or hangs costs nothing but the attempts it had under way; its replacement makes them again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.rl.live.jobs import Images, Job, JobQueue, Row
from guiderail.rl.live.process import Supervised
from guiderail.rl.live.worker import Worker

BuildWorker = Callable[[int], Worker]
"""Builds a worker from its number, where it will run. Sent to other processes, so it must pickle."""

MOST_DEATHS = 3
"""Workers that may die in a row without a finished attempt, per worker, before the run is given up."""
LONGEST_PAUSE = 30.0
CLOSE_SECONDS = 30.0
"""For all Ray actors to close their sessions at the end."""


def run_here(queue: JobQueue, build: BuildWorker) -> None:
    """All attempts in this process, batched over one policy."""
    worker = build(0)
    try:
        worker.work(queue, queue.done)
    finally:
        worker.session.close()


# ------------------------------------------------------------------------------------------ processes on this machine


def run_processes(queue: JobQueue, build: BuildWorker, workers: int, silence: float) -> None:
    """`workers` processes. One that dies, or sends nothing for `silence` seconds, is killed with all its children and
    replaced after a pause. Raises SetupError when a worker does, and when replacements die before they finish a job."""
    processes = [_Process(number, _serve, (build, number)) for number in range(workers)]
    deaths = 0
    try:
        while not queue.finished:
            for connection in wait([p.connection for p in processes if p.connection], timeout=0.5):
                process = next(p for p in processes if p.connection is connection)
                if process.receive(queue):
                    deaths = 0
            for process in processes:
                reason = process.failure(silence, idle=process.asking and not process.jobs)
                if reason is not None:
                    deaths += 1
                    process.abandon(queue, reason, pause=min(LONGEST_PAUSE, 2.0 ** (deaths - 2)))
                    if deaths > MOST_DEATHS * workers:
                        raise SetupError(f"workers keep dying ({reason}); repair that, then go on with --resume")
                if process.start_if_due():
                    process.asking = False
                process.send_job(queue)
    finally:
        for process in processes:
            process.stop(0 if process.jobs else 2)


@dataclass
class _Process(Supervised):
    """One worker process. jobs: under way there. asking: it waits for an answer to "next"."""

    jobs: list[Job] = field(default_factory=list)
    asking: bool = False

    def receive(self, queue: JobQueue) -> bool:
        """Take one message; whether it was a finished attempt. A closed pipe is left for `failure` to find."""
        assert self.connection is not None
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.disconnect()
            return False
        self.heard = time.monotonic()
        match message:
            case ("next",):
                self.asking = True
            case ("done", job, row, images):
                self.jobs.remove(job)
                queue.done(job, row, images)
                return True
            case ("setup", text):
                raise SetupError(text)
        return False

    def send_job(self, queue: JobQueue) -> None:
        """Answer a request for a job. "None left" is sent only to a worker with jobs under way; an idle one waits."""
        if not self.asking or self.connection is None:
            return
        job = next(queue, None)
        if job is None and not self.jobs:
            return
        if job is not None:
            self.jobs.append(job)
        self.asking = False
        try:
            self.connection.send(job)
        except OSError:
            self.disconnect()

    def abandon(self, queue: JobQueue, reason: str, pause: float) -> None:
        """End the process after reading what it still sent, give its jobs back, start again after `pause` seconds."""
        while self.connection is not None and self.connection.poll():
            self.receive(queue)
        self.stop(0 if self.jobs else 2)
        for job in self.jobs:
            queue.lost(job, reason)
        self.jobs, self.start_at = [], time.monotonic() + pause


class _RemoteJobs:
    """The supervisor's queue, through a pipe."""

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


def _serve(connection: Connection, build: BuildWorker, number: int) -> None:
    """The main function of a worker process. It ends when the supervisor closes the pipe."""
    os.setsid()
    try:
        worker = build(number)
    except SetupError as error:
        connection.send(("setup", str(error)))
        return

    def done(job: Job, row: Row, images: Images) -> None:
        connection.send(("done", job, row, images))

    try:
        while True:
            worker.work(_RemoteJobs(connection), done, alive=lambda: connection.send(("alive",)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except SetupError as error:
        connection.send(("setup", str(error)))
    finally:
        worker.session.close()


# ------------------------------------------------------------------------------------------------------ many machines


def run_ray(
    queue: JobQueue, build: BuildWorker, workers: int, chunk: int, silence: float, address: str | None = None
) -> None:
    """`workers` Ray actors, each given `chunk` jobs at a time. address: of a running cluster; None: RAY_ADDRESS, or else
    Ray is started on this machine. An actor that dies is replaced, and so are all when none answers for `silence` seconds.
    At the end every actor closes its session.
    """
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    remote: Any = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
    actors: dict[int, Any] = {number: remote.remote(build, number) for number in range(workers)}
    pending: dict[Any, tuple[int, list[Job]]] = {}
    deaths = 0

    def replace(number: int, jobs: list[Job], reason: str) -> None:
        nonlocal deaths
        deaths += 1
        if deaths > MOST_DEATHS * workers:
            raise SetupError(f"actors keep dying ({reason}); repair that, then go on with --resume")
        for job in jobs:
            queue.lost(job, f"actor {number}: {reason}")
        ray.kill(actors[number])
        actors[number] = remote.remote(build, number)

    def close() -> None:
        closing = [actor.close.remote() for actor in actors.values()]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for actor in actors.values():
            ray.kill(actor)

    with ExitStack() as at_end:
        if started:
            at_end.callback(ray.shutdown)
        at_end.callback(close)
        at_end.enter_context(redirect_stdout(sys.stderr))  # Ray reports dead actors on standard output
        while not queue.finished:
            for number in set(actors) - {number for number, _ in pending.values()}:
                if jobs := [*islice(queue, chunk)]:
                    pending[actors[number].work.remote(jobs)] = (number, jobs)
            ready, late = ray.wait([*pending], num_returns=1, timeout=silence)
            for reference in ready or late:
                number, jobs = pending.pop(reference)
                if not ready:
                    replace(number, jobs, f"sent nothing for {silence:g} s")
                    continue
                try:
                    made = ray.get(reference)
                except ray.exceptions.RayActorError as error:
                    replace(number, jobs, f"died: {str(error).splitlines()[0]}")
                    continue
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, GuiderailError) else error from None
                deaths = 0
                for job, row, images in made:
                    queue.done(job, row, images)


class _Actor:
    """A worker in a Ray process."""

    def __init__(self, build: BuildWorker, number: int):
        self._worker = build(number)

    def work(self, jobs: list[Job]) -> list[tuple[Job, Row, Images]]:
        made: list[tuple[Job, Row, Images]] = []
        self._worker.work(iter(jobs), lambda job, row, images: made.append((job, row, images)))
        return made

    def close(self) -> None:
        self._worker.session.close()
