"""The step reward (UI-S1 section 3.3). A page of arithmetic over verdicts; no tensors."""

from __future__ import annotations

from dataclasses import dataclass

from agent.types import Turn


@dataclass(frozen=True, slots=True)
class RewardRules:
    """Paper: r = 0.1 f + 0.4 [f] type + 0.5 [f type] exact, so 0, .1, .5 or 1.

    format: reward of a readable action behind a non-blank thought. gated: an answer out of format earns nothing else.
    Released code instead adds 0.1 f to 0.9 {1 exact, .5 right type, .1 readable}, with no gate (method 4.1).
    """

    name: str = "paper"
    format: float = 0.1
    readable: float = 0.0
    type: float = 0.4
    exact: float = 0.5
    gated: bool = True


PAPER = RewardRules()
RELEASED = RewardRules("released", format=0.1, readable=0.09, type=0.36, exact=0.45, gated=False)
REWARDS = {rules.name: rules for rules in (PAPER, RELEASED)}


def step_reward(turn: Turn, rules: RewardRules = PAPER) -> float:
    """Each term builds on the one before. "Format" means the whole format: a thought without a readable action is 0."""
    return sum(value for _, value in reward_terms(turn, rules))


def reward_terms(turn: Turn, rules: RewardRules = PAPER) -> list[tuple[str, float]]:
    """The reward by term, in the order they are added."""
    verdict, formatted = turn.verdict, turn.thought is not None
    if not verdict.readable or (rules.gated and not formatted):
        return []
    terms = [("format", rules.format * formatted), ("readable", rules.readable)]
    terms += [("type", rules.type)] if verdict.type_ok or verdict.exact else []
    terms += [("exact", rules.exact)] if verdict.exact else []
    return terms
