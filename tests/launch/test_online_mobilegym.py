"""Online RL in MobileGym by the command, on the stand-in checkout; with GUIDERAIL_MOBILEGYM on a real one."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("selenium")

from safetensors.torch import load_file
from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import shipped
from guiderail.envs.mobilegym import terms
from guiderail.launch.cli import app
from guiderail.rl.runs.log import read_rollouts
from tests.envs.mobilegym.conftest import REAL, STANDIN, browser, quick  # noqa: F401 (fixtures)

NAMES = "wechat.OpenNewFriends, wechat.ToggleFriendConfirmation"
TRAIN = ["train", "tiny_online", "model.path=tiny-sft", "model.max_pixels=72000", "world.name=mobilegym"]
TRAIN += [f"world.options={{checkout: {REAL or STANDIN}, split: train, names: [{NAMES}], scale: 1}}"]
SMALL = ["method.groups=1", "method.rollouts=3", "method.repetition=0.05", "method.invalid=0.1", "training.max_steps=2"]


@pytest.fixture(autouse=True)
def own_answers(tmp_path, monkeypatch):
    """What a user has accepted, in a folder of this test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def call(*words):
    result = CliRunner().invoke(app, [*map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_small_model_makes_two_updates(tmp_path, workers):
    terms.accept()
    call(*TRAIN, *SMALL, f"world.workers={workers}", "--out", tmp_path / "run")
    rows = [*read_rollouts(tmp_path / "run")]
    assert {row["generation"] for row in rows} == {0, 1}
    for generation in (0, 1):
        assert any(row["signal"] == "kept" and row["generation"] == generation for row in rows)
    assert all(0 <= row["outcome"]["progress"] <= 1 for row in rows)
    assert {row["unit"].split("/")[0] for row in rows} <= {*NAMES.split(", ")}
    before, after = (
        load_file(f"{folder}/model.safetensors") for folder in (shipped("tiny-sft"), tmp_path / "run/model")
    )
    assert any(not before[name].equal(after[name]) for name in after)


def test_it_asks_for_the_terms_and_leaves_no_folder(tmp_path):
    with pytest.raises(
        SetupError, match=r"(?s)CC BY-NC 4\.0.*run: guiderail evaluate mobilegym --accept-mobilegym-terms"
    ):
        call(*TRAIN, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_its_attempts_do_not_become_recordings(tmp_path):
    terms.accept()
    with pytest.raises(SetupError, match=r"no training corpus.*run: guiderail train CONFIG world\.name=mobilegym"):
        call("record", "attempts", "mobilegym", "--model", "tiny-sft", "--out", tmp_path / "own")
    assert not (tmp_path / "own").exists()
