"""The expected return of a unit's rollouts, by likelihood, before any is sampled (for `rl.rollout.difficulty`).

Likelihoods are taken under the expert's history, since the policy's own does not exist yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Policy
from guiderail.agent.types import Episode
from guiderail.rl.rollout.difficulty import Difficulty
from guiderail.rl.score.likelihood import expect, expert_question, in_process
from guiderail.rl.sections import Method


def difficulty_of(method: Method, episodes: Sequence[Episode], dialogue: Dialogue) -> Difficulty | None:
    """As `method.difficulty` asks for it; units as in `rl.rollout.generation.units_of`."""
    if method.difficulty is None:
        return None
    steps = {episode.id: [(episode, t) for t in episode.targets] for episode in episodes}
    if method.algorithm == "offline":
        steps = {f"{name}/{t}": [(episode, t)] for name, places in steps.items() for episode, t in places}

    def expected(policy: Policy, units: Sequence[str]) -> list[float]:
        asked = [
            [expert_question(episode, t, dialogue, method.expert_thoughts) for episode, t in steps[unit]]
            for unit in units
        ]
        return expect(in_process(policy), asked, method.gamma)

    return Difficulty(expected, method.difficulty.low, method.difficulty.high, method.difficulty.rounds)
