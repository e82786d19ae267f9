"""Screens to read: what is said about them is what is painted, and their streams do not meet."""

import itertools
import random

import pytest

from guiderail.agent.codec import read
from guiderail.agent.types import Click
from guiderail.envs.pocket.draw import theme
from guiderail.rl.tiny.questions import PIXELS, errand, questions, state
from guiderail.rl.tiny.screens import SIZE, generic_screens, pocket_screens, vocabulary

SOURCES = [generic_screens, pocket_screens]


def some(source, n=40, name="train", seed=3):
    return list(itertools.islice(source(name, seed), n))


@pytest.mark.parametrize("source", SOURCES)
def test_boxes_lie_inside_and_hold_the_words(source):
    for screen in some(source):
        background = {theme(screen.scene.appearance.theme).back, theme(screen.scene.appearance.theme).bar}
        for shown in screen.elements:
            left, top, right, bottom = shown.box
            assert 0 <= left < right <= SIZE[0]
            assert 0 <= top < bottom <= SIZE[1]
            assert " ".join(word for word, _ in shown.words) == " ".join(shown.text.split())
            for _, box in shown.words:
                assert left <= box[0] < box[2] <= right
                assert top <= box[1] < box[3] <= bottom
                painted = {colour for _, colour in screen.image.crop(box).getcolors(10_000)}
                assert painted - background, shown


@pytest.mark.parametrize("source", SOURCES)
def test_generic_words_stand_alone_in_their_cells(source):
    """No two words share a cell of the 16 px grid: each cell has one right answer."""
    for screen in some(source):
        taken = {}
        for shown in screen.elements:
            for word, (left, top, right, bottom) in shown.words:
                middle = (top + bottom) // 2 // 16
                for column in range(left // 16, (right - 4) // 16 + 1):
                    assert taken.setdefault((middle, column), word) == word


@pytest.mark.parametrize("source", SOURCES)
def test_a_mark_shows_the_accent_only_when_checked(source):
    seen = set()
    for screen in some(source, 80):
        accent = theme(screen.scene.appearance.theme).accent
        for shown in screen.elements:
            if shown.mark:
                painted = {colour for _, colour in screen.image.crop(shown.mark).getcolors(10_000)}
                assert (accent in painted) == shown.checked
                seen.add((shown.kind, shown.checked))
    assert len(seen) == 4


@pytest.mark.parametrize("source", SOURCES)
def test_answers_are_true(source):
    asked, answers = set(), set()
    for number, screen in enumerate(some(source, 60)):
        for question in questions(screen, random.Random(number)):
            asked.add(question.about)
            assert all(0 <= part.start < part.end <= len(question.answer) for part in question.evidence)
            if question.about == "where":
                click = read(question.answer, PIXELS).action
                x, y = click.point.x * SIZE[0], click.point.y * SIZE[1]
                left, top, right, bottom = question.target.box
                assert left <= x < right
                assert top <= y < bottom
                assert [s.text for s in screen.drawn].count(question.target.text) == 1
            if question.about == "what":
                assert question.answer == question.target.text
            if question.about == "state":
                assert question.answer in (("on", "yes") if question.target.checked else ("off", "no"))
                answers.add(question.answer)
            if question.about == "errand" and question.target and '"click"' in question.answer:
                assert isinstance(read(question.answer, PIXELS).action, Click)
                assert question.target in screen.named
    assert asked == {"where", "state", "what", "kind", "errand"}
    assert answers == {"on", "off", "yes", "no"}


def test_errands_copy_the_goal_and_know_when_they_are_done():
    sorts = set()
    for number, screen in enumerate(some(generic_screens, 300)):
        question = errand(screen, random.Random(number))
        if question is None:
            continue
        reply = read(question.answer, PIXELS)
        sorts.add((reply.action.name, len(question.history)))
        if reply.action.name == "click" and "close" not in reply.thought:
            assert reply.thought.rpartition("tap ")[2] in question.goal
        if question.goal.startswith("Turn"):
            wanted = question.goal.split()[1] == "on"
            assert (reply.action.name == "terminate") == (question.target.checked == wanted)
    assert {
        ("click", 0),
        ("click", 1),
        ("click", 2),
        ("swipe", 0),
        ("type", 1),
        ("terminate", 0),
        ("terminate", 3),
    } <= sorts


def test_streams_are_functions_of_their_names():
    for source in SOURCES:
        assert [s.scene for s in some(source, 5)] == [s.scene for s in some(source, 5)]
        assert [s.scene for s in some(source, 5)] != [s.scene for s in some(source, 5, name="eval")]
        later = next(source("train", 3, 4))
        assert later.scene == some(source, 5)[4].scene


def test_a_thing_without_a_state_has_none():
    row = next(s for screen in some(generic_screens) for s in screen.named if s.kind == "row")
    with pytest.raises(ValueError, match="no state"):
        state(row)


def test_the_vocabulary_has_every_word_of_pocket_pages():
    known = set(vocabulary())
    for screen in some(pocket_screens, 100, name="eval"):
        for shown in screen.drawn:
            assert all(word in known or word.isdigit() for word in shown.text.split()), shown.text
