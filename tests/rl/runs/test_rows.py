"""One line holds a rollout: what is written is read back, of recordings and of live attempts."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.types import (
    ENDED,
    Click,
    Completion,
    Message,
    Outcome,
    Picture,
    Point,
    Prompt,
    Repair,
    Rollout,
    Screenshot,
    Terminate,
    Turn,
    Verdict,
    Wait,
)
from guiderail.rl.runs.rows import convert, rollout_of, rollout_row, success

SCREEN = Picture(Screenshot(200, 400, data=b"pixels"), 100, 200)
PROMPT = Prompt((Message("user", ("goal", SCREEN)),))

texts = st.text(max_size=20)
words = st.none() | texts
actions = st.none() | st.builds(Click, st.builds(Point, *[st.floats(0, 0.99)] * 2)) | st.just(Terminate())
verdicts = st.builds(Verdict, *[st.booleans()] * 3, why=texts, judgeable=st.booleans())
repairs = st.none() | st.builds(Repair, actions.filter(bool), st.sampled_from(["thought-free"]), text=texts)
completions = st.builds(
    Completion, texts, st.lists(st.integers(0, 9)).map(tuple), finish=st.sampled_from(["stop", "length", "budget"])
)
outcomes = st.builds(
    Outcome,
    st.booleans(),
    st.none() | st.floats(0, 1),
    st.none() | st.lists(texts).map(tuple),
    texts,
    st.sampled_from(["state", "judge", "person"]),
)


@st.composite
def rollouts(draw: st.DrawFn, live: bool) -> Rollout:
    start = draw(st.integers(0, 3))
    turns = tuple(
        Turn(start + i, PROMPT, draw(completions), draw(words), draw(actions), None, note=draw(texts))
        if live
        else Turn(start + i, PROMPT, draw(completions), draw(words), draw(actions), draw(verdicts), 0, draw(repairs))
        for i in range(draw(st.integers(0, 3)))
    )
    goal, outcome = (draw(texts), draw(st.none() | outcomes)) if live else ("", None)
    head = draw(texts), draw(st.integers(0, 9)), turns, draw(st.sampled_from(ENDED))
    return Rollout(*head, outcome, goal, draw(texts), start)


def kept(rollout: Rollout) -> Rollout:
    """Without what a line does not hold: prompts, actions (it holds them as the model said them) and sampled tokens."""
    turns = [
        replace(
            turn,
            prompt=Prompt(()),
            action=None,
            completion=Completion(turn.completion.text, finish=turn.completion.finish),
            repair=turn.repair and replace(turn.repair, action=Wait()),
        )
        for turn in rollout.turns
    ]
    return replace(rollout, turns=tuple(turns))


@given(rollouts(live=False))
def test_a_walk_is_read_back(rollout):
    row = json.loads(json.dumps(rollout_row(rollout, steps=9, generation=1)))
    assert rollout_of(row) == kept(rollout)
    assert "outcome" not in row
    assert (row["steps"], row["generation"]) == (9, 1)
    assert convert(row) == row


@given(rollouts(live=True))
def test_a_live_attempt_is_read_back(rollout):
    row = json.loads(json.dumps(rollout_row(rollout, tries=2)))
    assert rollout_of(row) == kept(rollout)
    assert success(row) == (rollout.outcome and rollout.outcome.success)
    assert all(turn["screenshot"] == SCREEN.screenshot.digest for turn in row["turns"])
    assert convert(row) == row


def test_actions_are_pixels_of_the_model_and_tokens_are_counted():
    turn = Turn(0, PROMPT, Completion("x", (5, 6)), None, Click(Point(0.25, 0.5)), Verdict(True, True, True, ""))
    (row,) = rollout_row(Rollout("e", 0, (turn,), "finished"), steps=1)["turns"]
    assert (row["screen"], row["action"]["coordinate"], row["tokens"]) == ([100, 200], [25, 100], 2)


def test_lines_of_version_1():
    turn = {"index": 4, "text": "x", "thought": None, "screen": [1, 2], "action": None}
    walk = {"episode_id": "e/1", "sample": 2, "steps": 9, "ended": "mismatch", "turns": [turn]}
    assert convert(dict(walk)) == {"unit": "e/1", "sample": 2, "ended": "mismatch", "steps": 9, "turns": [turn]}
    assert convert(walk | {"index": 4})["start"] == 4
    whole = convert(walk | {"unit": "e/1", "group": "kept", "visit": 3})
    assert ("start" not in whole, whole["signal"], whole["visit"], whole["unit"]) == (True, "kept", 3, "e/1")
    assert convert(walk | {"unit": "e/1/4", "group": "alike"})["start"] == 4
    live = {"task": "t", "goal": "g", "ending": "gave_up", "success": False, "reason": "", "trial": 1, "tries": 2}
    row = convert(live | {"template": "a", "turns": [turn | {"screenshot": "0", "note": "n"}]})
    assert (row["unit"], row["sample"], row["ended"], success(row)) == ("t", 1, "gave_up", False)
    assert (row["template"], row["tries"], rollout_of(row).turns[0].note) == ("a", 2, "n")
    assert success(convert(live | {"success": None, "ending": "crashed", "turns": []})) is None
    with pytest.raises(KeyError):
        convert({"task": "t"})
