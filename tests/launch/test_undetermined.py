"""A file that does not say how it stores vertical swipes: every command says so, and its runs can be read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from guiderail.envs.recordings.conventions import UNDETERMINED
from guiderail.launch import parts
from guiderail.launch.cli import app
from guiderail.launch.report.runs import discover, recording
from guiderail.rl.runs.record import Data
from tests.envs.imports.public import png

runner = CliRunner()
SWIPE = {"action": "swipe", "coordinate": [54, 60], "coordinate2": [54, 180]}
WORDS = "warning: vertical swipes are undetermined, read as finger"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "0.png").write_bytes(png(text="0"))
    steps = [
        {"action_content": SWIPE, "screenshot": "0.png"},
        {"action_content": {"action": "wait"}, "screenshot": "0.png"},
    ]
    (folder / "episodes.jsonl").write_text(json.dumps({"goal": "scroll", "episode_id": 1, "steps": steps}) + "\n")
    return folder


def call(*words: object) -> Result:
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result


def recorded(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())["legs"][-1]["about"]["data"]  # type: ignore[no-any-return]


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def test_the_gate_warns_beside_its_hundred_percent(data: Path, tmp_path: Path) -> None:
    result = call("gate", data, "--out", tmp_path / "gate")
    assert WORDS in said(result)
    assert "--swipes" in said(result)
    assert "100.0 %" in result.stdout
    assert "swipe (undetermined)" in result.stdout
    assert "the gate cannot see it" in " ".join(result.stdout.split())
    assert recorded(tmp_path / "gate")["swipes"] == UNDETERMINED
    assert json.loads(call("gate", data, "--json").stdout)["swipes"] == UNDETERMINED
    known = call("gate", data, "--swipes", "finger")
    assert "undetermined" not in known.output


def test_an_evaluation_warns_and_can_be_rejudged_and_reported(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert WORDS in said(call("evaluate", "sop", data, "--agent", "expert", "--out", run))
    assert recorded(run)["swipes"] == UNDETERMINED
    for swipes in (UNDETERMINED, "undetermined"):  # as older versions wrote it
        record = json.loads((run / "run.json").read_text())
        record["legs"][-1]["about"]["data"]["swipes"] = swipes
        (run / "run.json").write_text(json.dumps(record))
        again = json.loads(call("rejudge", run, "--rules", "guiderail", "--json").stdout)
        assert again["guiderail"]["PG"] == 1.0
        assert recording(discover([run])[0], None).episodes


@pytest.mark.slow
def test_training_warns_and_writes_it_down(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = call("train", "tiny_sft", f"data.train={data}", "training.max_steps=1", "--out", run)
    assert WORDS in said(made)
    assert recorded(run)["swipes"] == UNDETERMINED


def test_a_run_reads_its_recordings_again_as_it_read_them(data: Path) -> None:
    loaded = parts.dataset(str(data), None, "inverted", False, None)
    source = Data.model_validate(parts.describe(str(data), loaded, None))
    assert parts.dataset_of(source) == loaded
    assert [parts.recorded_swipes(s) for s in (None, "finger", "inverted", "undetermined", UNDETERMINED)] == [
        "detect",
        "finger",
        "inverted",
        "finger",
        "finger",
    ]


def test_an_import_does_not_make_a_guess_certain(data: Path, tmp_path: Path) -> None:
    result = call("import", "uis1", data, "--out", tmp_path / "made")
    assert "undetermined, read as finger" in said(result) + result.stdout
    assert WORDS in said(call("gate", tmp_path / "made"))
    call("import", "uis1", data, "--out", tmp_path / "known", "--swipes", "finger")
    assert "undetermined" not in call("gate", tmp_path / "known").output
