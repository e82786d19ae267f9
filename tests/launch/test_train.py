"""From a config to a trained, scored folder; killed and resumed; on two processes. As a user does it, by the commands."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from guiderail.launch.cli import app
from guiderail.launch.going_on import NOTHING_LEARNED
from guiderail.rl.runs.log import run_log
from tests.launch import commands

CONFIGS = Path(__file__).parents[2] / "launch" / "configs"
SMALL = ["method.groups=2", "method.rollouts=4", "method.eta=0", "method.spread_of=none", "method.tries=1"]
SMALL += ["training.gradient_accumulation_steps=2", "training.steps_per_generation=2", "model.max_new_tokens=12"]


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout if not code else result.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("train")
    call("record", "pocket", "--episodes", 6, "--out", out / "data")
    call("init", "tiny", out / "data", "--out", out / "tiny")
    return out


def train(world: Path, name: str, config: str, *more: object, model: str = "tiny", code: int = 0) -> Path:
    where = [f"model.path={world / model}", f"data.train={world / 'data'}"]
    call("train", CONFIGS / config, *where, *more, "--out", world / name, code=code)
    return world / name


def refused(world: Path, name: str, config: str, *more: object) -> str:
    where = [f"model.path={world / 'tiny'}", f"data.train={world / 'data'}"]
    words = ["train", CONFIGS / config, *where, *more, "--out", world / name]
    return str(CliRunner().invoke(app, [str(word) for word in words]).exception)


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
    run = train(world, "hard", "tiny_semi_online.yaml", *SMALL, *hard, code=NOTHING_LEARNED)
    rows = [json.loads(line) for line in (run / "passed_over.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in rows} == {"too hard"}
    assert [row["visit"] for row in rows] == list(range(2 * 2 * 2))  # generations, rounds, groups
    assert not (run / "rollouts.jsonl").exists()
    assert json.loads((run / "metrics.json").read_text())["groups"] == {"kept": 0}


def test_rl_that_learned_nothing_says_so_and_exits_with_3(world):
    """A random model is wrong everywhere."""
    where = [f"model.path={world / 'tiny'}", f"data.train={world / 'data'}", *SMALL, "method.spread_of=first_return"]
    where += ["method.eta=0.3", "training.max_steps=2", "--out", world / "nothing"]
    said = call("train", CONFIGS / "tiny_semi_online.yaml", *where, code=NOTHING_LEARNED)
    assert (
        "nothing was learned: 0 of 4 groups kept (4 all wrong); start from a model that gets some steps right" in said
    )
    assert "update 2/2, " in said
    assert json.loads((world / "nothing" / "metrics.json").read_text())["groups"] == {"kept": 0, "all wrong": 4}
    assert (world / "nothing" / "model" / "model.safetensors").is_file()
    call("report", world / "nothing", "--out", world / "nothing-report")
    assert "nothing was learned: 100 % of 4 groups" in (world / "nothing-report" / "index.html").read_text()


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
    (override,) = re.findall(r"model\.max_prompt_tokens=\d+", str(result.exception))
    words = [*words[:4], override, "training.max_steps=1", "--out", world / "fits"]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0


def test_the_longest_prompt_is_found_where_only_its_goal_is_long(world, tmp_path):
    lines = [json.loads(line) for line in (world / "data" / "episodes.jsonl").read_text().splitlines()]
    short, *_, long = sorted(lines, key=lambda line: len(line["steps"]))
    copies = [{**long, "episode_id": f"copy-{n}"} for n in range(20)]
    wordy = {**short, "goal": " ".join([short["goal"]] * 500)}
    shutil.copytree(world / "data" / "images", tmp_path / "images")
    (tmp_path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*copies, wordy]))
    words = ["train", CONFIGS / "tiny_sft.yaml", f"model.path={world / 'tiny'}", f"data.train={tmp_path}"]
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--out", world / "wordy"]])
    assert "episodes.jsonl:21" in str(result.exception)


def test_another_config_is_refused_key_by_key_and_a_longer_run_is_not(world):
    sft = ["training.per_device_train_batch_size=4", "training.lr_scheduler_type=constant", "training.save_steps=1"]
    sft += ["training.warmup_steps=0", "training.logging_steps=1"]
    run = train(world, "legs", "tiny_sft.yaml", *sft, "training.max_steps=1")
    other = ["training.max_steps=1", "training.learning_rate=0.5", "model.images=3"]
    message = refused(world, "legs", "tiny_sft.yaml", *sft, *other, "--resume")
    assert "was run with config.model.images 1, not 3; config.training.learning_rate 0.002, not 0.5" in message
    assert message.endswith("set this back, or give another --out")
    assert "already holds a run" in refused(world, "legs", "tiny_sft.yaml", *sft, "training.max_steps=1")
    train(world, "legs", "tiny_sft.yaml", *sft, "training.max_steps=3", "--resume")
    straight = train(world, "one-leg", "tiny_sft.yaml", *sft, "training.max_steps=3")
    legs = json.loads((run / "run.json").read_text())["legs"]
    assert [leg["about"]["config"]["training"]["max_steps"] for leg in legs] == [1, 3]
    two, one = (json.loads((folder / "metrics.json").read_text()) for folder in (run, straight))
    assert two["updates"] == one["updates"] == 3
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert two["seconds"] == pytest.approx(sum(leg["seconds"] for leg in legs), abs=1)
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, straight)]
    assert weights[0] == weights[1]


def test_a_second_training_is_refused_and_leaves_the_first_alone(world):
    sft = ["training.per_device_train_batch_size=4", "training.max_steps=1"]
    with run_log(world / "busy", "train", {}) as log:
        for resume in ([], ["--resume"]):
            assert "being written by another process" in refused(world, "busy", "tiny_sft.yaml", *sft, *resume)
        log.line({"unit": "a"})
    assert sorted(path.name for path in (world / "busy").iterdir()) == ["rollouts.jsonl", "run.json"]


def test_a_failed_start_leaves_nothing_behind_and_resume_starts_where_there_is_nothing(world):
    """C5 of the audit: neither of the two refuses what the other one leaves."""
    sft = ["training.per_device_train_batch_size=4"]
    assert "max_steps" in refused(world, "failed", "tiny_offline.yaml", *SMALL, "training.max_steps=-1")
    assert not (world / "failed").exists()
    train(world, "failed", "tiny_sft.yaml", *sft, "training.max_steps=1", "--resume")
    assert (world / "failed" / "metrics.json").exists()


def start(world: Path, name: str, steps: int, *more: str, launcher: list[str] | None = None) -> subprocess.Popen:
    command = [
        *(launcher or [sys.executable]),
        "-m",
        "guiderail.launch.cli",
        "train",
        str(CONFIGS / "tiny_semi_online.yaml"),
    ]
    command += [f"model.path={world / 'tiny'}", f"data.train={world / 'data'}", *SMALL, f"training.max_steps={steps}"]
    command += ["training.learning_rate=1e-3", "training.save_steps=2", *more, "--out", str(world / name)]
    return subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)


def history(run: Path, steps: int) -> list[dict]:
    """What was logged per update, without what depends on the clock."""
    state = json.loads((run / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    clock = ("time", "second", "runtime")
    return [{k: v for k, v in row.items() if not any(c in k for c in clock)} for row in state["log_history"]]


def same_end(run: Path, straight: Path, steps: int) -> None:
    """The same losses, rollouts and weights."""
    assert history(run, steps) == history(straight, steps)
    assert (run / "rollouts.jsonl").read_text() == (straight / "rollouts.jsonl").read_text()
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, straight)]
    assert weights[0] == weights[1]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, straight)]
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], abs=1e-9)
    for key in ("updates", "sampled_turns", "groups"):
        assert metrics[0][key] == metrics[1][key]


KILOBYTES = (8, 20, 40, 80, 120, 150, 2000, 5000, 7000, 7300, 7400, 7500, 7600, 7900, 8100, 8180)
"""The disk holds files up to such a size, which stops a run at another kind of file each time."""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill -9", "full disk"])
def test_sixteen_stopped_trainings_resume_to_the_same_bits(world, tmp_path, end):
    """Kills are spread over the run, which keeps one checkpoint; then it goes on with --resume."""
    steps, said = 8, tmp_path / "said"
    words = ["train", CONFIGS / "tiny_semi_online.yaml", "model.path=tiny-sft", f"data.train={world / 'data'}", *SMALL]
    words += [f"training.max_steps={steps}", "training.save_steps=2", "training.save_total_limit=1", "method.eta=0.05"]
    words += ["method.spread_of=first_return", "method.tries=2", "--out"]
    began = time.monotonic()
    commands.finish(commands.start([*words, tmp_path / "straight"], said), said)
    lasts = time.monotonic() - began
    assert any(row.get("loss") for row in history(tmp_path / "straight", steps)), "it must learn to be a test"
    for number, size in enumerate(KILOBYTES):
        run = tmp_path / str(number)
        if end == "kill -9":
            killed = commands.start([*words, run], said)
            time.sleep(lasts * (number + random.random()) / 16)
            killed.kill()
            killed.join()
        else:
            full = commands.finish(commands.start([*words, run], said, disk=1024 * size), said, code=2)
            assert "SetupError: no space left on the disk" in full
            assert full.endswith(f"--out {run} --resume\n")
        commands.finish(commands.start([*words, run, "--resume"], said), said)
        same_end(run, tmp_path / "straight", steps)
        assert [path.name for path in run.glob("checkpoint-*")] == [f"checkpoint-{steps}"]


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
