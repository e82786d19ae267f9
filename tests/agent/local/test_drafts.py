"""Drafts from earlier visits, and the gates: no answer changes, and what was learned saves forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from guiderail.agent.local.drafts import CountGate, Drafts, GoodputGate, StepTime, Visits
from guiderail.agent.local.policy import LocalPolicy
from guiderail.agent.policy import Request, Sampling, Sharing, Speculation
from guiderail.agent.types import Message, Prompt
from tests.agent.local.test_policy import prompt
from tests.agent.local.test_prefix import GREEDY, OFF, SAMPLED, assert_same, group, like, policy, with_drafts, work

__all__ = ["policy", "work"]


def always(rows: int = 0) -> CountGate:
    return CountGate(least=0.0, drafted=100)


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY])
@pytest.mark.parametrize("speculation", ["suffix", "auto"])
def test_earlier_visits_change_nothing(policy: LocalPolicy, sampling: Sampling, speculation: Speculation) -> None:
    """Over visits with other seeds, so that rows follow answers that part from theirs, and with other histories."""
    requests = group(policy)[::4]
    texts = [f"tap there {i}" for i in range(len(requests))]
    eager = like(policy, sharing=Sharing(speculation=speculation))
    if speculation == "suffix":
        eager.drafts.gate = always()
    for visit in range(3):
        asked = [replace(request, seed=request.seed + visit) for request in with_drafts(requests, texts)]
        assert_same(eager.complete(asked, sampling), like(policy, sharing=OFF).complete(asked, sampling))
    assert eager.drafts.visits is not None
    assert eager.drafts.visits.answers(requests[0].prompt)


def test_a_step_that_is_visited_again_is_one_forward(policy: LocalPolicy, work: list[tuple[int, int]]) -> None:
    """Greedy, and the history is another: the answer of the first visit is the draft of the second, ids and all."""
    request = Request(prompt(policy.vision, 1))
    eager = like(policy, sharing=Sharing(speculation="suffix"))
    eager.drafts.gate = always()
    first = eager.complete([request] * 2, GREEDY)
    assert len(work) == len(first[0].token_ids) > 3
    work.clear()
    assert_same(eager.complete([request] * 2, GREEDY), first)
    assert len(work) == 1


def test_another_answer_takes_over_where_the_draft_parts(policy: LocalPolicy, work: list[tuple[int, int]]) -> None:
    request = Request(prompt(policy.vision, 2))
    eager = like(policy, sharing=Sharing(speculation="suffix"))
    eager.drafts.gate = always()
    [answer] = eager.complete([request], GREEDY)
    assert eager.drafts.visits is not None
    said = [token for token in answer.token_ids if token != policy.encoder.end_of_turn]
    other = [
        *said[:2],
        *(token + 1 if token + 1 not in policy.encoder.special_ids else token - 1 for token in said[2:]),
    ]
    eager.drafts.visits.remember(request.prompt, other)
    assert eager.drafts.visits.answers(request.prompt) == [other, said]
    work.clear()
    assert_same(eager.complete([request], GREEDY), [answer])
    assert len(work) == 2  # the latest parts after two tokens, the one before it holds the rest


def test_a_policy_of_later_weights_may_know_what_was_said(policy: LocalPolicy, work: list[tuple[int, int]]) -> None:
    request, drafts = Request(prompt(policy.vision, 3)), Drafts(always(), Visits())
    first = like(policy, sharing=Sharing(speculation="suffix"), drafts=drafts).complete([request], GREEDY)
    work.clear()
    later = like(policy, sharing=Sharing(speculation="suffix"), drafts=drafts)
    assert_same(later.complete([request], GREEDY), first)
    assert len(work) == 1


def test_off_and_ngram_remember_nothing(policy: LocalPolicy) -> None:
    for speculation in ("off", "ngram"):
        assert like(policy, sharing=Sharing(speculation=speculation)).drafts.visits is None  # type: ignore[arg-type]


def test_a_step_is_its_goal_and_screen(policy: LocalPolicy) -> None:
    visits, first = Visits(visits=2, steps=2), prompt(policy.vision, 1)
    for tokens in ([1], [2], [1], [3]):
        visits.remember(first, tokens)
    assert visits.answers(first) == [[3], [1]]
    longer = Prompt((*first.messages, Message("assistant", ("tap",)), Message("user", ("next", first.screen))))
    assert visits.answers(longer) == [[3], [1]]
    goal = prompt(policy.vision, 1, goal="Goal: another")
    screen = prompt(policy.vision, 2)
    assert not visits.answers(goal)
    visits.remember(goal, [4])
    visits.remember(screen, [5])
    assert not visits.answers(first), "the step not visited for longest went first"
    assert visits.answers(goal) == [[4]]


# -------------------------------------------------------------------------------------------------------------- goodput


def test_the_time_of_a_step_is_measured() -> None:
    time = StepTime()
    for columns in (1, 8, 3, 40, 8):
        time.record(columns, 0.01 + 0.002 * columns)
    assert time.of(1, 8) == pytest.approx(0.026)
    assert time.of(10, 100) == pytest.approx(0.3)
    same = StepTime()
    for _ in range(3):
        same.record(4, 0.02)
    assert same.of(2, 8) == pytest.approx(0.04)


def test_answers_of_one_token_take_no_step() -> None:
    """A policy that ends its turn at once, or a limit of one token: nothing is ever measured."""
    gate = GoodputGate()
    for _ in range(40):
        gate.begin_call(8)
        gate.end_call(8, 0, 0)
    assert StepTime().of(1, 1) == 0.0


def played(fixed: float, column: float, rows: Sequence[int], accepted: float) -> tuple[GoodputGate, list[bool]]:
    """A gate, and what it decided in calls of so many rows. Answers have 10 tokens; a draft of 9 is accepted to that share.
    Times are made, not measured."""
    gate, decided = GoodputGate(), []
    for n in rows:
        gate.begin_call(n)
        decided.append(gate.allows())
        steps = round(9 * (1 - accepted)) if decided[-1] else 9
        for left in range(steps):
            columns = max(1, n - left % 3)
            gate.forward(columns, fixed + column * columns)
        gate.end_call(10 * n, steps, steps * n + (9 * n if decided[-1] else 0))
    return gate, decided


def test_drafts_where_a_step_costs_more_than_its_columns() -> None:
    """Memory-bound, as small batches are: steps are dear. Compute-bound, as large ones: columns are."""
    for accepted, fixed, column, drafts in ((0.9, 1.0, 0.01, True), (0.2, 0.01, 1.0, False), (0.0, 1.0, 0.01, False)):
        gate, decided = played(fixed, column, [16] * 31, accepted)
        assert decided[:4].count(True) == 2, "each side is tried twice"
        assert set(decided[4:]) == {drafts}
        assert (gate.goodput(16, True) > gate.goodput(16, False)) == drafts
        gate.begin_call(16)
        assert gate.allows() != drafts, "the other side is tried again in call 32"


def test_each_batch_size_has_its_own_answer() -> None:
    """A step costs 1, a column 0.02: drafts of which a third is accepted pay with few rows only."""
    rows = [2, 64] * 12
    _, decided = played(1.0, 0.02, rows, 1 / 3)
    late = [*zip(rows, decided, strict=True)][10:]
    assert {made for n, made in late if n == 2} == {True}
    assert {made for n, made in late if n == 64} == {False}


def test_the_policy_measures(policy: LocalPolicy) -> None:
    eager = like(policy, sharing=Sharing(speculation="auto"))
    gate: Any = eager.drafts.gate
    requests = [Request(prompt(policy.vision, i)) for i in range(3)]
    for _ in range(4):
        answers = eager.complete(requests, GREEDY)
    plain, drafted = gate._sides[2]
    assert (plain.calls, drafted.calls) == (2, 2)
    assert gate.time.steps > 0
    tokens = sum(len(answer.token_ids) for answer in answers)
    assert plain.tokens == pytest.approx(tokens * 1.8)
    assert drafted.forwards < plain.forwards
