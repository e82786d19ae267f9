"""Everything that scores a walk gives it the same progress."""

from __future__ import annotations

import json

import pytest

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import ScriptedPolicy
from guiderail.agent.screen import Vision
from guiderail.agent.types import Click, Episode, Point, Rollout, Screenshot, Step, Wait
from guiderail.envs.recordings.match import RULES
from guiderail.launch.submission.facts import facts
from guiderail.launch.submission.schema import Attempt
from guiderail.launch.submission.schema import Turn as SubmittedTurn
from guiderail.launch.submission.scores import numbers
from guiderail.rl.runs.rows import rollout_row
from guiderail.rl.score.profiles import PROFILES, recorded, rescore
from guiderail.rl.score.steps import evaluate_sop

SHOT = Screenshot(1080, 2400)
CORNER = Click(Point(0.1, 0.1))
EPISODE = Episode("1", "go", tuple(Step(SHOT, action) for action in (Wait(), Wait(), CORNER, Wait())), "f:1")
DIALOGUE = Dialogue(Vision())
RELEASED = RULES["uis1-released-sop"]


def action(**content: object) -> str:
    return f"<think>why</think>\n<action>{json.dumps(content)}</action>"


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        (action(action="tap"), 0.5),
        (action(action="system_button", button="Recents"), 0.5),
        (action(action="swipe"), 0.5),
        (action(action="click", coordinate=[900, 900]), 0.5),
        (action(action="click"), 0.0),
        (action(coordinate=[900, 900]), 0.0),
        ("no action at all", 0.0),
    ],
)
def test_evaluation_rejudging_and_submission_agree_on_what_an_error_costs(text: str, progress: float) -> None:
    kept: list[Rollout] = []
    texts = iter([action(action="wait"), action(action="wait", time="2s"), text])
    policy = ScriptedPolicy(lambda request: next(texts))
    found = evaluate_sop([EPISODE], policy, DIALOGUE, RELEASED, record=kept.append)
    assert found["PG"] == progress
    row = json.loads(json.dumps(rollout_row(kept[0], steps=4)))
    again = rescore("sop", recorded("sop", [row], [EPISODE], DIALOGUE.dialect), PROFILES["uis1-released-sop"])
    assert again["PG"] == progress
    turns = [{key: value for key, value in turn.items() if key in SubmittedTurn.model_fields} for turn in row["turns"]]
    attempt = Attempt.model_validate(
        {"unit": "1", "sample": 0, "ended": row["ended"], "steps": 4, "seed": 0, "turns": turns, "outcome": None}
    )
    assert numbers("sop", [facts(attempt)], RELEASED)["PG"] == progress


def test_rejudging_looks_no_further_than_the_rules_own_first_mismatch() -> None:
    """The run's own rules took the far click for right; the released ones stop there, before the broken answer."""
    texts = [action(action="wait"), action(action="click", coordinate=[900, 900]), "no action at all"]
    row = {"unit": "1", "ended": "mismatch", "turns": [{"text": text, "screen": [1092, 2408]} for text in texts]}
    answers = recorded("sop", [row], [EPISODE], DIALOGUE.dialect)
    assert rescore("sop", answers, PROFILES["uis1-released-sop"])["PG"] == 0.25
