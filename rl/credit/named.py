"""Credit and step rewards by name: ours, and what users' own must keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import get_args

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import Registry, function_of, value_of
from guiderail.agent.types import Completion, Prompt, Rollout, Turn
from guiderail.rl.credit import gigpo, outcome, states, uis1
from guiderail.rl.credit.samples import Credited, Signal
from guiderail.rl.credit.uis1 import PAPER, RELEASED, THOUGHTS, CreditRules, Reward, RewardRules, Terms

Credit = Callable[[Sequence[Rollout], CreditRules], Credited]
"""The rollouts of one unit, crashed ones left out -> their samples, and whether the group is learned from."""


def _reward(name: str, found: object) -> Reward:
    """A user's values, or a function of a turn. The function sees what a run records of a turn and no more (no prompt, no
    action, no tokens), so that `guiderail explain` can call it again with the same result."""
    if isinstance(found, RewardRules):
        return replace(value_of(found, RewardRules), name=name)
    function = function_of(found, 1, "RewardRules, or a function reward(turn) -> list of (term, value)")

    def reward(turn: Turn) -> Terms:
        said = Completion(turn.completion.text, finish=turn.completion.finish)
        terms = function(Turn(turn.index, Prompt(()), said, turn.thought, None, turn.verdict))
        if not isinstance(terms, list | tuple) or not all(_is_term(term) for term in terms):
            got = f"got {str(terms)[:80]!r} for step {turn.index}"
            raise SetupError(f"the reward {name}: {got}, expected a list of (term, value), such as [('exact', 1.0)]")
        return [(term, float(value)) for term, value in terms]

    return reward


def _is_term(term: object) -> bool:
    match term:
        case (str(), (int() | float()) as value):
            return isfinite(value)
    return False


def _credit(name: str, found: object) -> Credit:
    """A user's function; what it returns is checked for every group."""
    function = function_of(found, 2, "a function credit(group, rules) -> Credited")

    return lambda group, rules: _checked(name, group, function(group, rules))


def _checked(name: str, group: Sequence[Rollout], credited: object) -> Credited:
    """credited, if it can be learned from; else a SetupError."""
    if not isinstance(credited, Credited):
        raise SetupError(f"the credit {name}: got {str(credited)[:80]!r}, expected {Credited.__module__}.Credited")
    turns, samples = [len(rollout.turns) for rollout in group], [len(row) for row in credited.samples]
    if len(turns) != len(samples) or any(n not in (0, wanted) for n, wanted in zip(samples, turns, strict=True)):
        raise SetupError(f"the credit {name}: got {samples} samples, expected one per turn, {turns}, or none")
    if credited.signal not in get_args(Signal):
        raise SetupError(f"the credit {name}: got signal {credited.signal!r}, expected one of {get_args(Signal)}")
    if not all(isfinite(sample.advantage) for row in credited.samples for sample in row):
        raise SetupError(f"the credit {name}: an advantage is not a finite number")
    return credited


REWARDS: Registry[Reward] = Registry(
    "reward", "guiderail.rewards", {r.name: r for r in (PAPER, RELEASED, THOUGHTS)}, _reward
)

CREDITS: Registry[Credit] = Registry(
    "credit",
    "guiderail.credit",
    {"ui-s1": uis1.credit, "outcome": outcome.credit, "gigpo": gigpo.credit, "ui-s1-states": states.credit},
    _credit,
)

LIVE_CREDITS = ("outcome", "gigpo", "ui-s1-states")
"""Those that need outcomes, and so live attempts."""


def credit_named(name: str, rules: CreditRules) -> Callable[[Sequence[Rollout]], Credited]:
    """The credit of that name under these rules. Raises SetupError."""
    credit = CREDITS.find(name)
    return lambda group: credit(group, rules)
