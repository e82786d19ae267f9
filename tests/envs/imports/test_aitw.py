"""Android in the Wild: raw pixels, y first, one record per step."""

import json

import numpy as np
import pytest

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Swipe
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import run_import
from guiderail.envs.recordings.episodes import load_episodes
from tests.envs.imports.public import aitw, write_tfrecord


@pytest.fixture
def take(tmp_path):
    """Import these files of records; returns (lines, counts)."""

    def run(*files, **options):
        for number, payloads in enumerate(files):
            write_tfrecord(tmp_path / "src" / f"general-{number:05d}-of-00002", payloads)
        total = run_import("aitw", [tmp_path / "src"], tmp_path / "out", Options(**options))
        return [json.loads(line) for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()], total

    return run


def contents(line):
    return [step["action_content"] for step in line["steps"]]


def test_every_action(take):
    (line,), total = take(
        [
            aitw("e", 0, 8, 4, touch=(0.25, 0.5), lift=(0.25, 0.539)),
            aitw("e", 1, 8, 4, touch=(0.75, 0.5), lift=(0.25, 0.5)),
            aitw("e", 2, 8, 3, text="rain ☂"),
            aitw("e", 3, 8, 5),
            aitw("e", 4, 8, 6),
            aitw("e", 5, 8, 7),
            aitw("e", 6, 8, 11),
            aitw("e", 7, 8, 10),
        ]
    )
    assert contents(line) == [
        {"action": "click", "coordinate": [30, 30], "bbox": [24, 24, 36, 36]},
        {"action": "swipe", "coordinate": [30, 90], "coordinate2": [30, 30]},
        {"action": "type", "text": "rain ☂"},
        {"action": "system_button", "button": "Back"},
        {"action": "system_button", "button": "Home"},
        {"action": "system_button", "button": "Enter"},
        {"action": "terminate", "status": "failure"},
        {"action": "terminate", "status": "success"},
    ]
    assert total["boxes"] == {"detector": 1}
    assert line["steps"][0]["check_options"]["candidate_bbox"] == [[24, 24, 36, 36], [0, 0, 60, 120]]


@pytest.mark.parametrize(("lift", "kind"), [((0.25, 0.53), "click"), ((0.29, 0.53), "swipe"), ((0.25, 0.55), "swipe")])
def test_a_tap_is_at_most_004_of_the_screen_long(take, lift, kind):
    (line,), _ = take([aitw(kind=4, touch=(0.25, 0.5), lift=lift)])
    assert contents(line)[0]["action"] == kind


def test_a_drag_upwards_is_a_finger_moving_up(take, tmp_path):
    take([aitw(touch=(0.8, 0.4), lift=(0.3, 0.4))])
    (step,) = load_episodes(tmp_path / "out").episodes[0].steps
    assert isinstance(step.action, Swipe)
    assert step.action.direction == "up"


def test_pixels_are_the_recorded_ones_to_the_last_nul_byte(take, tmp_path):
    take([aitw()])
    (step,) = load_episodes(tmp_path / "out").episodes[0].steps
    pixels = np.asarray(step.screenshot.image())
    assert pixels.shape == (120, 60, 3)
    assert (pixels[:-1] == 200).all()
    assert (pixels[-1, -1] == 0).all()


def test_steps_find_together_whatever_their_order_and_file(take):
    lines, total = take(
        [aitw("a", 2, 3, 10), aitw("b", 0, 1, 5), aitw("a", 0, 3, 6)], [aitw("c", 0, 2), aitw("a", 1, 3, 7)]
    )
    assert {line["episode_id"]: [c.get("button") for c in contents(line)] for line in lines} == {
        "b": ["Back"],
        "a": ["Home", "Enter", None],
    }
    assert [row["reason"] for row in total["dropped"]] == ["incomplete: 1 of 2 steps are in these files"]
    assert (total["episodes"], total["steps"], sum(total["theirs"].values())) == (2, 4, 4)


BROKEN = {
    "unknown type": (aitw(kind=2), "action_type 2"),
    "pixels missing": (aitw(pixels=bytes(60 * 120 * 3 - 1)), "21599 bytes of pixels"),
    "no pixels": (aitw(image__encoded=[]), "'image/encoded' holds 0 values"),
    "grey": (aitw(image__channels=[1]), r"\[120, 60, 1\]"),
    "one coordinate": (aitw(results__yx_touch=[0.5]), "expected 2 numbers"),
    "nan": (aitw(results__yx_touch=[0.5, float("nan")]), "expected 2 numbers"),
    "off screen": (aitw(touch=(0.5, 1.5), lift=(0.5, 1.5)), "outside the 60x120 screen"),
    "torn boxes": (aitw(image__ui_annotations_positions=[0.1, 0.2]), "four finite ones per box"),
    "step beyond": (aitw(step=3, length=3), "step_id 3 of an episode of 3"),
    "goal missing": (aitw(goal_info=[]), "'goal_info' holds 0 values"),
}


@pytest.mark.parametrize(("payload", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_step_is_named_and_nothing_is_published(take, tmp_path, payload, message):
    with pytest.raises(DataError, match=rf"general-00000-of-00002:2: .*{message}"):
        take([aitw("ok"), payload])
    assert not (tmp_path / "out" / "episodes.jsonl").exists()


def test_the_same_step_twice_contradicts(take):
    with pytest.raises(DataError, match=r":2: step 0 of 2 of episode e contradicts"):
        take([aitw("e", 0, 2), aitw("e", 0, 2)])


def test_splits(take, tmp_path):
    splits = tmp_path / "standard.json"
    splits.write_text(json.dumps({"train": ["a"], "test": ["b"]}))
    with pytest.raises(SetupError, match="--splits FILE"):
        take([aitw("a")], split="train")
    lines, total = take([aitw("a", 0, 1, 5), aitw("b", 0, 1, 6)], splits=splits, split="test")
    assert [(line["episode_id"], line["split"]) for line in lines] == [("b", "test")]
    assert total["images"] == 1
