"""Every cell of the public matchers' table, under every named rule, and what ours promises."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.codec import Reply
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.types import (
    BUTTONS,
    Accepted,
    Action,
    Answer,
    Box,
    Click,
    Direction,
    Key,
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
    Verdict,
    Wait,
)
from guiderail.envs.recordings.match import GUIDERAIL, RULES, MatchRules, judge, words_shared

OURS, PAPER = "guiderail", "uis1-paper"
TRAIN, VALIDATION = "uis1-released-training", "uis1-released-validation"
SOP, WRITTEN = "uis1-released-sop", "uis1-sop-as-written"
ALL = frozenset(RULES)
RELEASED_SOP = frozenset({SOP, WRITTEN})
RELEASED_TRAINING = frozenset({TRAIN, VALIDATION})

SCREEN = Screenshot(1080, 2400)
AT = Point(0.5, 0.5)
BUTTON = TargetBox(Box(0.2, 0.48, 0.6, 0.52), "candidate")
FLAT = TargetBox(Box(0.2, 0.48, 0.6, 0.52), "bbox")
PAGE = TargetBox(Box(0.0, 0.0, 1.0, 1.0), "candidate")
ICON = TargetBox(Box(0.1, 0.1, 0.2, 0.2), "candidate")
ICON2 = TargetBox(Box(0.7, 0.7, 0.8, 0.8), "candidate")
FINGER: dict[Direction, Swipe] = {
    "up": Swipe(Point(0.5, 0.75), Point(0.5, 0.25)),
    "down": Swipe(Point(0.5, 0.25), Point(0.5, 0.75)),
    "left": Swipe(Point(0.75, 0.5), Point(0.25, 0.5)),
    "right": Swipe(Point(0.25, 0.5), Point(0.75, 0.5)),
}
OPPOSITE: dict[Direction, Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}


def step(action: Action, *boxes: TargetBox, label: Direction | None = None) -> Step:
    return Step(SCREEN, action, boxes, scroll_label=label)


def exact_under(at: Step, said: Action | UnreadableAction) -> frozenset[str]:
    return frozenset(name for name, rules in RULES.items() if judge(at, said, rules).exact)


# Each line: the expert's step, what was said, the rules under which that is exact.
CELLS: list[tuple[str, Step, Action, frozenset[str]]] = [
    ("click on the point", step(Click(AT)), Click(AT), ALL),
    ("click near the point", step(Click(AT)), Click(Point(0.53, 0.5)), ALL),
    ("click far, no box", step(Click(AT)), Click(Point(0.55, 0.5)), frozenset()),
    ("click far, in the flat box", step(Click(AT), FLAT), Click(Point(0.25, 0.5)), ALL - {SOP}),
    ("click in the flat box enlarged", step(Click(AT), FLAT), Click(Point(0.63, 0.5)), ALL - {SOP}),
    ("click beyond the enlarged box", step(Click(AT), FLAT), Click(Point(0.65, 0.5)), frozenset()),
    ("click in a candidate box", step(Click(AT), BUTTON), Click(Point(0.25, 0.5)), frozenset({OURS, PAPER, WRITTEN})),
    ("click in the page only", step(Click(AT), PAGE, BUTTON), Click(Point(0.9, 0.9)), frozenset({PAPER, WRITTEN})),
    (
        "click in the smallest",
        step(Click(AT), PAGE, BUTTON),
        Click(Point(0.25, 0.5)),
        frozenset({OURS, PAPER, WRITTEN}),
    ),
    ("long press near", step(LongPress(AT)), LongPress(Point(0.5, 0.53), 0.5), ALL),
    ("long press in the flat box", step(LongPress(AT), FLAT), LongPress(Point(0.25, 0.5)), ALL - {SOP}),
    ("click for a long press", step(LongPress(AT), FLAT), Click(AT), frozenset()),
    ("long press for a click", step(Click(AT), FLAT), LongPress(AT), frozenset()),
    ("same text", step(Type("Jazz")), Type(" jazz "), ALL),
    ("inner whitespace", step(Type("miles davis")), Type("miles   davis"), frozenset({OURS})),
    ("more than half of the text", step(Type("miles davis")), Type("miles da"), ALL),
    ("text around the text", step(Type("miles davis")), Type("by miles davis!"), ALL),
    ("exactly half of the text", step(Type("abcd")), Type("bc"), ALL),
    ("less than half of the text", step(Type("abcde")), Type("bc"), ALL - {OURS}),
    ("one letter", step(Type("miles davis")), Type("m"), ALL - {OURS}),
    ("the empty text", step(Type("miles davis")), Type(""), ALL - {OURS}),
    ("blank for blank", step(Type("")), Type(" "), ALL),
    ("other text", step(Type("miles davis")), Type("coltrane"), frozenset()),
    ("an answer for typing", step(Type("jazz")), Answer("jazz"), frozenset()),
    ("same answer", step(Answer("42")), Answer("42"), frozenset({OURS, PAPER})),
    ("typed answer", step(Answer("42")), Type("42"), RELEASED_TRAINING),
    ("other typed answer", step(Answer("42")), Type("x"), frozenset()),
    ("same key", step(Key("volume_up")), Key("volume_up"), frozenset({OURS, PAPER})),
    ("typed key", step(Key("volume_up")), Type("volume_up"), RELEASED_TRAINING),
    ("other key", step(Key("volume_up")), Key("camera"), frozenset()),
    ("same app", step(Open("Zoho Meeting")), Open("zoho meeting"), ALL),
    ("part of the app's name", step(Open("Zoho Meeting")), Open("Zoho"), ALL - {OURS}),
    ("other app", step(Open("Zoho Meeting")), Open("Spotify"), frozenset()),
    ("icon clicked", step(Open("Zoho"), ICON, ICON2), Click(Point(0.205, 0.205)), frozenset({WRITTEN})),
    ("second icon clicked", step(Open("Zoho"), ICON, ICON2), Click(Point(0.75, 0.75)), frozenset({WRITTEN})),
    ("click beside the icons", step(Open("Zoho"), ICON, ICON2), Click(Point(0.5, 0.5)), frozenset()),
    ("click without icons", step(Open("Zoho")), Click(Point(0.15, 0.15)), frozenset()),
    ("same button", step(SystemButton("Back")), SystemButton("Back"), ALL),
    ("other button", step(SystemButton("Back")), SystemButton("Home"), frozenset()),
    ("any wait", step(Wait(2)), Wait(9), ALL),
    ("a click for a wait", step(Wait(2)), Click(AT), frozenset()),
    ("same status", step(Terminate("success")), Terminate("success"), ALL - RELEASED_SOP),
    ("other status", step(Terminate("success")), Terminate("failure"), RELEASED_TRAINING),
    ("a wait for the end", step(Terminate("success")), Wait(), frozenset()),
    ("a swipe for a click", step(Click(AT), PAGE), FINGER["up"], frozenset()),
]


@pytest.mark.parametrize(("at", "said", "rules"), [c[1:] for c in CELLS], ids=[c[0] for c in CELLS])
def test_which_rules_accept(at: Step, said: Action, rules: frozenset[str]) -> None:
    assert exact_under(at, said) == rules


def test_right_kind_wrong_argument_is_a_type_match_and_wrong_kind_is_not() -> None:
    wrong: list[tuple[Step, Action]] = [
        (step(Click(AT)), Click(Point(0, 0))),
        (step(FINGER["up"]), FINGER["left"]),
        (step(Type("abcdef")), Type("zz")),
        (step(SystemButton("Back")), SystemButton("Home")),
        (step(Terminate("success")), Terminate("failure")),
    ]
    for at, said in wrong:
        verdict = judge(at, said)
        assert (verdict.readable, verdict.type_ok, verdict.exact) == (True, True, False)
        assert judge(at, Wait()) == Verdict(True, False, False, f"chose wait, expert chose {at.action.name}")


def test_a_click_on_an_app_icon_is_the_right_kind_only_where_that_rule_holds() -> None:
    at = step(Open("Zoho"), ICON)
    assert [name for name, rules in RULES.items() if judge(at, Click(AT), rules).type_ok] == [WRITTEN]
    assert not judge(step(Open("Zoho")), Click(AT), RULES[WRITTEN]).type_ok


# ------------------------------------------------------------------------------------------------------------- swipes


@pytest.mark.parametrize("label", [None, "label"])
@pytest.mark.parametrize("way", list(FINGER))
def test_swipes_in_four_directions_with_and_without_a_scroll_label(way: Direction, label: str | None) -> None:
    """The label names where the view goes: opposite to the finger vertically, equal to it horizontally."""
    vertical = way in ("up", "down")
    at = step(FINGER[way], label=(OPPOSITE[way] if vertical else way) if label else None)
    same, reverse = exact_under(at, FINGER[way]), exact_under(at, FINGER[OPPOSITE[way]])
    finger = frozenset({OURS, PAPER})
    if not vertical:
        assert (same, reverse) == (ALL, RELEASED_SOP)
    elif label:
        assert (same, reverse) == (finger | RELEASED_SOP | {TRAIN}, RELEASED_SOP | {VALIDATION})
    else:
        assert (same, reverse) == (finger | RELEASED_SOP, RELEASED_SOP | RELEASED_TRAINING)


def test_a_swipe_across_is_told_from_a_swipe_along() -> None:
    assert exact_under(step(FINGER["up"]), FINGER["left"]) == RELEASED_SOP
    assert "swiped left, expert swiped up" in judge(step(FINGER["up"]), FINGER["left"]).why


# ------------------------------------------------------------------------------------------------------ fine print


def test_a_click_exactly_at_the_radius_counts_despite_float_noise() -> None:
    at, said = step(Click(Point(0.50, 0.5))), Click(Point(0.54, 0.5))
    assert said.point.x - 0.50 > 0.04, "the trap: in floats the distance is larger than it is"
    assert exact_under(at, said) == {OURS, PAPER}
    assert exact_under(at, Click(Point(0.5401, 0.5))) == frozenset()


def test_the_released_evaluator_cannot_judge_some_experts_and_says_so() -> None:
    for expert in (Answer("42"), Key("camera"), Terminate()):
        for name, rules in RULES.items():
            verdict = judge(step(expert), expert, rules)
            assert verdict.judgeable == (name not in RELEASED_SOP)
            assert name not in RELEASED_SOP or (name in verdict.why and not verdict.exact and not verdict.type_ok)


@pytest.mark.parametrize("rules", list(RULES.values()), ids=list(RULES))
def test_an_unreadable_answer_is_never_right(rules: MatchRules) -> None:
    for expert in (Click(AT), Wait(), Answer("x"), Terminate()):
        verdict = judge(step(expert), UnreadableAction("no <action>...</action> block"), rules)
        assert verdict == Verdict(False, False, False, "unreadable: no <action>...</action> block", not rules.loose)


def test_reasons_name_the_distance_and_the_box() -> None:
    at = step(Click(AT), BUTTON)
    assert judge(at, Click(Point(0.5, 0.71))).why == "clicked 0.21 away from the expert's point and outside its box"
    assert judge(step(Click(AT)), Click(Point(0.5, 0.71))).why == "clicked 0.21 away from the expert's point"


def test_rules_are_named_by_their_key_and_travel_as_json() -> None:
    for name, rules in RULES.items():
        record = json.loads(json.dumps(dataclasses.asdict(rules)))
        assert type(rules)(**record) == rules
        assert rules.name == name
    assert {name for name, rules in RULES.items() if rules.error_zeroes_progress} == RELEASED_SOP


# ---------------------------------------------------------------------------------------------------------- properties

fractions = st.floats(0, 1)
points = st.builds(Point, fractions, fractions)
texts = st.text(max_size=30)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Click, points),
    st.builds(LongPress, points, st.floats(0, 9)),
    st.builds(Swipe, points, points),
    st.builds(Type, texts),
    st.builds(Open, texts),
    st.builds(Answer, texts),
    st.builds(Key, texts),
    st.builds(SystemButton, st.sampled_from(BUTTONS)),
    st.builds(Wait, st.floats(0, 9)),
    st.builds(Terminate, st.sampled_from(["success", "failure"])),
)
boxes = st.builds(lambda a, b: Box(min(a.x, b.x), min(a.y, b.y), max(a.x, b.x), max(a.y, b.y)), points, points)
targets = st.lists(st.builds(TargetBox, boxes, st.sampled_from(["bbox", "candidate"])), max_size=4).map(tuple)
steps = st.builds(Step, st.just(SCREEN), actions, targets)


@given(steps)
def test_every_action_is_exact_against_itself_under_our_rules(at: Step) -> None:
    assert judge(at, at.action).exact


@given(steps, actions, st.sampled_from(list(RULES.values())))
def test_exact_implies_the_right_kind_implies_readable(at: Step, said: Action, rules: MatchRules) -> None:
    verdict = judge(at, said, rules)
    assert verdict.exact <= verdict.type_ok <= verdict.readable
    assert verdict.why


@given(st.builds(Step, st.just(SCREEN), st.builds(Click, points), targets), points)
def test_the_smallest_box_accepts_no_more_than_any_box(at: Step, point: Point) -> None:
    assert judge(at, Click(point), GUIDERAIL).exact <= judge(at, Click(point), RULES[PAPER]).exact


# ------------------------------------------------------------------------------ actions accepted beside the expert's


def test_what_people_accepted_is_exact_and_its_verdict_says_so() -> None:
    at = Step(SCREEN, Open("Shop"), accepted=(Accepted(Click(Point(0.9, 0.1))), Accepted(Wait(1))))
    verdict = judge(at, Click(Point(0.91, 0.1)))
    assert verdict.exact
    assert verdict.why.endswith("accepted beside the expert's open")
    assert judge(at, Wait(5)).exact
    assert judge(at, Open("shop")).why == judge(dataclasses.replace(at, accepted=()), Open("shop")).why
    assert not judge(at, Click(Point(0.5, 0.5))).exact
    box = Accepted(Click(Point(0.9, 0.1)), (TargetBox(Box(0.5, 0, 1, 0.2), "bbox"),))
    assert judge(dataclasses.replace(at, accepted=(box,)), Click(Point(0.55, 0.15))).exact


@given(steps, actions, st.lists(st.builds(Accepted, actions), max_size=2).map(tuple))
def test_accepting_more_turns_no_exact_verdict_into_another_and_nothing_accepted_changes_nothing(
    at: Step, said: Action, more: tuple[Accepted, ...]
) -> None:
    plain, wider = judge(at, said), judge(dataclasses.replace(at, accepted=more), said)
    assert wider == plain or (wider.exact and not plain.exact and bool(more))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("code is lion", "Code is lion.", 1.0),
        ("code is lion tap New", "tap New", 4 / 7),
        ("milk milk", "milk", 2 / 3),
        ("next", "go on", 0.0),
        ("", "go on", 0.0),
        ("", "", 0.0),
    ],
)
def test_words_that_two_thoughts_share(a: str, b: str, expected: float) -> None:
    assert words_shared(a, b) == words_shared(b, a) == pytest.approx(expected)


def test_a_verdict_compares_thoughts_only_where_both_are_known() -> None:
    told, silent = dataclasses.replace(step(Wait()), thought="code is lion"), step(Wait())
    assert judge(told, Reply("the code is lion", Wait())).thought == pytest.approx(6 / 7)
    assert judge(told, Reply(None, Click(AT))).thought == 0.0
    assert judge(told, UnreadableAction("no action", "code is lion")).thought == 1.0
    assert judge(told, Wait()).thought is None
    assert judge(silent, Reply("code is lion", Wait())).thought is None
