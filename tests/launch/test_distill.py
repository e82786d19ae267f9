"""From a teacher to a small agent by the commands: sliced, taught, walking; resumed to the same bits; explained."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guiderail.launch.cli import app
from guiderail.rl.config import load_config
from guiderail.rl.runs.log import read_lines, read_rollouts
from guiderail.rl.runs.metrics import METRICS
from tests.launch.report.test_lessons import shown_lessons
from tests.rl.distill.test_foreign import without_merges
from tests.test_docs import CONFIGS


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout if not code else str(result.exception)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "train"
    call("record", "pocket", "--episodes", 12, "--seed", 0, "--out", folder)
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["method.algorithm=distill"], "teacher is missing; add to the command teacher.path=FOLDER"),
        (["teacher.path=tiny-sft", "teacher.server=http://x"], "one of them"),
        (["teacher.server=http://x"], "teacher.model is missing"),
        (["teacher.path=tiny-sft", "teacher.form=advantage", "teacher.recorded=0.5"], "teacher.form=divergence"),
        (["teacher.path=tiny-sft", "method.algorithm=sft"], "SFT samples nothing"),
        (["teacher.path=tiny-sft", "method.temperature=0.7"], "temperature 1"),
        (
            ["teacher.path=tiny-sft", "teacher.recorded=0.5", "method.algorithm=online", "world.name=pocket"],
            "set method.mix",
        ),
        (["teacher.path=tiny-sft", "method.algorithm=distill", "method.rollouts=1"], "2 or more"),
        (["teacher.server=http://x", "teacher.model=m", "teacher.tokenizer=other"], "not a server"),
        (["teacher.paht=x"], "did you mean 'path'"),
        (["teacher.path=tiny-sft", "method.algorithm=distill", "method.credit=outcome"], "needs live attempts"),
    ],
)
def test_a_wrong_teacher_is_said_at_once(data, given, said):
    message = call("train", "tiny_semi_online", f"data.train={data}", *given, code=1)
    assert said in message


@pytest.mark.parametrize("rate", ["0", "-0.1", "nan"])
def test_minilm_needs_a_rate_to_learn_at(data, tmp_path, rate):
    words = ["distill", "minilm", "--teacher", "tiny-sft", "--data", data, "--rate", rate, "--out", tmp_path / "small"]
    assert f"--rate {float(rate)}: expected a number above 0" in call(*words, code=1)
    assert not (tmp_path / "small").exists()


def test_minilm_names_the_recording_whose_prompt_is_too_long(data, tmp_path):
    rows = (data / "episodes.jsonl").read_text().splitlines()
    rows[4] = json.dumps(json.loads(rows[4]) | {"goal": "milk " * 2000})
    long = shutil.copytree(data, tmp_path / "long")
    (long / "episodes.jsonl").write_text("\n".join(rows) + "\n")
    message = call("distill", "minilm", "--teacher", "tiny-sft", "--data", long, "--out", tmp_path / "out", code=1)
    assert "episodes.jsonl:5" in message
    assert "write max_prompt_tokens" in message


def test_distillation_has_no_advantage_and_no_filter():
    config = load_config(CONFIGS / "tiny_distill.yaml", ["data.train=x"])
    assert (config.method.episode_weight, config.method.step_weight, config.method.spread_of) == (0.0, 0.0, "none")
    assert not config.live
    live = load_config(CONFIGS / "tiny_distill.yaml", ["world.name=pocket", "teacher.recorded=0"])
    assert live.live
    assert live.method.credit == "outcome"


@pytest.mark.slow
def test_the_whole_path(data, tmp_path):
    size = ["--width", 64, "--heads", 4, "--intermediate", 144]
    sliced = ["distill", "minilm", "--teacher", "tiny-sft", "--data", data, *size, "--steps", 4, "--batch", 4]
    call(*sliced, "--save-every", 2, "--out", tmp_path / "minilm")
    made = json.loads((tmp_path / "minilm" / "metrics.json").read_text())
    assert made["parameters"] == 894_560
    assert made["teacher_parameters"] == 1_679_904
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "minilm", killed)
    shutil.rmtree(killed / "checkpoint-4")
    shutil.rmtree(killed / "model")
    (killed / "metrics.json").unlink()
    call(*sliced, "--save-every", 2, "--out", killed, "--resume")
    whole, again = (folder / "model" / "model.safetensors" for folder in (tmp_path / "minilm", killed))
    assert whole.read_bytes() == again.read_bytes()

    words = ["train", "tiny_distill", f"model.path={tmp_path}/minilm/model", f"data.train={data}", "method.groups=3"]
    words += ["training.max_steps=8", "training.save_steps=4", "training.save_total_limit=9"]
    run = tmp_path / "student"
    call(*words, "--out", run)
    rows = [*read_rollouts(run)]
    assert {row["signal"] for row in rows} == {"kept"}
    assert not any("repair" in turn for row in rows if row["generation"] == 1 for turn in row["turns"])
    lessons = [*read_lines(run, "lessons.jsonl")]
    assert {row["sample"] for row in lessons} == {-1, 0, 1}
    logged = json.loads((run / "checkpoint-8" / "trainer_state.json").read_text())["log_history"]
    assert {"teach/gap", "teach/agree", "teach/divergence"} <= logged[0].keys() & METRICS.keys()
    turn = next(row for row in lessons if row["sample"] == 0)
    said = call("explain", run, "--episode", turn["unit"], "--step", turn["index"], "--generation", turn["generation"])
    assert "its probability by student and teacher" in said
    everything = shown_lessons(run, tmp_path / "report")
    assert {"taught", "step"} == {kind for kind, _, _ in everything}  # of sampled turns, and of the experts' own
    assert sum(kind == "taught" for kind, _, _ in everything) == sum(line["sample"] >= 0 for line in lessons)
    killed = tmp_path / "killed-student"
    shutil.copytree(run, killed)
    shutil.rmtree(killed / "checkpoint-8")
    shutil.rmtree(killed / "model")
    (killed / "metrics.json").unlink()
    call(*words, "--out", killed, "--resume")
    assert (run / "model" / "model.safetensors").read_bytes() == (killed / "model" / "model.safetensors").read_bytes()
    assert lessons == [*read_lines(killed, "lessons.jsonl")]


@pytest.mark.slow
def test_live_with_recordings_beside(data, tmp_path):
    words = [
        "train",
        "tiny_distill",
        "model.path=tiny-sft",
        f"data.train={data}",
        "world.name=pocket",
        "method.mix=0.5",
    ]
    words += ["world.options={n: 8, seed: 1, split: train, device: hand}", "method.groups=2", "training.max_steps=4"]
    call(*words, "method.patch_budget=1", "teacher.form=advantage", "teacher.recorded=0", "--out", tmp_path / "run")
    rows = [*read_rollouts(tmp_path / "run")]
    assert {"outcome" in row for row in rows} == {True, False}
    assert {row["signal"] for row in rows} == {"kept"}
    assert {turn["advantage"] for row in rows for turn in row["turns"]} == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["divergence", "advantage"])
def test_a_teacher_of_another_tokenizer(data, tmp_path, form):
    """Refused with the name of the key, then taught with: two updates, explained and reported in spans."""
    from guiderail.agent.shipped import shipped

    teacher = without_merges(Path(shipped("tiny-sft")), tmp_path / "teacher")
    words = ["train", "tiny_distill", "model.path=tiny-base", f"data.train={data}", f"teacher.path={teacher}"]
    words += ["method.groups=2", "training.max_steps=2", f"teacher.form={form}"]
    words += ["training.steps_per_generation=1", "training.gradient_accumulation_steps=1"]
    words += ["teacher.recorded=0"] if form == "advantage" else []
    assert "set teacher.tokenizer=other" in call(*words, "--out", tmp_path / "no", code=1)
    run = tmp_path / "run"
    call(*words, "teacher.tokenizer=other", "--out", run)
    logged = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert all(0 < row["teach/heard"] <= 1 and row["teach/gap"] > 0 for row in logged)
    lessons = [*read_lines(run, "lessons.jsonl")]
    assert all(0 <= token["teacher"] <= 1 for line in lessons for token in line["tokens"])
    assert len(shown_lessons(run, tmp_path / "report")) > 1


@pytest.mark.slow
def test_two_processes_learn_as_one(data, tmp_path):
    """The same first update, however the rows are dealt."""
    words = ["distill", "minilm", "--teacher", "tiny-sft", "--data", str(data), "--width", "64", "--steps", "1"]
    words += ["--batch", "8"]
    launcher = ["-m", "guiderail.launch.torchrun", "--standalone", "--nproc_per_node=2"]
    found = []
    for name, before in (("one", []), ("two", launcher)):
        command = [sys.executable, *before, "-m", "guiderail.launch.cli", *words, "--out", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (tmp_path / name / "model" / "model.safetensors").is_file()
        state = json.loads((tmp_path / name / "checkpoint-1" / "trainer_state.json").read_text())
        found.append([state["log_history"][0][key] for key in ("loss", "grad_norm")])
    assert found[0] == pytest.approx(found[1], rel=1e-3)
