"""Results of AndroidWorld without the package: lines, pickles from strangers, averages."""

import datetime
import gzip
import os
import pickle

import numpy as np
import pytest

from agent.errors import DataError
from envs.android_world_results import averages, episode_json, read_episodes, read_pickles, write_episode


def episode(task="A", success=1.0, crash=None):
    return {
        "goal": "g",
        "task_template": task,
        "is_successful": success,
        "exception_info": crash,
        "finish_dtime": datetime.datetime(2023, 10, 15),
        "episode_data": {"raw_screenshot": [np.zeros((3, 2, 3), np.uint8)], "step_number": [np.int64(0)]},
    }


def write(folder, name, value):
    (folder / f"{name}.pkl.gz").write_bytes(gzip.compress(pickle.dumps(value)))


def test_checkpoints_of_the_original(tmp_path):
    write(tmp_path, "A_0", [episode()])
    write(tmp_path, "B_0", [episode("B", float("nan"), "Traceback")])
    first, second = read_pickles(tmp_path)
    assert first["instance"] == "A_0"
    assert first["finish_dtime"] == "2023-10-15T00:00:00"
    assert first["episode_data"] == {"raw_screenshot": [{"shape": [3, 2, 3]}], "step_number": [0]}
    assert second["is_successful"] is None


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class Hidden:
    """Names a function of an allowed module's neighbour."""

    def __reduce__(self):
        return np.save, ("pwned", 1)


@pytest.mark.parametrize("bad", [Evil(), [{"a": Evil()}], [{"a": np.array([Evil()], dtype=object)}], [{"a": Hidden()}]])
def test_nothing_in_a_pickle_runs(tmp_path, monkeypatch, bad):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "A_0", bad)
    with pytest.raises(DataError, match=r"A_0\.pkl\.gz:1: no readable checkpoint"):
        read_pickles(tmp_path)
    assert not list(tmp_path.glob("pwned*"))


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", gzip.compress(b"no pickle", mtime=0), gzip.compress(pickle.dumps({"a": 1}), mtime=0)],
    ids=["empty", "plain", "no pickle", "no list"],
)
def test_damaged_checkpoints(tmp_path, data):
    (tmp_path / "A_0.pkl.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"A_0\.pkl\.gz:1"):
        read_pickles(tmp_path)


def test_objects_of_its_own_are_inert(tmp_path):
    """AndroidWorld's agents store dataclasses of its own modules; nothing of these is imported or run."""
    text = b"candroid_world.env.representation_utils\nUIElement\n(S'x'\ntR."
    (tmp_path / "A_0.pkl.gz").write_bytes(gzip.compress(b"(lp0\n(dp1\nS'e'\n" + text[:-1] + b"sa."))
    assert read_pickles(tmp_path) == [{"instance": "A_0", "e": {"type": "Opaque"}}]


def test_lines(tmp_path):
    file = tmp_path / "episodes.jsonl"
    assert read_episodes(file) == []
    write_episode(file, episode_json("A_0", episode(success=float("nan"), crash="T")))
    write_episode(file, episode_json("B_0", episode("B", 0.5)))
    write_episode(file, episode_json("A_0", episode()))
    assert [(e["instance"], e["is_successful"]) for e in read_episodes(file)] == [("A_0", 1.0), ("B_0", 0.5)]
    whole = file.read_text()
    file.write_text(whole + whole[: len(whole) // 5])
    assert len(read_episodes(file)) == 2
    assert file.read_text() == whole
    file.write_text("{\n" + whole)
    with pytest.raises(DataError, match=r"episodes.jsonl:1: no episode"):
        read_episodes(file)


def test_both_averages():
    rows = [episode("A", 1.0), episode("A", 0.0), episode("B", 0.5), episode("B", None, "T"), episode("C", None, "T")]
    assert averages(rows) == {
        "success_as_upstream": 0.5,
        "success_with_crashed": (0.5 + 0.25 + 0) / 3,
        "tasks": 3,
        "episodes": 5,
        "crashed": 2,
    }
    assert averages([])["success_as_upstream"] is None
