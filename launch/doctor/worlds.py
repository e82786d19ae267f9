"""What the live worlds need: Android SDK, emulators, AndroidWorld, browsers."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
from pathlib import Path

from guiderail.agent.errors import SetupError
from guiderail.envs.android_world.client import INSTALL, PYTHON, python_of, tasks
from guiderail.envs.mobilegym.checkout import FONTS, GET, VARIABLE, Checkout, has_cjk_fonts
from guiderail.launch.doctor.check import Check, Probe, installed, program

TOOLS = "of Android's command-line tools, developer.android.com/studio"


def _sdk_folders() -> list[Path]:
    named = [os.environ.get("ANDROID_HOME"), os.environ.get("ANDROID_SDK_ROOT")]
    return [Path(folder) for folder in named if folder] + [Path.home() / "Android" / "Sdk"]


def _android_sdk() -> list[Check]:
    adb = [folder / "platform-tools" / "adb" for folder in _sdk_folders()]
    emulator = [folder / "emulator" / "emulator" for folder in _sdk_folders()]
    return [
        program("Android", "adb", "sudo apt-get install adb", adb),
        program("Android", "emulator", f"sdkmanager emulator  # {TOOLS}", emulator),
    ]


def _kvm(device: Path = Path("/dev/kvm")) -> list[Check]:
    if platform.system() != "Linux":
        return []
    if not device.exists():
        fix = "switch on virtualisation in the BIOS or (in a VM) nested virtualisation; in docker add --device /dev/kvm"
        return [Check("Android", "KVM", "missing", f"{device} is not there: emulators would crawl", fix)]
    if not os.access(device, os.R_OK | os.W_OK):
        fix = "sudo usermod -aG kvm $USER, then log in again"
        return [Check("Android", "KVM", "missing", f"no permission to use {device}", fix)]
    return [Check("Android", "KVM", "ok", str(device))]


def _avds() -> list[Check]:
    folder = Path(os.environ.get("ANDROID_AVD_HOME") or Path.home() / ".android" / "avd")
    names = sorted(path.stem for path in folder.glob("*.ini")) if folder.is_dir() else []
    image = "'system-images;android-33;google_apis;x86_64'"
    make = f"sdkmanager {image} && avdmanager create avd -n AndroidWorldAvd -d pixel_6 -k {image}"
    any_avd = Check("Android", "virtual devices", "ok", ", ".join(names))
    world = Check("AndroidWorld", "AndroidWorldAvd", "ok", str(folder / "AndroidWorldAvd.ini"))
    if not names:
        any_avd = Check("Android", "virtual devices", "missing", f"none in {folder}", make)
    if "AndroidWorldAvd" not in names:
        world = Check("AndroidWorld", "AndroidWorldAvd", "missing", f"a Pixel 6, API 33, not in {folder}", make)
    return [any_avd, world]


def ports(workers: int = 1) -> list[Check]:
    """Console, adb and gRPC port of each worker's emulator, as `envs.android.emulator.lease` numbers them."""
    said: list[str] = []
    doubtful = False
    for k in range(workers):
        three = (5554 + 2 * k, 5555 + 2 * k, 8554 + k)
        used = [port for port in three if not _free(port)]
        if used:
            doubtful |= len(used) < 3
            whole = "an emulator with gRPC seems to run" if len(used) == 3 else "not all three of an emulator"
            said.append(f"worker {k}: {', '.join(map(str, used))} in use ({whole})")
    of = "worker 0" if workers == 1 else f"workers 0 to {workers - 1}"
    detail = "; ".join(said) or f"those of {of} are free"
    fix = (
        "an emulator without -grpc, or another program: see `ss -ltnp`, restart the emulator with -grpc 8554 (+ worker)"
    )
    return [Check("Android", "emulator ports", "warn" if doubtful else "ok", detail, fix if doubtful else "")]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _android_env() -> list[Check]:
    if installed("android-env") is None:
        return []
    importlib.import_module("android_env.loader")
    return [Check("simulated phones", "android_env import", "ok", "android_env.loader")]


def _ffmpeg() -> list[Check]:
    return [program("AndroidWorld", "ffmpeg", "sudo apt-get install ffmpeg")]


def _browser() -> list[Check]:
    variables = ("MINIWOB_CHROME_BINARY", "MINIWOB_CHROMEDRIVER")
    chosen = [os.environ.get(variable) for variable in variables]
    if bool(chosen[0]) != bool(chosen[1]):
        unset = variables[0] if chosen[1] else variables[1]
        detail = f"{unset} is not set, its twin is: MiniWoB++ refuses one without the other"
        return [Check("MiniWoB++", "browser", "warn", detail, f"export {unset}=PATH, or unset both")]
    fix = "sudo apt-get install chromium chromium-driver"
    if chosen[0] and chosen[1]:
        return [program("MiniWoB++", Path(path).name, fix, [Path(path)], on_path=False) for path in chosen if path]
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((name for name in names if shutil.which(name)), names[0])
    return [program("MiniWoB++", browser, fix), program("MiniWoB++", "chromedriver", fix)]


def _android_world() -> list[Check]:
    """Imported and opened where it lives: an installation may look whole and still be unable to read its own task list."""
    if not os.environ.get(PYTHON):
        return [Check("AndroidWorld", "android_world", "missing", f"{PYTHON} does not name its Python", INSTALL)]
    try:
        python = python_of(None)
        found = tasks(python, names=None, seed=30, combinations=1, family="android_world")
    except SetupError as error:
        return [Check("AndroidWorld", "android_world", "missing", str(error).partition("; run: ")[0], INSTALL)]
    return [Check("AndroidWorld", "android_world", "ok", f"{len(found)} tasks, {python}")]


def _mobilegym() -> list[Check]:
    """The checkout that GUIDERAIL_MOBILEGYM names, its pages and its data."""
    named = os.environ.get(VARIABLE)
    if not named:
        return [
            Check("MobileGym", "checkout", "missing", f"{VARIABLE} does not name one", f"{GET}  # then set {VARIABLE}")
        ]
    found = Checkout(Path(named).expanduser().resolve())
    if found.problem:
        what, _, fix = found.problem.rpartition("; run: " if "; run: " in found.problem else "; get one with: ")
        return [Check("MobileGym", "checkout", "missing", what, fix)]
    checks = [Check("MobileGym", "checkout", "ok", str(found.folder))]
    if found.without_data:
        detail = f"empty for {', '.join(sorted(found.without_data))}: their tasks are left out"
        checks.append(Check("MobileGym", "data of apps", "warn", detail, "use a full clone, without a size filter"))
    if found.data is None:
        detail = "no mobilegym-data folder: no wallpapers, covers and map tiles, which no judge looks at"
        checks.append(Check("MobileGym", "companion data", "warn", detail, "see Install in MobileGym's README"))
    return checks


def _fonts() -> list[Check]:
    if not (there := has_cjk_fonts()):
        detail = "none for Chinese: texts would be empty boxes" if there is False else "fc-list is not there to tell"
        return [Check("MobileGym", "fonts", "missing" if there is False else "warn", detail, FONTS)]
    return [Check("MobileGym", "fonts", "ok", "Chinese can be drawn")]


def _phones_browser() -> list[Check]:
    """The browser of MiniWoB++, or its smaller build."""
    found = _browser()
    if missing := [check for check in found if check.state == "missing"]:
        return [Check("MobileGym", "Chromium", "missing", f"no {missing[0].name}", missing[0].fix)]
    return [Check("MobileGym", "Chromium", "ok", ", ".join(check.detail for check in found))]


PROBES: tuple[Probe, ...] = (
    ("MobileGym", "checkout", _mobilegym),
    ("MobileGym", "fonts", _fonts),
    ("MobileGym", "Chromium", _phones_browser),
    ("MiniWoB++", "browser", _browser),
    ("Android", "Android SDK", _android_sdk),
    ("Android", "KVM", _kvm),
    ("Android", "virtual devices", _avds),
    ("AndroidWorld", "android_world", _android_world),
    ("AndroidWorld", "ffmpeg", _ffmpeg),
)
DEEP: tuple[Probe, ...] = (("simulated phones", "android_env import", _android_env),)
