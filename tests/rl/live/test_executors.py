"""Every worker closes its session, wherever it runs and however the run ends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Terminate
from guiderail.rl.live.executors import run_here, run_processes, run_ray
from guiderail.rl.live.jobs import Job, JobQueue
from guiderail.rl.live.worker import Worker

TALK = Dialogue(ORIGINAL_SIZE, BRIEF)


@dataclass
class Site:
    """Leaves a file open-N when it opens and closed-N when it closes."""

    folder: Path
    number: int

    def __post_init__(self):
        (self.folder / f"open-{self.number}-{os.getpid()}").touch()

    def task(self, name):
        if name == "broken":
            raise SetupError("no such app; install it")
        return Unplugged()

    def close(self):
        (self.folder / f"closed-{self.number}-{os.getpid()}").touch()


class Unplugged:
    id, goal, max_steps = "good", "", 3

    def start(self):
        raise EnvCrashed("no signal")

    def close(self):
        pass


def build(folder, number):
    policy = ScriptedPolicy(lambda r: TALK.say("", Terminate("success"), r.prompt.screen.screenshot))
    return Worker(Site(folder, number), TALK, policy)


def here(queue, folder):
    run_here(queue, partial(build, folder))


def processes(queue, folder):
    run_processes(queue, partial(build, folder), 2, silence=60)


def ray(queue, folder):
    pytest.importorskip("ray", reason="the ray extra is not installed")
    run_ray(queue, partial(build, folder), 2, chunk=2, silence=60)


@pytest.mark.parametrize("name", ["good", "broken"])
@pytest.mark.parametrize(
    "execute", [here, pytest.param(processes, marks=pytest.mark.slow), pytest.param(ray, marks=pytest.mark.slow)]
)
def test_sessions_are_closed(execute, name, tmp_path):
    rows = []
    queue = JobQueue([Job(name, sample) for sample in range(4)], 0, lambda row, images: rows.append(row))
    if name == "broken":
        with pytest.raises(SetupError, match="install it"):
            execute(queue, tmp_path)
    else:
        execute(queue, tmp_path)
        assert len(rows) == 4
    opened = {path.name.removeprefix("open-") for path in tmp_path.glob("open-*")}
    assert opened
    assert {path.name.removeprefix("closed-") for path in tmp_path.glob("closed-*")} == opened
