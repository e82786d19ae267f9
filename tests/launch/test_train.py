"""From a config to a trained, scored folder; killed and resumed; on two processes. As a user does it, by the commands."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from launch.cli import app

CONFIGS = Path(__file__).parents[2] / "launch" / "configs"
SMALL = ["method.groups=2", "method.rollouts=4", "method.eta=0", "method.spread_of=none", "method.tries=1"]
SMALL += ["training.gradient_accumulation_steps=2", "training.steps_per_generation=2", "model.max_new_tokens=12"]


def call(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("train")
    call("record", "pocket", "--episodes", 6, "--out", out / "data")
    call("init", "tiny", out / "data", "--out", out / "tiny")
    return out


def train(world: Path, name: str, config: str, *more: object, model: str = "tiny") -> Path:
    where = [f"model.path={world / model}", f"data.train={world / 'data'}"]
    call("train", CONFIGS / config, *where, *more, "--out", world / name)
    return world / name


def test_sft_then_rl_then_score(world):
    run = train(world, "sft", "tiny_sft.yaml", "training.max_steps=2", "training.per_device_train_batch_size=4")
    assert json.loads((run / "metrics.json").read_text())["updates"] == 2
    run = train(world, "rl", "tiny_semi_online.yaml", *SMALL, "training.max_steps=2", model="sft/model")
    rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 4
    assert {row["generation"] for row in rows} == {0, 1}
    assert all({"reward", "return", "advantage"} <= set(turn) for row in rows for turn in row["turns"])
    assert list(run.rglob("events.out.tfevents*"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["sampled_turns"] == sum(len(row["turns"]) for row in rows)
    score = json.loads(call("evaluate", "sop", world / "data", "--model", run / "model", "--limit", 2, "--json"))
    assert score["n"] == 2


def test_a_screenshot_is_looked_at_once_for_all_commands(world, tmp_path, monkeypatch):
    score = ["evaluate", "sop", world / "data", "--model", world / "tiny", "--limit", 2, "--json"]
    plain = json.loads(call(*score))
    monkeypatch.setenv("GUIDERAIL_FEATURES", str(tmp_path / "features"))
    assert json.loads(call(*score)) == plain
    seen = {file.name: file.stat().st_ino for file in (tmp_path / "features").iterdir()}
    assert seen
    frozen = ["model.freeze_vision=true", "training.max_steps=1", "training.per_device_train_batch_size=4"]
    run = train(world, "frozen", "tiny_sft.yaml", *frozen)
    score[score.index("--model") + 1] = run / "model"
    call(*score)
    after = {file.name: file.stat().st_ino for file in (tmp_path / "features").iterdir()}
    # Nothing was computed again: the trained model's tower is the same.
    assert {name: after[name] for name in seen} == seen


def test_groups_too_hard_by_likelihood_are_passed_over_and_recorded(world):
    """A random model expects next to nothing of any group."""
    hard = ["method.difficulty.low=0.5", "method.difficulty.rounds=2", "training.max_steps=2"]
    run = train(world, "hard", "tiny_semi_online.yaml", *SMALL, *hard)
    rows = [json.loads(line) for line in (run / "passed_over.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in rows} == {"too hard"}
    assert [row["visit"] for row in rows] == list(range(2 * 2 * 2))  # generations, rounds, groups
    assert not (run / "rollouts.jsonl").exists()


def test_offline_rl_with_lora_gives_an_adapter(world):
    lora = ["model.lora.r=4", "model.lora.alpha=8"]
    run = train(world, "lora", "tiny_offline.yaml", *SMALL, *lora, "training.max_steps=1")
    assert (run / "model" / "adapter_config.json").is_file()
    rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    assert all(len(row["turns"]) == 1 for row in rows)
    score = json.loads(call("evaluate", "offline", world / "data", "--model", run / "model", "--limit", 1, "--json"))
    assert score["n"] > 0


def test_a_prompt_over_the_budget_stops_before_training(world):
    words = ["train", CONFIGS / "tiny_sft.yaml", f"model.path={world / 'tiny'}", f"data.train={world / 'data'}"]
    words += ["model.max_prompt_tokens=100", "--out", world / "over"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "the limit is 100" in str(result.exception)
    assert "episodes.jsonl:" in str(result.exception)
    assert not (world / "over").exists()


def start(world: Path, name: str, steps: int, *more: str, launcher: list[str] | None = None) -> subprocess.Popen:
    command = [*(launcher or [sys.executable]), "-m", "launch.cli", "train", str(CONFIGS / "tiny_semi_online.yaml")]
    command += [f"model.path={world / 'tiny'}", f"data.train={world / 'data'}", *SMALL, f"training.max_steps={steps}"]
    command += ["training.learning_rate=1e-3", "training.save_steps=2", *more, "--out", str(world / name)]
    return subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)


def history(run: Path, steps: int) -> list[dict]:
    """What was logged per update, without what depends on the clock."""
    state = json.loads((run / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    clock = ("time", "second", "runtime")
    return [{k: v for k, v in row.items() if not any(c in k for c in clock)} for row in state["log_history"]]


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed_gives_the_same_losses(world):
    steps = 8
    straight = start(world, "straight", steps)
    assert straight.wait(600) == 0, straight.stderr.read()
    killed = start(world, "killed", steps)
    while not (world / "killed" / "checkpoint-2" / "complete.json").exists():
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.05)
    time.sleep(random.uniform(0, 3))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = start(world, "killed", steps, "--resume")
    assert resumed.wait(600) == 0, resumed.stderr.read()
    assert history(world / "killed", steps) == history(world / "straight", steps)
    assert (world / "killed" / "rollouts.jsonl").read_text() == (world / "straight" / "rollouts.jsonl").read_text()
    weights = [(world / run / "model" / "model.safetensors").read_bytes() for run in ("killed", "straight")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_with_zero_3_and_lora(world):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    more = ["model.lora.r=4", "training.deepspeed=zero3.json"]
    run = start(world, "zero3", 2, *more, launcher=launcher)
    assert run.wait(900) == 0, run.stderr.read()
    assert (world / "zero3" / "model" / "adapter_config.json").is_file()
    alone = start(world, "alone", 2, "model.lora.r=4")
    assert alone.wait(600) == 0, alone.stderr.read()
    two, one = (
        [json.loads(line) for line in (world / name / "rollouts.jsonl").read_text().splitlines()]
        for name in ("zero3", "alone")
    )
    assert {row["unit"] for row in two} == {row["unit"] for row in one}
    assert [r for r in two if r["generation"] == 0] == [r for r in one if r["generation"] == 0]
