"""The start script on two real processes: its exit code is ours, not torchrun's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from guiderail.launch.going_on import NOTHING_LEARNED, STOPPED
from tests.launch.test_train import SMALL, world  # noqa: F401

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "train_single.sh"
pytestmark = pytest.mark.slow


def started(out: Path, *words: object) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    found = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "NPROC": "2"}
    return subprocess.Popen(
        ["bash", str(SCRIPT), *map(str, words), "--out", str(out)],
        env={**clean, **found, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def where(world: Path) -> list[str]:  # noqa: F811
    return [f"model.path={world / 'tiny'}", f"data.train={world / 'data'}", "training.report_to=[]", *SMALL]


def test_a_typo_is_2(tmp_path):
    process = started(tmp_path / "run", "tiny_semi_onlin")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "did you mean 'tiny_semi_online'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("spread", "code"), [("first_return", NOTHING_LEARNED), ("none", 0)])
def test_nothing_learned_is_3_and_a_good_end_0(world, tmp_path, spread, code):  # noqa: F811
    words = [*where(world), "training.max_steps=1", f"method.spread_of={spread}", "method.eta=0.3"]
    process = started(tmp_path / "run", "tiny_semi_online", *words)
    _, said = process.communicate(timeout=300)
    assert process.returncode == code, said[-3000:]
    assert ("nothing was learned" in said) is bool(code)
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "Traceback" not in said


def test_ctrl_c_is_130(world, tmp_path):  # noqa: F811
    process = started(tmp_path / "run", "tiny_semi_online", *where(world), "training.max_steps=1000")
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "rollouts.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == STOPPED, said[-3000:]
    assert "the same command again with --resume" in said
