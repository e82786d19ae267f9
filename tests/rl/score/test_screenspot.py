"""ScreenSpot: the point in the box, by cell of area and kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue, transform
from guiderail.agent.errors import DataError, EnvCrashed
from guiderail.agent.policy import Request, ScriptedPolicy
from guiderail.agent.screen import Vision
from guiderail.agent.types import Box, Click, Episode, Point, Rollout, Screenshot, Step, TargetBox, Type
from guiderail.envs.recordings.match import SCREENSPOT, judge
from guiderail.launch.cli import app
from guiderail.rl.score.screenspot import by_cell, cell, evaluate_screenspot

BOX = Box(0.2, 0.2, 0.4, 0.3)


def item(name: str, **meta: str) -> Episode:
    step = Step(Screenshot(1000, 2000), Click(BOX.center), (TargetBox(BOX, "annotation"),))
    return Episode(name, f"click {name}", (step,), f"made.jsonl:{name}", meta)


V2 = [
    item("1", data_source="ios", data_type="text"),
    item("2", data_source="android", data_type="icon"),
    item("3", data_source="windows", data_type="text"),
    item("4", data_source="macos", data_type="icon"),
    item("5", data_source="gitlab", data_type="text"),
    item("6", data_source="shop", data_type="icon"),
]
PRO = [
    item("1", group="CAD", ui_type="text", application="autocad", platform="windows"),
    item("2", group="OS", ui_type="icon", application="linux", platform="linux"),
]


def test_areas_and_kinds_of_both_sets() -> None:
    assert [cell(episode) for episode in V2] == [
        ("mobile", "text"),
        ("mobile", "icon"),
        ("desktop", "text"),
        ("desktop", "icon"),
        ("web", "text"),
        ("web", "icon"),
    ]
    assert [cell(episode) for episode in PRO] == [("CAD", "text"), ("OS", "icon")]


@pytest.mark.parametrize(
    "episode",
    [
        item("9", data_source="ios"),
        item("9", data_type="text"),
        item("9", data_source="ios", data_type="button"),
        Episode("9", "g", (Step(Screenshot(9, 9), Type("x")),), "made.jsonl:9", {"group": "CAD", "ui_type": "text"}),
        Episode(
            "9", "g", (Step(Screenshot(9, 9), Click(Point(0, 0))),), "made.jsonl:9", {"group": "OS", "ui_type": "icon"}
        ),
    ],
)
def test_what_is_no_item_is_refused_with_its_line(episode: Episode) -> None:
    with pytest.raises(DataError, match=r"^made.jsonl:9: "):
        cell(episode)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_clicks_in_and_beside_the_box_in_every_dialect(dialect: str) -> None:
    """The first half of the items is clicked in the box, item 4 beside it, item 5 unreadably, item 6 by typing."""
    voice = DIALECTS[dialect]
    spoken = {"4": Click(Point(0.42, 0.25)), "6": Type("x")}

    def say(request: Request) -> str:
        shown = "".join(p for m in request.prompt.messages for p in m.parts if isinstance(p, str))
        name = next(e.id for e in V2 if e.goal in shown)
        screen = transform(request.prompt.screen)
        return "hm" if name == "5" else voice.say(None, spoken.get(name, Click(Point(0.39, 0.29))), screen)

    seen: list[Rollout] = []
    policy = ScriptedPolicy(say, vision=Vision())
    result = evaluate_screenspot(V2, policy, Dialogue(Vision(), voice, 1), record=seen.append)
    assert len(seen) == 6
    assert (result["accuracy"], result["n"], result["unreadable"], result["unscored"]) == (0.5, 6, 1, 0)
    assert {name: row["accuracy"] for name, row in result["cells"].items()} == {
        "mobile text": 1.0,
        "mobile icon": 1.0,
        "mobile": 1.0,
        "desktop text": 1.0,
        "desktop icon": 0.0,
        "desktop": 0.5,
        "web text": 0.0,
        "web icon": 0.0,
        "web": 0.0,
        "text": pytest.approx(2 / 3),
        "icon": pytest.approx(1 / 3),
    }
    assert result["cell_mean"] == 0.5
    low, high = result["cells"]["mobile"]["interval"]
    assert low < 0.5 < high == 1.0


def test_a_crashed_machine_is_unscored_not_wrong() -> None:
    def crash(request: Request) -> str:
        raise EnvCrashed("no answer")

    result = evaluate_screenspot(V2, ScriptedPolicy(crash), Dialogue(Vision(), DIALECTS["qwen2_5_vl"], 1))
    assert (result["accuracy"], result["n"], result["unscored"]) == (None, 0, 6)


def test_the_mean_over_cells_weighs_small_cells_like_large_ones() -> None:
    many = [item(f"w{i}", data_source="shop", data_type="text") for i in range(9)]
    said = {"1": Click(BOX.center)} | {episode.id: Click(Point(0.9, 0.9)) for episode in many}
    episodes = [V2[0], *many]
    verdicts = {episode.id: judge(episode.steps[0], said[episode.id], SCREENSPOT) for episode in episodes}
    result = by_cell(episodes, verdicts)
    assert (result["accuracy"], result["cell_mean"]) == (0.1, 0.5)


def test_from_the_command_line(tmp_path: Path) -> None:
    """As the importers write it: one line per item, box and centre in pixels, what else the item said beside the steps."""
    Image.new("RGB", (100, 200)).save(tmp_path / "0.png")
    lines = []
    for number, (source, kind) in enumerate((("ios", "text"), ("windows", "icon"))):
        content = {"action": "click", "coordinate": [30, 50], "bbox": [20, 40, 40, 60]}
        line = {
            "goal": f"find {number}",
            "episode_id": str(number),
            "steps": [{"action_content": content, "screenshot": "0.png"}],
            "data_source": source,
            "data_type": kind,
        }
        lines.append(json.dumps(line))
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    call = ["evaluate", "screenspot", str(tmp_path), "--agent", "expert", "--out", str(tmp_path / "run"), "--json"]
    shown = CliRunner().invoke(app, call)
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["cells"]["mobile text"]["accuracy"] == 1.0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["kind"] == "screenspot"
    assert len((tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()) == 2
    table = CliRunner().invoke(app, [*call[:5], "--dialect", "aguvis"])
    assert "mobile" in table.stdout
    assert "mean of cells 100.0" in table.stdout
