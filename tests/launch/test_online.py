"""Online RL by the commands, on Pocket: every part on, interrupted, resumed to the same bits, explained, replayed; on a fleet."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from safetensors.torch import load_file

from guiderail.launch.cli import app
from guiderail.rl.runs.log import read_rollouts
from guiderail.rl.runs.metrics import METRICS

SMALL = [
    "tiny_online",
    "method.groups=3",
    "method.rollouts=6",
    "method.tries=2",
    "world.options={n: 8, seed: 1, split: train, device: hand}",
]
SMALL += ["training.steps_per_generation=2", "training.gradient_accumulation_steps=2"]
PARTS = ["method.credit=gigpo", "method.gamma=0.95", "method.shortest_path=0.3", "method.invalid=0.1"]
PARTS += ["method.repetition=0.05", "method.refusal=0.1", "online.bands=true", "online.cooling=true", "online.replay=4"]

SAVING = ["training.max_steps=4", "training.save_steps=1", "training.save_total_limit=9"]
COMMAND = ["train", *SMALL, *PARTS, *SAVING, "training.lr_scheduler_type=constant"]


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout if not code else result.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("online") / "run"
    call(*COMMAND, "--out", out)
    return out


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(run, tmp_path):
    """What a kill after the second update leaves, gone on with: curriculum and kept successes come from the checkpoint."""
    killed = tmp_path / "run"
    shutil.copytree(run, killed)
    for name in ("checkpoint-3", "checkpoint-4", "model"):
        shutil.rmtree(killed / name)
    (killed / "metrics.json").unlink()
    call(*COMMAND, "--out", killed, "--resume")
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, killed))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert [*read_rollouts(run)] == [*read_rollouts(killed)]
    state = json.loads((killed / "checkpoint-4" / "progress-0.json").read_text())
    curriculum, successes = state["memories"]
    assert curriculum["known"]
    assert successes["kept"]
    assert state == json.loads((run / "checkpoint-4" / "progress-0.json").read_text())


@pytest.mark.slow
def test_every_turn_is_explained_and_an_attempt_replayed(run):
    rows = [*read_rollouts(run)]
    assert {row["generation"] for row in rows} == {0, 1, 2, 3}
    kept = [row for row in rows if row["signal"] == "kept" and "sampled" not in row]
    for row in kept[:3]:
        where = [
            "--episode",
            row["unit"],
            "--rollout",
            row["sample"],
            "--generation",
            row["generation"],
            "--visit",
            row["visit"],
        ]
        for turn in row["turns"]:
            told = json.loads(call("explain", run, *where, "--step", turn["index"], "--json"))
            assert told["agrees"]
        again = json.loads(call("replay", run, *where, "--json"))
        assert again["equal"], again["differences"]
    images = {path.stem for path in (run / "images").iterdir()}
    assert {turn["screenshot"] for row in rows for turn in row["turns"]} <= images


@pytest.mark.slow
def test_live_ui_s1_is_explained_to_the_last_digit(tmp_path):
    credit = ["method.credit=ui-s1-states", "online.expert=true", "training.max_steps=1"]
    call("train", *SMALL, *credit, "--out", tmp_path / "run")
    kept = [row for row in read_rollouts(tmp_path / "run") if row["signal"] == "kept"]
    for row in kept[:4]:
        where = ["--episode", row["unit"], "--rollout", row["sample"], "--visit", row["visit"]]
        for turn in row["turns"]:
            told = json.loads(call("explain", tmp_path / "run", *where, "--step", turn["index"], "--json"))
            assert told["agrees"]
            assert sum(link["reward"] * link["factor"] for link in told["chain"]) == pytest.approx(turn["return"])
            assert sum(value for _, value in told["terms"]) == pytest.approx(turn["reward"])


@pytest.mark.slow
def test_a_fleet_with_forks_and_recordings_in_the_same_update(tmp_path):
    call("record", "pocket", "--episodes", 8, "--out", tmp_path / "data")
    more = [
        f"data.train={tmp_path / 'data'}",
        "method.mix=0.3",
        "online.fork.at=late",
        "world.workers=2",
        "method.eta=0",
    ]
    call("train", *SMALL, *more, "training.max_steps=2", "--out", tmp_path / "run")
    rows = [*read_rollouts(tmp_path / "run")]
    assert {"steps" in row for row in rows} == {True, False}
    assert any(row.get("start", 0) for row in rows)
    log = next((tmp_path / "run").glob("checkpoint-*/trainer_state.json"))
    said = {key for entry in json.loads(log.read_text())["log_history"] for key in entry if "/" in key}
    assert {key for key in said if not key.startswith("clip_ratio/")} <= set(METRICS)
    assert {"fleet/policy_waits", "ends/success", "ends/false_claim", "recordings/exact"} <= said


def test_what_is_missing_or_wrong_is_said_before_torch_is_loaded(tmp_path):
    def refused(*words):
        result = CliRunner().invoke(app, [str(word) for word in ("train", *words, "--out", tmp_path / "run")])
        return str(result.exception)

    assert "world is missing; add to the command world.name=pocket" in refused(
        "tiny_semi_online", "method.algorithm=online"
    )
    assert "unknown key world.options.tasks of pocket" in refused("tiny_online", "world.options.tasks=3")
    assert "data.train is missing" in refused("tiny_online", "method.mix=0.5")
    assert "needs online.expert=true" in refused("tiny_online", "method.credit=ui-s1-states")
    assert "use ui-s1" in refused("tiny_semi_online", "data.train=x", "method.credit=gigpo")
    assert "unknown key online.forks, did you mean 'fork'" in refused("tiny_online", "online.forks=1")
    assert "no model" in refused("tiny_online", "model.path=tiny-stf")
