"""A mistake in a training is answered before torch is imported, in the order a user would expect."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.shipped import check_adapter, check_model
from guiderail.launch import before, configs
from guiderail.rl.config import load_config


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with recordings, a model, an adapter, a run and a run that left nothing."""
    for name in ("data/episodes.jsonl", "m/config.json", "a/adapter_config.json", "run/run.json", "run/metrics.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "run" / "model").mkdir()
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*overrides: str, out: str = "new", resume: bool = False, config: str = "tiny_semi_online") -> None:
    given = [*("data.train=data", "model.path=tiny-sft"), *overrides]
    before.check(load_config(configs.find(config), given), Path(out), resume)


@pytest.mark.parametrize("config", configs.TRAINING)
def test_every_shipped_config_passes(here, config):
    check(config=config)
    check("training.deepspeed=zero2.json", config=config)
    check("training.deepspeed=launch/deepspeed/zero2.json", config=config)


TRACKERS = """
import importlib.util, json, sys
from pathlib import Path
from guiderail.agent.errors import SetupError
from guiderail.launch import before, configs
from guiderail.rl.config import load_config
found = importlib.util.find_spec
names = ("wandb", "trackio", "mlflow", "tensorboard")
importlib.util.find_spec = lambda name, *rest: None if name in names else found(name, *rest)
for name in (*names, "wandbb", "none"):
    given = ["data.train=data", "model.path=tiny-sft", f"training.report_to={name}"]
    try:
        before.check(load_config(configs.find("tiny_sft"), given), Path("new"), False)
        print("passes")
    except SetupError as error:
        print(error)
assert not {"torch", "transformers", "trl"} & set(sys.modules)
"""


def test_a_tracker_that_is_missing_is_said_before_torch_is_imported(here):
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", TRACKERS], capture_output=True, text=True, cwd=here, env=environment)
    assert done.returncode == 0, done.stderr
    *missing, unknown, none = done.stdout.splitlines()
    for name, said in zip(("wandb", "trackio", "mlflow", "tensorboard"), missing, strict=True):
        assert said == f"training.report_to names {name}, which is not installed; run: pip install {name}"
    assert unknown.startswith("training.report_to names 'wandbb', did you mean 'wandb'")
    assert none == "passes"


MISTAKES = [  # in the order in which they are answered when all are made at once
    ("training.learning_rat=1", "unknown key training.learning_rat, did you mean 'learning_rate'"),
    ("training.max_steps=0", "training.max_steps is 0, expected more"),
    ("data.train=nowhere", "no recorded episodes at nowhere"),
    ("model.path=nowhere/at/all", "no model folder nowhere/at/all; give model.path=FOLDER"),
    ("model.adapter=./nowhere", "no adapter folder ./nowhere; give model.adapter=FOLDER"),
    ("method.thought_store=nowhere.jsonl", "no thought store nowhere.jsonl; give method.thought_store="),
    ("training.deepspeed=zero9.json", "no DeepSpeed config zero9.json; guiderail brings zero1.json"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_answered_in_order(here, number):
    made = [override for override, _ in MISTAKES[number:]]
    with pytest.raises(SetupError, match=MISTAKES[number][1].replace("(", r"\(")):
        check(*made, out="run")


def test_the_run_folder_comes_last(here):
    with pytest.raises(SetupError, match="run already holds a run; give another --out, or --resume to go on with it"):
        check(out="run")
    check(out="run", resume=True)
    check(out="begun")
    with pytest.raises(SetupError, match=r"begun/run\.json is a file; give another --out"):
        check(out="begun/run.json")


def test_only_the_first_process_looks_at_the_run_folder(here, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    check(out="run")


def test_a_thought_store_that_is_not_one(here):
    (here / "thoughts.jsonl").write_text('{"episode_id": 1}\n')
    with pytest.raises(DataError, match=r"thoughts\.jsonl:1"):
        check("method.thought_store=thoughts.jsonl")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-stf", "no model tiny-stf; did you mean tiny-sft, which comes with guiderail? give --model tiny-sft"),
        ("run", "run is a run folder; its model is in run/model; give --model run/model"),
        ("data", "data holds no model: no config.json in it"),
        ("run/run.json", "is a file; give the folder"),
        ("run/modle", "no model folder run/modle"),
        ("/nowhere/model", "no model folder /nowhere/model"),
    ],
)
def test_what_can_be_no_model(here, name, message):
    with pytest.raises(SetupError, match=message.replace("?", r"\?")):
        check_model(name, "--model ")


@pytest.mark.parametrize(
    "name", ["tiny-sft", "tiny-base", "m", "a", "run/model", "Qwen/Qwen2.5-VL-7B-Instruct", "gpt2"]
)
def test_what_may_be_a_model(here, name):
    check_model(name, "--model ")


def test_adapters(here):
    check_adapter("a", "--adapter ")
    check_adapter("someone/adapter", "--adapter ")
    with pytest.raises(SetupError, match="m holds no adapter"):
        check_adapter("m", "--adapter ")
    with pytest.raises(SetupError, match="no adapter folder m/none"):
        check_adapter("m/none", "--adapter ")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "tiny_sft", "model.path=tiny-stf", "data.train=data"],
        ["evaluate", "sop", "episodes.jsonl", "--model", "tiny-stf"],
    ],
)
def test_no_torch_for_a_mistake(here, words):
    """A process of its own, since the other tests have imported torch."""
    step = {"screenshot": "0.png", "action_content": {"action": "terminate", "status": "success"}}
    line = {"goal": "g", "episode_id": "1", "steps": [step], "swipes": "finger"}
    (here / "episodes.jsonl").write_text(json.dumps(line))
    code = f"""
import sys
from guiderail.launch import cli
sys.argv = ["guiderail", *{[*words, *(["--screen", "100x200"] if words[0] == "evaluate" else [])]}]
try:
    cli.main()
finally:
    print(sorted({{"torch", "transformers", "trl"}} & set(sys.modules)))
"""
    path = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 2, done.stderr
    assert "did you mean tiny-sft" in " ".join(done.stderr.split())
    assert done.stdout.strip() == "[]"
