"""UI-S1's credit for live attempts: turns are compared at equal states, attempts by their outcome.

    A_i,t = episode_weight A^E_i + step_weight A^S_i,t

A^E is trajectory GRPO's (rl/credit/outcome.py). Each turn was judged against what the task's expert would do in its state; R_i,t
is UI-S1's return of these step rewards (rl/credit/uis1.py, eq. 9), and A^S_i,t compares it with those of all turns of the group
in the same state, as GiGPO does (rl/credit/gigpo.py). Along a recording, turns with one index see one screen. Live attempts
diverge, so there the index says nothing and the state has to. Our own combination; no paper has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guiderail.agent.types import Rollout
from guiderail.rl.credit import outcome
from guiderail.rl.credit.gigpo import state_advantages, state_of, with_step
from guiderail.rl.credit.samples import Credited
from guiderail.rl.credit.uis1 import CreditRules, judged


def credit(group: Sequence[Rollout], rules: CreditRules) -> Credited:
    """Attempts at one task -> one sample per turn; a group is kept where any turn has an advantage."""
    base = outcome.credit(group, rules)
    rewards, rets = judged(group, rules)
    scored = [ret if row else [] for ret, row in zip(rets, base.samples, strict=True)]
    states = [[state_of(turn) for turn in rollout.turns] for rollout in group]
    steps = state_advantages(scored, states, scale=rules.scale, unbiased=rules.unbiased)
    samples = [
        [with_step(replace(one, reward=rewards[i][t]), rets[i][t], steps[i][t], rules) for t, one in enumerate(row)]
        for i, row in enumerate(base.samples)
    ]
    learned = any(sample.advantage for row in samples for sample in row)
    return Credited(samples, "kept" if learned else base.signal)
