"""The expert agrees with itself, agents that do not look do not, and both are counted right."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from guiderail.agent.codec import Reply
from guiderail.agent.dialects import BRIEF, DIALECTS
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform, Vision
from guiderail.agent.types import (
    Action,
    Box,
    Click,
    Episode,
    LongPress,
    Open,
    Point,
    Screenshot,
    Step,
    Swipe,
    SystemButton,
    TargetBox,
    Terminate,
    Type,
    Wait,
)
from guiderail.envs.recordings.episodes import Dataset, load_episodes
from guiderail.envs.recordings.gate import blind_probes, oracle_gate
from guiderail.envs.recordings.match import GUIDERAIL, RULES, judge

REAL = Path(__file__).parents[4] / "shared" / "data"
TRAIN, EVAL = REAL / "android_control_train_sample.jsonl", REAL / "android_control_eval_sample.jsonl"
real = pytest.mark.skipif(not TRAIN.is_file(), reason="the AndroidControl samples are not here")

DIALOGUE = Dialogue(Vision())
SHOT = Screenshot(1080, 2400)
CORNER, CENTER = Click(Point(0.1, 0.1)), Click(Point(0.5, 0.5))


def dataset(*episodes: tuple[Action, ...]) -> Dataset:
    made = (Episode(str(n), "g", tuple(Step(SHOT, a) for a in actions), f"f:{n}") for n, actions in enumerate(episodes))
    return Dataset(tuple(made), (), "finger", (), "")


# -------------------------------------------------------------------------------------------------------------- oracle


def test_an_action_the_dialect_has_no_word_for_fails_by_name() -> None:
    result = oracle_gate(dataset((Open("Notes"), CORNER)), Dialogue(Vision(), DIALECTS["qwen3_vl"]))
    assert (result["steps"], result["exact"]) == (2, 1)
    assert result["by_action"]["open"]["failures"][0]["why"].startswith("unreadable")


def test_a_perfect_recording_scores_one_and_is_counted_by_action() -> None:
    data = dataset((CORNER, Wait(), Terminate()), (Swipe(Point(0.5, 0.8), Point(0.5, 0.2)), Type("a"), CORNER))
    result = oracle_gate(data, DIALOGUE)
    assert (result["steps"], result["exact"], result["PG"], result["TSR"]) == (6, 6, 1.0, 1.0)
    assert result["by_action"]["click"] == {"steps": 2, "exact": 2, "failures": []}
    assert sum(row["steps"] for row in result["by_action"].values()) == 6
    json.dumps(result)


def test_every_step_is_judged_even_after_a_failure_and_failures_name_their_place() -> None:
    down = Swipe(Point(0.5, 0.2), Point(0.5, 0.8))
    result = oracle_gate(dataset((down, CORNER, down, CORNER)), DIALOGUE, RULES["uis1-released-training"], examples=1)
    assert (result["steps"], result["exact"], result["PG"], result["TSR"]) == (4, 2, 0.0, 0.0)
    assert result["by_action"]["click"]["exact"] == 2
    (failure,) = result["by_action"]["swipe"]["failures"]
    assert (failure["episode"], failure["step"], failure["source"]) == ("0", 0, "f:0")
    assert failure["why"] == "swiped down, expert swiped down, the rule flips it"


def test_a_dialect_that_cannot_say_an_action_is_caught() -> None:
    def mute(text: str, screen: ScreenTransform) -> Reply:
        raise UnreadableAction("no open here")

    dialogue = replace(DIALOGUE, dialect=replace(BRIEF, read=mute))
    result = oracle_gate(dataset((Open("Maps"),)), dialogue)
    assert result["exact"] == 0
    assert result["by_action"]["open"]["failures"][0]["why"] == "unreadable: no open here"


def test_progress_is_wiped_where_the_rule_says_so() -> None:
    data = dataset((CORNER, CORNER, Terminate()))
    assert oracle_gate(data, DIALOGUE, RULES["uis1-released-sop"])["PG"] == 0.0
    kept = replace(RULES["uis1-released-sop"], error_zeroes_progress=False)
    assert oracle_gate(data, DIALOGUE, kept)["PG"] == pytest.approx(2 / 3)


# -------------------------------------------------------------------------------------------------------------- probes


def test_each_probe_scores_exactly_what_it_repeats() -> None:
    data = dataset(
        (Wait(), Wait(), CORNER), (CENTER, CENTER), (Type(""),), (SystemButton("Back"), SystemButton("Back"))
    )
    probes = blind_probes(data, DIALOGUE)
    assert probes["wait"] == {"PG": pytest.approx(2 / 3 / 4), "TSR": 0.0}
    assert probes["click_center"] == {"PG": 0.25, "TSR": 0.25}
    assert probes["type_empty"] == {"PG": 0.25, "TSR": 0.25}
    assert probes["most_frequent"] == probes["wait"], "the first of equally frequent actions"
    assert probes["repeat_last"] == {"PG": pytest.approx((1 / 2 + 1 + 1) / 3), "TSR": pytest.approx(2 / 3)}


def test_typing_nothing_pays_only_under_the_released_rules() -> None:
    data = dataset((Type("jazz"),), (Type("blues"),))
    assert {name: blind_probes(data, DIALOGUE, rules)["type_empty"]["TSR"] for name, rules in RULES.items()} == {
        name: float(name != "guiderail") for name in RULES
    }


def accepted(data: Dataset, boxes: Literal["smallest", "any", "none"], per_step: int) -> float:
    """Share of uniformly random clicks that are right at the expert's clicks and long presses."""
    rng, rules = random.Random(1), replace(GUIDERAIL, boxes=boxes)
    found = [
        (step, step.action) for e in data.episodes for step in e.steps if isinstance(step.action, Click | LongPress)
    ]
    right = [
        judge(step, replace(action, point=Point(rng.random(), rng.random())), rules).exact
        for step, action in found
        for _ in range(per_step)
    ]
    return sum(right) / len(right)


def test_a_rule_accepts_random_clicks_by_the_area_of_its_boxes() -> None:
    page, button = TargetBox(Box(0, 0, 1, 1), "candidate"), TargetBox(Box(0.2, 0.2, 0.7, 0.6), "candidate")
    steps = (Step(SHOT, LongPress(Point(0.5, 0.5)), (page, button)), Step(SHOT, Wait()))
    data = Dataset((Episode("a", "g", steps, "f:1"),), (), "finger", (), "")
    assert accepted(data, "any", 4000) == 1.0
    assert accepted(data, "smallest", 4000) == pytest.approx(0.5 * 0.4 * 1.2**2, abs=0.03)
    assert accepted(data, "none", 4000) == pytest.approx(3.1416 * 0.04**2, abs=0.005)


# ------------------------------------------------------------------------------------------------------- the real files


@pytest.fixture(scope="module")
def samples() -> dict[str, Dataset]:
    return {"train": load_episodes(TRAIN, screen="infer"), "eval": load_episodes(EVAL, screen="infer")}


@real
@pytest.mark.parametrize("name", ["train", "eval"])
def test_real_experts_agree_with_themselves_everywhere(samples: dict[str, Dataset], name: str) -> None:
    result = oracle_gate(samples[name], DIALOGUE)
    assert result["exact"] == result["steps"] == {"train": 206, "eval": 1663}[name]
    assert (result["PG"], result["TSR"]) == (1.0, 1.0)


@real
@pytest.mark.parametrize(("swipes", "expected"), [("detect", {}), ("finger", {"swipe": 19})])
def test_the_released_training_rule_fails_the_19_swipes_that_are_read_as_stored(
    swipes: Literal["detect", "finger"], expected: dict[str, int]
) -> None:
    result = oracle_gate(load_episodes(TRAIN, screen="infer", swipes=swipes), DIALOGUE, RULES["uis1-released-training"])
    missed = {name: row["steps"] - row["exact"] for name, row in result["by_action"].items()}
    assert {name: count for name, count in missed.items() if count} == expected


@real
def test_ignoring_labels_in_validation_fails_every_vertical_swipe(samples: dict[str, Dataset]) -> None:
    row = oracle_gate(samples["eval"], DIALOGUE, RULES["uis1-released-validation"])["by_action"]["swipe"]
    assert (row["steps"], row["exact"]) == (247, 247 - 226)


@real
@pytest.mark.parametrize("name", ["train", "eval"])
def test_agents_that_do_not_look_stay_near_zero(samples: dict[str, Dataset], name: str) -> None:
    probes = blind_probes(samples[name], DIALOGUE)
    assert all(value["TSR"] <= 0.03 and value["PG"] <= 0.06 for value in probes.values())
    assert probes["type_empty"] == {"PG": 0.0, "TSR": 0.0}


@real
def test_random_clicks_on_real_boxes(samples: dict[str, Dataset]) -> None:
    """The audit found 0.5 % by distance alone and 22.6 % with all boxes."""
    data = samples["eval"]
    assert accepted(data, "none", 10) == pytest.approx(0.005, abs=0.002)
    assert accepted(data, "any", 10) == pytest.approx(0.226, abs=0.015)
    assert accepted(data, "none", 10) < accepted(data, "smallest", 10) < 0.08
