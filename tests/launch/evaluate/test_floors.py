"""The floors that are printed belong to the world of the run, and can be measured again."""

import json
import os

import pytest
from typer.testing import CliRunner

from guiderail.envs.android_world.client import PYTHON
from guiderail.launch.agents import AgentSpec
from guiderail.launch.cli import app
from guiderail.launch.evaluate.live import report
from guiderail.launch.report.overview import headline
from guiderail.launch.report.runs import Run
from guiderail.rl.runs.record import RunRecord, convert
from guiderail.rl.score.floors import FLOORS, floor_of, rows
from guiderail.rl.score.statistics import wilson


def test_a_floor_is_found_by_all_that_it_names():
    pocket = {"name": "pocket", "split": "test", "style": "easy", "size": [160, 288], "tasks": 7, "device": "adb"}
    found = floor_of(pocket)
    assert (found.world["split"], found.right) == ("test", 0)
    assert floor_of(pocket | {"split": "mine"}) is None
    assert floor_of({"name": "miniwob", "suite": "tiny", "max_steps": 7}) is None
    assert floor_of(None) is None
    suite = {"name": "android-world", "device": "pocket", "tasks": "", "task_seed": 30, "combinations": 1}
    assert [floor_of(suite | other).n for other in ({}, {"task_seed": 7}, {"combinations": 2})] == [113, 565, 565]
    assert [floor_of(suite, "claim").n, floor_of(pocket, "claim").right] == [113, 0]
    assert floor_of(suite | {"tasks": "SystemWifiTurnOn"}) is None


def test_worlds_differ_and_rows_are_what_tables_show():
    assert len({(floor.agent, *sorted(floor.world.items())) for floor in FLOORS}) == len(FLOORS)
    for floor in FLOORS:
        assert (
            floor.row() | {"success": floor.right / floor.n, "interval": [*wilson(floor.right, floor.n)]} == floor.row()
        )
        assert floor.command.startswith(f"guiderail evaluate {floor.world['name']} ")
        assert floor.command.endswith(f" --agent {floor.agent}")


def test_it_stands_below_the_score_and_not_below_itself(capsys):
    row = {"success": 0.5, "interval": [0.4, 0.6], "n": 9, "unscored": 0}
    flips = {"rate": None}
    below = rows({"name": "pocket", "split": "test", "style": "easy"})
    assert [*below] == ["a random agent", "a claim of success at once"]
    result = row | {"unscored_attempts": [], "flips": flips, "by_group": {}, "floors": below}
    report("t", AgentSpec(agent="expert"), result, False)
    said = capsys.readouterr().out
    assert "a random agent" in said
    assert "a claim of success" in said
    report("t", AgentSpec(agent="random"), result, False)
    report("t", AgentSpec(agent="expert"), result | {"floors": {}}, False)
    assert "a random agent" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"{PYTHON} is not set")
@pytest.mark.parametrize("agent", ["random", "claim"])
def test_the_floor_of_android_world_on_pocket_is_measured_again(agent):
    floor = next(one for one in FLOORS if one.world["name"] == "android-world" and one.agent == agent)
    done = CliRunner().invoke(app, [*floor.command.split()[1:], "--json"])
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["success"] * result["n"], result["n"]) == (pytest.approx(floor.right), floor.n)


def test_the_report_shows_it(tmp_path):
    world = {"name": "pocket", "split": "test", "style": "easy"}
    for model, shown in (
        ("tiny-sft", ["success", "success of a random agent", "success of a claim of success at once"]),
        ("random", ["success"]),
    ):
        record = RunRecord.model_validate(convert({"kind": "pocket", "model": model, "world": "pocket", **world}))
        run = Run("run", tmp_path, record, {"success": 0.5, "interval": [0.4, 0.6]})
        assert [row["name"] for row in headline(run, [])] == shown
