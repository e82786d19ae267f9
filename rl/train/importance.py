"""Truncated importance sampling: turns that another policy sampled weigh what they would weigh under this one.

    w_t = min(pi_old(a_t) / pi_sampler(a_t), cap)          multiplied into the token's weight in the loss

pi_old is the trainer's policy before the update, so the clipped ratio of the loss stays one of pi / pi_old. Tokens that this
policy sampled, and those whose sampler reported no probability, have exactly 1: on-policy updates do not change. The cap of
2 is that of slime and SkyRL.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def importance(old: Tensor, sampler: Tensor, foreign: Sequence[bool], cap: float) -> Tensor:
    """old, sampler: (rows, tokens), log-probabilities; sampler is NaN where it is not known. foreign: rows to be weighed."""
    rows = torch.tensor(foreign, device=old.device).unsqueeze(1)
    ratio = (old - sampler).exp().clamp(max=cap)
    return torch.where(rows & ~sampler.isnan(), ratio, torch.ones_like(old))
