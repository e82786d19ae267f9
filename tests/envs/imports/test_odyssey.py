"""GUI-Odyssey: 0 to 1000, SAM2 boxes, both spellings of typing."""

import json

import pytest

from guiderail.agent.errors import DataError, SetupError
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import run_import
from tests.envs.imports.public import png

STEPS = [
    ("CLICK", [[500, 250]], [400, 200, 600, 300]),
    ("CLICK", "KEY_HOME", []),
    ("CLICK", "KEY_BACK", []),
    ("CLICK", "KEY_APPSELECT", []),
    ("LONG_PRESS", [[100, 900]], [0, 0, 50, 50]),
    ("SCROLL", [[500, 800], [500, 200]], []),
    ("TYPE", "hello", []),
    ("TEXT", "again", []),
    ("COMPLETE", "", []),
    ("INCOMPLETE", "", []),
]


def annotation(id_="0001", steps=STEPS, **changes):
    return {
        "episode_id": id_,
        "device_info": {"product": "cheetah", "w": 200, "h": 400, "device_name": "Pixel 7 Pro"},
        "task_info": {
            "category": "Multi_Apps",
            "app": ["DuckDuckGo", "TickTick"],
            "meta_task": "Search {}",
            "task": "Search it",
            "instruction": "Search it with DuckDuckGo",
        },
        "step_length": len(steps),
        "steps": [
            {
                "step": i,
                "screenshot": f"{id_}_{i}.png",
                "action": action,
                "info": info,
                "ps": "",
                "description": "a home screen",
                "intention": "I need the app",
                "context": "nothing yet",
                "low_level_instruction": f"step {i}",
                "sam2_bbox": box,
            }
            for i, (action, info, box) in enumerate(steps)
        ],
        **changes,
    }


@pytest.fixture
def take(tmp_path):
    def run(*episodes, images=True, **options):
        data = tmp_path / "data"
        for folder in ("annotations", "screenshots"):
            (data / folder).mkdir(parents=True, exist_ok=True)
        for number, episode in enumerate(episodes):
            (data / "annotations" / f"{number:04d}.json").write_text(json.dumps(episode))
            for step in episode["steps"] if images and isinstance(episode, dict) else ():
                (data / "screenshots" / step["screenshot"]).write_bytes(png(200, 400, step["screenshot"]))
        total = run_import("odyssey", [data], tmp_path / "out", Options(**options))
        return [json.loads(line) for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()], total

    return run


def test_every_action(take):
    (line,), total = take(annotation())
    assert [step["action_content"] for step in line["steps"]] == [
        {"action": "click", "coordinate": [100, 100], "bbox": [80, 80, 120, 120]},
        {"action": "system_button", "button": "Home"},
        {"action": "system_button", "button": "Back"},
        {"action": "system_button", "button": "Menu"},
        {"action": "long_press", "coordinate": [20, 360], "time": 2},  # its segment does not hold the point
        {"action": "swipe", "coordinate": [100, 320], "coordinate2": [100, 80]},
        {"action": "type", "text": "hello"},
        {"action": "type", "text": "again"},
        {"action": "terminate", "status": "success"},
        {"action": "terminate", "status": "failure"},
    ]
    assert total["boxes"] == {"detector": 1}
    assert total["theirs"]["TYPE -> type"] == 2
    first = line["steps"][0]
    assert (first["thought"], first["step_instruction"]) == ("I need the app", "step 0")
    assert (line["goal"], line["device"], line["app"]) == (
        "Search it with DuckDuckGo",
        "Pixel 7 Pro",
        ["DuckDuckGo", "TickTick"],
    )


def test_more_episodes_than_one_unit_holds(take):
    lines, total = take(*(annotation(f"{i:04d}", STEPS[:1]) for i in range(230)))
    assert [line["episode_id"] for line in lines] == [f"{i:04d}" for i in range(230)]
    assert total["units"] == 3


def test_no_steps(take):
    lines, total = take(annotation("a"), annotation("b", []))
    assert [line["episode_id"] for line in lines] == ["a"]
    assert total["dropped"] == [{"where": "0001.json:1", "reason": "no actions recorded"}]


BROKEN = {
    "unknown action": (annotation(steps=[("PINCH", "", [])]), "step 0: action 'PINCH'"),
    "unknown key": (annotation(steps=[("CLICK", "KEY_POWER", [])]), "step 0: info is 'KEY_POWER'"),
    "one point": (annotation(steps=[("SCROLL", [[1, 2]], [])]), "step 0: .* expected 2 points"),
    "beyond": (annotation(steps=[("CLICK", [[1500, 2]], [])]), r"step 0: the point \[300.0, 0.8\] is outside"),
    "torn box": (annotation(steps=[("CLICK", [[5, 2]], [1, 2, 3])]), "step 0: sam2_bbox"),
    "length": (annotation(step_length=4), "step_length is 4, but there are 10"),
    "no task": ({"steps": []}, "not an annotation of GUI-Odyssey: KeyError 'task_info'"),
}


@pytest.mark.parametrize(("episode", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_annotation_is_named_and_nothing_is_published(take, tmp_path, episode, message):
    with pytest.raises(DataError, match=rf"0001\.json:1:? ?{message}"):
        take(annotation("ok"), episode)
    assert not (tmp_path / "out" / "episodes.jsonl").exists()


def test_a_missing_screenshot_says_where_it_was_looked_for(take, tmp_path):
    with pytest.raises(DataError, match=r"step 0: screenshot .*screenshots/0001_0\.png is missing.*--images"):
        take(annotation(), images=False)


def test_screenshots_are_named_never_located_by_the_annotation(take, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    outside = annotation(steps=STEPS[:1])
    outside["steps"][0]["screenshot"] = "../../secret.png"
    with pytest.raises(DataError, match=r"screenshots/secret\.png"):
        take(outside, images=False)


def test_splits(take, tmp_path):
    splits = tmp_path / "random_split.json"
    splits.write_text(json.dumps({"train": ["0000.json"], "test": ["0001.json"]}))
    with pytest.raises(SetupError, match="--splits FILE"):
        take(annotation(), split="train")
    lines, total = take(annotation("a"), annotation("b"), splits=splits, split="test")
    assert [(line["episode_id"], line["split"]) for line in lines] == [("b", "test")]
    assert total["unlisted"] == {"not in split test": 1}
