"""kill -9 at any moment of a save leaves a complete checkpoint, also where only one is kept."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from safetensors.torch import load_file

from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.checkpoints import delete_old, last_checkpoint, mean_loss
from tests.rl.train.test_trainer import SMALL, TEXTS, trained

CHANGES = ("open", "os.", "shutil.")
"""Audit events: what a save does to files."""


def kill_at(number: int, work: Callable[[], Any]) -> bool:
    """Do the work in a copy of this process, which ends without a word just before its file operation `number`. Returns
    whether it got so far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, 9)
        return os.waitstatus_to_exitcode(status) == 9
    seen = 0

    def count(event: str, arguments: Any) -> None:
        nonlocal seen
        if event.startswith(CHANGES):
            seen += 1
            if seen == number:
                os._exit(9)

    sys.addaudithook(count)
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def check_whole(checkpoint: Path) -> None:
    assert load_file(checkpoint / "model.safetensors")
    assert json.loads((checkpoint / "complete.json").read_text()) == {"processes": 1}
    assert json.loads((checkpoint / "progress-0.json").read_text())["calls"] >= 1
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert f"checkpoint-{state['global_step']}" == checkpoint.name
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        assert (checkpoint / name).stat().st_size


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_of_a_save_there_is_a_complete_checkpoint(tmp_path: Path, every: int) -> None:
    folder = build_tiny(tmp_path / "tiny", TEXTS, "qwen3_vl", **SMALL)
    out = tmp_path / "run"
    trainer = trained(folder, out, save_strategy="steps", save_steps=2, save_total_limit=1, max_steps=2)
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-2"]
    shutil.copytree(out, tmp_path / "before")
    trainer.state.global_step = 4
    ends, number = [], 1
    while True:
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "before", out)
        killed = kill_at(number, lambda: trainer._save_checkpoint(trainer.model, None))
        last = last_checkpoint(out)
        assert last is not None, f"no complete checkpoint when killed at file operation {number}"
        check_whole(last)
        ends.append(last.name)
        if not killed:
            break
        number += every
    assert ends[0] == "checkpoint-2"
    assert ends == sorted(ends)
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-4"]
    assert number > 20


def test_old_checkpoints_go_by_number_and_torn_ones_always(tmp_path: Path) -> None:
    for update in (2, 4, 10, 8, 12):
        (tmp_path / f"checkpoint-{update}").mkdir()
        if update != 4:
            (tmp_path / f"checkpoint-{update}" / "complete.json").touch()
    (tmp_path / "checkpoint-of-mine").mkdir()
    delete_old(tmp_path / "checkpoint-12", None)
    left = {"checkpoint-2", "checkpoint-8", "checkpoint-10", "checkpoint-12", "checkpoint-of-mine"}
    assert {path.name for path in tmp_path.iterdir()} == left
    delete_old(tmp_path / "checkpoint-12", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-10", "checkpoint-12", "checkpoint-of-mine"}
    delete_old(tmp_path / "checkpoint-12", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-12", "checkpoint-of-mine"}


def test_the_mean_loss_is_over_the_updates_of_all_legs() -> None:
    assert mean_loss([], 0, 3, 4.0) == 4.0
    history = [{"step": 2, "loss": 3.0}, {"step": 2, "reward": 1.0}, {"step": 3, "loss": 6.0}, {"step": 5, "loss": 9.0}]
    assert mean_loss(history, 3, 7, 1.0) == (2 * 3.0 + 6.0 + 4 * 1.0) / 7
    assert mean_loss(history, 5, 5, 0.0) == (2 * 3.0 + 6.0 + 2 * 9.0) / 5
