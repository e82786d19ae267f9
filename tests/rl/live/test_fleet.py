"""Worlds in worker processes: the same groups as in this process, whatever the workers do."""

import os
import queue
import random
import signal
import struct
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Client

import pytest

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import Sampling
from guiderail.agent.types import Screenshot
from guiderail.envs.live.attempts import Patience
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.uis1 import CreditRules
from guiderail.rl.live.fleet import Fleet
from guiderail.rl.live.on_ray import Agent, CalledBack, starting
from guiderail.rl.live.process import Here
from guiderail.rl.live.site import SiteSpec, _listen
from guiderail.rl.live.wire import Wire
from guiderail.rl.rollout.generation import generation
from guiderail.rl.rollout.live import live_units
from guiderail.rl.rollout.plan import Plan
from guiderail.rl.sections import Fork
from tests.rl.rollout.pocket import TALK, Coin, TellingTasks

WORLD = TellingTasks(6, seed=5, split="train", device="hand")
NAMES = [name for name, _ in WORLD.listed()]


def spec(world, patience=None, retries=2):
    return SiteSpec(world, "brief", TALK.vision, 1, patience=patience or Patience(), retries=retries)


def plan_of(begin, drive=None, fork=None):
    units = live_units(NAMES, begin, fork)
    credit = credit_named("outcome", CreditRules())
    plan = Plan(units, credit, groups=4, rollouts=4, sampling=Sampling(), tries=1)
    return plan if drive is None else replace(plan, drive=drive)


def told(group):
    return [
        (one.sample, one.start, one.ended, one.outcome, [t.completion for t in one.turns]) for one in group.rollouts
    ]


@dataclass(frozen=True, slots=True)
class Dying(TellingTasks):
    """The first worker process kills itself in the middle of its third attempt; its replacement does not."""

    marker: str = ""

    def open(self, worker):
        session = TellingTasks.open(self, worker)
        take, made = session.task, []

        def task(name):
            made.append(name)
            if worker == 0 and len(made) == 3 and not os.path.exists(self.marker):
                open(self.marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return take(name)

        session.task = task
        return session


@pytest.fixture
def fleet():
    made = []

    def build(world, workers=2, **more):
        made.append(Fleet(spec(world, more.pop("patience", Patience()), more.pop("retries", 2)), workers, **more))
        return made[-1]

    yield build
    for one in made:
        one.close()


def here(fork=None):
    site = spec(WORLD).open(0)
    try:
        return generation(plan_of(site.begin, fork=fork), Coin(0.9), 0, 0)
    finally:
        site.session.close()


@pytest.mark.parametrize("fork", [None, Fork()])
def test_groups_are_those_of_one_process(fleet, fork):
    """Whole attempts and forked ones; each worker is replaced after ten orders, and nothing changes."""
    running = fleet(WORLD, recycle=10)
    made = generation(plan_of(running.begin, running.drive, fork), Coin(0.9), 0, 0)
    alone = here(fork)
    assert [told(group) for group in made.groups] == [told(group) for group in alone.groups]
    assert [s.advantage for s in made.samples] == [s.advantage for s in alone.samples]
    assert [group.spent for group in made.groups] == [group.spent for group in alone.groups]
    metrics = running.take_metrics()
    assert 0 < metrics["fleet/policy_waits"] < 1
    assert metrics["fleet/workers_replaced"] == 0


def test_a_killed_worker_costs_nothing_but_time(fleet, tmp_path):
    world = Dying(6, 5, "train", device="hand", marker=str(tmp_path / "died"))
    running = fleet(world)
    made = generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)
    assert (tmp_path / "died").exists()
    assert [told(group) for group in made.groups] == [told(group) for group in here().groups]
    assert running.take_metrics()["fleet/workers_replaced"] == 1
    assert any(one.tries for group in made.groups for one in group.rollouts)


def test_what_a_killed_worker_had_is_lost_and_counted_once_where_nothing_is_retried(fleet, tmp_path):
    world = Dying(6, 5, "train", device="hand", marker=str(tmp_path / "died"))
    running = fleet(world, retries=0)
    made = generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)
    assert sum(group.faults for group in made.groups) == sum(len(group.lost) for group in made.groups) > 0


def test_a_spare_takes_the_place_of_a_dead_worker(fleet, tmp_path, monkeypatch):
    """No waiting for a new start: the one that died may not be started again, and its orders go on."""
    monkeypatch.setattr("guiderail.rl.live.fleet.GRACE", 1.0)
    world = Dying(6, 5, "train", device="hand", marker=str(tmp_path / "died"))
    running = fleet(world, workers=1, spares=1)
    first, spare = running.workers
    generation(replace(plan_of(running.begin, running.drive), groups=1, rollouts=1), Coin(0.9), 0, 0)
    deadline = time.monotonic() + 60
    while not spare.open and time.monotonic() < deadline:
        running._listen([], 1, lambda walk, result: None)
        time.sleep(0.01)
    assert spare.open
    assert spare.given == 0, "a spare gets no orders"
    started = []
    monkeypatch.setattr(type(first), "start_if_due", lambda worker: started.append(worker) and False)
    made = generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)
    assert [told(group) for group in made.groups] == [told(group) for group in here().groups]
    assert first.process is None
    assert (first.spare, spare.spare) == (True, False)


def test_a_fleet_of_failing_worlds_gives_the_groups_of_a_sound_one(fleet, tmp_path):
    """A fifth of all calls fails, and a worker dies besides."""
    world = Dying(6, 5, "train", device="hand", fails=0.2, marker=str(tmp_path / "died"))
    running = fleet(world, retries=2000)
    made = generation(replace(plan_of(running.begin, running.drive), groups=2), Coin(0.9), 0, 0)
    site = spec(WORLD).open(0)
    sound = generation(replace(plan_of(site.begin), groups=2), Coin(0.9), 0, 0)
    site.session.close()
    assert (tmp_path / "died").exists()
    assert [told(group) for group in made.groups] == [told(group) for group in sound.groups]
    assert [s.advantage for s in made.samples] == [s.advantage for s in sound.samples]
    assert sum(one.tries for group in made.groups for one in group.rollouts) > 50


def test_workers_that_keep_dying_are_given_up(fleet):
    running = fleet(_Broken(6), workers=1)
    with pytest.raises(SetupError, match="this world cannot be opened"):
        generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)


@dataclass(frozen=True, slots=True)
class _Broken(TellingTasks):
    def open(self, worker):
        raise SetupError("this world cannot be opened")


def test_a_policy_fault_ends_one_attempt_and_it_is_made_again(fleet):
    class Faulty(Coin):
        def complete(self, requests, sampling):
            said = super().complete(requests, sampling)
            return [EnvCrashed("no answer") if r.seed % 25 == 0 else one for r, one in zip(requests, said, strict=True)]

    running = fleet(WORLD)
    made = generation(plan_of(running.begin, running.drive), Faulty(0.9), 0, 0)
    assert all(len(group.rollouts) == 4 for group in made.groups)
    assert any(one.tries for group in made.groups for one in group.rollouts)


def test_a_screenshot_crosses_the_wire_once():
    ours, theirs = Pipe()
    sender, receiver = Wire(ours), Wire(theirs)
    shot = Screenshot(10, 10, data=random.Random(0).randbytes(50_000))
    seen = []
    for value in ([shot], [shot, shot], [Screenshot(10, 10, data=shot.data)]):
        thread = threading.Thread(target=sender.send, args=(value,))  # a pipe holds less than the picture
        thread.start()
        seen += receiver.receive()
        thread.join()
    assert seen[0] == shot
    assert all(one is seen[0] for one in seen), "one object, however often it is sent"
    sender.send([shot])
    assert len(theirs.recv_bytes()) < 500


def test_the_wire_forgets_on_both_ends_alike(monkeypatch):
    monkeypatch.setattr("guiderail.rl.live.wire.KEPT", 300)
    ours, theirs = Pipe()
    sender, receiver = Wire(ours), Wire(theirs)
    shots = [Screenshot(1, 1, data=bytes([i]) * size) for i, size in enumerate((100, 90, 120, 60, 250, 400))]
    rng = random.Random(1)
    for _ in range(200):
        sent = rng.choices(shots, k=rng.randint(1, 4))
        last = rng.random() < 0.1
        sender.send(sent, last)
        assert [one.data for one in receiver.receive()] == [one.data for one in sent]
        for kept in (sender._sent, receiver._got):
            assert [*kept] == [*sender._sent], "the same screenshots in the same order"
            assert kept.size == sum(len(one.data) for one in kept.values())
            assert kept.size <= 300 or len(kept) == 1
            assert not last or not {one.digest for one in sent} & kept.keys()


@pytest.mark.slow
def test_a_hanging_worker_loses_its_lease(fleet, tmp_path, monkeypatch):
    """A device that blocks where no alarm reaches it: the worker is killed when its lease ends."""
    monkeypatch.setattr("guiderail.rl.live.fleet.GRACE", 1.0)
    world = _Hanging(6, 5, "train", device="hand", marker=str(tmp_path / "hung"))
    running = fleet(world, patience=Patience(step=1.0))
    made = generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)
    assert (tmp_path / "hung").exists()
    assert running.take_metrics()["fleet/workers_replaced"] >= 1
    assert all(one.outcome is not None for group in made.groups for one in group.rollouts)


@dataclass(frozen=True, slots=True)
class _Hanging(TellingTasks):
    """The first worker process hangs once, at its third attempt, for longer than the test may take."""

    marker: str = ""

    def open(self, worker):
        session = TellingTasks.open(self, worker)
        take, made = session.task, []

        def task(name):
            made.append(name)
            if worker == 0 and len(made) == 3 and not os.path.exists(self.marker):
                open(self.marker, "w").close()
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
                time.sleep(1000)
            return take(name)

        session.task = task
        return session


# ------------------------------------------------------------------------------------------------------- on other hosts


def test_workers_that_call_over_tcp_make_the_same_groups(fleet, tmp_path):
    """One dies on the way; a stranger calls, and one who knows the secret but no name."""
    agents = []

    def agent():
        agents.append(Agent())
        return agents[-1]

    start = CalledBack("127.0.0.1", agent)
    world = Dying(6, 5, "train", device="hand", marker=str(tmp_path / "died"))
    running = fleet(world, start=start)
    made = generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)
    assert (tmp_path / "died").exists()
    assert [told(group) for group in made.groups] == [told(group) for group in here().groups]
    assert running.take_metrics()["fleet/workers_replaced"] == 1
    with pytest.raises(AuthenticationError):
        Client(start.address, authkey=b"guess")
    nameless = Client(start.address, authkey=start.secret)
    nameless.send_bytes(b"nobody")
    with pytest.raises((EOFError, ConnectionError)):
        nameless.recv_bytes()
    running.close()
    start.close()
    for agent in agents:
        agent.process.join(10)
        assert agent.process.exitcode is not None


@pytest.mark.slow
def test_workers_on_ray_make_the_same_groups(fleet, tmp_path):
    pytest.importorskip("ray", reason="the ray extra is not installed")
    world = Dying(6, 5, "train", device="hand", marker=str(tmp_path / "died"))
    with starting("ray") as start:
        running = fleet(world, start=start)
        made = generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)
        assert (tmp_path / "died").exists()
        assert [told(group) for group in made.groups] == [told(group) for group in here().groups]
        assert running.take_metrics()["fleet/workers_replaced"] == 1
        running.close()


class Late(Here):
    """It opens after a while, as a process on another host does."""

    started = 0

    def __init__(self, *given):
        super().__init__(*given)
        Late.started += 1
        ours, self.opening = self.opening.result(), Future()
        threading.Timer(0.3, self.opening.set_result, [ours]).start()


def test_a_worker_that_opens_late_is_recycled_once(fleet, monkeypatch):
    monkeypatch.setattr(Late, "started", 0)
    running = fleet(WORLD, recycle=10, start=Late)
    made = generation(plan_of(running.begin, running.drive), Coin(0.9), 0, 0)
    assert [told(group) for group in made.groups] == [told(group) for group in here().groups]
    assert Late.started <= 2 + 2, "sixteen orders, ten each"


def test_both_ends_may_send_at_once():
    ours, theirs = (Wire(end) for end in Pipe())
    heard = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(theirs, heard), daemon=True).start()
    large = b"x" * (1 << 21)
    sender = threading.Thread(target=ours.send, args=(large,), daemon=True)
    sender.start()
    answering = threading.Thread(target=theirs.send, args=(large,), daemon=True)
    answering.start()
    assert heard.get(timeout=20) == large, "it listens while it sends"
    assert ours.receive() == large
    ours.connection.close()
    assert isinstance(heard.get(timeout=20), EOFError)


def test_an_end_that_takes_or_gives_no_more_in_the_middle_of_a_message_is_gone():
    ours, theirs = Pipe()
    wire = Wire(ours, seconds=0.2)
    began = time.monotonic()
    with pytest.raises(BlockingIOError):
        wire.send(b"x" * (1 << 22))
    ours, theirs = Pipe()
    wire = Wire(ours, seconds=0.2)
    os.write(theirs.fileno(), struct.pack("!i", 1000) + b"half")
    with pytest.raises(BlockingIOError):
        wire.receive()
    assert time.monotonic() - began < 10
