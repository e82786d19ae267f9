"""Model text in and out: what is said can be read back, and nothing that is read raises anything unexpected."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guiderail.agent.codec import action_from_json, action_to_json, read, say, think_block
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    BUTTONS,
    Action,
    Answer,
    Click,
    Key,
    LongPress,
    Open,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)

SCREEN = ScreenTransform(1092, 2408)

sides = st.integers(28, 4000)
screens = st.builds(ScreenTransform, sides, sides)
points = st.builds(Point, st.floats(0, 1), st.floats(0, 1))
texts = st.text(max_size=40)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Click, points),
    st.builds(LongPress, points, st.floats(0, 60)),
    st.builds(Swipe, points, points),
    st.builds(Type, texts),
    st.builds(Open, texts),
    st.builds(Answer, texts),
    st.builds(Key, texts),
    st.builds(SystemButton, st.sampled_from(BUTTONS)),
    st.builds(Wait, st.floats(0, 60)),
    st.builds(Terminate, st.sampled_from(["success", "failure"])),
)
thoughts = st.none() | texts.filter(lambda text: "</think>" not in text)


def close(a: Point, b: Point, screen: ScreenTransform) -> bool:
    """Within one pixel of this screen."""
    return abs(a.x - b.x) * screen.width <= 1 and abs(a.y - b.y) * screen.height <= 1


def same(a: Action, b: Action, screen: ScreenTransform) -> bool:
    match a, b:
        case Click(p), Click(q):
            return close(p, q, screen)
        case LongPress(p, s), LongPress(q, t):
            return close(p, q, screen) and s == t
        case Swipe(p1, p2), Swipe(q1, q2):
            return close(p1, q1, screen) and close(p2, q2, screen)
    return a == b


@given(thoughts, actions, screens)
@example(None, Type("</action>"), SCREEN)
@example(None, Type("<think>x</think>"), SCREEN)
@example("an <action> in a thought", Type("<action>\n{}\n</action>"), SCREEN)
@example("", Answer('quotes " and \\ and </think>'), SCREEN)
def test_what_is_said_reads_back_up_to_one_pixel(thought: str | None, action: Action, screen: ScreenTransform) -> None:
    reply = read(say(thought, action, screen), screen)
    assert same(action, reply.action, screen)
    assert reply.thought == ((thought or "").strip() or None)


@given(actions, screens)
def test_saying_what_was_read_changes_nothing(action: Action, screen: ScreenTransform) -> None:
    content = action_to_json(action, screen)
    assert action_to_json(action_from_json(content, screen), screen) == content


# ------------------------------------------------------------------------------------------- anything may come in

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**320)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=20)
    | st.sampled_from(["click", "swipe", "Back", "success", "\ud800", "NaN"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["coordinate", "coordinate2", "text", "button", "time", "status", "direction"])
names = st.sampled_from(
    ["click", "long_press", "swipe", "type", "open", "answer", "key", "wait", "system_button", "terminate"]
)
objects = st.builds(
    lambda name, rest: {"action": name, **rest}, names | scalars, st.dictionaries(keys, values, max_size=4)
)
tags = st.sampled_from(
    ["<think>", "</think>", "<action>", "</action>", "{", "}", "[", '"', "<|im_end|>", "\ud800", "\0"]
)
soup = st.lists(tags | st.text(max_size=10), max_size=12).map("".join)


def readable_or_refused(text: str) -> None:
    refusal = ""
    try:
        reply = read(text, SCREEN)
    except UnreadableAction as error:
        refusal = str(error)
    else:
        json.dumps(action_to_json(reply.action, SCREEN), ensure_ascii=False, allow_nan=False).encode()
    assert len(refusal) <= 400


@given(values | objects)
def test_any_json_is_read_or_refused(content: object) -> None:
    readable_or_refused(f"<action>{json.dumps(content)}</action>")


@given(soup)
def test_any_text_is_read_or_refused(text: str) -> None:
    readable_or_refused(text)


@given(thoughts, actions, st.data())
def test_damaged_turns_are_read_or_refused(thought: str | None, action: Action, data: st.DataObject) -> None:
    text = say(thought, action, SCREEN)
    at, until = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    readable_or_refused(text[:at] + data.draw(st.text(max_size=5)) + text[until:])


@pytest.mark.parametrize("depth", [90, 400, *range(850, 1000, 3), 100_000])
def test_deep_nesting_is_refused_at_any_depth(depth: int) -> None:
    with pytest.raises(UnreadableAction):
        read('<action>{"action": "click", "coordinate": ' + "[" * depth + "]" * depth + "}</action>", SCREEN)


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 200_000,
        "<action>" * 200_000,
        "<think></think>" + "<action>" * 200_000 + "x",
        '<action>{"action": "' + "a" * 1_000_000 + '"}</action>',
        '<action>{"action": "system_button", "button": "' + "a" * 1_000_000 + '"}</action>',
        '<action>{"action": "click", "coordinate": ["' + "a" * 1_000_000 + '", 1]}</action>',
        '<action>{"action": "terminate", "status": [' + "1," * 300_000 + "1]}</action>",
        '<action>{"action": "wait", "time": ' + "9" * 100_000 + "}</action>",
    ],
    ids=lambda text: text[:24],
)
def test_long_nonsense_is_refused_quickly_and_briefly(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(UnreadableAction) as caught:
        read(text, SCREEN)
    assert time.perf_counter() - start < 2
    assert len(str(caught.value)) <= 400


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"action": "click"}, r"coordinate is None, expected \[x, y\]"),
        ({"action": "click", "coordinate": [1]}, r"expected \[x, y\]"),
        ({"action": "click", "coordinate": [1, True]}, "coordinate y is True, expected a number"),
        ({"action": "click", "coordinate": [1, float("nan")]}, "coordinate y is nan"),
        ({"action": "click", "coordinate": [1e300, 1]}, "coordinate x is 1e\\+300"),
        ({"action": "click", "coordinate": [10**400, 1]}, "coordinate x is"),
        ({"action": "swipe", "coordinate": [1, 2]}, "coordinate2 is None"),
        ({"action": "type"}, "text is None, expected a string"),
        ({"action": "type", "text": 7}, "text is 7, expected a string"),
        ({"action": "type", "text": "a\ud800"}, "half of a surrogate pair"),
        ({"action": "wait", "time": -1}, "time is -1, expected at least 0"),
        ({"action": "wait", "time": "2"}, "time is '2', expected a number"),
        ({"action": "system_button", "button": "Power"}, "button 'Power', expected one of Back, Home, Menu, Enter"),
        ({"action": "terminate", "status": "done"}, "status 'done', expected success or failure"),
        ({"action": "terminate"}, "status None"),
        ({"action": "fly"}, "action 'fly', expected one of click, "),
        ({}, "action None"),
        ([{"action": "wait"}], "the action is a JSON list, expected one flat object"),
    ],
)
def test_refusals_say_what_came_and_what_was_expected(content: object, why: str) -> None:
    with pytest.raises(UnreadableAction, match=why):
        action_from_json(content, SCREEN)


def test_a_thought_survives_an_unreadable_action() -> None:
    for rest in ("", "<action>{</action>", '<action>{"action": "fly"}</action>', "<action>[]"):
        with pytest.raises(UnreadableAction) as caught:
            read("<think> because </think>" + rest, SCREEN)
        assert caught.value.thought == "because"


def test_only_the_action_after_the_thought_counts() -> None:
    text = '<think>not <action>{"action": "wait"}</action></think><action>{"action": "type", "text": "a"}</action>'
    assert read(text, SCREEN).action == Type("a")
    assert think_block("<think>  </think>") is None
    assert think_block("<think>open") is None


def test_documented_example_and_defaults() -> None:
    reply = read('<think>why</think>\n<action>\n{"action": "click", "coordinate": [546, 1204]}\n</action>', SCREEN)
    assert (reply.thought, reply.action) == ("why", Click(Point(0.5, 0.5)))
    assert action_from_json({"action": "wait"}, SCREEN) == Wait(2.0)
    assert action_from_json({"action": "system_button", "button": "bAck"}, SCREEN) == SystemButton("Back")
    assert action_from_json({"action": "click", "coordinate": [0, 0], "bbox": "ignored"}, SCREEN) == Click(Point(0, 0))
