"""UI-S1's JSONL: both swipe conventions in, the same content out again."""

import json

import pytest

from guiderail.agent.errors import DataError
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import run_import
from guiderail.envs.imports.uis1 import export_uis1
from guiderail.envs.recordings.episodes import load_episodes
from tests.conftest import REAL_DATA
from tests.envs.imports.public import png

CLICK = {"action": "click", "coordinate": [54, 60.25], "bbox": [20, 50, 80, 70]}
DOWN = {"action": "swipe", "coordinate": [54, 60], "coordinate2": [54, 180.5]}
RIGHT = {"action": "swipe", "coordinate": [20, 60], "coordinate2": [80, 61]}


def line(*contents, **changes):
    return {
        "goal": "g",
        "is_successful": True,
        "steps": [{"action_content": c, "screenshot": f"images/{i}.png"} for i, c in enumerate(contents)],
        **changes,
    }


def steps_of(path, number=0):
    return [s["action_content"] for s in json.loads(path.read_text().splitlines()[number])["steps"]]


@pytest.fixture
def take(tmp_path):
    """Import these lines; returns the output folder."""

    def run(*lines, images=True, name="data.jsonl", **options):
        folder = tmp_path / "src"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for i in range(12 if images else 0):
            (folder / "images" / f"{i}.png").write_bytes(png(text=str(i)))
        (folder / name).write_text("\n".join(json.dumps(one) if isinstance(one, dict) else one for one in lines))
        run.total = run_import("uis1", [folder / name], tmp_path / "out", Options(**options))
        return tmp_path / "out"

    return run


def export(out, swipes="stored"):
    export_uis1(out / "episodes.jsonl", out / "back.jsonl", swipes)
    return [json.loads(one) for one in (out / "back.jsonl").read_text().splitlines()]


def test_inverted_vertical_swipes_become_finger_motion_and_go_back(take):
    source = [line(*[DOWN] * 9, RIGHT, CLICK)]
    out = take(*source)
    assert steps_of(out / "episodes.jsonl")[0] == {**DOWN, "coordinate": [54, 180.5], "coordinate2": [54, 60]}
    assert steps_of(out / "episodes.jsonl")[9] == RIGHT
    assert "9 of 9 vertical swipes move the finger down" in take.total["notes"][0]
    assert "stored inverted" in (out / "DATASET.md").read_text()
    assert export(out) == source
    assert export(out, "inverted") == source
    assert export(out, "finger")[0]["steps"][0]["action_content"]["coordinate"] == [54, 180.5]
    data = load_episodes(out)
    assert [s.action.direction for s in data.episodes[0].steps[:10]] == ["up"] * 9 + ["right"]


def test_the_longer_side_of_the_screen_does_not_make_a_swipe_vertical(take):
    """On a screen of 108x240, 40 pixels to the right are farther than 50 down."""
    slanted = {"action": "swipe", "coordinate": [30, 80], "coordinate2": [70, 130]}
    source = [line(*[DOWN] * 9, slanted)]
    out = take(*source)
    assert steps_of(out / "episodes.jsonl")[9] == slanted
    loaded = load_episodes(out).episodes[0].steps[9].action
    assert loaded.direction == load_episodes(out.parent / "src" / "data.jsonl").episodes[0].steps[9].action.direction
    assert loaded.direction == "right"
    assert export(out) == source


def test_labels_decide_and_true_finger_motion_is_left_alone(take):
    labelled = line(*[DOWN] * 3, CLICK)
    for step in labelled["steps"][:3]:
        step["check_options"] = {"action": "swipe", "direction": "up"}
    out = take(labelled)
    assert steps_of(out / "episodes.jsonl") == [DOWN] * 3 + [CLICK]
    assert export(out) == [labelled]
    assert load_episodes(out).episodes[0].steps[0].scroll_label == "up"


@pytest.mark.parametrize(("told", "start"), [("finger", [54, 60]), ("inverted", [54, 180.5])])
def test_the_user_may_say_how_swipes_are_stored(take, told, start):
    out = take(line(DOWN), swipes=told)
    assert steps_of(out / "episodes.jsonl")[0]["coordinate"] == start
    assert f"as stored {told}, as asked for" in take.total["notes"][0]


def test_every_key_survives_the_round_trip(take):
    odd = line(CLICK, {"action": "terminate", "status": "success"}, episode_id="007", extra={"deep": [1, None, "ü"]})
    odd["steps"][0] |= {"step_instruction": "tap", "annotation": "GOOD", "motivation": "why", "bbox": [1, 2, 3, 4]}
    odd["steps"][0]["check_options"] = {"action": "click", "candidate_bbox": [], "coordinate": [54, 60.25]}
    odd["steps"][0]["action_content"] = {**CLICK, "own": True}
    out = take(odd, line(CLICK))
    assert export(out) == [odd, line(CLICK)]
    ids = [json.loads(one)["episode_id"] for one in (out / "episodes.jsonl").read_text().splitlines()]
    assert ids == ["007", "data-2"]


def test_images_are_stored_once_by_content(take):
    out = take(line(CLICK, CLICK), line(CLICK))
    named = {
        s["screenshot"] for one in (out / "episodes.jsonl").read_text().splitlines() for s in json.loads(one)["steps"]
    }
    assert named == {str(p.relative_to(out)) for p in out.glob("images/*/*")}
    assert len(named) == 2


def test_merging_an_import_again_and_exporting_gives_the_first_source(take, tmp_path):
    source = [line(*[DOWN] * 9, CLICK), line(CLICK)]
    out = take(*source)
    again = tmp_path / "again"
    run_import("uis1", [out, out / "episodes.jsonl"], again)
    assert steps_of(again / "episodes.jsonl")[0]["coordinate"] == [54, 180.5]
    for folder in (out, again):
        assert all(step.exchanged for step in load_episodes(folder).episodes[0].steps[:9])
    assert export(again) == source


def test_two_recordings_that_use_the_same_ids(take, tmp_path):
    first = take(line(CLICK, episode_id=1))
    second = tmp_path / "second"
    first.rename(second)
    third = take(line(DOWN, episode_id=1), swipes="finger")
    total = run_import("uis1", [second, third], tmp_path / "merged")
    lines = [json.loads(one) for one in (tmp_path / "merged" / "episodes.jsonl").read_text().splitlines()]
    assert [one["episode_id"] for one in lines] == [1, "out-1"]
    assert total["renamed"] == 1
    assert [one["episode_id"] for one in export(tmp_path / "merged")] == [1, 1]


BROKEN = {
    "not JSON": ("{", "not JSON"),
    "a list": ("[]", "expected an object with a goal"),
    "no steps": (json.dumps({"goal": "g", "steps": []}), r"steps is \[\]"),
    "unknown action": (line({"action": "pinch"}), "step 0: action 'pinch'"),
    "no action": (line("click"), "step 0: action None"),
    "missing image": (line(*[CLICK] * 13), r"step 12: screenshot .*12\.png is missing.*--images"),
    "outside": ({**line(CLICK), "steps": [{"action_content": CLICK, "screenshot": "../x.png"}]}, "leaves the folder"),
    "torn swipe": (line({"action": "swipe", "coordinate": [1, 2]}), "does not have two points"),
    "torn id": (line(CLICK, episode_id=True), "episode_id is True"),
}


@pytest.mark.parametrize(("bad", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_line_is_named_and_nothing_is_published(take, tmp_path, bad, message):
    with pytest.raises(DataError, match=rf"data\.jsonl:2( |: ).*{message}"):
        take(line(CLICK), bad, swipes="inverted")
    assert not (tmp_path / "out" / "episodes.jsonl").exists()


ONLY_THE_LOADER = {
    "coordinate": (line({"action": "click", "coordinate": "here"}), "coordinate is 'here'"),
    "outside": (line({"action": "click", "coordinate": [5000, 5]}), r"the point \(5000, 5\) is outside"),
    "button": (line({"action": "system_button", "button": "Volume"}), "button 'Volume'"),
    "same id": (line(CLICK, episode_id="a"), r"episode_id 'a' was already used at data\.jsonl:1"),
}


@pytest.mark.parametrize(("bad", "message"), ONLY_THE_LOADER.values(), ids=list(ONLY_THE_LOADER))
def test_what_only_the_loader_finds_is_named_and_can_be_dropped(take, tmp_path, bad, message):
    good = line(CLICK, episode_id="a")
    with pytest.raises(DataError, match=rf"src/data\.jsonl:2( |: ).*{message}.*--skip-bad"):
        take(good, bad, swipes="finger")
    assert not list((tmp_path / "out").glob("*.jsonl"))
    (tmp_path / "out" / ".import.json").unlink()
    out = take(good, bad, swipes="finger", skip_bad=True)
    assert [one["goal"] for one in export(out)] == ["g"]
    assert len(take.total["dropped"]) == 1
    assert str(tmp_path) not in (out / "DATASET.md").read_text()


REAL = [("android_control_train_sample", 32, 206, "inverted"), ("android_control_eval_sample", 304, 1663, "finger")]


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real sample files are not beside the repository")
@pytest.mark.parametrize(("name", "episodes", "steps", "stored"), REAL)
def test_real_episodes_come_back_identical(tmp_path, name, episodes, steps, stored):
    source = REAL_DATA / f"{name}.jsonl"
    total = run_import("uis1", [source], tmp_path / "out", Options(screen="infer"))
    assert (total["episodes"], total["steps"], sum(total["gate"].values())) == (episodes, steps, steps)
    assert total["dropped"] == []
    assert ("stored inverted" if stored == "inverted" else "stored as finger motion") in total["notes"][0]
    assert export(tmp_path / "out") == [json.loads(one) for one in source.read_text().splitlines()]
    data = load_episodes(tmp_path / "out", screen="infer")
    kept = load_episodes(source, screen="infer")
    read, wanted = (
        [[(s.action, s.boxes, s.instruction, s.scroll_label) for s in e.steps] for e in loaded.episodes]
        for loaded in (data, kept)
    )
    assert read == wanted
