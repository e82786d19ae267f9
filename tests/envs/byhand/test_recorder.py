"""The recorder: what a person did is on the disk at once, in the standard format, without what should not be seen."""

import json
import os
import signal
import subprocess
import sys

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import DataError, EnvCrashed, SetupError
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Answer, Box, Click, Point, Swipe, SystemButton, Terminate
from guiderail.envs.byhand.hiding import PATTERNS, blacked_out, personal
from guiderail.envs.byhand.recorder import Recorder, Remarks
from guiderail.envs.imports.draft import Options
from guiderail.envs.imports.run import run_import
from guiderail.envs.live.device import Element
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import task
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.gate import oracle_gate


def by_hand(recorder, made, steps=99, **finish):
    """The person does what the task's own expert would do."""
    device = PhoneInHand(Phone(made.start()))
    recorder.begin(device, made.goal, template=made.template)
    for _ in range(steps):
        move = made.expert(device.phone, device.answers)
        if isinstance(move.action, Terminate):
            return device, recorder.finish(move.action.status, **finish)
        recorder.do(move.action, Remarks(thought=move.thought, instruction="as the goal says"))
    return device, None


def gate(folder):
    loaded = load_episodes(folder)
    assert loaded.swipes == "finger"
    result = oracle_gate(loaded, Dialogue(ORIGINAL_SIZE, BRIEF))
    assert result["exact"] == result["steps"]
    return loaded


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path / "mine", "ann")
    yield made
    made.close()


def test_what_a_person_does_passes_the_gate_with_the_boxes_of_the_tree(recorder):
    for number, template in enumerate(("alarm", "call", "toggle")):
        made = task(template, 3 * number)
        device, line = by_hand(recorder, made)
        assert made.success(device.phone, device.answers)
        assert line["episode_id"] == f"ann-{number + 1}"
    loaded = gate(recorder.folder)
    assert [episode.meta["annotator"] for episode in loaded.episodes] == ["ann"] * 3
    for episode in loaded.episodes:
        for step in episode.steps:
            assert (step.box_origin, len(step.boxes)) == (("tree", 1) if isinstance(step.action, Click) else (None, 0))
            assert step.instruction == (None if isinstance(step.action, Terminate) else "as the goal says")
    assert "3 episodes" in (recorder.folder / "DATASET.md").read_text()


def test_the_target_is_shown_and_can_be_corrected(recorder):
    device = PhoneInHand(Phone(task("call", 0).start()))
    seen = recorder.begin(device, "look around")
    aim = next(element for element in seen.elements if element.clickable)
    assert recorder.targets(aim.box.center)[0] == aim
    with pytest.raises(DataError, match="outside its target box"):
        recorder.do(Click(aim.box.center), Remarks(box=Box(0, 0, 0.01, 0.01)))
    assert recorder.line["steps"] == []
    recorder.do(Click(aim.box.center), Remarks(box=aim.box.scaled(0.5), origin="annotation"))
    recorder.do(Swipe(Point(0.5, 0.7), Point(0.5, 0.3)))
    recorder.finish()
    step = gate(recorder.folder).episodes[0].steps[0]
    assert step.box_origin == "annotation"
    assert step.boxes[0].box.area == pytest.approx(aim.box.area / 4, rel=0.01)


def test_a_step_is_taken_back_on_the_device_and_one_is_cut(recorder):
    device = PhoneInHand(Phone(task("call", 0).start()))
    recorder.begin(device, "look around")
    before = device.screenshot()
    icon = next(element for element in device.elements() if element.clickable)
    recorder.do(Click(icon.box.center))
    assert device.screenshot() != before
    assert recorder.redo()
    assert device.screenshot() == before
    assert recorder.line["steps"] == []
    recorder.do(SystemButton("Home"))
    recorder.do(Click(icon.box.center))
    recorder.cut(0)
    recorder.finish()
    assert [step.action.name for step in gate(recorder.folder).episodes[0].steps] == ["click", "terminate"]
    for wrong in (recorder.redo, lambda: recorder.cut(0), recorder.finish):
        with pytest.raises(SetupError, match="no attempt is under way"):
            wrong()


def test_a_device_that_cannot_go_back_is_brought_back_by_the_person(recorder):
    device = PhoneInHand(Phone(task("call", 0).start()))

    def never():
        raise EnvCrashed("adb cannot save the state of a device")

    device.snapshot = never
    recorder.begin(device, "look around")
    recorder.do(SystemButton("Home"))
    assert not recorder.redo()


def test_a_failed_attempt_is_kept_apart_and_an_answer_may_end_one(recorder):
    by_hand(recorder, task("alarm", 0), steps=2)
    recorder.finish(failed=True)
    assert not (recorder.folder / "episodes.jsonl").exists()
    assert json.loads((recorder.folder / "failed.jsonl").read_text())["is_successful"] is False
    device = PhoneInHand(Phone(task("call", 0).start()))
    recorder.begin(device, "what is there?")
    recorder.do(SystemButton("Home"))
    with pytest.raises(SetupError, match="ends with an answer or with terminate"):
        recorder.finish(None)
    recorder.do(Answer("nothing"))
    assert recorder.finish(None)["episode_id"] == "ann-2"


def test_a_killed_recorder_leaves_every_step_and_can_be_gone_on_with(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from guiderail.envs.byhand.recorder import Recorder\n"
        "from guiderail.envs.pocket.hands import PhoneInHand\n"
        "from guiderail.envs.pocket.phone import Phone\n"
        "from guiderail.envs.pocket.tasks import task\n"
        "made = task('alarm', 0)\n"
        "device = PhoneInHand(Phone(made.start()))\n"
        "recorder = Recorder(Path(sys.argv[1]))\n"
        "recorder.begin(device, made.goal)\n"
        "for _ in range(3):\n"
        "    recorder.do(made.expert(device.phone).action)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=os.environ, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    again = Recorder(tmp_path)
    assert len(again.line["steps"]) == 3
    with pytest.raises(SetupError, match="unfinished attempt"):
        again.begin(PhoneInHand(Phone(task("alarm", 0).start())), "another")
    again.resume(PhoneInHand(Phone(task("alarm", 0).start())))
    assert not again.redo()
    again.finish()
    again.close()
    assert [len(episode.steps) for episode in gate(tmp_path).episodes] == [3]
    assert not (tmp_path / "draft.json").exists()


def test_one_folder_has_one_recorder(recorder):
    with pytest.raises(SetupError, match="another process"):
        Recorder(recorder.folder)


def test_personal_data_is_black_before_anything_is_written(recorder):
    device = PhoneInHand(Phone(task("call", 0).start()))
    found = device.elements()
    words = ["ann.b+c@example.co.uk", "call +31 6 1234-5678", "7:30", "12 euros", "order 1234"]
    device.elements = lambda: [
        Element(text, box.box, box.kind, box.clickable) for text, box in zip(words, found, strict=False)
    ]
    seen = recorder.begin(device, "look around")
    assert [(one.box, one.pattern) for one in seen.hidden] == [(found[0].box, "email"), (found[1].box, "number")]
    recorder.do(SystemButton("Home"))
    extra = Box(0.5, 0.9, 1, 1)
    recorder.do(SystemButton("Home"), Remarks(hide=[extra]))
    recorder.finish()
    first, second, _ = gate(recorder.folder).episodes[0].steps
    image = first.screenshot.image()
    for one in seen.hidden:
        centre = one.box.center
        assert image.getpixel((int(centre.x * image.width), int(centre.y * image.height))) == (0, 0, 0)
    black = blacked_out(seen.shot, [one.box for one in seen.hidden])
    assert black.image().tobytes() == image.tobytes() != seen.shot.image().tobytes()
    second = second.screenshot.image()
    assert second.crop((80, 260, 160, 288)).getcolors() == [(80 * 28, (0, 0, 0))]
    written = b"".join(path.read_bytes() for path in recorder.folder.rglob("*") if path.is_file())
    assert b"example.co.uk" not in written
    assert personal(seen.elements, []) == []
    assert set(PATTERNS) == {"email", "number"}


def test_folders_of_several_people_merge(tmp_path):
    for name, number in (("ann", 0), ("bob", 3), ("", 6), ("", 9)):
        made = Recorder(tmp_path / f"{name}{number}", name)
        by_hand(made, task("alarm", number))
        made.close()
    run_import("uis1", sorted(tmp_path.iterdir()), tmp_path / "all", Options())
    loaded = gate(tmp_path / "all")
    assert len(loaded.episodes) == 4
    assert {"ann-1", "bob-1", "hand-1"} < {episode.id for episode in loaded.episodes}
    assert all(step.box_origin == "tree" for e in loaded.episodes for step in e.steps if isinstance(step.action, Click))


def test_any_character_may_stand_in_a_goal(tmp_path):
    goal = "one\u2028two\x85three"
    for number in range(2):
        recorder = Recorder(tmp_path / "mine", "ann")
        recorder.begin(PhoneInHand(Phone(task("toggle", 0).start())), goal)
        recorder.do(SystemButton("Home"))
        assert recorder.finish("success")["episode_id"] == f"ann-{number + 1}"
        recorder.close()
    assert [episode.goal for episode in load_episodes(tmp_path / "mine").episodes] == [goal, goal]
