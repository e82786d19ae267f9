"""Which groups are worth learning from (UI-S1's dynamic sampling, method 5.6)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Literal, get_args

SpreadOf = Literal["first_return", "final_reward", "none"]
SPREADS: tuple[SpreadOf, ...] = get_args(SpreadOf)
Signal = Literal["kept", "all right", "all wrong", "alike"]


def signal(
    first_returns: Sequence[float],
    final_rewards: Sequence[float],
    all_exact: Sequence[bool],
    eta: float,
    of: SpreadOf = "first_return",
) -> Signal:
    """Keep a group when the (biased) std over its rollouts exceeds `eta`; else say why it carries no signal.

    first_returns[i] = R_1 of rollout i, final_rewards[i] its last reward, all_exact[i] whether every turn matched.
    """
    values = first_returns if of == "first_return" else final_rewards
    if of == "none" or pstdev(values) > eta:
        return "kept"
    share = fmean(all_exact)
    return "all right" if share == 1 else "all wrong" if share == 0 else "alike"
