"""Emulators as they are handled from outside: a stand-in program with the emulator's options, console and adb port."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.errors import EnvCrashed, SetupError
from agent.types import Open
from envs.emulator import EmulatorSpec, Lease, android_env_config, copy_avd, launch_command, lease
from envs.pocket.tree import APP_TABLE

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb client here; apt-get install adb")
ROOT = Path(__file__).parents[2]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def spec(tmp_path):
    """A spec whose emulator program and AVD are stand-ins, on an adb server of our own."""
    program = tmp_path / "emulator"
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m tests.envs.fake_emulator "$@"\n')
    program.chmod(0o755)
    home = tmp_path / "avd"
    (home / "Pixel.avd").mkdir(parents=True)
    (home / "Pixel.avd" / "userdata.img").write_bytes(b"data")
    (home / "Pixel.avd" / "hardware-qemu.ini.lock").write_bytes(b"")
    (home / "Pixel.ini").write_text(f"avd.ini.encoding=UTF-8\npath={home}/Pixel.avd\npath.rel=avd/Pixel.avd\n")
    server = free_port()
    console = next(p for p in range(5600, 5680, 4) if all(is_free(q) for q in (p, p + 1, p + 2, p + 3)))
    yield EmulatorSpec(
        avd="Pixel",
        snapshot="clean",
        emulator=str(program),
        avd_home=str(home),
        console_port=console,
        adb_server_port=server,
        boot_seconds=30,
        restarts=1,
        backoff=0.1,
        settle=0,
        apps=APP_TABLE,
    )
    if shutil.which("adb"):
        subprocess.run(["adb", "-P", str(server), "kill-server"], capture_output=True)


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


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
        folders = [held._folder for held in with_two]
        for held in with_two:
            held.close()
    assert not any(folder.exists() for folder in folders)


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
        lease(EmulatorSpec(console_port=spec.console_port, adb_server_port=spec.adb_server_port)).ensure()


def test_ports_of_workers(spec):
    if shutil.which("adb"):
        assert [(h.console_port, h.grpc_port) for h in (lease(spec, 0), lease(spec, 1))] == [
            (spec.console_port, 8554),
            (spec.console_port + 2, 8555),
        ]
    with pytest.raises(SetupError, match="even one from 5554 to 5682"):
        lease(EmulatorSpec(), 65)
    with pytest.raises(SetupError, match="guiderail doctor"):
        lease(EmulatorSpec(avd="x", emulator="no-such-emulator"))


def test_avd_copies(spec, tmp_path):
    into = tmp_path / "copies"
    into.mkdir()
    copy_avd(Path(spec.avd_home), "Pixel", into, "Pixel-1")
    assert sorted(f.name for f in (into / "Pixel-1.avd").iterdir()) == ["userdata.img"]
    assert (into / "Pixel-1.ini").read_text() == f"avd.ini.encoding=UTF-8\npath={into}/Pixel-1.avd\n"
    for missing in ("None", "../avd/Pixel"):
        with pytest.raises(SetupError, match="avdmanager"):
            copy_avd(Path(spec.avd_home), missing, into, "x")


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
