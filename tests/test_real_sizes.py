"""The benchmarks of real sizes: exact where they compare, a row where they fail, and a whole step at published width."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import large, one_step
from guiderail.agent.errors import SetupError
from guiderail.agent.served.vllm.setting_up import environment

ROOT = Path(__file__).parents[1]


def squared(number):
    return {"value": number**2}


def refused():
    raise SetupError("no such thing")


def killed():
    os._exit(7)


def asleep():
    time.sleep(600)
    return {}


def test_a_part_that_fails_is_a_row():
    assert one_step.apart(60, squared, 3) == {"value": 9}
    assert one_step.apart(60, refused) == {"failed": "SetupError: no such thing"}
    assert one_step.apart(60, killed) == {"failed": "its process ended with code 7"}
    assert one_step.apart(0.2, asleep) == {"failed": "not done after 0 s"}
    assert large.said({"failed": "SetupError: no such thing"}) == "failed: SetupError: no such thing"


def test_a_device_reaches_something():
    found = one_step.ceilings(0.01, 64)
    assert found["copied_gbs"] > 0
    assert found["tflops"] > 0


def test_attention_without_a_mask_is_as_exact_as_with_one():
    sdpa, varlen, flex = large.exactness(small=True)["rows"]
    assert 0 < sdpa["gradients"] < 0.02  # bfloat16 against float32
    assert varlen["gradients"] < 1.5 * sdpa["gradients"]
    assert varlen["logps"] < 3 * sdpa["logps"]
    assert "needs a GPU" in flex["failed"]


def test_no_vllm_is_a_row_that_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("GUIDERAIL_VLLM", str(tmp_path / "none"))
    monkeypatch.delenv("GUIDERAIL_VLLM_SERVER", raising=False)
    with pytest.raises(SetupError, match="guiderail setup vllm"), large.served(tmp_path, tmp_path / "log", 1, 4096):
        pass


def test_rows_say_what_is_not_known():
    rows = [{"part": "load", "seconds": 0.5, "gib": None}, {"part": "update", "seconds": 12.0, "share": 0.25}]
    assert one_step.printed(rows).splitlines() == [
        "| part | seconds | gib | share |",
        "| --- | --- | --- | --- |",
        "| load | 0.5 | - | - |",
        "| update | 12 | - | 0.25 |",
    ]


def run(*words, seconds):
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, timeout=seconds, capture_output=True)


@pytest.mark.slow
def test_the_command_for_a_gpu_on_a_cpu(tmp_path):
    run("benchmarks.large", "--all", "--small", "--out", str(tmp_path / "large.json"), seconds=900)
    parts = json.loads((tmp_path / "large.json").read_text())["parts"]
    assert set(parts) == large.SMALL
    assert {name for name, made in parts.items() if "failed" in made} <= {"vllm"}
    assert ("failed" in parts["vllm"]) or (environment() / "bin" / "vllm").is_file()
    rows = {row["part"]: row for row in parts["step 3b"]["rows"]}
    assert {"load", "rollout", "credit", "update", "checkpoint"} <= rows.keys()
    for part in ("rollout", "update"):
        assert 0 < rows[part]["share"] < 1
        assert rows[part]["planned_gib"] > 0
    assert [row["engine"] for row in parts["rollouts"]["rows"]] == ["local, shared", "local, not shared"]


@pytest.mark.slow
def test_rollouts_through_vllms_protocol(tmp_path):
    from tests.rl.train.fake_vllm import FakeServer

    large.model_in(tmp_path, "3b", True)
    server = FakeServer(tmp_path / "3b")
    try:
        (row,) = large.vllm(tmp_path, "3b", True, server.url)["rows"]
    finally:
        server.close()
    assert row["rollouts_per_second"] == pytest.approx(2 / row["seconds"])
    assert row["sync_seconds"] > 0


@pytest.mark.slow
def test_a_whole_step_at_the_width_of_2b(tmp_path):
    out = tmp_path / "step.json"
    small = ("--model", "2b", "--tune", "lora", "--layers", "2", "--scale", "0.125")
    run("benchmarks.real_widths", "step", *small, "--folder", str(tmp_path), "--out", str(out), seconds=1800)
    (made,) = json.loads(out.read_text())["runs"]
    assert made["parameters"] > 4e8  # the vocabulary alone is 0.3 billion
    assert made["same"]
    first, second = made["updates"]
    assert first != second
    assert all(math.isfinite(number) for row in (first, second) for number in row.values())
    assert second["grad_norm"] > 0
    rows = {row["part"]: row for row in made["rows"]}
    assert {"load", "rollout", "credit", "update", "checkpoint", "resume"} <= rows.keys()
    assert rows["update"]["gib"] > 0.8 * rows["load"]["planned_gib"]


@pytest.mark.slow
def test_the_whole_path_at_the_width_of_2b(tmp_path):
    """From recordings to a verified submission, each step by its command. Ends at the first that fails."""
    out = tmp_path / "path.json"
    small = ("--model", "2b", "--layers", "2", "--scale", "0.125")
    run("benchmarks.real_widths", "path", *small, "--folder", str(tmp_path), "--out", str(out), seconds=1800)
    rows = json.loads(out.read_text())["rows"]
    assert [row["command"] for row in rows if row["code"]] == []
    assert [row["command"] for row in rows][-3:] == ["report", "submit build", "submit verify"]
    assert (tmp_path / "bundle.zip").is_file()
    rl = json.loads((tmp_path / "runs" / "rl" / "metrics.json").read_text())
    assert rl["updates"] == 2
    assert rl["sampled_turns"] >= 2
