"""Debian's real adb client against the pocket phone's adb daemon."""

import shutil
import socket
import struct
import subprocess
from contextlib import suppress

import pytest

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.types import Answer, Click, Key, LongPress, Open, Point, Swipe, SystemButton, Terminate, Type, Wait
from guiderail.envs.android.adb import Adb, AdbDevice, adb_commands, app_table, dump_window, read_window
from guiderail.envs.pocket.adb import shell
from guiderail.envs.pocket.adb.adbd import Adbd
from guiderail.envs.pocket.adb.shell import run_line
from guiderail.envs.pocket.adb_host import AdbHost
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.pool import HostPool
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tasks import task, tasks
from guiderail.envs.pocket.templates import TEMPLATES
from guiderail.envs.pocket.world import LivePocketTask

NASTY = "\"; reboot; $(id) ` \n && | ' %s \\ > /sdcard/x & input keyevent HOME #*?~!{}[]"

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb client here; apt-get install adb")


@pytest.fixture(scope="module")
def server():
    """A port for an adb server of our own, which is ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    yield port
    subprocess.run(["adb", "-P", str(port), "kill-server"], capture_output=True)


@pytest.fixture(scope="module")
def world(server):
    made = AdbHost(server_port=server)
    yield made
    made.close()


@pytest.fixture
def device(world):
    return world.start(task("toggle", 0))


def point(device, text):
    return next(e for e in device.elements() if e.text == text).box.center


@needs_adb
def test_the_commands_people_type(world, device, server, tmp_path):
    adb = ["adb", "-P", str(server), "-s", world.daemon.serial]

    def call(*args):
        return subprocess.run([*adb, *args], capture_output=True, timeout=20)

    assert call("shell", "input", "tap", "40", "260").returncode == 0
    by_hand = PhoneInHand(Phone(task("toggle", 0).start()))
    by_hand.shell(["input", "tap", "40", "260"])
    assert call("exec-out", "screencap", "-p").stdout == by_hand.screenshot().data
    assert call("shell", "wm size; nonsense").returncode == 127
    assert call("shell", "-x", "wm size").stdout == b"Physical size: 160x288\n"
    assert subprocess.run([*adb, "shell"], input=b"echo one\necho two\n", capture_output=True).stdout == b"one\ntwo\n"
    local = tmp_path / "there.bin"
    local.write_bytes(bytes(range(256)) * 2000)
    assert call("push", str(local), "/sdcard/new/a.bin").returncode == 0
    assert call("exec-out", "cat", "/sdcard/new/a.bin").stdout == local.read_bytes()
    assert call("pull", "/sdcard/new", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back" / "a.bin").read_bytes() == local.read_bytes()
    assert b"a.bin" in call("ls", "/sdcard/new").stdout
    assert b"Read-only" in call("push", str(local), "/system/a.bin").stdout
    assert call("pull", "/sdcard/none", str(tmp_path)).returncode == 1
    assert call("shell", "head", "-c", "2", "/sdcard/new/a.bin").stdout == b"\0\1"
    world.phone.open("Shop")
    assert call("reboot").returncode == 0
    assert world.phone.state.front is None
    assert call("remount").returncode != 0


@needs_adb
@pytest.mark.parametrize(("style", "size", "count"), [("easy", (160, 288), len(TEMPLATES)), ("phone", (360, 800), 4)])
def test_every_template_through_the_wire(server, style, size, count):
    """The expert's actions: the same screenshots as on a phone in this process, and the goal reached."""
    pool = HostPool(lambda: AdbHost(size, server_port=server))
    for made in tasks(count, seed=5, live=True, style=style):
        live, hand = LivePocketTask(made, pool), PhoneInHand(Phone(made.start()))
        device = live.start()
        for _ in range(live.max_steps):
            assert device.screenshot() == hand.screenshot()
            _, action = live.expert()
            device.act(action)
            hand.act(action)
            if isinstance(action, Terminate):
                break
        assert live.check().success, made.id
        live.close()
    pool.close()


@needs_adb
def test_model_text_is_only_text(world, device):
    device.act(Open("Notes"))
    device.act(Click(point(device, "New")))
    device.act(Click(point(device, "title")))
    before = world.phone.snapshot()
    device.act(Type(NASTY))
    typed = world.phone.state.front.fields["title"]
    assert typed == NASTY.replace("\n", " ")
    for action in (Open(NASTY), Key(NASTY), Key("BACK; reboot"), Answer(NASTY), Terminate()):
        device.act(action)
    after = world.phone.snapshot()
    assert device.answers == (NASTY,)
    assert set(after.files.content) == set(before.files.content)
    before.stack[-1].fields["title"], before.stack[-1].fresh = typed, False
    before.clock, before.inputs = after.clock, after.inputs
    assert after == before
    assert device.shell(["echo", NASTY]) == NASTY + "\n"


@needs_adb
def test_actions(world, device):
    device.act(Open("shop"))
    device.act(Swipe(Point(0.5, 0.7), Point(0.5, 0.3)))
    assert world.phone.state.front.scroll == 4
    device.act(SystemButton("Home"))
    device.act(Open("clock"))
    time = next(iter(world.phone.state.alarms))
    device.act(LongPress(point(device, time), 1.0))
    assert [e.text for e in device.elements()] == ["Delete it", "Cancel", "Delete"]
    clock = world.phone.state.clock
    device.act(Wait(7))
    assert world.phone.state.clock == clock + 7


@needs_adb
def test_a_lost_server_is_a_crash_and_the_next_start_works(world, server):
    device = world.start(task("toggle", 0))
    subprocess.run(["adb", "-P", str(server), "kill-server"], check=True, capture_output=True)
    with pytest.raises(EnvCrashed, match="adb"):
        device.screenshot()
    assert world.start(task("toggle", 0)).screenshot().width == 160
    world.daemon.drop()
    assert world.start(task("toggle", 0)).screenshot().width == 160


@needs_adb
def test_a_tool_that_throws_is_no_lost_device(device, monkeypatch):
    """Android's tools end with 255 then, as adb itself does when the device disappears."""
    monkeypatch.setitem(shell._COMMANDS, "pm", lambda phone, args: (255, "Error: unknown command\n"))
    assert device.shell(["pm", "dance"]) == "Error: unknown command\n"


@needs_adb
def test_nobody_there_is_a_crash(server):
    gone = Adbd(Phone(new_state(0)))
    gone.close()
    with pytest.raises(EnvCrashed, match="adb connect"):
        AdbDevice(Adb(gone.serial, server_port=server, timeout=20))


def test_no_client_says_what_to_install():
    with pytest.raises(SetupError, match="apt-get install adb"):
        Adb("x", adb="no-such-adb")


def test_strangers_do_not_stop_the_daemon():
    """Bytes that are no adb message end the connection and nothing else."""
    with Adbd(Phone(new_state(0))) as daemon:
        for noise in (b"GET / HTTP/1.1\r\n\r\n" * 4, bytes(64), struct.pack("<4s5I", b"OPEN", 1, 0, 1 << 30, 0, 0)):
            with socket.create_connection(("127.0.0.1", daemon.port), timeout=5) as wire:
                wire.sendall(noise)
                with suppress(ConnectionError):
                    assert wire.recv(100) == b""
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=5) as wire:
            wire.sendall(
                struct.pack("<4s5I", b"CNXN", 0x01000000, 4096, 0, 0, int.from_bytes(b"CNXN", "little") ^ 0xFFFFFFFF)
            )
            assert wire.recv(4) == b"CNXN"


def test_commands_of_actions():
    apps = app_table({"Files": "com.x/.Main", "Maps": "com.y"})
    size = (1080, 2400)

    def said(action):
        return adb_commands(action, size, apps)

    assert said(Click(Point(1, 1))) == [["input", "tap", "1079", "2399"]]
    assert said(LongPress(Point(0.5, 0.5), 1e9))[0][-1] == "60000"
    assert said(Swipe(Point(0.5, 0.75), Point(0.5, -1))) == [["input", "swipe", "540", "1800", "540", "0", "500"]]
    assert said(Open(" files")) == [["am", "start", "-W", "-n", "com.x/.Main"]]
    assert said(Open("maps"))[0][:3] == ["monkey", "-p", "com.y"]
    assert said(Open("com.x/.Main")) == []
    assert said(Type("5%s")) == [["input", "text", "5%"], ["input", "text", "s"]]
    assert said(Key("volume_up")) == [["input", "keyevent", "KEYCODE_VOLUME_UP"]]
    assert said(Terminate()) == []


def test_storage_through_the_shell():
    phone = Phone(new_state(0))

    def sh(line):
        return run_line(phone, line)

    assert (
        sh("mkdir -p /sdcard/a/b && echo 'x; y' > /sdcard/a/b/1.txt && cat /storage/emulated/0/a/b/1.txt") == "x; y\n"
    )
    assert sh("echo more >> /sdcard/a/b/1.txt; cat /sdcard/a/b/1.txt") == "x; y\nmore\n"
    assert sh("mkdir /sdcard/c; cp -a /sdcard/a/. /sdcard/c/; find /sdcard/c -type f") == "/sdcard/c/b/1.txt\n"
    assert sh("rm -r /sdcard/a/*; ls /sdcard/a") == ""
    assert sh("rm -r /sdcard/none").startswith("rm: /sdcard/none: No such")
    assert "Read-only" in sh("echo x > /etc/x")
    test = 'if [ -d "/sdcard/a" ]; then\n echo "Exists"\n else\n echo "Does not exist"\n fi'
    assert sh(test) == "Exists\n"
    assert sh(test.replace("/a", "/none")) == "Does not exist\n"
    assert sh("if [ -f /sdcard ]; then echo no; fi; echo end") == "end\n"
    assert sh("if if if; then").startswith("sh: ")
    sh("date 1015160023.30; touch /sdcard/t.txt")
    assert sh("date") == "Sun Oct 15 16:00:30 UTC 2023\n"
    assert "2023-10-15 16:00:30.000000000 +0000 t.txt" in sh("ls -l /sdcard")
    assert sh("mv /sdcard/c /sdcard/c/d").startswith("mv: ")


def test_a_dump_that_fails_shows_no_older_screen():
    xml = '<hierarchy><node text="Settings" clickable="true" bounds="[0,0][10,10]"/></hierarchy>'
    files, works = {}, [True]

    def shell(args):
        match args:
            case ["rm", "-f", path]:
                files.pop(path, None)
            case ["uiautomator", "dump", path]:
                files.update({path: xml} if works[0] else {})
            case ["cat", path]:
                return files.get(path, f"cat: {path}: No such file or directory")
        return ""

    assert [one.text for one in read_window(dump_window(shell), 100, 100)] == ["Settings"]
    works[0] = False
    assert read_window(dump_window(shell), 100, 100) == []
