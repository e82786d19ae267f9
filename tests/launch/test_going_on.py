"""What a stopped, failed or finished command says, and its exit code."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from guiderail.agent.disk import locked
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.launch.cli import app
from guiderail.launch.going_on import NOTHING_SCORED, STOPPED, again, going_on
from tests.launch import commands

GUIDERAIL = [sys.executable, "-m", "guiderail.launch.cli"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "six"
    result = CliRunner().invoke(app, ["record", "pocket", "--episodes", "6", "--out", str(out)])
    assert f"next: guiderail gate {out}" in result.stderr
    return out


def test_the_command_that_goes_on_can_be_pasted(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(sys, "argv", ["/bin/guiderail", "train", "tiny_sft", "data.train=my data"])
    assert again("--resume") == "guiderail train tiny_sft 'data.train=my data' --resume"
    monkeypatch.setattr(sys, "argv", ["/bin/guiderail", "train", "tiny_sft", "--resume"])
    assert again("--resume") == "guiderail train tiny_sft --resume"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert again("--resume") == "the same command again with --resume"


def test_ctrl_c_ends_with_130_and_the_command(capsys, tmp_path):
    with pytest.raises(typer.Exit) as ended, going_on(tmp_path, "--resume"):
        raise KeyboardInterrupt
    assert ended.value.exit_code == STOPPED
    said = capsys.readouterr().err
    assert said.startswith("stopped; to go on, run: guiderail ")
    assert said.endswith(" --resume\n")


def test_only_a_full_disk_is_called_one(tmp_path):
    said = r"no space left on the disk for .*; free some, then run: guiderail .*--resume$"
    with pytest.raises(SetupError, match=said), going_on(tmp_path, "--resume"):
        raise OSError(errno.ENOSPC, "No space left on device")
    for error in (EnvCrashed("No space left on device"), ValueError("else"), OSError(errno.ENOENT, "gone")):
        with pytest.raises(type(error)) as found, going_on(tmp_path):
            raise error
        assert found.value is error


def test_an_evaluation_of_which_nothing_is_scored_says_why_and_exits_with_4(data, tmp_path, monkeypatch):
    def crash(*given, **more):
        raise EnvCrashed("the policy's server is gone")

    monkeypatch.setattr("guiderail.agent.scripted.ScriptedPolicy.complete", crash)
    words = ["evaluate", "sop", data, "--agent", "random", "--out", tmp_path / "run"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == NOTHING_SCORED, result.output
    assert "nothing was scored: all 6 attempts failed for other reasons than the agent" in result.stderr
    assert "the policy's server is gone" in result.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["unscored"] == 6


def rows(run: Path) -> dict[tuple[str, int], dict]:
    """Each line of a run once, by what identifies it."""
    lines = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    counts = Counter((line["unit"], line.get("start", 0)) for line in lines)
    assert set(counts.values()) == {1}, "a rollout is there twice"
    return {(line["unit"], line.get("start", 0)): line for line in lines}


@pytest.mark.parametrize("kind", ["sop", "offline"])
def test_an_interrupted_evaluation_goes_on_with_what_is_missing(data, tmp_path, kind):
    def evaluate(out: str, *more: str):
        words = ["evaluate", kind, data, "--agent", "random", "--json", "--out", tmp_path / out, *more]
        return CliRunner().invoke(app, [str(word) for word in words])

    whole = evaluate("whole")
    assert whole.exit_code == 0, whole.output
    assert f"next: guiderail report {tmp_path / 'whole'}" in whole.stderr
    straight = rows(tmp_path / "whole")
    evaluate("cut")
    (tmp_path / "cut" / "metrics.json").unlink()
    file = tmp_path / "cut" / "rollouts.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    crashed = json.loads(lines[1]) | {"ended": "crashed", "turns": []}
    file.write_text(lines[0] + json.dumps(crashed) + "\n" + lines[2] + lines[3][: len(lines[3]) // 2])
    refused = evaluate("cut")
    assert "already holds a run; give another --out, or --resume" in str(refused.exception)
    resumed = evaluate("cut", "--resume")
    assert json.loads(resumed.stdout) == json.loads(whole.stdout)
    assert rows(tmp_path / "cut") == straight
    other = evaluate("cut", "--resume", "--seed", "1", "--limit", "2")
    assert "was run with data.episodes 6, not 2; seed 0, not 1; set this back" in str(other.exception)


def test_resume_without_a_folder_is_refused(data):
    result = CliRunner().invoke(app, ["evaluate", "sop", str(data), "--agent", "random", "--resume"])
    assert "give the folder as --out" in str(result.exception)


@pytest.mark.slow
def test_sixteen_killed_evaluations_and_sixteen_full_disks_lose_and_double_nothing(data, tmp_path):
    """kill -9, or a disk that fills up, when shares of the lines from 1/32 to 31/32 are written; then --resume."""
    said = tmp_path / "said"
    words = ["evaluate", "offline", data, "--model", "tiny-sft", "--width", "2", "--out"]
    commands.finish(commands.start([*words, tmp_path / "straight"], said), said)
    result = json.loads((tmp_path / "straight" / "metrics.json").read_text())
    size = (tmp_path / "straight" / "rollouts.jsonl").stat().st_size
    for number in range(32):
        run, share = tmp_path / str(number), (number % 16 + 0.5) / 16
        file = run / "rollouts.jsonl"
        if number < 16:
            process = commands.start([*words, run], said)
            while process.is_alive() and (not file.exists() or file.stat().st_size < share * size):
                time.sleep(0.002)
            process.kill()
            process.join()
        else:
            limit = max(6000, int(share * size))  # run.json must fit
            full = commands.finish(commands.start([*words, run], said, disk=limit), said, code=2)
            assert "SetupError: no space left on the disk" in full
            assert full.endswith(f"--out {run} --resume\n")
            assert file.read_bytes().endswith(b"\n")
        commands.finish(commands.start([*words, run, "--resume"], said), said)
        assert json.loads((run / "metrics.json").read_text()) == result
        assert rows(run) == rows(tmp_path / "straight")


@pytest.mark.slow
def test_ctrl_c_during_an_evaluation(data, tmp_path):
    """As a user does it."""
    command = [
        *GUIDERAIL,
        "evaluate",
        "offline",
        str(data),
        "--model",
        "tiny-sft",
        "--width",
        "1",
        "--out",
        tmp_path / "r",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    while process.poll() is None and not (tmp_path / "r" / "rollouts.jsonl").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == STOPPED, said
    assert "stopped; to go on, run: guiderail evaluate offline" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ["sop", "DATA", "--model", "tiny-sft"],
        ["offline", "DATA", "--model", "tiny-sft"],
        ["screenspot", "DATA", "--model", "tiny-sft"],
        ["likelihood", "DATA", "--model", "tiny-sft"],
        ["grounding", "--model", "tiny-sft"],
        ["pocket", "--model", "tiny-sft"],
        ["miniwob", "--model", "tiny-sft"],
        ["android", "DATA/tasks.jsonl", "--model", "tiny-sft"],
        ["android-world", "--model", "tiny-sft", "--device", "pocket", "--android-world-python", sys.executable],
        ["world", "FILE.py:world", "--model", "tiny-sft"],
    ],
    ids=lambda words: words[0],
)
def test_a_run_folder_in_use_is_refused_before_data_world_or_model_is_looked_at(tmp_path, monkeypatch, words):
    monkeypatch.setattr("guiderail.launch.parts.require", lambda *given: None)
    monkeypatch.setattr("guiderail.launch.parts.dataset", lambda *given, **more: pytest.fail("data was read"))
    used = tmp_path / "used"
    used.mkdir()
    for name in ("run.json", "metrics.json", "rollouts.jsonl"):
        (used / name).write_text("{}\n")
    words = ["evaluate", *(word.replace("DATA", str(tmp_path)) for word in words), "--out", str(used)]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, SetupError), error
    assert f"{used} already holds a" in str(error)
    with locked(tmp_path / "busy"):
        error = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "busy")]).exception
    assert "busy is being written by another process" in str(error)


def test_a_table_of_cells_without_any_item_can_be_shown():
    from guiderail.launch import show
    from guiderail.rl.score.screenspot import KINDS, by_cell

    assert show.cells("nothing was scored", by_cell([], {}), KINDS).row_count == 1
