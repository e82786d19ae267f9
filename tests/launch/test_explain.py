"""explain, replay and whatif on a real small run, as a user types them."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from guiderail.agent.errors import SetupError
from guiderail.launch.cli import app

CONFIG = Path(__file__).parents[2] / "launch" / "configs" / "tiny_semi_online.yaml"
SMALL = ["method.groups=2", "method.rollouts=3", "method.eta=0", "method.spread_of=none", "method.tries=1"]
SMALL += ["training.gradient_accumulation_steps=2", "training.steps_per_generation=2", "model.max_new_tokens=10"]
SMALL += ["training.learning_rate=1e-3", "training.save_steps=1", "training.save_total_limit=3", "training.max_steps=3"]


def call(*words: object, code: int = 0) -> dict:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return json.loads(result.stdout) if "--json" in words else {"text": result.stdout}


def refused(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(result.exception, SetupError), result.output
    return str(result.exception)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Three generations of one update each, with a checkpoint after every one."""
    out = tmp_path_factory.mktemp("explain")
    call("record", "pocket", "--episodes", 4, "--out", out / "data")
    call("init", "tiny", out / "data", "--out", out / "tiny")
    where = [f"model.path={out / 'tiny'}", f"data.train={out / 'data'}"]
    call("train", CONFIG, *where, *SMALL, "--out", out / "run")
    return out / "run"


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]


def of(row: dict) -> list[object]:
    return ["--episode", row["unit"], "--rollout", row["sample"], "--generation", row["generation"]]


def test_every_turn_of_a_run_is_explained(run):
    for row in lines(run):
        for turn in row["turns"]:
            found = call("explain", run, *of(row), "--visit", row["visit"], "--step", turn["index"], "--json")
            assert found["agrees"]
            assert found["advantage"] == turn["advantage"]
            assert found["weight"]["tokens"] == turn["tokens"]
    text = call("explain", run, *of(lines(run)[0]), "--step", 0, "--token", 0)["text"]
    assert "the same, to the last digit" in text
    assert "token 0 of" in text
    assert "counted from 0" in refused("explain", run, *of(lines(run)[0]), "--step", 0, "--token", 999)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("repetition", 0.1, "method.repetition is of live attempts"), ("patch_budget", -1, "expected 0 or more repairs")],
)
def test_a_run_with_what_is_refused_now_can_be_read(run, tmp_path, key, value, said):
    older = shutil.copytree(run, tmp_path / "older", ignore=shutil.ignore_patterns("checkpoint-*", "model", "runs"))
    record = json.loads((older / "run.json").read_text())
    record["legs"][-1]["about"]["config"]["method"][key] = value
    (older / "run.json").write_text(json.dumps(record))
    assert call("explain", older, *of(lines(older)[0]), "--step", 0, "--json")["agrees"]
    words = ["train", CONFIG, *SMALL, f"method.{key}={value}", "model.path=x", "data.train=x", "--out", tmp_path / "x"]
    assert said in refused(*words)


def test_an_edited_advantage_is_reported(run, tmp_path):
    bent = shutil.copytree(run, tmp_path / "bent", ignore=shutil.ignore_patterns("checkpoint-*", "model", "runs"))
    rows = lines(run)
    rows[0]["turns"][0]["advantage"] += 0.1
    (bent / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "DIFFERENT" in call("explain", bent, *of(rows[0]), "--step", 0, code=1)["text"]


@pytest.mark.parametrize("generation", [0, 2])
def test_a_rollout_is_replayed_bit_for_bit(run, generation):
    """Generation 0 from the start model, generation 2 from checkpoint-2, each in the batch it was sampled in."""
    row = [row for row in lines(run) if row["generation"] == generation][-1]
    found = call("replay", run, *of(row), "--json")
    assert found["equal"]
    assert found["batch"]["equal"] == found["batch"]["rollouts"] == 6


def test_a_difference_is_named(run, tmp_path):
    bent = shutil.copytree(run, tmp_path / "bent", ignore=shutil.ignore_patterns("model", "runs"))
    rows = lines(run)
    rows[0]["turns"][0]["prompt"] = "0" * 64
    (bent / "rollouts.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    found = call("replay", bent, *of(rows[0]), "--json", code=1)
    assert [line.split(":")[0] for line in found["differences"]] == ["turns[0].prompt"]
    assert found["batch"]["equal"] == 5
    shutil.rmtree(bent / "checkpoint-2")
    row = next(row for row in rows if row["generation"] == 2)
    assert "give --generation 0 or 1" in refused("replay", bent, *of(row))
    (bent / "run.json").write_text((run / "run.json").read_text().replace('"digest": "', '"digest": "0'))
    assert "not the data of this run" in refused("replay", bent, *of(rows[0]))


def test_what_if_over_a_whole_run_and_at_one_step(run):
    row = lines(run)[0]
    step = next(turn["index"] for turn in row["turns"] if not turn["verdict"]["exact"])
    words = ["--generation", 0, "--draws", 1]
    found = call("whatif", run, "--patch", "on-policy", "--episode", row["unit"], "--step", step, *words, "--json")
    assert found["against"] == "thought-free"
    assert found["n"] == found["forks"] > 0
    low, high = found["interval"]
    assert low <= found["difference"] <= high
    whole = call("whatif", run, "--patch", "thought-free", "--limit", 3, *words, "--json")
    assert whole["against"] == "none"
    assert whole["forks"] == 3
    assert whole["budget"]["suggested"] >= 0
    assert "no repairable mismatch" in refused("whatif", run, "--patch", "none", "--episode", "nobody", *words)
    assert "did you mean 'on-policy'" in refused("whatif", run, "--patch", "on-polici", *words)
    assert "a run folder?" in refused("explain", run.parent / "data", "--episode", "1", "--step", 0)
