"""UI-S1's credit against the worked tables of the method, and its invariants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.types import Completion, Message, Picture, Prompt, Rollout, Screenshot, Turn, Verdict
from guiderail.rl.credit.uis1 import (
    PAPER,
    RELEASED,
    THOUGHTS,
    CreditRules,
    credit,
    episode_advantages,
    normalise,
    returns,
    reward_terms,
    signal,
    step_advantages,
    step_reward,
)

PROMPT = Prompt((Message("user", ("go", Picture(Screenshot(160, 288), 160, 288))),))
MISS, TYPE, EXACT = (Verdict(True, False, False, ""), Verdict(True, True, False, ""), Verdict(True, True, True, ""))
UNREADABLE = Verdict(False, False, False, "")
RAISED = Verdict(True, False, False, "", judgeable=False)


def turn(verdict: Verdict, thought: str | None = "why", index: int = 0) -> Turn:
    return Turn(index, PROMPT, Completion("x", (1, 2), (-1.0, -1.0)), thought, None, verdict)


@pytest.mark.parametrize(
    ("verdict", "thought", "paper", "released"),
    [
        (EXACT, "why", 1.0, 1.0),
        (TYPE, "why", 0.5, 0.55),
        (MISS, "why", 0.1, 0.19),
        (EXACT, None, 0.0, 0.9),
        (TYPE, None, 0.0, 0.45),
        (UNREADABLE, "why", 0.0, 0.0),
        (RAISED, "why", 0.1, 0.1),
        (RAISED, None, 0.0, 0.0),
    ],
)
def test_step_reward_table(verdict, thought, paper, released):
    assert step_reward(turn(verdict, thought), PAPER) == pytest.approx(paper)
    assert step_reward(turn(verdict, thought), RELEASED) == pytest.approx(released)
    terms = reward_terms(turn(verdict, thought), PAPER)
    assert sum(value for _, value in terms) == pytest.approx(paper)


@pytest.mark.parametrize(
    ("verdict", "shared", "expected"),
    [(EXACT, 1.0, 1.5), (EXACT, 0.5, 1.25), (EXACT, None, 1.0), (MISS, 0.5, 0.35), (UNREADABLE, 1.0, 0.0)],
)
def test_thoughts_may_earn_something_too(verdict, shared, expected):
    said = turn(replace(verdict, thought=shared))
    assert step_reward(said, THOUGHTS) == pytest.approx(expected)
    assert step_reward(said, PAPER) == step_reward(turn(verdict), PAPER)


R, MATCH = (1, 1, 0.55, 1, 1), (True, True, False, True, True)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("paper", (1.6375, 1.275, 0.55, 1.5, 1)),
        ("released", (1.5, 1.0, 0.55, 1.5, 1)),
        ("full", (1.825, 1.65, 1.3, 1.5, 1)),
    ],
)
def test_returns_table(mode, expected):
    assert returns(R, MATCH, 0.5, mode) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=12), st.floats(0, 1))
def test_return_modes_agree_where_they_must(pairs, gamma):
    rewards, exact = [p[0] for p in pairs], [p[1] for p in pairs]
    if all(exact):
        assert returns(rewards, exact, gamma, "paper") == returns(rewards, exact, gamma, "full")
        assert returns(rewards, exact, gamma, "released") == returns(rewards, exact, gamma, "full")
    assert returns(rewards, exact, 0.0, "paper") == rewards
    for t, (paper, released) in enumerate(
        zip(returns(rewards, exact, gamma, "paper"), returns(rewards, exact, gamma, "released"), strict=True)
    ):
        assert paper >= released - 1e-12
        if not exact[t]:
            assert paper == released == rewards[t]


def test_normalise_uses_the_unbiased_deviation_with_epsilon():
    assert normalise([0.0, 1.0]) == pytest.approx([-0.5 / (0.5**0.5 + 1e-6), 0.5 / (0.5**0.5 + 1e-6)])
    assert normalise([0.0, 1.0], unbiased=False) == pytest.approx([-1.0, 1.0], abs=1e-5)
    assert normalise([1.0, 3.0], scale=False) == [-1.0, 1.0]


def test_a_group_of_one_and_equal_values_compare_with_nobody():
    assert normalise([0.7]) == [0.0]
    assert normalise([0.7, 0.7, 0.7]) == [0.0, 0.0, 0.0]
    assert step_advantages([[1.0, 2.0], [0.0]])[0][1] == 0.0
    assert episode_advantages([[0.4, 0.5]], [[0.6, 0.5]]) == [[0.0, 0.0]]


def test_steps_are_compared_among_the_rollouts_alive():
    rows = step_advantages([[1.0, 5.0, 3.0], [0.0, 1.0], [1.0]], scale=False)
    assert rows[0] == pytest.approx([1 / 3, 2.0, 0.0])
    assert rows[1] == pytest.approx([-2 / 3, -2.0])


GROUPS = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=8)


@given(GROUPS, st.sampled_from(["total", "first", "last"]))
def test_episode_advantage_is_constant_in_a_trajectory_and_zero_mean_over_trajectories(rewards, mode):
    rows = episode_advantages(rewards, rewards, mode)
    assert all(len(set(row)) == 1 for row in rows)
    assert sum(row[0] for row in rows) == pytest.approx(0, abs=1e-6)


def test_released_episode_advantage_is_not_constant_and_keeps_a_lone_row():
    """Method 5.3: the public code normalises each step's own reward over all step rows of the group."""
    rows = episode_advantages([[1.0, 1.0], [1.0, 0.1]], [[0], [0]], "released")
    assert rows[1][0] != rows[1][1]
    assert sum(sum(row) for row in rows) == pytest.approx(0, abs=1e-5)
    assert episode_advantages([[0.55]], [[0.55]], "released") == [[0.55]]


def group(*outcomes: str) -> list[Rollout]:
    """'EEM' is a rollout with two exact turns and a miss; T is a type match, U unreadable."""
    verdicts = {"E": EXACT, "T": TYPE, "M": MISS, "U": UNREADABLE}
    return [
        Rollout("e", i, tuple(turn(verdicts[c], index=t) for t, c in enumerate(text)), "mismatch")
        for i, text in enumerate(outcomes)
    ]


def test_credit_adds_the_two_levels_with_their_weights():
    rules = CreditRules(episode_weight=2.0, step_weight=0.5)
    rows = credit(group("EE", "EM", "M"), rules).samples
    assert [[s.reward for s in row] for row in rows] == [[1.0, 1.0], [1.0, 0.1], [0.1]]
    assert [row[0].ret for row in rows] == pytest.approx([1.5, 1.05, 0.1])
    for row in rows:
        for sample in row:
            assert sample.advantage == 2.0 * sample.advantage_episode + 0.5 * sample.advantage_step
    assert rows[0][0].advantage > rows[1][0].advantage > rows[2][0].advantage
    assert rows[0][1].advantage_step > 0 > rows[1][1].advantage_step


def test_credit_of_step_weight_zero_is_the_trajectory_alone():
    rows = credit(group("EE", "EM", "M"), replace(CreditRules(), step_weight=0.0)).samples
    assert all(sample.advantage == row[0].advantage for row in rows for sample in row)


def test_the_filter_names_why_a_group_has_no_signal():
    assert signal([1.5, 0.1], [True, False], 0.3) == "kept"
    assert signal([1.5, 1.5], [True, True], 0.3) == "all right"
    assert signal([0.1, 0.1], [False, False], 0.3) == "all wrong"
    assert signal([1.5, 1.4], [True, False], 0.3) == "alike"
    assert signal([1.5], [True], 0.0) == "alike"


@pytest.mark.parametrize(
    ("outcomes", "rules", "expected"),
    [
        (("EE", "M"), CreditRules(), "kept"),
        (("EE", "EE"), CreditRules(), "all right"),
        (("M", "M"), CreditRules(), "all wrong"),
        (("EE", "EE", "EM", "EE"), CreditRules(), "alike"),  # R_1 is 1.5 three times and 1.05 once: std .195
        (("EE", "EE", "EM", "EE"), CreditRules(spread_of="final_reward"), "kept"),  # 1 three times, .1 once: std .39
        (("EE", "EE"), CreditRules(spread_of="none"), "kept"),
        (("EE",), CreditRules(spread_of="none"), "alike"),
    ],
)
def test_the_spread_of_what_the_rules_say(outcomes, rules, expected):
    assert credit(group(*outcomes), rules).signal == expected


def test_the_methods_example_of_a_dropped_group():
    """Method 5.6: 8 rollouts, half R=1.0, half 1.5 -> std .25 -> dropped at eta .3."""
    assert signal([1.0] * 4 + [1.5] * 4, [True] * 4 + [False] * 4, 0.3) == "alike"
    assert signal([1.0] * 4 + [1.5] * 4, [True] * 4 + [False] * 4, 0.2) == "kept"
