"""Data enters here: what loads, what is decided and said, and what every kind of damage is told."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import (
    Box,
    Click,
    Episode,
    Open,
    Point,
    Screenshot,
    Step,
    Swipe,
    TargetBox,
    Terminate,
    Type,
    Wait,
)
from guiderail.envs.recordings.conventions import SCREENS, UNDETERMINED, infer_screens, swipe_convention
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.saving import save_episodes

REAL = Path(__file__).parents[4] / "shared" / "data"
TRAIN, EVAL = REAL / "android_control_train_sample.jsonl", REAL / "android_control_eval_sample.jsonl"
real = pytest.mark.skipif(not TRAIN.is_file(), reason="the AndroidControl samples are not here")

CLICK = {"action": "click", "coordinate": [540, 1200]}
SIZE = (1080, 2400)


def png(width: int = 90, height: int = 200) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(file, "PNG")
    return file.getvalue()


def line(*actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    steps = [{"action_content": action, "screenshot": f"{i}.png"} for i, action in enumerate(actions or (CLICK,))]
    return {"goal": "Listen to jazz", "steps": steps, **more}


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "episodes.jsonl"
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in lines), "utf-8")
    return path


def swipe(way: str, label: str | None = None) -> dict[str, Any]:
    y = (1800, 600) if way == "up" else (600, 1800)
    step: dict[str, Any] = {
        "action_content": {"action": "swipe", "coordinate": [540, y[0]], "coordinate2": [540, y[1]]},
        "screenshot": "0.png",
    }
    return step | ({"check_options": {"direction": label}} if label else {})


# ---------------------------------------------------------------------------------------------------- what is read


def test_a_full_line_becomes_an_episode(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(100, 200))
    full = {
        "goal": "Find jazz",
        "episode_id": 7,
        "is_successful": True,
        "template": "music",
        "steps": [
            {
                "action_content": {"action": "click", "coordinate": [50, 100], "bbox": [40, 90, 60, 110]},
                "screenshot": "images/a.png",
                "thought": None,
                "motivation": "the box is there",
                "step_instruction": "tap it",
                "annotation": "GOOD",
                "check_options": {"candidate_bbox": [[0, 0, 100, 200], [40, 90, 60, 110]]},
            },
            {
                "action_content": {"action": "open", "text": "Jazz"},
                "screenshot": "images/a.png",
                "thought": "now open",
                "check_options": {"candidate_bbox": [10, 20, 30, 40]},
            },
            {"action_content": {"action": "wait"}, "screenshot": "images/a.png", "bbox": [0, 0, 10, 20]},
            {"action_content": {"action": "terminate", "status": "success"}, "screenshot": "images/a.png"},
        ],
    }
    path = write(tmp_path, full)
    dataset = load_episodes(tmp_path)
    shot = Screenshot(100, 200, tmp_path / "images" / "a.png")
    flat, page = TargetBox(Box(0.4, 0.45, 0.6, 0.55), "bbox"), TargetBox(Box(0, 0, 1, 1), "candidate")
    assert dataset.episodes == (
        Episode(
            "7",
            "Find jazz",
            (
                Step(shot, Click(Point(0.5, 0.5)), (flat, page), "the box is there", "tap it"),
                Step(shot, Open("Jazz"), (TargetBox(Box(0.1, 0.1, 0.3, 0.2), "candidate"),), "now open"),
                Step(shot, Wait(2), (TargetBox(Box(0, 0, 0.1, 0.1), "candidate"),)),
                Step(shot, Terminate("success")),
            ),
            f"{path}:1",
            {"is_successful": True, "template": "music"},
        ),
    )
    assert dataset.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (dataset.dropped, dataset.notes, dataset.swipes) == ((), (), "finger")
    assert dataset.episodes[0].steps[0].screenshot.source == f"{path}:1 step 0"


def test_ids_fall_back_to_the_line_and_blank_lines_do_not_count_as_episodes(tmp_path: Path) -> None:
    path = tmp_path / "walks.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(line()).encode() + b"\r\n\r\n" + json.dumps(line()).encode())
    dataset = load_episodes(path, screen=SIZE)
    assert [episode.id for episode in dataset.episodes] == ["walks-1", "walks-3"]
    assert [episode.source for episode in dataset.episodes] == [f"{path}:1", f"{path}:3"]


def test_points_and_boxes_a_few_pixels_outside_move_to_the_edge(tmp_path: Path) -> None:
    content = {"action": "click", "coordinate": [1084, -3], "bbox": [-50, 0, 1084, 2402]}
    (episode,) = load_episodes(write(tmp_path, line(content)), screen=SIZE).episodes
    assert episode.steps[0].action == Click(Point(1.0, 0.0))
    assert episode.steps[0].boxes == (TargetBox(Box(0, 0, 1, 1), "bbox"),)


def test_limit_counts_good_episodes_and_leaves_the_conventions_alone(tmp_path: Path) -> None:
    inverted = {"goal": "scroll", "steps": [swipe("down")]}
    path = write(tmp_path, "{", *[inverted] * 9)
    dataset = load_episodes(path, screen=SIZE, limit=2, skip_bad=True)
    assert [episode.id for episode in dataset.episodes] == ["episodes-2", "episodes-3"]
    assert dataset.swipes == "inverted"
    assert len(dataset.dropped) == 1


# -------------------------------------------------------------------------------------------------------- conventions


def steps_of(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"goal": "scroll", "steps": list(steps)}


@pytest.mark.parametrize(
    ("steps", "stored", "first", "evidence"),
    [
        ([swipe("up")] * 8, "finger", "up", "8 of 8 vertical swipes move the finger up"),
        ([swipe("down")] * 8, "inverted", "up", "8 of 8 vertical swipes move the finger down"),
        (
            [swipe("down")] * 7,
            UNDETERMINED,
            "down",
            "7 of 7 vertical swipes move the finger down: too little to tell",
        ),
        ([swipe("down")] * 9 + [swipe("up")] * 4, UNDETERMINED, "down", "9 of 13"),
        ([swipe("down", "up")], "finger", "down", "1 of 1 labelled vertical swipes move the finger against the"),
        ([swipe("down", "down")] + [swipe("up")] * 20, "inverted", "up", "1 of 1 labelled vertical swipes move the"),
        ([swipe("down", "down"), swipe("up", "down")], UNDETERMINED, "down", "1 of 2 vertical"),
        ([{"action_content": CLICK, "screenshot": "0.png"}], "finger", None, None),
    ],
)
def test_swipe_convention_is_detected_and_said(
    tmp_path: Path, steps: list[dict[str, Any]], stored: str, first: str | None, evidence: str | None
) -> None:
    dataset = load_episodes(write(tmp_path, steps_of(*steps)), screen=SIZE)
    action = dataset.episodes[0].steps[0].action
    assert dataset.swipes == stored
    assert (action.direction if isinstance(action, Swipe) else None) == first
    assert [note.startswith(evidence or "") for note in dataset.notes] == ([True] if evidence else [])


def test_a_named_convention_wins_and_sideways_swipes_always_stay(tmp_path: Path) -> None:
    left = {"action": "swipe", "coordinate": [810, 1200], "coordinate2": [270, 1200]}
    path = write(tmp_path, steps_of(swipe("up", "down"), {"action_content": left, "screenshot": "0.png"}))
    for asked, vertical in (("detect", "up"), ("finger", "up"), ("inverted", "down")):
        dataset = load_episodes(path, screen=SIZE, swipes=asked)  # type: ignore[arg-type]
        ways = [step.action.direction for step in dataset.episodes[0].steps if isinstance(step.action, Swipe)]
        assert ways == [vertical, "left"]
        assert dataset.episodes[0].steps[0].scroll_label == "down"


def test_a_line_that_states_its_convention_is_believed(tmp_path: Path) -> None:
    path = write(tmp_path, *[steps_of(swipe("down")) | {"swipes": "finger"}] * 10, steps_of(swipe("down")))
    dataset = load_episodes(path, screen=SIZE)
    assert dataset.swipes == UNDETERMINED
    assert all(e.steps[0].action == Swipe(Point(0.5, 0.25), Point(0.5, 0.75)) for e in dataset.episodes)
    stated = load_episodes(path, screen=SIZE, swipes="inverted").episodes
    ways = [s.action.direction for e in stated for s in e.steps if isinstance(s.action, Swipe)]
    assert ways == ["down"] * 10 + ["up"]


def test_screen_sizes_are_inferred_from_centred_swipes_then_from_extents() -> None:
    def click(x: float, y: float) -> dict[str, Any]:
        return {"action_content": {"action": "click", "coordinate": [x, y]}}

    big = {"action_content": {"action": "swipe", "coordinate": [720, 2340], "coordinate2": [720, 780]}}
    aside = {"action_content": {"action": "swipe", "coordinate": [300, 900], "coordinate2": [300, 700]}}
    lines = [
        steps_of(swipe("up"), *[aside] * 9),  # only swipes about the centre of a known screen count
        steps_of(swipe("down")),
        steps_of(click(100, 100)),  # of the file's main screen
        steps_of(big, click(1400, 3000)),  # its own swipe says 1440x3120
        steps_of(click(1084, 2404)),  # a few pixels over
        steps_of(click(1300, 2000)),  # beyond the main screen
        steps_of(click(2001.5, 5000)),  # beyond every screen
    ]
    sizes, note = infer_screens(lines)
    assert sizes == [SIZE, SIZE, SIZE, (1440, 3120), SIZE, (1440, 2560), (2002, 5000)]
    assert note.startswith("screen sizes inferred from points, boxes and centred swipes: 1080x2400 (4 episodes), ")
    assert infer_screens([steps_of(click(1000, 700))])[0] == [(1080, 1920)]
    assert infer_screens([steps_of(click(2000, 700))])[0] == [(2160, 1080)]
    assert infer_screens([]) == ([], "screen sizes inferred from points and boxes: none")


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
contents = st.fixed_dictionaries({"action": st.sampled_from(["swipe", "click"]) | junk}).flatmap(
    lambda d: st.fixed_dictionaries({"coordinate": junk, "coordinate2": junk, "bbox": junk}).map(lambda e: d | e)
)
raw_steps = st.fixed_dictionaries({"action_content": contents | junk, "check_options": junk, "bbox": junk})


@given(st.lists(st.fixed_dictionaries({"steps": st.lists(raw_steps | junk, max_size=3) | junk}), max_size=3))
def test_deciding_conventions_survives_any_line(lines: list[dict[str, Any]]) -> None:
    assert swipe_convention(lines).stored in ("finger", "inverted", UNDETERMINED)
    assert len(infer_screens(lines)[0]) == len(lines)


# -------------------------------------------------------------------------------------------------------------- damage


def deep(action: Any = None, **step: Any) -> dict[str, Any]:
    """A line with one good and one broken step."""
    good = {"action_content": CLICK, "screenshot": "0.png"}
    return {"goal": "g", "steps": [good, {"action_content": action or CLICK, "screenshot": "0.png"} | step]}


BROKEN: list[tuple[str, Any, str]] = [
    ("not JSON", '{"goal": ', ":2: not JSON: "),
    ("nested too deep", "[" * 100_000, ":2: not JSON: "),
    ("a number too long", "1" * 5000, ":2: not JSON: "),
    ("not an object", "[1, 2]", ":2: a JSON list, expected one object per line"),
    ("no goal", {"steps": line()["steps"]}, ":2: goal is None, expected a string"),
    ("blank goal", line() | {"goal": " "}, ":2: goal is blank"),
    ("half a character in the goal", line() | {"goal": "\ud800"}, ":2: goal .* holds one half of a surrogate pair"),
    ("no steps", {"goal": "g"}, ":2: steps is None, expected a list with at least one step"),
    ("empty episode", {"goal": "g", "steps": []}, r":2: steps is \[\], expected"),
    ("steps of another type", {"goal": "g", "steps": {"a": 1}}, ":2: steps is "),
    ("id of another type", line(episode_id=True), ":2: episode_id is True, expected a string or an integer"),
    ("duplicate id", line(episode_id="first"), ":2: episode_id 'first' was already used at .*:1$"),
    ("step of another type", {"goal": "g", "steps": ["x"]}, ":2 step 0: no action_content"),
    ("no action_content", {"goal": "g", "steps": [{"screenshot": "0.png"}]}, ":2 step 0: no action_content"),
    ("unknown action", deep({"action": "fly"}), ":2 step 1: action 'fly', expected one of click"),
    ("no point", deep({"action": "click"}), r":2 step 1: coordinate is None, expected \[x, y\]"),
    ("text is a number", deep({"action": "type", "text": 5}), ":2 step 1: text is 5, expected a string"),
    ("bool for a number", deep({"action": "click", "coordinate": [True, 1]}), ":2 step 1: coordinate x is True"),
    (
        "point outside",
        deep({"action": "click", "coordinate": [1200, 300]}),
        r":2 step 1: the point \(1200, 300\) is outside the 1080x2400 screen",
    ),
    ("not a number", deep({"action": "click", "coordinate": [float("nan"), 1]}), ":2 step 1: coordinate x is nan"),
    (
        "box of words",
        deep(bbox=["a", 1, 2, 3]),
        r":2 step 1: box \['a', 1, 2, 3\], expected \[left, top, right, bottom\]",
    ),
    ("box of three", deep(bbox=[1, 2, 3]), ":2 step 1: box"),
    ("box of corner and size", deep(bbox=[500, 900, 80, 40]), ":2 step 1: box .* expected two corners"),
    ("box outside", deep(bbox=[2000, 0, 2100, 10]), ":2 step 1: box .* is outside the 1080x2400 screen"),
    ("boxes of another type", deep(check_options={"candidate_bbox": "x"}), ":2 step 1: candidate_bbox is 'x'"),
    ("a box among boxes", deep(check_options={"candidate_bbox": [[0, 0, 9, 9], 5]}), ":2 step 1: box 5, expected"),
    ("options of another type", deep(check_options=[1]), r":2 step 1: check_options is \[1\], expected an object"),
    (
        "unknown direction",
        deep(swipe("up")["action_content"], check_options={"direction": "north"}),
        ":2 step 1: direction is 'north'",
    ),
    ("thought of another type", deep(thought=5), ":2 step 1: thought is 5, expected a string"),
    ("thought with its tags", deep(thought="<think>a</think>"), ":2 step 1: thought holds a think tag"),
    ("screenshot of another type", deep(screenshot=5), ":2 step 1: screenshot is 5, expected the path"),
    ("path out of the folder", deep(screenshot="a/../../x.png"), ":2 step 1: screenshot .* leaves the folder"),
]


@pytest.mark.parametrize(("bad", "message"), [c[1:] for c in BROKEN], ids=[c[0] for c in BROKEN])
def test_damage_is_named_with_its_place_or_skipped(tmp_path: Path, bad: Any, message: str) -> None:
    path = write(tmp_path, line(episode_id="first"), bad, line(episode_id="last"))
    with pytest.raises(DataError, match=message) as caught:
        load_episodes(path, screen=SIZE)
    assert str(caught.value).startswith(f"{path}:2")
    assert len(str(caught.value)) < len(str(path)) * 2 + 400
    dataset = load_episodes(path, screen=SIZE, skip_bad=True)
    assert [episode.id for episode in dataset.episodes] == ["first", "last"]
    assert dataset.dropped == (str(caught.value),)


@given(st.binary(max_size=60))
def test_any_bytes_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(raw)
    with pytest.raises(DataError):
        load_episodes(path, screen="infer")


@given(raw_steps)
def test_any_step_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, step: dict[str, Any]) -> None:
    path = write(tmp_path_factory.getbasetemp(), {"goal": "g", "steps": [step | {"screenshot": "0.png"}]})
    place = f"{path}:1"
    try:
        dataset = load_episodes(path, screen="infer")
    except DataError as error:
        place = str(error)
    else:
        assert len(dataset.episodes) == 1
    assert place.startswith(f"{path}:1")


def test_missing_files_say_what_to_give(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(SetupError, match=r"give a \.jsonl file, a folder that holds episodes\.jsonl"):
            load_episodes(missing)
    with pytest.raises(SetupError, match="limit 0"):
        load_episodes(write(tmp_path, line()), screen=SIZE, limit=0)
    with pytest.raises(SetupError, match="both sides must be positive"):
        load_episodes(write(tmp_path, line()), screen=(0, 5))
    for content in ((), ("{",)):
        with pytest.raises(DataError, match=":1: no usable episode"):
            load_episodes(write(tmp_path, *content), screen=SIZE, skip_bad=True)


# -------------------------------------------------------------------------------------------------------- screenshots


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "is not a PNG or JPEG image"),
        (lambda data: b"<html>not found</html>", "is not a PNG or JPEG image"),
        (lambda data: b"GIF89a" + data, "is not a PNG or JPEG image"),
        (lambda data: data[:20], "is not a PNG or JPEG image|cannot be decoded"),
        (cut, "is cut off: the end of the PNG is missing"),
        (lambda data: data[:-4], "is cut off"),
    ],
)
def test_a_broken_screenshot_is_found_when_loading(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = write(tmp_path, line({"action": "wait"}, {"action": "wait"}))
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "1.png").write_bytes(damage(png()))
    with pytest.raises(DataError, match=message) as caught:
        load_episodes(path)
    assert str(caught.value).startswith(f"{path}:1 step 1: screenshot {tmp_path / '1.png'} ")
    assert load_episodes(path, screen=SIZE).episodes, "without images nothing is opened"


def test_a_missing_screenshot_is_found_when_loading(tmp_path: Path) -> None:
    path = write(tmp_path, line())
    for name in ("0.png", "x" * 5000, "nul\0byte", "\ud800.png", str(tmp_path / "gone.png"), "", None):
        path = write(tmp_path, {"goal": "g", "steps": [{"action_content": {"action": "wait"}, "screenshot": name}]})
        with pytest.raises(DataError, match=":1 step 0: screenshot"):
            load_episodes(path)


def test_damage_in_the_middle_of_the_pixels_is_named_when_decoding(tmp_path: Path) -> None:
    data = bytearray(png())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "0.png").write_bytes(bytes(data))
    path = write(tmp_path, line({"action": "wait"}))
    shot = load_episodes(path).episodes[0].steps[0].screenshot
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        shot.image()
    assert str(caught.value).startswith(f"{path}:1 step 0: ")


def test_a_size_given_by_hand_is_checked_against_the_pixels(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(90, 200))
    path = write(tmp_path, line({"action": "wait"}))
    with pytest.raises(DataError, match="is 90x200, but its coordinates were read as 1080x2400"):
        load_episodes(path, screen=SIZE).episodes[0].steps[0].screenshot.image()
    assert load_episodes(path).episodes[0].steps[0].screenshot.image().size == (90, 200)


def test_jpeg_absolute_paths_and_inner_dots_are_fine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (90, 200)).save(tmp_path / "a.jpg")
    Image.new("RGB", (90, 200)).save(tmp_path / "data" / "b.jpg")
    steps = [
        {"action_content": {"action": "wait"}, "screenshot": str(tmp_path / "a.jpg")},
        {"action_content": {"action": "wait"}, "screenshot": "images/../b.jpg"},
    ]
    (episode,) = load_episodes(write(tmp_path / "data", {"goal": "g", "steps": steps})).episodes
    assert [step.screenshot.image().size for step in episode.steps] == [(90, 200), (90, 200)]


# ------------------------------------------------------------------------------------------------------------- writing


def test_saved_episodes_load_again_with_their_pixels(tmp_path: Path) -> None:
    shot = Screenshot(90, 200, data=png(90, 200))
    (tmp_path / "far.png").write_bytes(png(90, 200))
    far = Screenshot(90, 200, tmp_path / "far.png")
    boxes = (TargetBox(Box(0.1, 0.1, 0.2, 0.2), "bbox"), TargetBox(Box(0, 0, 1, 1), "candidate"))
    steps = (
        Step(shot, Click(Point(0.15, 0.15)), boxes, thought="why", instruction="tap", box_origin="tree"),
        Step(far, Swipe(Point(0.5, 0.25), Point(0.5, 0.75)), scroll_label="up"),
        Step(shot, Type("Zoë </action> \U0001f600"), thought=""),
    )
    episode = Episode("a/b", "goal", steps, "elsewhere:3", {"template": "t", "goal": "not this one"})
    save_episodes(tmp_path / "out" / "episodes.jsonl", [episode])
    (again,) = load_episodes(tmp_path / "out").episodes
    assert (again.id, again.goal, again.meta) == ("a/b", "goal", {"template": "t"})
    for before, after in zip(steps, again.steps, strict=True):
        assert (after.action, after.boxes, after.thought) == (before.action, before.boxes, before.thought)
        assert (after.instruction, after.scroll_label, after.box_origin) == (
            before.instruction,
            before.scroll_label,
            before.box_origin,
        )
        assert after.screenshot.encoded() == before.screenshot.encoded()
    assert not (tmp_path / "out" / "episodes.jsonl.part").exists()


def test_pictures_named_through_the_parent_folder_are_not_taken_for_own_ones(tmp_path: Path) -> None:
    """runs/../data/0.png begins like runs, and lies elsewhere."""
    (tmp_path / "data").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "data" / "0.png").write_bytes(png())
    source = write(tmp_path / "data", line({"action": "wait", "time": 1}))
    episodes = load_episodes(tmp_path / "runs" / ".." / "data" / source.name).episodes
    save_episodes(tmp_path / "runs" / "new.jsonl", episodes)
    (again,) = load_episodes(tmp_path / "runs" / "new.jsonl").episodes
    assert again.steps[0].screenshot.encoded() == episodes[0].steps[0].screenshot.encoded()


# ------------------------------------------------------------------------------------------------------- the real files


@real
def test_the_training_sample_is_stored_inverted() -> None:
    dataset = load_episodes(TRAIN, screen="infer")
    assert (len(dataset.episodes), sum(len(e.steps) for e in dataset.episodes)) == (32, 206)
    assert dataset.swipes == "inverted"
    assert dataset.notes[0].startswith("19 of 19 vertical swipes move the finger down, ")
    swipes = [step.action for e in dataset.episodes for step in e.steps if isinstance(step.action, Swipe)]
    assert [action.direction for action in swipes] == ["up"] * 19
    assert sum(bool(step.boxes) for e in dataset.episodes for step in e.steps) == 74
    assert dataset.episodes[0].id == "android_control_train_sample-1"


@real
def test_the_evaluation_sample_is_finger_motion_with_and_without_its_labels(tmp_path: Path) -> None:
    dataset = load_episodes(EVAL, screen="infer")
    assert (len(dataset.episodes), sum(len(e.steps) for e in dataset.episodes)) == (304, 1663)
    assert dataset.swipes == "finger"
    assert dataset.notes[0].startswith("226 of 226 labelled vertical swipes move the finger against the scroll label")
    assert "1080x2400 (292 episodes)" in dataset.notes[1]
    assert all(s.screenshot.width * s.screenshot.height > 0 for e in dataset.episodes for s in e.steps)
    assert {(s.screenshot.width, s.screenshot.height) for e in dataset.episodes for s in e.steps} <= set(SCREENS)
    bare = tmp_path / "bare.jsonl"
    bare.write_text(EVAL.read_text("utf-8").replace('"direction"', '"way"'), "utf-8")
    assert load_episodes(bare, screen="infer").swipes == "finger"


@real
@pytest.mark.parametrize("source", [TRAIN, EVAL], ids=["train", "eval"])
def test_real_files_come_back_from_writing(source: Path, tmp_path: Path) -> None:
    before = load_episodes(source, screen="infer").episodes
    save_episodes(tmp_path / "saved.jsonl", before)
    after = load_episodes(tmp_path / "saved.jsonl", screen=SIZE, limit=1).episodes
    assert after[0].id == before[0].id
    again = load_episodes(tmp_path / "saved.jsonl", screen="infer").episodes
    assert [e.id for e in again] == [e.id for e in before]
    assert [e.goal for e in again] == [e.goal for e in before]
    for a, b in zip((s for e in before for s in e.steps), (s for e in again for s in e.steps), strict=True):
        assert type(a.action) is type(b.action)
        assert (a.thought, a.instruction, a.scroll_label) == (b.thought, b.instruction, b.scroll_label)
        assert [box.origin for box in a.boxes] == [box.origin for box in b.boxes]
        for name in ("point", "start", "end"):
            if (p := getattr(a.action, name, None)) is not None:
                q = getattr(b.action, name)
                assert (q.x, q.y) == pytest.approx((p.x, p.y), abs=1e-6)


# -------------------------------------------------------------------------------- what people added to a recording


def test_history_and_accepted_actions_are_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png())
    other = {"action": "click", "coordinate": [9, 10], "bbox": [0, 0, 45, 50]}
    up = {"action": "swipe", "coordinate": [45, 150], "coordinate2": [45, 50]}
    step = {"screenshot": "0.png", "action_content": {"action": "wait"}}
    steps = [step | {"history": True}, step | {"also_accepted": [other, up]}]
    made = load_episodes(write(tmp_path, {"goal": "wait", "steps": steps, "swipes": "finger"})).episodes[0]
    assert ([s.history for s in made.steps], made.targets) == ([True, False], (1,))
    first, second = made.steps[1].accepted
    assert first.boxes == (TargetBox(Box(0, 0, 0.5, 0.25), "bbox"),)
    assert second.action == Swipe(Point(0.5, 0.75), Point(0.5, 0.25))
    save_episodes(tmp_path / "again.jsonl", [made])
    assert load_episodes(tmp_path / "again.jsonl").episodes[0].steps == made.steps
    plain = json.loads((tmp_path / "again.jsonl").read_text())["steps"]
    assert ["history" in s for s in plain] == [True, False]
    assert ["also_accepted" in s for s in plain] == [False, True]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"history": "yes"}, "history is 'yes', expected true or false"),
        ({"history": True}, "the last step is history only"),
        ({"also_accepted": {"action": "wait"}}, "expected a list of actions"),
        ({"also_accepted": [{"action": "fly"}]}, "also_accepted 0: action 'fly'"),
        ({"also_accepted": [{"action": "click", "coordinate": [900, 10]}]}, "outside the 90x200 screen"),
    ],
)
def test_broken_additions_are_refused_with_their_place(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    (tmp_path / "0.png").write_bytes(png())
    step = {"screenshot": "0.png", "action_content": {"action": "wait"}} | more
    with pytest.raises(DataError, match=f"episodes.jsonl:1 step 0.*{why}"):
        load_episodes(write(tmp_path, {"goal": "wait", "steps": [step]}))
