"""Pocket with a policy that may ask the expert: each PNG tells, behind its last chunk, what the expert would say now."""

import random
from dataclasses import dataclass, replace

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed
from guiderail.agent.screen import Vision
from guiderail.agent.types import Completion, Terminate
from guiderail.envs.pocket.tasks import task
from guiderail.envs.pocket.world import LivePocketTask, PocketSession, PocketTasks

TALK = Dialogue(Vision(factor=32, min_pixels=32 * 32, max_pixels=10**7), BRIEF, 1)


class Telling:
    """A device whose screenshots tell. fails: share of its calls that fail, drawn from `rng`."""

    def __init__(self, device, task, rng, fails):
        self._device, self._task, self._rng, self._fails = device, task, rng, fails

    def __getattr__(self, name):
        return getattr(self._device, name)

    def screenshot(self):
        self._may_fail("screenshot")
        shot = self._device.screenshot()
        return replace(shot, data=shot.encoded() + TALK.say(*self._task.expert(), shot).encode())

    def act(self, action):
        self._may_fail("act")
        self._device.act(action)

    def _may_fail(self, what):
        may_fail(what, self._rng, self._fails)


def may_fail(what, rng, fails):
    if rng.random() < fails:
        raise EnvCrashed(f"{what}: an injected fault")


class TellingTask(LivePocketTask):
    rng, fails = random.Random(0), 0.0

    def start(self):
        may_fail("start", self.rng, self.fails)
        return Telling(super().start(), self, self.rng, self.fails)

    def check(self):
        may_fail("check", self.rng, self.fails)
        return super().check()


class TellingSession(PocketSession):
    def task(self, name):
        template, seed = self._drawn[name]
        made = TellingTask(task(template, seed, self._world.split, self._world.style, live=True), self._pool)
        made.rng, made.fails = self._rng, self._world.fails
        return made


@dataclass(frozen=True, slots=True)
class TellingTasks(PocketTasks):
    """fails: share of calls that fail, those of the start and of the check included."""

    fails: float = 0.0

    def open(self, worker):
        session = TellingSession(self)
        session._rng = random.Random(worker)
        return session


END = b"IEND\xaeB`\x82"


def told(shot):
    return shot.encoded().rpartition(END)[2].decode()


class Coin:
    """Does what the expert would do with probability `skill` at each question; else claims to be done."""

    name, vision = "coin", TALK.vision

    def __init__(self, skill):
        self.skill, self.asked = skill, 0

    def complete(self, requests, sampling):
        self.asked += len(requests)
        return [self.answer(request) for request in requests]

    def answer(self, request):
        shot = request.prompt.screen.screenshot
        right = random.Random(request.seed).random() < self.skill
        text = (request.prompt.draft or told(shot)) if right else TALK.say("done", Terminate("success"), shot)
        return Completion(text, (request.seed % 50 + 1,), (-0.5,))
