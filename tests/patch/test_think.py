"""Thoughts by a large model: what it is shown, what counts, and a store that goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import DataError, EnvCrashed, SetupError
from guiderail.agent.policy import Request, Sampling, ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Click, Completion, Episode, Picture, Point, Screenshot, Step, Terminate, Type
from guiderail.patch.off_policy import load_thoughts, off_policy, with_thoughts
from guiderail.patch.think import Place, Store, cost, fill, missing, question, refused, thought_in

SAMPLING = Sampling(0.7, 50)
DIALOGUE = Dialogue(ORIGINAL_SIZE, BRIEF, 1)


def shot(n: int) -> Screenshot:
    return Screenshot(200, 400, data=bytes([n]))


@pytest.fixture
def episode() -> Episode:
    steps = (
        Step(shot(1), Click(Point(0.5, 0.25))),
        Step(shot(2), Type("milk & eggs")),
        Step(shot(3), Terminate("success")),
    )
    return Episode("e1", "buy milk", steps, "data.jsonl:1")


def says(policy_says: list[str]) -> ScriptedPolicy:
    said = iter(policy_says)
    return ScriptedPolicy(lambda request: next(said), vision=ORIGINAL_SIZE)


def test_question_shows_goal_past_screens_and_action(episode: Episode) -> None:
    asked = question(Place(episode, 1), ORIGINAL_SIZE)
    parts = asked.messages[1].parts
    text = "\n".join(part for part in parts if isinstance(part, str))
    assert [part.screenshot for part in parts if isinstance(part, Picture)] == [shot(2), shot(3)]
    assert "Goal: buy milk" in text
    assert "1. click" in text
    assert '"milk & eggs"' in text
    last = question(Place(episode, 2), ORIGINAL_SIZE).messages[1].parts
    assert [part.screenshot for part in last if isinstance(part, Picture)] == [shot(3)]


@pytest.mark.parametrize(
    ("thought", "why"),
    [
        ("I tap the shop", None),
        ("", "empty"),
        ("x" * 1001, "longer than 1000 characters"),
        ('done </think>\n<action>\n{"action": "wait", "time": 2}\n</action>', "changes the action"),
        ("a </think> b", "not read back as it is"),
        ("a <think> b", None),
    ],
)
def test_a_thought_must_leave_the_action_as_it_is(episode: Episode, thought: str, why: str | None) -> None:
    assert refused(thought, Place(episode, 0), DIALOGUE) == why


def test_thought_in_an_answer() -> None:
    assert thought_in(" I tap\n the shop ") == "I tap the shop"
    assert thought_in("<think>I tap</think>\nanything else") == "I tap"


def test_store_is_filled_refused_thoughts_asked_again_and_the_rest_next_time(tmp_path: Path, episode: Episode) -> None:
    store = Store(tmp_path / "thoughts.jsonl", "m")
    places = missing([episode], DIALOGUE, store.held())
    assert len(places) == 3
    policy = says(["tap it", "", "now I stop", ""])
    first = fill(store, places, policy, DIALOGUE, SAMPLING, at_once=8)
    assert (first.written, first.failed, dict(first.refused)) == (2, 0, {"empty": 1})
    left = missing([episode], DIALOGUE, store.held())
    assert [place.index for place in left] == [1]
    with (tmp_path / "thoughts.jsonl").open("a") as file:
        file.write('{"episode_id": "e1", "st')  # killed while it wrote
    again = fill(store, missing([episode], DIALOGUE, store.held()), says(["I type it"]), DIALOGUE, SAMPLING, at_once=8)
    assert again.written == 1
    assert load_thoughts(store.path) == {("e1", 0): "tap it", ("e1", 2): "now I stop", ("e1", 1): "I type it"}
    assert missing([episode], DIALOGUE, store.held()) == []


def test_each_batch_is_stored_before_the_next_is_asked(tmp_path: Path, episode: Episode) -> None:
    store = Store(tmp_path / "thoughts.jsonl", "m")

    def script(request: Request) -> str:
        if len(store.held()) == 2:
            raise KeyboardInterrupt
        return "why not"

    places = missing([episode], DIALOGUE, set())
    with pytest.raises(KeyboardInterrupt):
        fill(store, places, ScriptedPolicy(script, vision=ORIGINAL_SIZE), DIALOGUE, SAMPLING, at_once=2)
    assert len(store.held()) == 2


def test_failed_requests_and_cut_answers_write_nothing(tmp_path: Path, episode: Episode) -> None:
    class Poor(ScriptedPolicy):
        def complete(self, requests, sampling):  # type: ignore[no-untyped-def]
            return [EnvCrashed("gone"), *[Completion("I tap and", finish="length")] * (len(requests) - 1)][
                : len(requests)
            ]

    store = Store(tmp_path / "thoughts.jsonl", "m")
    places = missing([episode], DIALOGUE, set())
    found = fill(store, places, Poor(lambda request: "", vision=ORIGINAL_SIZE), DIALOGUE, SAMPLING, at_once=8, tries=1)
    assert (found.written, found.failed, dict(found.refused)) == (0, 1, {"cut by the token limit": 2})
    assert not store.path.exists()


def test_another_models_store_is_refused(tmp_path: Path, episode: Episode) -> None:
    store = Store(tmp_path / "thoughts.jsonl", "m")
    store.add(Place(episode, 0), "tap")
    with pytest.raises(SetupError, match="written by 'm', not by 'other'"):
        Store(store.path, "other").held()
    store.path.write_text("[]\n")
    with pytest.raises(DataError, match=r"thoughts.jsonl:1"):
        store.held()


def test_thoughts_with_line_separators_and_other_encodings(tmp_path: Path, episode: Episode) -> None:
    store = Store(tmp_path / "thoughts.jsonl", "m")
    thought = "one\u2028two\u0085three"
    store.add(Place(episode, 0), thought)
    assert store.held() == {("e1", 0)}
    assert load_thoughts(store.path) == {("e1", 0): thought}
    store.path.write_bytes(store.path.read_bytes() + b"\xff\n")
    for read in (store.held, lambda: load_thoughts(store.path)):
        with pytest.raises(DataError, match=r"thoughts.jsonl:2: not UTF-8 text"):
            read()


def test_cost(episode: Episode) -> None:
    one = cost([Place(episode, 2)], 50)
    longer = cost([Place(episode, 0), Place(episode, 2)], 50)
    assert (one.requests, one.written) == (1, 50)
    assert (longer.requests, longer.written) == (2, 100)
    pictures = 7 * 14  # 200 x 400 becomes 196 x 392, in patches of 28
    assert 2 * pictures < longer.read - one.read < 2 * pictures + 400
    assert json.dumps(longer.price(2.0, 10.0)) == json.dumps((longer.read * 2 + 1000) / 1e6)


def test_the_patch_reads_the_store_and_else_the_recording(tmp_path: Path, episode: Episode) -> None:
    from dataclasses import replace

    from guiderail.agent.types import Prompt, Turn

    told = replace(episode, steps=(replace(episode.steps[0], thought="as recorded"), *episode.steps[1:]))
    turn = Turn(0, Prompt(()), Completion(""), None, None)
    assert off_policy()(told, turn).thought == "as recorded"  # type: ignore[union-attr]
    (stored,) = with_thoughts([told], {("e1", 0): "as written"})
    assert off_policy()(stored, turn).thought == "as written"  # type: ignore[union-attr]
    assert with_thoughts([told], {("other", 0): "as written"}) == (told,)
