"""GiGPO (arXiv 2505.10978): trajectory GRPO plus a comparison of turns that acted in the same state.

    A_i,t = episode_weight A^E_i + step_weight A^S_i,t
    R_i,t = gamma^(T_i - 1 - t) r_i                           the reward r_i comes with the last turn T_i - 1
    A^S_i,t = (R_i,t - mean) / (std + 1e-6)                   over all turns of the group with the same state key

A^E is that of rl/credit/outcome.py. The second comparison is fair because these turns stood before the same state; their
histories may differ. A turn that is alone in its state has A^S = 0. The key is the world's own (`Turn.state`) where it has
one: an attempt that comes to a state twice counts with both turns. Elsewhere it is the screenshot's hash, which a clock or an
animation makes unique. The paper: step_weight 1, gamma .95.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guiderail.agent.types import Rollout, Turn
from guiderail.rl.credit import outcome
from guiderail.rl.credit.samples import Credited, StepSample
from guiderail.rl.credit.uis1 import CreditRules, normalise


def credit(group: Sequence[Rollout], rules: CreditRules) -> Credited:
    """Attempts at one task -> one sample per turn; which groups are dropped is as in trajectory GRPO."""
    base = outcome.credit(group, rules)
    returns = [[rules.gamma ** (len(row) - 1 - t) * one.ret for t, one in enumerate(row)] for row in base.samples]
    states = [[state_of(turn) for turn in rollout.turns] for rollout in group]
    steps = state_advantages(returns, states, scale=rules.scale, unbiased=rules.unbiased)
    samples = [
        [with_step(one, returns[i][t], steps[i][t], rules) for t, one in enumerate(row)]
        for i, row in enumerate(base.samples)
    ]
    return Credited(samples, base.signal)


def state_of(turn: Turn) -> str:
    """The key under which a turn is compared."""
    return turn.state or turn.screen.screenshot.digest


def state_advantages(
    returns: Sequence[Sequence[float]], states: Sequence[Sequence[str]], *, scale: bool = True, unbiased: bool = True
) -> list[list[float]]:
    """returns[i][t], states[i][t] -> A^S_i,t. Rows without returns are left out."""
    places: dict[str, list[tuple[int, int]]] = {}
    for i, row in enumerate(returns):
        for t in range(len(row)):
            places.setdefault(states[i][t], []).append((i, t))
    result = [[0.0] * len(row) for row in returns]
    for members in places.values():
        values = normalise([returns[i][t] for i, t in members], scale=scale, unbiased=unbiased)
        for (i, t), value in zip(members, values, strict=True):
            result[i][t] = value
    return result


def with_step(sample: StepSample, ret: float, step: float, rules: CreditRules) -> StepSample:
    """The sample of trajectory GRPO with a return and an advantage of its own step."""
    episode = sample.advantage_episode
    advantage = rules.episode_weight * episode + rules.step_weight * step
    return replace(sample, ret=ret, advantage_step=step, advantage=advantage)
