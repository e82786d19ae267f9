"""The process of AndroidWorld and our side of it, with a stand-in for the package: what it asks, and what goes wrong."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.scripted import ORIGINAL_SIZE, answer
from guiderail.agent.types import Answer, Click, Open, Point, Terminate, Type
from guiderail.envs.android.emulator import EmulatorSpec
from guiderail.envs.android_world import client as ours
from guiderail.envs.android_world import worker
from guiderail.envs.android_world.client import Client, python_of, tasks
from guiderail.envs.android_world.tasks import AndroidWorldSession, AndroidWorldTasks
from guiderail.envs.live.attempts import Patience, attempt, within
from guiderail.envs.live.device import Element
from guiderail.rl.rollout.worlds import world_of


@pytest.fixture
def python(android_world_python):
    return android_world_python


class Held:
    """A running emulator; `lost`: what its reset answers."""

    console_port, grpc_port, spec, lost = 5556, 8555, EmulatorSpec(adb="adb"), False

    def reset(self):
        return self.lost

    def close(self):
        pass


@pytest.fixture
def session(python):
    made = AndroidWorldSession(AndroidWorldTasks(python, emulator=EmulatorSpec(), settle=0.0), Held())
    yield made
    made.close()


def test_tasks_are_listed_by_its_own_registry(python):
    world = AndroidWorldTasks(python, ("Good", "Half"), combinations=2, emulator=EmulatorSpec())
    assert [name for name, _ in world.listed()] == ["Good_0", "Good_1", "Half_0", "Half_1"]
    with pytest.raises(SetupError, match="no task 'Nonsense' in android_world; choose from: Bad, Die"):
        tasks(python, names=["Nonsense"], seed=1, combinations=1, family="android_world")


def test_a_task_from_start_to_check_and_what_the_device_does(session, brief):
    task = session.task("Half_0")
    device = task.start()
    assert (task.goal, task.max_steps) == ("do Half", 10)
    assert "numpy" not in repr(task._params)
    shot = device.screenshot()
    assert (shot.width, shot.height) == (2, 4)
    (element,) = device.elements()
    assert element == Element("ok", element.box, "button", clickable=True)
    assert (element.box.right, element.box.bottom) == (0.5, 0.5)
    device.act(Answer("blue"))
    device.act(Open("Clock"))
    device.act(Open("Clock; reboot"))
    device.act(Click(Point(0.5, 0.5)))
    device.act(Type("x" * 300_000))
    outcome = task.check()
    assert (outcome.success, outcome.progress, device.answers) == (False, 0.5, ("blue",))
    task.close()
    task.close()


def test_pointer_lines_are_off_after_every_start_and_when_the_connection_is_made_anew(session):
    device = session.task("Good_0").start()
    off = {"show_touches": "0", "pointer_location": "0"}
    assert off.items() <= eval(device.shell(["settings", "list"])).items()
    device.shell(["settings", "put", "system", "lost", "1"])
    device.screenshot()
    assert eval(device.shell(["settings", "list"]))["pointer_location"] == "1"
    device.screenshot()
    assert off.items() <= eval(device.shell(["settings", "list"])).items()


def test_the_environment_is_opened_once_unless_the_emulator_was_reset(session):
    def opened():
        return eval(session.task("Good_0").start().shell(["opened"]))

    (first,) = opened()
    assert (first["console_port"], first["grpc_port"], first["emulator_setup"]) == (5556, 8555, False)
    assert first["adb_path"].endswith("adb")
    assert len(opened()) == 1
    session.held.lost = True
    assert len(opened()) == 2
    session.close()
    session.held.lost = False
    session.install_apps()
    assert [one["emulator_setup"] for one in opened()] == [True]


@pytest.mark.skipif(shutil.which("adb") is None, reason="no adb client here; apt-get install adb")
def test_every_task_begins_on_the_snapshot_of_the_copy(emulator_spec, python):
    """--avd and --snapshot as the command hands them over; the emulator is a stand-in with a pocket phone in it."""
    session = AndroidWorldTasks(python, ("Good",), emulator=emulator_spec, settle=0.0).open(0)
    try:
        device = session.task("Good_0").start()
        phone = session.held.device()
        begun = phone.screenshot()
        phone.act(Open("Shop"))
        assert phone.screenshot() != begun
        session.task("Good_0").start()
        assert phone.screenshot() == begun
        opened = eval(device.shell(["opened"]))
        assert [one["console_port"] for one in opened] == [emulator_spec.console_port] * 2
        session.held._process.kill()  # a lost emulator is started again
        session.task("Good_0").start()
        assert session.held.device().screenshot() == begun
    finally:
        session.close()


def test_what_fails_inside_is_a_crash_and_the_next_task_goes_on(session, brief):
    spoken = Dialogue(ORIGINAL_SIZE, brief.dialect, 1)

    def made(name, seconds=30.0):
        say = lambda prompt: spoken.say("", Terminate("success"), prompt.screen.screenshot)  # noqa: E731
        return answer(attempt(session.task(name), dialogue=spoken, patience=Patience(seconds)), say)

    assert made("Good_0").outcome.success
    bad = made("Bad_0")
    assert (bad.ended, bad.outcome) == ("crashed", None)
    assert "ValueError: no such app" in bad.reason
    assert made("Good_0").outcome.success
    assert "Killed by the kernel" in made("Die_0").reason
    began = time.monotonic()
    assert "starting the task took longer than 1.5 s" in made("Hang_0", 1.5).reason
    assert time.monotonic() - began < 4
    assert made("Good_0").outcome.success  # and not the late answer of the task that hung


def test_each_process_has_temporary_files_of_its_own(python):
    one, other = Client(python), Client(python)
    folders = [Path(client._scratch) for client in (one, other)]
    assert folders[0] != folders[1]
    (folders[0] / "song.mp3").write_bytes(b"x")
    one.ask("stop")
    assert [*folders[0].iterdir()] == []
    for client in (one, other):
        client.close()
    assert not any(folder.exists() for folder in folders)


def test_every_question_has_a_deadline_and_a_size(python, monkeypatch):
    client = Client(python)
    client.ask("suite", names=["Hang"], seed=1, combinations=1, family="android_world")
    client.ask("open", console_port=1)
    with pytest.raises(EnvCrashed, match=r"start took longer than 0.3 s"):
        client.ask("start", 0.3, task="Hang_0")
    assert not client.alive
    with pytest.raises(EnvCrashed, match="ended during check"):
        client.ask("check")
    again = Client(python)
    again.ask("open", console_port=1)
    again.ask("shell", args=["settings", "put", "system", "huge", "1"])
    with pytest.raises(EnvCrashed, match=r"pixels: .*a message of 30"):
        again.ask("pixels", settle=0.0)
    with pytest.raises(EnvCrashed, match="shell: a message of 67"):
        Client(python).ask("shell", args=["x" * worker.LIMIT])


def test_a_length_that_lies_is_not_believed():
    us, them = socket.socketpair()
    with us, them:
        them.sendall(struct.pack(">II", 2**31, 2**31))
        with pytest.raises(ValueError, match="at most"):
            worker.receive(us, time.monotonic() + 5)
        them.sendall(struct.pack(">II", 100, 0) + b"{")
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            worker.receive(us, time.monotonic() + 0.2)
        assert time.monotonic() - began < 1


def test_an_alarm_in_the_middle_of_a_question_ends_the_process(python):
    client = Client(python)
    client.ask("suite", names=["Hang"], seed=1, combinations=1, family="android_world")
    client.ask("open", console_port=1)
    with pytest.raises(EnvCrashed, match="waiting took longer"), within(0.3, "waiting"):
        client.ask("start", task="Hang_0")
    assert not client.alive


def test_it_ends_with_the_process_that_started_it(python):
    code = (
        "import sys; from guiderail.envs.android_world.client import Client; c = Client(sys.argv[1]);"
        "c.ask('suite', names=['Hang'], seed=1, combinations=1, family='android_world'); c.ask('open', console_port=1);"
        "print(c._process.pid, flush=True); c.ask('start', task='Hang_0')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, python], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    scratch = Path(Path(f"/proc/{child}/environ").read_bytes().partition(b"TMPDIR=")[2].split(b"\0")[0].decode())
    assert scratch.is_dir()
    time.sleep(0.3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert not scratch.exists()


def test_a_python_that_cannot_import_it_is_refused_with_the_way_to_make_one(tmp_path, monkeypatch):
    monkeypatch.delenv(ours.PYTHON, raising=False)
    with pytest.raises(SetupError, match=r"--android-world-python or GUIDERAIL_ANDROID_WORLD_PYTHON.*git clone"):
        python_of(None)
    with pytest.raises(SetupError, match="not a program"):
        python_of(str(tmp_path))
    monkeypatch.setenv(ours.PYTHON, sys.executable)
    assert python_of(None) == sys.executable
    asked = {"names": None, "seed": 1, "combinations": 1, "family": "android_world"}
    with pytest.raises(SetupError, match=r"No module named 'android_world'.*--no-build-isolation"):
        tasks(sys.executable, **asked)
    with pytest.raises(SetupError, match="git clone"):
        tasks("/bin/false", **asked)


def test_nothing_here_imports_android_world():
    code = (
        "import sys; import guiderail.envs.android_world.tasks, guiderail.launch.evaluate.android;"
        "print([m for m in sys.modules if m.split('.')[0] in ('android_world', 'android_env')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_android_world_is_found_where_the_variable_says(monkeypatch, python):
    monkeypatch.delenv(ours.PYTHON, raising=False)
    with pytest.raises(SetupError, match=r"GUIDERAIL_ANDROID_WORLD_PYTHON.*git clone"):
        world_of("android-world", {"names": ["Good"]})
    monkeypatch.setenv(ours.PYTHON, python)
    world = world_of("android-world", {"names": ["Good"], "emulator": {"avd": "Pixel"}})
    assert (world.python, world.names, world.emulator.avd) == (python, ("Good",), "Pixel")
    assert [name for name, _ in world.listed()] == ["Good_0"]


def test_what_a_process_started_ends_with_it_also_when_it_died_first(python, monkeypatch):
    client = Client(python)
    client.ask("suite", names=["Orphan"], seed=1, combinations=1, family="android_world")
    client.ask("open", console_port=1)
    with monkeypatch.context() as patched:
        patched.setattr(client, "close", lambda: None)
        with pytest.raises(EnvCrashed, match="ended during start"):
            client.ask("start", task="Orphan_0")
    deadline = time.monotonic() + 10
    while client.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not client.alive
    child = Path(f"/proc/{client._said[-1].removeprefix('child ')}/cmdline")
    assert child.read_bytes() == b"sleep\x0060\x00"
    client.close()
    while child.exists() and child.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or not child.read_bytes()
