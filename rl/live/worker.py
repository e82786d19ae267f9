"""A worker, for scoring and recording: an open world, and the policy or expert that acts in it, job after job."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, GuiderailError
from guiderail.agent.policy import GREEDY, Policy, Request, Sampling
from guiderail.agent.screen import Vision
from guiderail.agent.types import Completion, Rollout
from guiderail.envs.live.attempts import Patience, Session, attempt, by_expert
from guiderail.rl.live.jobs import Images, Job, Row, crashed
from guiderail.rl.live.journal import images_of
from guiderail.rl.rollout.drive import Asking, Key, drive
from guiderail.rl.runs.rows import rollout_row

Done = Callable[[Job, Row, Images], None]
"""Is called with every finished attempt."""


@dataclass
class Worker:
    """policy None: each task's own expert acts, one task after the other. width: attempts under way at once."""

    session: Session
    dialogue: Dialogue
    policy: Policy | None
    sampling: Sampling = GREEDY
    seed: int = 0
    width: int = 1
    patience: Patience = field(default_factory=Patience)

    def work(self, jobs: Iterator[Job], done: Done, alive: Callable[[], None] = lambda: None) -> None:
        """Make attempts until `jobs` has none left and none is under way. alive: called before and after each wait for the
        policy or the expert.

        `jobs` is asked again after it had none, as long as attempts are under way: a failed job may have come back.
        """

        def finish(job: Job, made: Rollout) -> None:
            done(job, rollout_row(made, tries=job.tries), images_of(made))

        def walk(job: Job) -> Asking[None]:
            try:
                task = self.session.task(job.task)
                made = yield from attempt(task, dialogue=self.dialogue, patience=self.patience, sample=job.sample)
            except Exception as error:
                made = _fault(job, error)
            finish(job, made)

        def keyed(job: Job) -> tuple[Key, Asking[None]]:
            return (self.seed, job.task, job.sample, job.tries), walk(job)

        if self.policy is not None:
            # `map`, unlike a generator, asks `jobs` again after it had none.
            policy, seconds = _Reporting(self.policy, alive), self.patience.attempt
            drive(map(keyed, jobs), policy, self.sampling, width=self.width, seconds=seconds)
            return
        for job in jobs:
            finish(job, self._by_expert(job, alive))

    def _by_expert(self, job: Job, alive: Callable[[], None]) -> Rollout:
        try:
            task = self.session.task(job.task)
            return by_expert(task, dialogue=self.dialogue, patience=self.patience, sample=job.sample, alive=alive)
        except Exception as error:
            return _fault(job, error)


def _fault(job: Job, error: Exception) -> Rollout:
    """For an error that a world should not raise: this attempt has no score, the others go on. Our own errors pass, and so
    does the loss of the supervisor's connection."""
    if isinstance(error, GuiderailError | ConnectionError | EOFError):
        raise error
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return crashed(job, f"{type(error).__name__} at {where}: {error}")


class _Reporting:
    """A policy that reports a sign of life before and after every batch."""

    def __init__(self, policy: Policy, alive: Callable[[], None]):
        self._policy, self._alive = policy, alive

    @property
    def name(self) -> str:
        return self._policy.name

    @property
    def vision(self) -> Vision:
        return self._policy.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Sequence[Completion | EnvCrashed]:
        self._alive()
        answers = self._policy.complete(requests, sampling)
        self._alive()
        return answers
