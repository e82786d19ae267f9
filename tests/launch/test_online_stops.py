"""Online RL while things are killed: trainer, workers, browser, and a world that fails a fifth of its calls."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from guiderail.rl.runs.log import read_rollouts
from tests.launch import commands
from tests.launch.test_online import COMMAND, SMALL
from tests.launch.test_online_worlds import SMALL as ONE
from tests.launch.test_online_worlds import WEB, browser
from tests.launch.test_train import history, same_end

pytestmark = pytest.mark.slow

FAULTY = """
import random
from dataclasses import dataclass

from guiderail.agent.errors import EnvCrashed
from guiderail.envs.pocket.world import LivePocketTask, PocketSession, PocketTasks
from guiderail.envs.pocket.tasks import task as drawn

RNG = random.Random(5)


def may_fail(what):
    if RNG.random() < {fails}:
        raise EnvCrashed(f"an injected fault: {{what}}")


class Failing:
    def __init__(self, device):
        self.device = device

    def __getattr__(self, name):
        return getattr(self.device, name)

    def screenshot(self):
        may_fail("screenshot")
        return self.device.screenshot()

    def act(self, action):
        may_fail("act")
        self.device.act(action)


class Task(LivePocketTask):
    def start(self):
        may_fail("start")
        return Failing(super().start())

    def check(self):
        may_fail("check")
        return super().check()


class Session(PocketSession):
    def task(self, name):
        template, seed = self._drawn[name]
        return Task(drawn(template, seed, self._world.split, self._world.style, live=True), self._pool)


@dataclass(frozen=True, slots=True)
class Tasks(PocketTasks):
    def open(self, worker):
        return Session(self)


WORLD = Tasks(8, seed=1, split="train", device="hand")
"""


def below(pid: int) -> list[int]:
    """All processes that descend from this one, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(more for child in found for more in below(child))]


def called(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def until(condition, process, said: Path, seconds: float = 600):
    """What the condition gives, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.is_alive(), said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.02)
    return found


def generations(run: Path) -> int:
    lines = (run / "rollouts.jsonl").read_text().splitlines() if (run / "rollouts.jsonl").exists() else []
    return len({json.loads(line)["generation"] for line in lines if line.endswith("}")})


def metric(run: Path, steps: int, name: str) -> list[float]:
    return [row[name] for row in history(run, steps) if name in row]


def test_a_killed_trainer_goes_on_to_the_same_bits(tmp_path):
    """Curriculum, replay, GiGPO and penalties on; the world is in the trainer's process."""
    said, straight, run = tmp_path / "said", tmp_path / "straight", tmp_path / "run"
    words = [*COMMAND, "method.groups=2", "method.rollouts=4", "method.tries=1", "training.max_steps=3"]
    commands.finish(commands.start([*words, "--out", straight], said), said)
    process = commands.start([*words, "--out", run], said)
    until((run / "checkpoint-1" / "complete.json").exists, process, said)
    process.kill()
    process.join()
    assert not (run / "metrics.json").exists()
    commands.finish(commands.start([*words, "--out", run, "--resume"], said), said)
    same_end(run, straight, 3)
    assert any(row.get("loss") for row in history(straight, 3)), "it must learn to be a test"


def test_a_world_that_fails_a_fifth_of_its_calls_trains_to_the_same_bits(tmp_path):
    """Losses, groups and weights over four updates, against the sound world of the same tasks."""
    for fails in (0.0, 0.2):
        (tmp_path / f"world{fails}.py").write_text(FAULTY.format(fails=fails))
        said, world = tmp_path / "said", f"world.name={tmp_path}/world{fails}.py:WORLD"
        words = [*COMMAND, world, "world.options={}", "world.retries=5000", "--out", tmp_path / str(fails)]
        commands.finish(commands.start(words, said), said)
    sound, faulty = tmp_path / "0.0", tmp_path / "0.2"
    faults = [metric(run, 4, "ends/infrastructure") for run in (sound, faulty)]
    assert sum(faults[0]) == 0
    assert min(faults[1]) > 20
    ours, theirs = (
        [{k: v for k, v in row.items() if k != "ends/infrastructure"} for row in history(run, 4)]
        for run in (faulty, sound)
    )
    assert ours == theirs
    rows = [[{k: v for k, v in row.items() if k != "tries"} for row in read_rollouts(run)] for run in (faulty, sound)]
    assert rows[0] == rows[1]
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (faulty, sound)]
    assert weights[0] == weights[1]


def test_killed_workers_and_a_killed_trainer_of_a_fleet(tmp_path):
    """Two workers of a running training are killed, then the trainer. No worker is left, and the run goes on."""
    said, run = tmp_path / "said", tmp_path / "run"
    words = ["train", *SMALL, "world.workers=2", "world.spares=1", "training.max_steps=3", "training.save_steps=1"]
    process = commands.start([*words, "--out", run], said)

    def workers():
        return [pid for pid in below(process.pid) if "spawn_main" in called(pid)]

    for _ in range(2):
        victim = until(lambda: len(workers()) == 3 and workers(), process, said)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda gone=victim: gone not in workers(), process, said)
    until((run / "checkpoint-1" / "complete.json").exists, process, said)
    last = workers()
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while any("spawn_main" in called(pid) for pid in last):
        assert time.monotonic() < deadline, "workers outlive their trainer"
        time.sleep(0.1)
    commands.finish(commands.start([*words, "--out", run, "--resume"], said), said)
    assert max(metric(run, 3, "fleet/workers_replaced")) >= 1
    rows = [*read_rollouts(run)]
    assert {row["generation"] for row in rows} == {0, 1, 2}
    assert all(row["outcome"] is not None for row in rows)


@browser
def test_a_killed_browser(tmp_path):
    """Its attempts are made again, and no group knows of it."""
    said, run = tmp_path / "said", tmp_path / "run"
    words = ["train", *ONE, *WEB, "method.tries=1", "method.rollouts=6", "--out", run]
    process = commands.start(words, said)

    def browsers():
        return [pid for pid in below(process.pid) if "--headless" in called(pid) and "--type=" not in called(pid)]

    for pid in until(lambda: len(browsers()) > 3 and browsers(), process, said)[:2]:
        os.kill(pid, signal.SIGKILL)
    commands.finish(process, said)
    assert sum(metric(run, 2, "ends/infrastructure")) >= 1
    rows = [*read_rollouts(run)]
    assert [sum(row["generation"] == generation for row in rows) for generation in (0, 1)] == [6, 6]
    assert all(row["outcome"] is not None for row in rows)
