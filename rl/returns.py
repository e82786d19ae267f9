"""Discounted future return R_t of every step of one rollout (UI-S1 eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

ReturnMode = Literal["paper", "released", "full"]
RETURN_MODES: tuple[ReturnMode, ...] = get_args(ReturnMode)


def returns(rewards: Sequence[float], exact: Sequence[bool], gamma: float, mode: ReturnMode = "paper") -> list[float]:
    """R_t = sum over k = t..t_end of gamma^(k-t) r_k.

    exact[k] says whether step k matched the expert. t_end is
    - "paper": the first mismatching step at or after t, itself included (the last step when there is none);
    - "released": the step before it, except that a mismatching step keeps its own reward;
    - "full": the last step, across repairs.
    """
    result = [0.0] * len(rewards)
    future = 0.0
    for t in reversed(range(len(rewards))):
        if mode != "full" and not exact[t]:
            future = 0.0
        result[t] = rewards[t] + gamma * future
        future = 0.0 if mode == "released" and not exact[t] else result[t]
    return result
