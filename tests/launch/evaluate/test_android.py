"""The Android commands as typed."""

import json
import os

import pytest
from typer.testing import CliRunner

from guiderail.envs.android_world.client import PYTHON
from guiderail.launch.cli import app
from guiderail.launch.evaluate.android import macro

RUNNER = CliRunner()


def run(*args):
    return RUNNER.invoke(app, [str(a) for a in args])


def test_macro_averages():
    rows = {
        "task:A": {"success": 1.0, "n": 1, "unscored": 1},
        "task:B": {"success": 0.5, "n": 2, "unscored": 0},
        "task:C": {"success": None, "n": 0, "unscored": 1},
        "other": {"success": 0.0, "n": 9, "unscored": 0},
    }
    assert macro(rows) == {"success_as_upstream": 0.75, "success_with_crashed": (0.5 + 0.5 + 0) / 3, "tasks": 3}
    assert macro({})["success_as_upstream"] is None


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["android-world", "--agent", "expert", "--device", "phone"], "expected emulator or pocket"),
        (["pocket", "--agent", "expert", "--device", "phone"], "expected android_env or adb"),
        (["android", "none.jsonl", "--agent", "random", "--serial", "x", "--workers", "2"], "--workers at 1"),
        (["android", "none.jsonl", "--agent", "random", "--apps", "none.json"], "give a JSON object"),
        (["aitw", ".", "--judge-server", "http://x/v1", "--judge-model", "m", "--tasks", "x"], "general_test"),
        (["judge", ".", "--judge-server", "http://x/v1", "--judge-model", "m", "--judge-mode", "x"], "final or"),
    ],
)
def test_wrong_options_say_what_is_expected(args, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("evaluate", *args)
    assert done.exit_code != 0
    assert why in " ".join(str(done.exception or done.output).split())


@pytest.mark.parametrize("also", [["--device", "pocket"], ["--snapshot", "clean"]])
def test_setup_needs_emulators_that_keep_what_is_installed(also):
    done = run("evaluate", "android-world", "--agent", "random", "--setup", *also)
    assert "--setup installs apps on emulators" in str(done.exception)


def test_without_its_python_the_way_to_one_is_said(monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    done = run("evaluate", "android-world", "--agent", "random", "--device", "pocket")
    assert "--android-world-python" in str(done.exception)
    assert "git clone" in str(done.exception)


@pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"{PYTHON} is not set")
def test_android_world_on_pocket(tmp_path):
    names = "SystemWifiTurnOn,FilesMoveFile"
    done = run("evaluate", "android-world", "--device", "pocket", "--agent", "expert", "--tasks", names, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["macro"] == {"success_as_upstream": 1.0, "success_with_crashed": 1.0, "tasks": 2}
