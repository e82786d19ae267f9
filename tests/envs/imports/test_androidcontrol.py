"""AndroidControl: what comes out of files in exactly the published schema, and what is said about broken ones."""

import json
import re

import pytest

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Click, LongPress, Swipe
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import run_import
from guiderail.envs.recordings.episodes import load_episodes
from tests.envs.imports.public import (
    ALL_ACTIONS,
    ICON,
    ROOT,
    ROW,
    android_control,
    example,
    forest,
    png,
    write_tfrecord,
)

SHARD = "android_control-00000-of-00020"


@pytest.fixture
def take(tmp_path):
    """Import these records; returns (lines, counts)."""

    def run(*payloads, **options):
        write_tfrecord(tmp_path / "src" / SHARD, payloads)
        total = run_import("androidcontrol", [tmp_path / "src"], tmp_path / "out", Options(**options))
        return [json.loads(line) for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()], total

    return run


def test_every_action_of_the_schema(take):
    (line,), total = take(android_control())
    assert [step["action_content"] for step in line["steps"]] == [
        {"action": "open", "text": "Notes"},
        {"action": "click", "coordinate": [30, 60], "bbox": [20, 50, 40, 70]},
        {"action": "long_press", "coordinate": [80, 60], "time": 2, "bbox": [10, 40, 98, 80]},
        {"action": "swipe", "coordinate": [54, 180], "coordinate2": [54, 60]},  # the view goes down, the finger up
        {"action": "swipe", "coordinate": [54, 60], "coordinate2": [54, 180]},
        {"action": "swipe", "coordinate": [81, 120], "coordinate2": [27, 120]},
        {"action": "swipe", "coordinate": [27, 120], "coordinate2": [81, 120]},
        {"action": "type", "text": "Grüße"},
        {"action": "type", "text": "old"},
        {"action": "system_button", "button": "Home"},
        {"action": "system_button", "button": "Back"},
        {"action": "wait", "time": 2},
        {"action": "terminate", "status": "success"},
    ]
    labels = [s["check_options"]["direction"] for s in line["steps"] if s["action_content"]["action"] == "swipe"]
    assert labels == ["down", "up", "left", "right"]
    assert [s.get("step_instruction") for s in line["steps"]] == [
        *(f"do {action['action_type']}" for action in ALL_ACTIONS),
        None,
    ]
    assert total["theirs"]["scroll -> swipe"] == 4
    assert total["boxes"] == {"tree": 3}


def test_screenshot_i_is_before_action_i_and_the_last_one_after_all(take, tmp_path):
    shots = [png(text=str(i)) for i in range(3)]
    (line,), _ = take(android_control(actions=ALL_ACTIONS[:2], shots=shots))
    assert [(tmp_path / "out" / step["screenshot"]).read_bytes() for step in line["steps"]] == shots


def test_without_the_terminate_step_the_last_screenshot_is_left_out(take, tmp_path):
    (line,), total = take(android_control(actions=ALL_ACTIONS[:2]), terminate=False)
    assert [step["action_content"]["action"] for step in line["steps"]] == ["open", "click"]
    assert line["terminate"] == "not recorded"
    assert total["images"] == 2


def test_scroll_content_inverts_left_and_right_too(take, tmp_path):
    take(android_control(actions=ALL_ACTIONS[3:7]), scroll="content")
    steps = load_episodes(tmp_path / "out").episodes[0].steps
    assert [s.action.direction for s in steps if isinstance(s.action, Swipe)] == ["up", "down", "right", "left"]


def test_equal_screenshots_are_stored_once(take):
    same = png(text="same")
    _, total = take(android_control(1, ALL_ACTIONS, shots=[same] * 13), android_control(2, ALL_ACTIONS[:1]))
    assert total["images"] == 1 + 2


def test_what_the_loader_makes_of_it(take, tmp_path):
    take(android_control(41, actions=ALL_ACTIONS[1:3]))
    data = load_episodes(tmp_path / "out")
    (episode,) = data.episodes
    assert (episode.id, data.swipes) == ("41", "finger")
    click, press = episode.steps[0], episode.steps[1]
    assert isinstance(click.action, Click)
    assert isinstance(press.action, LongPress)
    assert len(click.boxes) == 3
    assert all(target.box.contains(click.action.point) for target in click.boxes)


CLICK = [{"action_type": "click", "x": 30, "y": 60}]


@pytest.mark.parametrize(
    ("tree", "smallest"),
    [
        (forest((0, [ROOT, ROW, ICON])), [20, 50, 40, 70]),
        (forest((0, [ROOT, ICON]), (1, [ROW])), [10, 40, 98, 80]),  # the dialog in front, not what is behind it
        (forest((0, [ROOT, ICON]), (1, [ROOT])), [20, 50, 40, 70]),  # a cover that offers nothing but itself
        (forest((0, [ROOT])), [0, 0, 108, 240]),
        (forest((0, [((25, -30, 400, 70), "reaches beyond")])), [25, 0, 108, 70]),
        (forest((0, [((30, 60, 30, 60), "no inside"), ((31, 60, 40, 70), "beside")])), None),
        (forest((0, [ROW, ICON]), visible=False), None),
        (b"", None),
    ],
)
def test_the_smallest_visible_node_of_the_frontmost_window(take, tree, smallest):
    (line,), _ = take(
        android_control(actions=CLICK, tree=tree or forest()) if tree else android_control(actions=CLICK, tree=b"")
    )
    assert line["steps"][0]["action_content"].get("bbox") == smallest
    assert line["steps"][0].get("box_origin") == (smallest and "tree")


def test_without_boxes_no_tree_is_needed(take):
    (line,), _ = take(android_control(actions=CLICK, without=["accessibility_trees"]), boxes=False)
    assert line["steps"][0]["action_content"] == {"action": "click", "coordinate": [30, 60]}


def test_an_episode_without_actions_is_left_out_and_listed(take, tmp_path):
    lines, total = take(android_control(1), android_control(2, actions=()), android_control(3))
    assert [line["episode_id"] for line in lines] == [1, 3]
    assert total["dropped"] == [{"where": f"{SHARD}:2", "reason": "no actions recorded"}]
    assert json.loads((tmp_path / "out" / "dropped.jsonl").read_text()) == total["dropped"][0]
    assert f"{SHARD}:2: no actions recorded" in (tmp_path / "out" / "DATASET.md").read_text()


@pytest.mark.parametrize("packed", [True, False])
def test_number_lists_packed_or_not(take, packed):
    assert take(android_control(5, packed=packed))[0][0]["episode_id"] == 5


# ------------------------------------------------------------------------------------------------------- broken ones

BROKEN = {
    "goal missing": (android_control(without=["goal"]), "'goal' is missing"),
    "id missing": (android_control(without=["episode_id"]), "'episode_id' is missing"),
    "screenshots missing": (android_control(without=["screenshots"]), "'screenshots' is missing"),
    "trees missing": (android_control(without=["accessibility_trees"]), "'accessibility_trees' is missing.*--no-boxes"),
    "instructions missing": (android_control(without=["step_instructions"]), "12 actions come with 0 step_instructions"),
    "blank goal": (android_control(goal=" "), "goal is blank"),
    "a screenshot too few": (android_control(actions=CLICK, shots=[png()]), "1 actions come with 1 screenshots, expected 2"),
    "0 bytes": (android_control(actions=CLICK, shots=[png(), b""]), "step 1: the screenshot has 0 bytes"),
    "cut image": (android_control(actions=CLICK, shots=[png()[:-20], png()]), "step 0: .* cut off"),
    "no image": (android_control(actions=CLICK, shots=[b"GIF", png()]), "step 0: .* it is not a PNG"),
    "other size": (android_control(actions=CLICK, size=(100, 240), shots=[png(), png()]), "108x240, its record says"),
    "tree": (android_control(actions=CLICK, tree=b"\xff\xff"), "not an AndroidAccessibilityForest"),
    "unknown action": (android_control(actions=[{"action_type": "pinch"}]), "unknown action.*pinch"),
    "no direction": (android_control(actions=[{"action_type": "scroll"}]), "'direction'"),
    "odd direction": (android_control(actions=[{"action_type": "scroll", "direction": "in"}]), "'in'"),
    "x is text": (android_control(actions=[{"action_type": "click", "x": "3", "y": 4}]), "lacks x, or its value is wrong"),
    "off screen": (android_control(actions=[{"action_type": "click", "x": 300, "y": 4}]), r"\[300, 4\] is outside"),
    "action no JSON": (example({"episode_id": [1], "goal": ["g"], "screenshots": [png()], "actions": ["{"],
                                "accessibility_trees": [b""]}), "not JSON"),
    "id is text": (example({"episode_id": ["1"], "goal": ["g"]}), "'episode_id' holds memoryview, expected int"),
    "no example": (b"\x0a\xff\xff", "not a tf.train.Example"),
}  # fmt: skip


@pytest.mark.parametrize(("payload", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_record_is_named_and_nothing_is_published(take, tmp_path, payload, message):
    with pytest.raises(DataError, match=f"{SHARD}:2( step 0|: | step 1).*") as caught:
        take(android_control(1), payload, android_control(3))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert not (tmp_path / "out" / "episodes.jsonl").exists()
    assert not list((tmp_path / "out").glob("*.part*"))


@pytest.mark.parametrize(("payload", "message"), BROKEN.values(), ids=list(BROKEN))
def test_or_it_is_dropped_and_listed_when_asked(take, payload, message):
    lines, total = take(android_control(1), payload, android_control(3), skip_bad=True)
    assert [line["episode_id"] for line in lines] == [1, 3]
    assert len(total["dropped"]) == 1


def test_a_point_a_few_pixels_beyond_the_edge_is_moved_to_it(take):
    (line,), _ = take(android_control(actions=[{"action_type": "click", "x": 112, "y": -3}]))
    assert line["steps"][0]["action_content"]["coordinate"] == [108, 0]


# ------------------------------------------------------------------------------------------------------------ splits


def test_splits_and_subsplits_are_written_into_the_lines(take, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "splits.json").write_text(json.dumps({"train": [1], "test": [2, 3]}))
    (tmp_path / "src" / "test_subsplits.json").write_text(json.dumps({"IDD": [2], "app_unseen": [2, 3]}))
    lines, total = take(*(android_control(i) for i in (1, 2, 3, 4)))
    assert [(line.get("split"), line.get("subsplits")) for line in lines] == [
        ("train", None),
        ("test", ["IDD", "app_unseen"]),
        ("test", ["app_unseen"]),
        (None, None),
    ]
    assert total["splits"] == {"train": 1, "test": 2, "IDD": 1, "app_unseen": 2}


def test_one_split_alone(take, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "splits.json").write_text(json.dumps({"train": [1], "test": [2]}))
    lines, total = take(android_control(1), android_control(2), split="test")
    assert [line["episode_id"] for line in lines] == [2]
    assert total["unlisted"] == {"not in split test": 1}
    assert total["images"] == 13


def test_a_split_without_its_file_or_an_unknown_one_says_what_to_do(take, tmp_path):
    with pytest.raises(SetupError, match=r"no splits\.json .*--splits"):
        take(android_control(1), split="test")
    (tmp_path / "src" / "splits.json").write_text(json.dumps({"train": [1]}))
    with pytest.raises(SetupError, match="no split 'test'"):
        take(android_control(1), split="test")
    (tmp_path / "src" / "splits.json").write_text("[1]")
    with pytest.raises(DataError, match=r"splits\.json:1"):
        take(android_control(1), split="train")
