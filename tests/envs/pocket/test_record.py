"""Recordings are complete, true, and the same for the same arguments."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from guiderail.agent.codec import action_from_json
from guiderail.agent.disk import new_folder
from guiderail.agent.errors import SetupError
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Swipe
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.record import record
from guiderail.envs.pocket.tasks import task


def contents(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def lines(folder: Path):
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    out = tmp_path_factory.mktemp("pocket") / "data"
    return out, record(out, 60, seed=1)


def test_same_arguments_same_bytes(recorded, tmp_path):
    out, counts = recorded
    assert record(tmp_path / "again", 60, seed=1) == counts
    assert contents(tmp_path / "again") == contents(out)
    record(tmp_path / "other", 60, seed=2)
    assert contents(tmp_path / "other") != contents(out)


def test_standard_format(recorded):
    out, counts = recorded
    episodes = lines(out)
    assert len(episodes) == counts["episodes"] == 60
    assert sum(len(e["steps"]) for e in episodes) == counts["steps"]
    pixels = ScreenTransform(160, 288)
    for episode in episodes:
        assert {"goal", "is_successful", "episode_id", "template", "memory", "seed", "split"} <= set(episode)
        assert episode["steps"][-1]["action_content"] == {"action": "terminate", "status": "success"}
        for step in episode["steps"]:
            content = step["action_content"]
            action = action_from_json(content, pixels)
            assert step["check_options"]["action"] == content["action"]
            if content["action"] in ("click", "long_press"):
                x, y = content["coordinate"]
                left, top, right, bottom = content["bbox"]
                assert left <= x < right
                assert top <= y < bottom
                assert step["check_options"]["candidate_bbox"] == [content["bbox"]]
                assert content["bbox"] in [e["bbox"] for e in step["elements"]]
            if isinstance(action, Swipe):
                assert action.direction in ("up", "down")


def test_images_are_stored_once_by_content(recorded):
    out, counts = recorded
    named = {step["screenshot"] for e in lines(out) for step in e["steps"]}
    assert named == {f"images/{p.name}" for p in (out / "images").iterdir()}
    assert len(named) == counts["screens"] < counts["steps"]
    for name in named:
        data = (out / name).read_bytes()
        assert hashlib.sha256(data).hexdigest()[:16] == Path(name).stem
        with Image.open(out / name) as image:
            assert (image.size, image.mode) == ((160, 288), "RGB")


def test_recorded_actions_lead_from_screenshot_to_screenshot(recorded):
    """The file alone, replayed on a fresh phone, shows the recorded screens and reaches the goal."""
    out, _ = recorded
    pixels = ScreenTransform(160, 288)
    for episode in lines(out):
        made = task(episode["template"], episode["seed"], episode["split"], live=episode["disturbed"])
        device = PhoneInHand(Phone(made.start()))
        for step in episode["steps"]:
            assert device.screenshot().digest[:16] == Path(step["screenshot"]).stem
            device.act(action_from_json(step["action_content"], pixels))
        assert made.success(device.phone, device.answers)


def test_about_the_asked_share_goes_as_live_tasks_do(tmp_path):
    record(tmp_path / "some", 120, disturbed=0.5)
    disturbed = [e for e in lines(tmp_path / "some") if e["disturbed"]]
    assert 40 <= len(disturbed) <= 80
    home = {"action": "system_button", "button": "Home"}
    assert any(e["steps"][0]["action_content"] == home for e in disturbed)
    record(tmp_path / "none", 30, disturbed=0)
    undisturbed = lines(tmp_path / "none")
    assert not any(e["disturbed"] for e in undisturbed)
    assert not any(e["steps"][0]["action_content"] == home for e in undisturbed)


def test_options(tmp_path):
    counts = record(tmp_path / "a", 6, split="heldout", size=(540, 960), style="free", informative=1.0)
    assert set(counts["templates"]) == {"play", "queue_two", "like"}
    assert not {s["thought"] for e in lines(tmp_path / "a") for s in e["steps"]} & {"next", "go on", "continue"}
    counts = record(tmp_path / "b", 5, templates=("add_two",))
    assert counts["templates"] == {"add_two": 5}
    assert "add_two" in (tmp_path / "b" / "DATASET.md").read_text()


def test_an_interrupted_recording_is_not_mistaken_for_a_complete_one(tmp_path, monkeypatch):
    out = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr("guiderail.envs.pocket.record._card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            record(out, 3)
    assert not out.exists()
    record(out, 3)
    assert len(lines(out)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_never_overwrites(recorded):
    out, _ = recorded
    before = contents(out)
    with pytest.raises(SetupError, match="not an empty folder"):
        record(out, 1)
    assert contents(out) == before


def test_bad_arguments(tmp_path):
    with pytest.raises(SetupError, match="at least 1"):
        record(tmp_path / "x", 0)
    with pytest.raises(SetupError, match="share"):
        record(tmp_path / "x", 1, disturbed=2)
    with pytest.raises(SetupError, match="informative -1"):
        record(tmp_path / "x", 1, informative=-1)
    assert not list(tmp_path.iterdir())


def test_two_recorders_do_not_mix(tmp_path):
    out = tmp_path / "data"
    with new_folder(out) as partial:
        (partial / "first").touch()
        with pytest.raises(SetupError, match="being written by another process"):
            record(out, 1)
    assert [path.name for path in out.iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
