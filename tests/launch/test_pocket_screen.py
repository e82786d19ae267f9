"""--style and --size of the commands that draw Pocket phones."""

import json

import pytest
from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.launch.cli import app
from guiderail.launch.pocket_screen import pocket_screen


def test_a_style_has_its_own_size():
    assert pocket_screen("easy", None) == (160, 288)
    assert pocket_screen("phone", None) == (360, 800)
    assert pocket_screen("phone", "1080x2400") == (1080, 2400)
    with pytest.raises(SetupError, match="--style 'wild': expected easy or free or phone"):
        pocket_screen("wild", None)
    with pytest.raises(SetupError, match="--size 'big'"):
        pocket_screen("phone", "big")


def test_record_and_evaluate_in_style_phone(tmp_path):
    pytest.importorskip("android_env")

    def guiderail(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.stdout

    guiderail("record", "pocket", "--style", "phone", "--episodes", 2, "--out", tmp_path / "data")
    gate = json.loads(guiderail("gate", tmp_path / "data", "--json"))
    assert gate["oracle"]["TSR"] == 1.0
    run = tmp_path / "run"
    words = ("--style", "phone", "--agent", "expert", "--tasks", 3, "--out", run, "--json")
    made = json.loads(guiderail("evaluate", "pocket", *words))
    assert (made["success"], made["n"], made["floor"]["success"]) == (1.0, 3, 0.0)
    assert json.loads((run / "run.json").read_text())["legs"][0]["about"]["world"]["size"] == [360, 800]
