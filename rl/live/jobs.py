"""Attempts to make, and who is making which: no job is lost, none is recorded twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guiderail.agent.types import Rollout
from guiderail.rl.runs.rows import rollout_row

Row = dict[str, Any]
"""One line of rollouts.jsonl, see `rl.runs.rows`."""
Images = dict[str, bytes]
"""PNG bytes by content hash (SHA-256, hex)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt to make. sample: which repetition of the task, from 0. tries: how often a machine has failed on it."""

    task: str
    sample: int = 0
    tries: int = 0


class JobQueue:
    """Jobs that are waiting or under way. `record` is called once for each job, with its line and its screenshots.

    An attempt whose machine failed goes back into the queue, at most `retries` times; then it is recorded as unscored, with
    the cause. The queue is an iterator that may have jobs again after it had none: a failed job can come back.
    """

    def __init__(self, jobs: Sequence[Job], retries: int, record: Callable[[Row, Images], None]):
        self._waiting, self._under_way = deque(jobs), set[Job]()
        self._retries, self._record = retries, record

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if not self._waiting:
            raise StopIteration
        job = self._waiting.popleft()
        self._under_way.add(job)
        return job

    @property
    def finished(self) -> bool:
        """Whether every job has been recorded."""
        return not self._waiting and not self._under_way

    def done(self, job: Job, row: Row, images: Images) -> None:
        """Take in the result of a job. A result for a job that is not under way (any more) is dropped."""
        if job not in self._under_way:
            return
        self._under_way.remove(job)
        if row["ended"] == "crashed" and job.tries < self._retries:
            self._waiting.append(replace(job, tries=job.tries + 1))
        else:
            self._record(row, images)

    def lost(self, job: Job, reason: str) -> None:
        """The worker that had this job is gone."""
        self.done(job, rollout_row(crashed(job, reason), tries=job.tries), {})


def crashed(job: Job, reason: str) -> Rollout:
    """The record of an attempt of which a machine left nothing."""
    return Rollout(job.task, job.sample, (), "crashed", reason=reason)
