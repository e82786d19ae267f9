"""A model's own attempts as recordings: they load, pass the gate, and say where they come from."""

import json
from dataclasses import replace

from guiderail.agent.policy import Sampling
from guiderail.agent.types import Box, Click, Point
from guiderail.envs.live.device import Element
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.match import judge
from guiderail.rl.live.own import Recording, target, write_attempts
from guiderail.rl.rollout.live import Site
from tests.rl.rollout.pocket import TALK, Coin, TellingTasks


def test_only_successes_are_kept_with_boxes_and_provenance(tmp_path):
    world = TellingTasks(6, seed=5, split="train", device="hand")
    session = world.open(0)
    names = [name for name, _ in world.listed()]
    job = Recording(Site(session, TALK), names, 2, Coin(0.95), Sampling())
    source = {"agent": "coin", "world": "pocket", "temperature": 1.0}
    counts = write_attempts(tmp_path / "own", job, source, True, lambda: None)
    session.close()
    assert json.loads((tmp_path / "own" / "attempts.json").read_text()) == counts
    assert counts["episodes"] + counts["failed"] == 12
    assert counts["turns"] > counts["steps"]
    assert counts["episodes"] > 0
    assert counts["failed"] > 0
    loaded = load_episodes(tmp_path / "own")
    assert len(loaded.episodes) == counts["episodes"]
    assert sum(len(episode.steps) for episode in loaded.episodes) == counts["steps"]
    for episode in loaded.episodes:
        assert episode.meta["source"] == source
        assert (episode.meta["checked_by"], episode.meta["task"]) == ("state", episode.id.rpartition("/")[0])
        for step in episode.steps:
            assert judge(step, step.action).exact
            step.screenshot.image()
            if isinstance(step.action, Click):
                assert len(step.boxes) == 1
                assert step.boxes[0].box.contains(step.action.point)
                assert step.boxes[0].box.area < 0.2
    lines = (tmp_path / "own" / "episodes.jsonl").read_text().splitlines()
    assert all(json.loads(line)["is_successful"] for line in lines)


class Confused(Coin):
    """Thinks of think tags, as a small model does at temperature 1."""

    def answer(self, request):
        said = super().answer(request)
        return replace(said, text=said.text.replace("</think>", " tap\n<think>on</think>", 1))


def test_a_thought_with_think_tags_does_not_break_the_recording(tmp_path):
    world = TellingTasks(2, seed=5, split="train", device="hand")
    session = world.open(0)
    job = Recording(Site(session, TALK), [name for name, _ in world.listed()], 1, Confused(1.0), Sampling())
    counts = write_attempts(tmp_path / "own", job, {"agent": "confused"}, True, lambda: None)
    session.close()
    assert counts["episodes"] == 2
    thoughts = [step.thought for episode in load_episodes(tmp_path / "own").episodes for step in episode.steps]
    assert all(thought.endswith(" tap\non") for thought in thoughts)


def test_the_target_is_the_smallest_box_that_holds_the_point():
    page, row = Box(0, 0, 1, 1), Box(0, 0.4, 1, 0.6)
    elements = [Element("page", page, "row"), Element("row", row, "row"), Element("other", Box(0, 0.7, 1, 0.8), "row")]
    assert target(Click(Point(0.5, 0.5)), elements) == row
    assert target(Click(Point(0.5, 0.2)), elements) == page
    assert target(Click(Point(0.5, 0.5)), []) is None
