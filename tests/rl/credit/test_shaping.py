"""What an attempt is worth, and GiGPO's comparison in equal states: worked tables."""

import math
from dataclasses import replace

import pytest

from guiderail.agent.types import (
    Click,
    Completion,
    Message,
    Outcome,
    Picture,
    Point,
    Prompt,
    Rollout,
    Screenshot,
    SystemButton,
    Terminate,
    Turn,
    Verdict,
    Wait,
)
from guiderail.rl.credit.gigpo import credit as gigpo
from guiderail.rl.credit.gigpo import state_advantages
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.outcome import credit as outcome
from guiderail.rl.credit.shaping import attempt_rewards, repeats
from guiderail.rl.credit.uis1 import CreditRules

HOME, BACK, DONE = SystemButton("Home"), SystemButton("Back"), Terminate()
A, B, C = Click(Point(0.1, 0.1)), Click(Point(0.2, 0.2)), Wait()


def screen(name="s"):
    return Prompt((Message("user", (Picture(Screenshot(10, 10, data=name.encode()), 10, 10),)),))


def rollout(i, actions, success=True, ended="finished", states=None, start=0, progress=None, screens=None):
    said = Completion("x", (1,), (-1.0,))
    turns = tuple(
        Turn(
            start + t,
            screen(screens[t] if screens else f"{i}-{t}"),
            said,
            "why",
            action,
            state=states[t] if states else "",
        )
        for t, action in enumerate(actions)
    )
    return Rollout("t", i, turns, ended, Outcome(success, progress), start=start)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (CreditRules(), [1, 1, 0, 0]),
        # shortest success 2 turns: 1 - .5 (5 - 2) / 5 = .7; failures stay 0
        (CreditRules(shortest=0.5), [1, 0.7, 0, 0]),
        (CreditRules(shortest=1.0), [1, 0.4, 0, 0]),
        # one repeated Home in the second attempt, one unreadable turn in the third, the fourth gave up
        (CreditRules(repeat=0.2), [1, 0.8, 0, 0]),
        (CreditRules(invalid=0.1), [1, 1, -0.1, 0]),
        (CreditRules(refusal=0.25), [1, 1, 0, 0.25]),
        (CreditRules(shortest=0.5, repeat=0.2, invalid=0.1, refusal=0.25), [1, 0.5, -0.1, 0.25]),
    ],
)
def test_an_attempt_is_worth_what_the_table_says(rules, expected):
    group = [
        rollout(0, [A, DONE]),
        rollout(1, [A, HOME, HOME, B, DONE]),
        rollout(2, [A, None, DONE], success=False),
        rollout(3, [A, Terminate("failure")], success=False, ended="gave_up"),
    ]
    assert attempt_rewards(group, rules) == pytest.approx(expected)
    assert [row[-1].reward for row in outcome(group, rules).samples] == pytest.approx(expected)


def test_a_branch_is_as_long_as_its_whole_attempt():
    """Both end at turn 6 of the task, whatever each of them holds of it; the other one ends at turn 3."""
    group = [rollout(0, [A, DONE], start=4), rollout(1, [A, B, A, B, C, DONE]), rollout(2, [A, B, DONE])]
    assert attempt_rewards(group, CreditRules(shortest=0.5)) == pytest.approx([0.75, 0.75, 1.0])


def test_progress_is_scaled_only_where_it_is_a_success():
    group = [rollout(0, [DONE]), rollout(1, [A, DONE], success=False, progress=0.5)]
    assert attempt_rewards(group, CreditRules(shortest=1.0)) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("actions", "count"),
    [
        ([A, B, C, DONE], 0),
        ([A, A], 1),
        ([A, A, A], 2),
        ([A, B, A, B], 0),  # cycles of two are no repetition in MAI-UI's list
        ([A, B, C, A, B, C], 1),
        ([A, B, C, A, B, C, A], 2),
        ([A, B, HOME, C, A, B, HOME, C], 1),
        ([A, B, HOME, C, BACK, A, B, HOME, C, BACK], 1),
        ([None, None, A], 0),
        ([Click(Point(0.1, 0.1)), Click(Point(0.1, 0.11))], 0),
    ],
)
def test_repeats(actions, count):
    assert repeats(actions) == count


def test_gigpo_is_the_worked_table():
    """Two attempts share their first state s and one state m, which the failure meets twice. gamma .5, no std:

    attempt 0, success, 2 turns: R = .5, 1        states s m
    attempt 1, failure, 3 turns: R = 0, 0, 0      states s m m
    s: mean .25 -> +.25, -.25;  m: mean 1/3 -> +2/3, -1/3, -1/3;  A^E: +.5, -.5
    """
    group = [rollout(0, [A, DONE], states="sm"), rollout(1, [A, B, DONE], success=False, states="smm")]
    credited = gigpo(group, CreditRules(gamma=0.5, scale=False))
    assert credited.signal == "kept"
    assert [[s.ret for s in row] for row in credited.samples] == [[0.5, 1.0], [0.0, 0.0, 0.0]]
    steps = [[s.advantage_step for s in row] for row in credited.samples]
    assert steps == [pytest.approx([0.25, 2 / 3]), pytest.approx([-0.25, -1 / 3, -1 / 3])]
    assert [s.advantage for s in credited.samples[0]] == pytest.approx([0.75, 0.5 + 2 / 3])
    half = gigpo(group, CreditRules(gamma=0.5, scale=False, step_weight=0.5))
    assert [s.advantage for s in half.samples[1]] == pytest.approx([-0.625, -0.5 - 1 / 6, -0.5 - 1 / 6])


def test_live_ui_s1_is_the_worked_table():
    """Rewards: exact 1, right kind .5. gamma .5, no std. Returns end with the first mismatch.

    attempt 0, success:  exact exact         R = 1.5, 1      states s m
    attempt 1, failure:  exact kind exact    R = 1.25, .5, 1 states s m n
    s: mean 1.375 -> +-.125;  m: mean .75 -> +-.25;  n: alone, 0;  A^E: +.5, -.5
    """
    exact = Verdict(True, True, True, "", True)
    kind = Verdict(True, True, False, "", True)
    group = [rollout(0, [A, DONE], states="sm"), rollout(1, [A, B, DONE], success=False, states="smn")]
    judged = [[exact, exact], [exact, kind, exact]]
    group = [
        replace(
            one, turns=tuple(replace(turn, thought="why", verdict=v) for turn, v in zip(one.turns, row, strict=True))
        )
        for one, row in zip(group, judged, strict=True)
    ]
    credited = credit_named("ui-s1-states", CreditRules(gamma=0.5, scale=False))(group)
    assert credited.signal == "kept"
    assert [[s.reward for s in row] for row in credited.samples] == [[1.0, 1.0], [1.0, 0.5, 1.0]]
    assert [[s.ret for s in row] for row in credited.samples] == [[1.5, 1.0], [1.25, 0.5, 1.0]]
    steps = [[s.advantage_step for s in row] for row in credited.samples]
    assert steps == [pytest.approx([0.125, 0.25]), pytest.approx([-0.125, -0.25, 0.0])]
    unscored = replace(group[1], outcome=None)
    assert credit_named("ui-s1-states", CreditRules(gamma=0.5))([*group, unscored]).samples[:2] == (
        credit_named("ui-s1-states", CreditRules(gamma=0.5))(group).samples
    )
    assert [s.advantage for s in credited.samples[1]] == pytest.approx([-0.625, -0.75, -0.5])


def test_gigpo_with_std_and_a_state_of_ones_own():
    """m has R = 1, 0, 0: mean 1/3, unbiased std sqrt(1/3)."""
    advantages = state_advantages([[1.0], [0.0, 0.0], [0.3]], [["m"], ["m", "m"], ["alone"]])
    deviation = math.sqrt(1 / 3) + 1e-6
    assert advantages[0] == pytest.approx([2 / 3 / deviation])
    assert advantages[1] == pytest.approx([-1 / 3 / deviation] * 2)
    assert advantages[2] == [0.0]


def test_without_keys_of_the_world_equal_screens_are_one_state():
    same = [rollout(0, [A, DONE], screens="ab"), rollout(1, [A, DONE], success=False, screens="ac")]
    steps = [[s.advantage_step for s in row] for row in gigpo(same, CreditRules(gamma=1.0, scale=False)).samples]
    assert steps == [[0.5, 0.0], [-0.5, 0.0]]


def test_the_loss_gives_every_turn_of_an_attempt_its_advantage_whatever_its_length():
    group = [rollout(0, [A, DONE]), rollout(1, [A, B, C, A, B, DONE], success=False)]
    rows = outcome(group, CreditRules(scale=False)).samples
    assert [len({s.advantage for s in row}) for row in rows] == [1, 1]
    assert rows[0][0].advantage == -rows[1][0].advantage == 0.5
