"""What credit gives to the trainer: one sample per turn, and what a group as a whole is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from guiderail.agent.types import Completion, Prompt

Signal = Literal["kept", "all right", "all wrong", "alike"]
"""Whether a group is learned from, or why there is nothing to learn from it."""

DROPPED: tuple[Signal, ...] = tuple(signal for signal in get_args(Signal) if signal != "kept")


@dataclass(frozen=True, slots=True)
class StepSample:
    """One turn of one rollout with its credit. Only `completion.token_ids`, sampled by the policy, are ever trained on.

    reward: of this turn. ret: the return from this turn on. advantage: what the loss multiplies; advantage_episode and
    advantage_step are its two parts, before their weights. behind: how many generations ago the turn was sampled; 0 for
    the policy as it is.
    """

    unit: str
    sample: int
    index: int
    prompt: Prompt
    completion: Completion
    reward: float
    ret: float
    advantage_episode: float
    advantage_step: float
    advantage: float
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Credited:
    """A group with its credit. samples[i][t]: turn t of rollout i; empty where the rollout gives no sample."""

    samples: list[list[StepSample]]
    signal: Signal
