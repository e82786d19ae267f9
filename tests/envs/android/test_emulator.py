"""Emulators as they are handled from outside: a stand-in program with the emulator's options, console and adb port."""

import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.types import Open
from guiderail.envs.android.avd import copy_avd
from guiderail.envs.android.emulator import EmulatorSpec, Lease, android_env_config, console, launch_command, lease

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb client here; apt-get install adb")


@pytest.fixture
def spec(emulator_spec):
    return emulator_spec


@needs_adb
def test_booted_reset_and_revived(spec):
    with_two = [lease(spec, 0), lease(spec, 1)]
    try:
        for held in with_two:
            held.reset()
        device, other = (held.device() for held in with_two)
        start = device.screenshot()
        assert other.screenshot() == start
        device.act(Open("Shop"))
        assert device.screenshot() != start
        assert other.screenshot() == start
        with_two[0].reset()
        assert device.screenshot() == start
        with_two[0]._process.kill()
        with pytest.raises(EnvCrashed):
            device.screenshot()
        with_two[0].reset()
        assert with_two[0].device().screenshot() == start
    finally:
        folders = [held._folder.path for held in with_two]
        for held in with_two:
            held.close()
    assert not any(folder.exists() for folder in folders)


@needs_adb
def test_an_emulator_that_somebody_else_runs_is_left_alone(spec, monkeypatch):
    """Its phone is not operated in the name of the copy, and no snapshot is loaded into it."""
    theirs = lease(spec, 0)
    try:
        theirs.ensure()
        theirs.device().act(Open("Shop"))
        shown = theirs.device().screenshot()
        with pytest.raises(SetupError, match=f"port {spec.console_port}, .* is in use; end that program, give another"):
            lease(spec, 0).reset()
        assert theirs.device().screenshot() == shown
        connected = lease(replace(spec, avd=None, snapshot=""), 0)
        assert connected.reset() is False
        assert lease(replace(spec, avd=None), 0).reset() is True
        assert theirs.device().screenshot() != shown
        theirs.close()
        with socket.create_server(("127.0.0.1", spec.console_port + 1)), pytest.raises(SetupError, match="is in use"):
            lease(spec, 0).ensure()
        monkeypatch.setenv("CALLED", "Other")
        lost_the_race = lease(spec, 0)
        with pytest.raises(SetupError, match="is an emulator of Other, started by somebody else"):
            lost_the_race.ensure()
        lost_the_race.close()
    finally:
        theirs.close()


@needs_adb
def test_a_killed_worker_leaves_nothing_for_long(spec, tmp_path, monkeypatch):
    """Its emulator and its AVD copy are ended and removed when the next copy is made; those of the living are not.

    In a narrow terminal too, where `ps` would cut the command line by which the emulator is known.
    """
    monkeypatch.setenv("COLUMNS", "40")
    copies = tmp_path / "copies"
    copies.mkdir()
    spec = replace(spec, copies=str(copies), snapshot="")
    code = (
        "import sys, time, pickle; from guiderail.envs.android.emulator import lease;"
        "held = lease(pickle.load(sys.stdin.buffer), 0); held.ensure(); print(held._process.pid, flush=True); time.sleep(99)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker.stdin.write(pickle.dumps(spec))
    worker.stdin.close()
    emulator = int(worker.stdout.readline())
    (left,) = copies.iterdir()
    (copies / "guiderail-avd-other").mkdir()  # no lock: not known to be ours
    living = lease(spec, 1)
    living.ensure()
    assert left.is_dir()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    os.kill(emulator, 0)
    held = lease(spec, 0)
    try:
        held.ensure()
        assert not left.exists()
        assert living.alive()
        assert {f.name for f in copies.iterdir()} == {
            held._folder.path.name,
            living._folder.path.name,
            "guiderail-avd-other",
        }
    finally:
        held.close()
        living.close()


@pytest.mark.slow
@needs_adb
def test_started_again_with_back_off(spec, tmp_path):
    slept = []

    def made(restarts):
        again = Lease(EmulatorSpec(**{**spec.__dict__, "restarts": restarts}), spec.console_port, 8554, slept.append)
        (Path(spec.avd_home) / "Pixel.avd" / "broken").touch()
        return again

    never = made(0)
    never._sleep = lambda seconds: time.sleep(seconds)
    with pytest.raises(EnvCrashed, match=r"did not boot in 1 tries.*ended with status 1: no KVM"):
        never.ensure()
    never.close()
    second = made(1)

    def patient(seconds):
        slept.append(seconds)
        time.sleep(min(seconds, 0.2))

    second._sleep = patient
    second.ensure()
    assert 0.1 in slept
    assert second.alive()
    second.close()


@needs_adb
def test_a_snapshot_that_is_not_there(spec):
    held = lease(EmulatorSpec(**{**spec.__dict__, "snapshot": "other"}), 0)
    try:
        with pytest.raises(EnvCrashed, match="KO: no such snapshot"):
            held.reset()
    finally:
        held.close()


@needs_adb
def test_connecting_needs_one_that_runs(spec):
    with pytest.raises(EnvCrashed, match=f"no emulator answers as emulator-{spec.console_port}"):
        lease(replace(spec, avd=None, snapshot="")).ensure()


def test_ports_of_workers(spec):
    if shutil.which("adb"):
        assert [(h.console_port, h.grpc_port) for h in (lease(spec, 0), lease(spec, 1))] == [
            (spec.console_port, spec.grpc_port),
            (spec.console_port + 2, spec.grpc_port + 1),
        ]
    with pytest.raises(SetupError, match="even one from 5554 to 5682"):
        lease(EmulatorSpec(), 65)
    with pytest.raises(SetupError, match="guiderail doctor"):
        lease(EmulatorSpec(avd="x", emulator="no-such-emulator"))


def qcow2(file, backing):
    """The head of a disk whose backing file has this name, and some data behind it."""
    name = backing.encode()
    file.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", 3, 200, len(name)).ljust(200, b"\0") + name + b"DATA")


def backing_of(file):
    magic, _, offset, size = struct.unpack(">4sIQI", file.read_bytes()[:20])
    assert magic == b"QFI\xfb"
    assert file.read_bytes().endswith(b"DATA")
    return file.read_bytes()[offset : offset + size].decode()


def test_avd_copies_share_nothing(spec, tmp_path):
    into, home = tmp_path / "copies", Path(spec.avd_home)
    into.mkdir()
    avd = home / "Pixel.avd"
    (avd / "snapshots" / "clean").mkdir(parents=True)
    paths = f"disk.dataPartition.path = {avd}/userdata.img\navd.name = Pixel\nskin = {avd}-skin/x\n"
    for file in ("hardware-qemu.ini", "snapshots/clean/hardware.ini"):
        (avd / file).write_text(paths)
    (avd / "config.ini").write_text("AvdId=Pixel\nimage.sysdir.1=system-images/android-33/\n")
    qcow2(avd / "userdata.img.qcow2", f"{avd}/userdata.img")
    qcow2(avd / "snapshots" / "clean" / "x.qcow2", f"{avd}/userdata.img")
    qcow2(avd / "vendor.qcow2", "/sdk/vendor.img")
    (tmp_path / "sdcard.img").write_bytes(b"card")
    (avd / "sdcard.img").symlink_to(tmp_path / "sdcard.img")
    (avd / "gone").symlink_to(tmp_path / "gone")
    os.mkfifo(avd / "pipe")
    os.utime(avd / "userdata.img.qcow2", (1e9, 1e9))
    original = {f: f.read_bytes() for f in avd.rglob("*") if f.is_file()}
    copy_avd(home, "Pixel", into, "Pixel-1")
    copied = into / "Pixel-1.avd"
    assert {str(f.relative_to(copied)) for f in copied.rglob("*") if not f.is_dir()} == {
        str(f.relative_to(avd)) for f in original if f.suffix != ".lock"
    }
    assert [f for f in into.rglob("*") if f.is_symlink()] == []
    assert [f for f in into.rglob("*") if f.is_file() and f"{avd}/".encode() in f.read_bytes()] == []
    for file in ("hardware-qemu.ini", "snapshots/clean/hardware.ini"):
        text = f"disk.dataPartition.path = {copied}/userdata.img\navd.name = Pixel-1\nskin = {avd}-skin/x\n"
        assert (copied / file).read_text() == text
    assert (copied / "config.ini").read_text() == "AvdId=Pixel-1\nimage.sysdir.1=system-images/android-33/\n"
    assert backing_of(copied / "userdata.img.qcow2") == "userdata.img"
    assert backing_of(copied / "snapshots" / "clean" / "x.qcow2") == "../../userdata.img"
    assert backing_of(copied / "vendor.qcow2") == "/sdk/vendor.img"
    assert (copied / "userdata.img.qcow2").stat().st_mtime == 1e9
    assert (into / "Pixel-1.ini").read_text() == f"avd.ini.encoding=UTF-8\npath={copied}\n"
    assert {f: f.read_bytes() for f in avd.rglob("*") if f.is_file()} == original
    for missing in ("None", "../avd/Pixel"):
        with pytest.raises(SetupError, match="avdmanager"):
            copy_avd(home, missing, into, "x")


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here; apt-get install qemu-utils")
def test_qemu_finds_the_backing_file_of_a_copy(spec, tmp_path):
    home, into = Path(spec.avd_home), tmp_path / "copies"
    disk = home / "Pixel.avd" / "userdata.img"
    into.mkdir()
    disk.write_bytes(b"\1" * 2**20)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "raw", f"{disk}.qcow2"]
    subprocess.run(command, check=True)
    copy_avd(home, "Pixel", into, "Pixel-1")
    copied = into / "Pixel-1.avd" / "userdata.img.qcow2"
    shutil.rmtree(home)
    said = subprocess.run(["qemu-img", "info", str(copied)], capture_output=True, text=True, check=True).stdout
    assert f"backing file: userdata.img (actual path: {copied.parent}/userdata.img)" in said
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(copied), str(tmp_path / "flat")], check=True)
    assert (tmp_path / "flat").read_bytes() == b"\1" * 2**20


def test_a_copy_without_room_is_said_and_leaves_nothing(spec, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    copies = tmp_path / "copies"
    copies.mkdir()
    held = lease(replace(spec, copies=str(copies)), 0) if shutil.which("adb") else pytest.skip("no adb client here")
    with pytest.raises(SetupError, match=r"No space left on device.*set TMPDIR"):
        held.ensure()
    assert list(copies.iterdir()) == []


def test_how_it_is_started():
    command = launch_command(EmulatorSpec(avd="P", snapshot="clean"), "P-5556", 5556, 8555)
    assert command[:7] == ["emulator", "-avd", "P-5556", "-port", "5556", "-grpc", "8555"]
    assert "-no-window" in command
    assert "-no-snapshot-save" in command


def test_android_env_connects_to_what_runs():
    """With all three ports android_env's simulator connects; its device is the lease's."""
    classes = pytest.importorskip("android_env.components.config_classes")
    if shutil.which("adb") is None:
        pytest.skip("no adb client here; apt-get install adb")
    config = android_env_config(classes, lease(EmulatorSpec(), 3), os.devnull)
    launcher = config.simulator.emulator_launcher
    assert (launcher.emulator_console_port, launcher.adb_port, launcher.grpc_port) == (5560, 5561, 8557)
    assert config.simulator.adb_controller.device_name == "emulator-5560"


def test_a_console_that_talks_on_has_a_deadline():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk():
            wire = server.accept()[0]
            with wire, suppress(OSError):
                while True:
                    wire.sendall(b"and another line\n")
                    time.sleep(0.02)

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(EnvCrashed, match=r"in time|timed out"):
            console(server.getsockname()[1], "avd name", timeout=0.3)
