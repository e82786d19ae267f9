import asyncio
import threading
import time

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Sampling, ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.launch.agents import AgentSpec, Voice
from guiderail.launch.console.actors import Actor, build_actor
from guiderail.launch.console.attended import Attended
from guiderail.launch.console.devices import DeviceSpec, open_place


def until(true, seconds=20.0):
    """Wait until true() is; fails the test otherwise."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
    return found


def settled(attempt):
    """Wait until every command is done, or one waits for an answer."""
    until(lambda: attempt._commands.unfinished_tasks == (attempt.phase == "asking"))


def place(device="pocket:toggle", goal="", seed=0):
    return lambda: open_place(DeviceSpec(device, goal, seed))


def expert():
    return build_actor(AgentSpec(agent="expert"))


def speaker(say):
    """An actor that answers each prompt with say(prompt) -> (thought, action)."""
    dialogue = Dialogue(ORIGINAL_SIZE, BRIEF)

    def script(request):
        return dialogue.say(*say(request.prompt), request.prompt.screen.screenshot)

    return lambda: Actor("speaker", dialogue, Voice(dialect="brief"), ScriptedPolicy(script), Sampling(0.0))


@pytest.fixture
def attend():
    """Makes attempts that are closed at the end of the test."""
    made = []

    def make(*args, **kwargs):
        made.append(Attended(*args, **kwargs))
        until(lambda: made[-1].phase != "opening")
        return made[-1]

    yield make
    for attempt in made:
        attempt.close()
    for attempt in made:
        attempt.join(5)


TOKEN = "a-token-of-the-tests"


class Console:
    """A console in this process, on a free port."""

    def __init__(self, lanes, host="127.0.0.1", more=()):
        from guiderail.launch.console.command import _listening, server_of
        from guiderail.launch.console.server import application
        from guiderail.launch.console.talk import console_page

        self.lanes = lanes
        self.listener = _listening(host, 0)
        self.port = self.listener.getsockname()[1]
        self.server = server_of(application(TOKEN, host, self.port, [console_page(lanes), *more]))
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve(sockets=[self.listener])), daemon=True
        )
        self.thread.start()
        until(lambda: self.server.started)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/{TOKEN}/"

    def close(self):
        self.server.should_exit = True
        self.thread.join(5)
        self.lanes.close(1)
        self.listener.close()


@pytest.fixture(scope="module")
def lanes(tmp_path_factory):
    from guiderail.launch.console.lanes import Lanes, Offer

    offer = Offer(
        {"expert": AgentSpec(agent="expert"), "random": AgentSpec(agent="random")}, ["pocket", "pocket:toggle"]
    )
    return Lanes(offer, out=tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def console(lanes):
    made = Console(lanes)
    yield made
    made.close()
