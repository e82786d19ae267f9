"""Online RL by the same command in every world: two updates, each with a signal, and weights that moved."""

import os
import shutil
from importlib.util import find_spec

import pytest

pytest.importorskip("torch")

from safetensors.torch import load_file

from guiderail.agent.shipped import shipped
from guiderail.envs.android_world.client import PYTHON
from guiderail.rl.runs.log import read_rollouts
from tests.launch.test_online import call

SMALL = ["tiny_online", "method.groups=1", "method.tries=3", "method.repetition=0.05", "method.invalid=0.1"]
SMALL += ["training.max_steps=2", "training.steps_per_generation=1", "training.gradient_accumulation_steps=1"]

WEB = ["world.name=miniwob", "world.options={suite: tiny, seeds: 1, scale: 1, max_steps: 3}", "method.rollouts=3"]
ADB = ["world.options={n: 4, seed: 1, split: train, device: adb}", "method.rollouts=3"]
AOSP = "world.options={names: [SystemBluetoothTurnOff, SystemWifiTurnOn], seed: 7}"
ANDROID_WORLD = ["world.name=android-world", AOSP, "model.max_pixels=72000", "method.rollouts=3"]

browser = pytest.mark.skipif(
    not (find_spec("miniwob") and (shutil.which("chromium") or os.environ.get("MINIWOB_CHROME_BINARY"))),
    reason="needs the extra web and Chromium",
)
adb = pytest.mark.skipif(not shutil.which("adb"), reason="needs an adb client")
android_world = pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"{PYTHON} is not set")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(WEB, id="miniwob", marks=browser),
        pytest.param([*WEB, "world.workers=2"], id="miniwob, workers", marks=browser),
        pytest.param(ADB, id="pocket behind adb", marks=adb),
        pytest.param([*ADB, "world.workers=2"], id="pocket behind adb, workers", marks=adb),
        pytest.param(ANDROID_WORLD, id="android-world", marks=android_world),
        pytest.param([*ANDROID_WORLD, "world.workers=2"], id="android-world, workers", marks=android_world),
    ],
)
def test_two_updates(tmp_path, words):
    call("train", *SMALL, *words, "--out", tmp_path / "run")
    rows = [*read_rollouts(tmp_path / "run")]
    for generation in (0, 1):
        assert any(row["signal"] == "kept" and row["generation"] == generation for row in rows)
    assert all(row["outcome"] is not None for row in rows), "no attempt without a check is in a group"
    images = {path.stem for path in (tmp_path / "run" / "images").iterdir()}
    assert {turn["screenshot"] for row in rows for turn in row["turns"]} == images
    before, after = (
        load_file(f"{folder}/model.safetensors") for folder in (shipped("tiny-sft"), tmp_path / "run/model")
    )
    assert any(not before[name].equal(after[name]) for name in after)
