"""What else an agent might have done, and which of its acts to ask about."""

import pytest

from guiderail.agent.types import Box, Click, LongPress, Open, Point, Swipe, SystemButton, Terminate, Type
from guiderail.envs.live.device import Element
from guiderail.launch.console.likely import alike, counted
from guiderail.launch.console.risky import risk, touched


def element(text, left=0.0, top=0.0, right=1.0, bottom=0.1, clickable=True):
    return Element(text, Box(left, top, right, bottom), "button", clickable)


HERE = Point(0.5, 0.05)


def test_shares_are_counted_by_action():
    home, back = SystemButton("Home"), SystemButton("Back")
    near = Click(Point(0.52, 0.05))
    found = counted(Click(HERE), [near, near, home, home, home, back, None, None])
    assert [(one.action, one.share, one.chosen) for one in found] == [
        (Click(HERE), 2 / 8, True),
        (home, 3 / 8, False),
        (None, 2 / 8, False),
    ]
    assert counted(home, []) == [type(found[0])(home, 0.0, 1, True)]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (Click(HERE), Click(Point(0.53, 0.08)), True),
        (Click(HERE), Click(Point(0.6, 0.05)), False),
        (Click(HERE), LongPress(HERE), False),
        (Swipe(HERE, Point(0.5, 0.5)), Swipe(Point(0.1, 0.1), Point(0.1, 0.9)), True),
        (Type("a"), Type("b"), False),
        (None, None, True),
    ],
)
def test_which_actions_look_the_same(a, b, same):
    assert alike(a, b) is same


@pytest.mark.parametrize("text", ["Send", "Call Mia", "PAY 3.20 EUR", "Delete all", "Uninstall", "Buy now"])
def test_what_leaves_the_device_or_costs_money_is_asked_about(text):
    assert text in risk(Click(HERE), lambda: [element(text)])


@pytest.mark.parametrize("text", ["Sender", "Recall", "Settings", "Payload", "Undeleted", "Calls", ""])
def test_other_words_are_not(text):
    assert risk(Click(HERE), lambda: [element(text), element("Delete", top=0.5, bottom=0.6)]) == ""


def test_the_words_of_a_target_are_those_inside_it():
    row = element("", bottom=0.2)
    assert touched(HERE, [row, element("Delete", 0.1, 0.12, 0.3, 0.16, clickable=False)]) == "Delete"
    assert touched(HERE, [element("a"), element("b", bottom=0.5)]) == "a"
    assert touched(Point(0.5, 0.9), [element("a")]) == ""


def test_a_screen_that_cannot_be_read_is_asked_about():
    assert "does not say" in risk(Click(HERE), list)
    for action in (Open("Shop"), Type("Delete"), Terminate("success"), SystemButton("Home"), None):
        assert risk(action, list) == ""
