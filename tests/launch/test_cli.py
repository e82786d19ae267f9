"""The commands as a user types them, on a small recorded world; results that others parse keep their keys."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guiderail.launch.cli import app, main
from tests.conftest import REAL_DATA

runner = CliRunner()


def call(*words: object, code: int = 0) -> str:
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "data"
    card = json.loads(
        call("record", "pocket", "--episodes", 12, "--seed", 3, "--split", "test", "--out", out, "--json")
    )
    assert card["episodes"] == 12
    return out


def test_gate_on_recorded_experts(world):
    result = json.loads(call("gate", world, "--json"))
    assert set(result) >= {"oracle", "probes"}
    assert result["oracle"]["exact"] == result["oracle"]["steps"] > 30
    assert {"steps", "exact"} <= set(result["oracle"]["by_action"]["click"])
    assert all({"PG", "TSR"} <= set(row) for row in result["probes"].values())
    assert "100.0 %" in call("gate", world, "--dialect", "brief")


def test_sop_of_expert_and_chance(world, tmp_path):
    expert = json.loads(call("evaluate", "sop", world, "--agent", "expert", "--json", "--out", tmp_path / "run"))
    assert (expert["PG"], expert["TSR"], expert["Score"], expert["n"]) == (1, 1, 1, 12)
    assert expert["rules"]["name"] == "guiderail"
    assert set(expert["intervals"]) == {"PG", "TSR", "Score"}
    chance = json.loads(call("evaluate", "sop", world, "--agent", "random", "--json"))
    assert chance["TSR"] == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["version"], record["kind"]) == (2, "sop")
    (leg,) = record["legs"]
    assert leg["about"]["data"]["digest"]
    assert leg["versions"]["guiderail"]
    assert leg["seconds"] > 0


def test_a_run_folder_is_not_overwritten(world, tmp_path):
    call("evaluate", "sop", world, "--agent", "random", "--out", tmp_path / "run")
    result = runner.invoke(app, ["evaluate", "sop", str(world), "--agent", "random", "--out", str(tmp_path / "run")])
    assert "already holds a run" in str(result.exception)


def test_offline_and_rejudge(world, tmp_path):
    run = tmp_path / "run"
    score = json.loads(call("evaluate", "offline", world, "--agent", "expert", "--json", "--out", run))
    assert (score["TM"], score["GR"], score["SR"]) == (1, 1, 1)
    again = json.loads(call("rejudge", run, "--rules", "guiderail", "uis1-released-training", "uis1-paper", "--json"))
    assert set(again) == {"guiderail", "uis1-released-training", "uis1-paper"}
    assert again["guiderail"]["SR"] == 1
    assert again["uis1-released-training"]["SR"] < 1


def test_rejudged_sop_equals_the_original_under_the_same_rules(world, tmp_path):
    run = tmp_path / "run"
    before = json.loads(call("evaluate", "sop", world, "--agent", "random", "--json", "--out", run))
    after = json.loads(call("rejudge", run, "--rules", "guiderail", "--json"))["guiderail"]
    assert {key: after[key] for key in ("PG", "TSR", "Score", "n", "intervals")} == {
        key: before[key] for key in ("PG", "TSR", "Score", "n", "intervals")
    }
    assert after["open_ended"] == 0


def test_rejudge_refuses_other_data(world, tmp_path):
    run = tmp_path / "run"
    call("evaluate", "sop", world, "--agent", "random", "--out", run)
    other = tmp_path / "other"
    call("record", "pocket", "--episodes", 2, "--seed", 9, "--out", other)
    result = runner.invoke(app, ["rejudge", str(run), "--rules", "guiderail", "--data", str(other)])
    assert "is not the data of this run" in str(result.exception)


def test_live_pocket_of_expert_and_chance(tmp_path):
    pytest.importorskip("android_env")
    expert = json.loads(call("evaluate", "pocket", "--agent", "expert", "--tasks", 10, "--json"))
    assert (expert["success"], expert["n"], expert["unscored"]) == (1, 10, 0)
    chance = call("evaluate", "pocket", "--agent", "random", "--tasks", 10, "--json", "--out", tmp_path / "live")
    assert json.loads(chance)["success"] <= 0.1
    assert len((tmp_path / "live" / "rollouts.jsonl").read_text().splitlines()) == 10


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real sample files are not here")
def test_real_recordings_without_images(capfd):
    sample = REAL_DATA / "android_control_train_sample.jsonl"
    result = json.loads(call("gate", sample, "--screen", "infer", "--json"))
    assert result["oracle"]["exact"] == result["oracle"]["steps"] == 206
    assert result["swipes"] == "inverted"
    words = ("gate", sample, "--screen", "1080x2400", "--rules", "uis1-released-training", "--json")
    for swipes, exact, code in (("detect", 19, 0), ("finger", 0, 1)):
        row = json.loads(call(*words, "--swipes", swipes, code=code))["oracle"]["by_action"]["swipe"]
        assert (row["steps"], row["exact"]) == (19, exact)
    result = runner.invoke(app, ["evaluate", "sop", str(sample), "--agent", "expert"])
    assert "screenshot" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "sop", "DATA"], "exactly one of --model, --server, --agent"),
        (["evaluate", "sop", "DATA", "--agent", "oracle"], "expected expert or random or claim"),
        (["evaluate", "sop", "DATA", "--agent", "random", "--rules", "uis1-papr"], "did you mean 'uis1-paper'"),
        (["evaluate", "sop", "DATA", "--agent", "random", "--dialect", "brif"], "did you mean 'brief'"),
        (["evaluate", "sop", "DATA", "--server", "http://127.0.0.1:9/v1"], "--served-model"),
        (["gate", "DATA", "--screen", "big"], "WIDTHxHEIGHT"),
        (["gate", "DATA", "--swipes", "fingers"], "did you mean 'finger'"),
        (["record", "pocket", "--out", "DATA/x", "--size", "big"], "WIDTHxHEIGHT"),
        (["record", "pocket", "--out", "DATA/x", "--split", "dev"], "expected one of"),
        (
            ["record", "attempts", "pocket", "n=0", "--model", "tiny-sft", "--out", "DATA/x"],
            "0 tasks: expected 1 or more",
        ),
        (["evaluate", "pocket", "--tasks", "0", "--agent", "random"], "0 tasks: expected 1 or more"),
        (["evaluate", "pocket", "--agent", "random", "--temperature", "-1"], "Invalid value for '--temperature'"),
        (["rejudge", "DATA", "--rules", "guiderail"], "is not there; is"),
        (["train", "DATA/none.yaml"], "no config file"),
    ],
)
def test_mistakes_of_the_user_are_one_message(world, monkeypatch, capsys, words, message):
    words = [word.replace("DATA", str(world)) for word in words]
    monkeypatch.setattr("sys.argv", ["guiderail", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split())
    assert "Traceback" not in captured.err


def test_doctor_speaks_json():
    checks = json.loads(call("doctor", "--json"))["checks"]
    assert any(check["name"].lower().startswith("python") for check in checks)


def test_the_version_comes_without_heavy_imports(tmp_path):
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "guiderail.launch.cli", "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert re.fullmatch(r"guiderail \d+\.\d+\.\d+(, commit \w{7}(, with local changes)?)?\n", said.stdout)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in said.stderr.splitlines()}
    assert "guiderail.launch.parts" in loaded
    assert not {"torch", "transformers", "scipy", "android_env", "openai", "matplotlib"} & loaded


def test_the_shell_completes_names_of_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(
        app,
        prog_name="guiderail",
        env={"_GUIDERAIL_COMPLETE": "complete_bash", "COMP_WORDS": "guiderail train tiny_s", "COMP_CWORD": "2"},
    )
    assert result.stdout.split() == ["tiny_semi_online", "tiny_sft"]
