"""Online RL on two training processes: LoRA and full weights, ZeRO-2 and ZeRO-3, fleets, mixed updates, one generation ahead."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from guiderail.rl.runs.log import read_rollouts
from tests.launch.test_online_worlds import SMALL as ONE
from tests.rl.train.test_distributed import extensions

pytestmark = pytest.mark.slow
__all__ = ["extensions"]

SMALL = [
    *ONE,
    "method.groups=2",
    "method.rollouts=4",
    "method.tries=1",
    "world.options={n: 8, seed: 1, split: train, device: hand}",
]
LAUNCHER = ["-m", "guiderail.launch.torchrun", "--standalone", "--nproc_per_node", "2"]
CASES = {
    "zero2, lora, fleet": ["training.deepspeed=zero2.json", "model.lora.r=4", "world.workers=1", "world.spares=1"],
    "zero3, full, mixed": ["training.deepspeed=zero3.json", "method.mix=0.3"],
    "zero3, lora, fleet, forks": [
        "training.deepspeed=zero3.json",
        "model.lora.r=4",
        "world.workers=1",
        "online.fork.at=any",
    ],
    "plain, full, fleet, free": ["world.workers=1", "rollout.dispatch=free", "method.tries=3"],
    "plain, lora, ahead": ["model.lora.r=4", "world.workers=1", "online.ahead=1"],
    "zero2, full, ahead, free": [
        "training.deepspeed=zero2.json",
        "world.workers=1",
        "online.ahead=1",
        "rollout.dispatch=free",
        "method.tries=3",
    ],
}


def train(out, words, extensions, two=False):
    command = [
        sys.executable,
        *(LAUNCHER if two else []),
        "-m",
        "guiderail.launch.cli",
        "train",
        *words,
        "--out",
        str(out),
    ]
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(extensions)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    return [*read_rollouts(out)], json.loads((out / "metrics.json").read_text())


def first(rows):
    """The generation that the untrained weights sampled, without what depends on the last bits of probabilities."""
    return [
        (row["unit"], row["sample"], row["signal"], row.get("start", 0), [turn["text"] for turn in row["turns"]])
        for row in rows
        if row["generation"] == 0
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from guiderail.envs.pocket.record import record

    out = tmp_path_factory.mktemp("recorded") / "data"
    record(out, episodes=8, seed=0)
    return out


@pytest.mark.parametrize("case", CASES)
def test_two_processes_sample_what_one_does(tmp_path, data, request, case):
    extensions = tmp_path if case.startswith("plain") else request.getfixturevalue("extensions")
    words = [*SMALL, *CASES[case], "training.save_steps=1"]
    words += [f"data.train={data}"] if "mixed" in case else []
    two, metrics = train(tmp_path / "two", words, extensions, two=True)
    plain = [word for word in words if not word.startswith(("training.deepspeed", "rollout.dispatch"))]
    alone, other = train(tmp_path / "one", plain, extensions)
    assert first(two) == first(alone)
    assert len(first(two)) == (12 if "free" in case else 8), "one group was replaced where there were tries"
    assert {row["generation"] for row in two} == {0, 1}
    assert metrics["updates"] == other["updates"] == 2
    assert {row.get("behind", 0) for row in two if row["generation"]} == ({1} if "ahead" in case else {0})
    images = {path.stem for path in (tmp_path / "two" / "images").iterdir()}
    live = [row for row in two if "steps" not in row]
    assert {turn["screenshot"] for row in live for turn in row["turns"]} <= images
    assert {len(path.name) for path in (tmp_path / "two" / "images").iterdir()} == {68}, "no file is left half written"


def test_ahead_is_refused_under_zero_3(tmp_path, extensions):
    words = [*SMALL, "training.deepspeed=zero3.json", "world.workers=1", "online.ahead=1"]
    command = [sys.executable, *LAUNCHER, "-m", "guiderail.launch.cli", "train", *words, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(extensions)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert "set training.deepspeed to zero2.json, or online.ahead=0" in done.stderr
    assert "Traceback" not in done.stderr
