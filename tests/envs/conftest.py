"""Stand-ins for an Android emulator and for AndroidWorld's Python."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from guiderail.envs.android.emulator import EmulatorSpec
from guiderail.envs.pocket.tree import APP_TABLE

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def emulator_spec(tmp_path):
    """A spec whose emulator program and AVD are stand-ins, on an adb server of our own."""
    program = tmp_path / "emulator"
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m tests.envs.android.fake_emulator "$@"\n')
    program.chmod(0o755)
    home = tmp_path / "avd"
    (home / "Pixel.avd").mkdir(parents=True)
    (home / "Pixel.avd" / "userdata.img").write_bytes(b"data")
    (home / "Pixel.avd" / "hardware-qemu.ini.lock").write_bytes(b"")
    (home / "Pixel.ini").write_text(f"avd.ini.encoding=UTF-8\npath={home}/Pixel.avd\npath.rel=avd/Pixel.avd\n")
    server = free_port()
    first = 5556 + 8 * (
        int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 15
    )  # tests side by side must not collide
    console = next(p for p in [*range(first, 5676, 4), *range(5556, first, 4)] if all(map(is_free, range(p, p + 4))))
    yield EmulatorSpec(
        avd="Pixel",
        snapshot="clean",
        emulator=str(program),
        avd_home=str(home),
        console_port=console,
        grpc_port=free_port(),
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


@pytest.fixture
def android_world_python(tmp_path):
    """A Python that has the stand-in for the android_world package."""
    library = tmp_path / "lib" / "android_world"
    library.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "envs" / "android_world" / "fake_android_world.py", library / "__init__.py")
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/lib exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(program)
