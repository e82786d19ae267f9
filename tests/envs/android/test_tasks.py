"""Tasks of one's own over adb, and a whole run that loses its adb server in the middle."""

import json
import shutil
import socket
import subprocess

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import DataError, EnvCrashed
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Click, Open
from guiderail.envs.android.emulator import EmulatorSpec
from guiderail.envs.android.tasks import AndroidTasks, LiveAndroidTask, Plugged, read_tasks
from guiderail.envs.pocket.adb.adbd import Adbd
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tree import APP_TABLE
from guiderail.envs.pocket.words import TOGGLES
from guiderail.envs.pocket.world import PocketTasks
from guiderail.rl.live.jobs import Job, JobQueue
from guiderail.rl.live.worker import Worker
from guiderail.rl.runs.rows import success

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb client here; apt-get install adb")
TALK = Dialogue(ORIGINAL_SIZE, BRIEF)
WIFI = {
    "id": "wifi",
    "goal": "Switch wifi on",
    "setup": [["svc", "wifi", "disable"]],
    "check": ["settings", "get", "global", "wifi_on"],
    "expect": "1",
}


@pytest.fixture
def server(monkeypatch):
    """An adb server of our own, for everything in this process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    yield port
    subprocess.run(["adb", "-P", str(port), "kill-server"], capture_output=True)


@needs_adb
def test_checked_on_the_device(server, tmp_path):
    state = new_state(0)
    shown = state.toggles[0]
    space, key = TOGGLES[shown]
    wifi = WIFI | {"setup": [["settings", "put", space, key, "0"]], "check": ["settings", "get", space, key]}
    file = tmp_path / "tasks.jsonl"
    file.write_text(json.dumps(wifi | {"expect": "[13]"}) + "\n\n" + json.dumps(wifi | {"id": "b", "max_steps": 3}))
    with Adbd(Phone(state)) as daemon:
        spec = EmulatorSpec(adb_server_port=server, apps=APP_TABLE, settle=0)
        world = AndroidTasks(str(file), spec, daemon.serial)
        assert [name for name, _ in world.listed()] == ["wifi", "b"]
        session = world.open(0)
        assert isinstance(session.held, Plugged)
        task = session.task("wifi")
        device = task.start()
        assert not task.check().success
        device.act(Open("Settings"))
        device.act(Click(next(e for e in device.elements() if e.text == shown).box.center))
        assert task.check().success
        task.close()
        task.start()
        assert not task.check().success
        assert isinstance(task, LiveAndroidTask)
        assert session.task("b").max_steps == 3
        session.close()
    with pytest.raises(EnvCrashed):
        task.start()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not a task"),
        (json.dumps(WIFI | {"check": "settings get"}), "not a list of arguments"),
        (json.dumps(WIFI | {"expect": "("}), "not a task"),
        (json.dumps(WIFI | {"max_steps": 0}), "max_steps 0"),
        (json.dumps(WIFI | {"chek": []}), "unknown key 'chek'"),
        (json.dumps({k: v for k, v in WIFI.items() if k != "goal"}), "KeyError"),
        (json.dumps(WIFI), "twice"),
    ],
)
def test_task_files(tmp_path, line, why):
    file = tmp_path / "tasks.jsonl"
    file.write_text(json.dumps(WIFI) + "\n" + line + "\n")
    with pytest.raises(DataError, match=rf"tasks.jsonl:2: .*{why}"):
        read_tasks(file)


class Unlucky:
    """A session whose adb server is killed when the third task has begun."""

    def __init__(self, session, server):
        self._site, self._server, self.started = session, server, 0

    def task(self, name):
        task = self._site.task(name)
        start = task.start

        def unlucky():
            self.started += 1
            device = start()
            if self.started == 3:
                subprocess.run(["adb", "-P", str(self._server), "kill-server"], check=True, capture_output=True)
            return device

        task.start = unlucky
        return task

    def close(self):
        self._site.close()


@needs_adb
@pytest.mark.parametrize("retries", [0, 1])
def test_a_run_outlives_its_adb_server(server, retries):
    world = PocketTasks(6, seed=1, device="adb")
    session = Unlucky(world.open(0), server)
    rows = []
    queue = JobQueue([Job(name) for name, _ in world.listed()], retries, lambda row, images: rows.append(row))
    Worker(session, TALK, None).work(queue, queue.done)
    session.close()
    assert sorted(row["unit"] for row in rows) == sorted(name for name, _ in world.listed())
    lost = [row for row in rows if success(row) is None]
    assert len(lost) == 1 - retries
    assert all("adb" in row["reason"] and row["ended"] == "crashed" for row in lost)
    assert all(success(row) for row in rows if row not in lost)
    assert session.started == 6 + retries
