"""Examples by similarity: the arithmetic against a slow twin, what is never shown, and what the writer sees."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Request, Sampling, ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Action, Click, Episode, Picture, Point, Screenshot, Step, Terminate, Type
from guiderail.patch.examples import Examples, examples_of, words
from guiderail.patch.think import Place, Store, cost, fill, missing, question

DIALOGUE = Dialogue(ORIGINAL_SIZE, BRIEF, 1)


def episode(name: str, goal: str, *actions: Action) -> Episode:
    steps = tuple(Step(Screenshot(200, 400, data=f"{name}{i}".encode()), one) for i, one in enumerate(actions))
    return Episode(name, goal, steps, f"{name}:1")


TAP, END = Click(Point(0.5, 0.25)), Terminate("success")
MILK = episode("milk", "buy milk in the shop", TAP, Type("milk"), END)
EGGS = episode("eggs", "buy eggs in the shop", TAP, Type("eggs"), END)
ALARM = episode("alarm", "set an alarm", TAP, END)
EVERYTHING = (MILK, EGGS, ALARM)
THOUGHTS = {
    ("milk", 0): "I open the shop",
    ("milk", 1): "I type it",
    ("milk", 2): "I am done",
    ("alarm", 0): "the clock",
}


def cosine(a: tuple[Episode, int], b: tuple[Episode, int]) -> float:
    bags = [words(one, t) for one in EVERYTHING for t in range(len(one.steps))]
    rarity = {w: 1 + math.log((1 + len(bags)) / (1 + sum(w in bag for bag in bags))) for bag in bags for w in bag}
    one, two = ({w: n * rarity[w] for w, n in words(*where).items()} for where in (a, b))
    lengths = [math.sqrt(sum(v * v for v in vector.values())) for vector in (one, two)]
    return sum(v * two.get(w, 0.0) for w, v in one.items()) / (lengths[0] * lengths[1])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_most_similar_come_first_with_their_cosine(index: int) -> None:
    found = examples_of(EVERYTHING, THOUGHTS, 4, grows=False).most_similar(EGGS, index)
    slow = sorted(
        (
            (cosine((EGGS, index), (e, t)), e.id, t)
            for e in (MILK, ALARM)
            for t in range(len(e.steps))
            if (e.id, t) in THOUGHTS
        ),
        reverse=True,
    )
    slow = [row for row in slow if row[0] > 0]  # nothing in common is no example
    assert [(one.episode.id, one.index) for one in found] == [(name, t) for _, name, t in slow]
    assert [one.similarity for one in found] == pytest.approx([value for value, _, _ in slow], abs=1e-12)
    assert (found[0].episode.id, found[0].index) == ("milk", index)


def test_never_of_the_same_episode_and_no_thought_twice() -> None:
    twice = THOUGHTS | {("alarm", 0): "I open the shop", ("gone", 0): "of a recording that is not here"}
    made = examples_of(EVERYTHING, twice, 4, grows=False)
    assert len(made) == 4
    assert {one.episode.id for one in made.most_similar(MILK, 0)} == {"alarm"}
    thoughts = [one.thought for one in made.most_similar(EGGS, 0)]
    assert sorted(thoughts) == sorted(set(thoughts)) == ["I am done", "I open the shop", "I type it"]
    assert Examples({"milk": MILK}, 2, True).most_similar(MILK, 0) == ()


def test_the_writer_is_shown_them_as_text_and_the_cost_counts_them() -> None:
    found = examples_of(EVERYTHING, THOUGHTS, 1, grows=False).most_similar(EGGS, 1)
    parts = question(Place(EGGS, 1), ORIGINAL_SIZE, found).messages[1].parts
    assert isinstance(parts[0], str)
    assert parts[0].startswith(
        "Example from another task\nGoal: buy milk in the shop\nThe action it takes: type milk\nIts thought: I type it\n\n"
        "Goal: buy eggs"
    )
    plain = question(Place(EGGS, 1), ORIGINAL_SIZE).messages[1].parts
    assert sum(isinstance(part, Picture) for part in parts) == sum(isinstance(part, Picture) for part in plain)
    assert 2 * 50 < cost([Place(EGGS, 1)], 50, 2).read - cost([Place(EGGS, 1)], 50).read < 2 * 50 + 60


def test_a_store_that_is_filled_shows_what_it_got_so_far(tmp_path: Path) -> None:
    """The stand-in writes nothing readable unless it is shown an example."""
    asked: list[str] = []

    def script(request: Request) -> str:
        first = request.prompt.messages[1].parts[0]
        assert isinstance(first, str)
        asked.append(first)
        return "as in the example" if first.startswith("Example") else "a </think> b" if "eggs" in first else "I see"

    store, made = Store(tmp_path / "t.jsonl", "m"), examples_of(EVERYTHING, {}, 2, grows=True)
    places = missing([MILK, EGGS], DIALOGUE, set())
    policy = ScriptedPolicy(script, vision=ORIGINAL_SIZE)
    found = fill(store, places, policy, DIALOGUE, Sampling(0.0, 50), at_once=3, examples=made)
    assert [one.startswith("Example") for one in asked] == [False] * 3 + [True] * 3
    assert ((found.bare.answers, found.bare.refused), (found.shown.answers, found.shown.refused)) == ((3, 0), (3, 0))
    assert found.written == 6
    assert len(found.similarities) == 3
    assert all(0 < one <= 1 for one in found.similarities)
    assert '"examples": 1' in (tmp_path / "t.jsonl").read_text()  # "I see" is one thought, however often it was written

    asked.clear()
    other = Store(tmp_path / "u.jsonl", "m")
    bare = fill(other, places, policy, DIALOGUE, Sampling(0.0, 50), at_once=3, examples=made, control=1.0)
    assert not any(one.startswith("Example") for one in asked)
    assert ((bare.bare.answers, bare.bare.refused), bare.shown.answers) == ((6, 3), 0)
    assert dict(bare.refused) == {"not read back as it is": 3}
