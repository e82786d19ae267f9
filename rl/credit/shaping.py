"""What an attempt is worth: its outcome, less what it wasted. Every term is off until its weight is set.

    r_i = s_i o_i + refusal [gave up] - repeat n_i - invalid u_i
    s_i = 1 - shortest (T_i - Tmin) / T_i                       for successes, else 1

o_i is the outcome: progress where the world measures it, else 1 or 0. T_i is the length in turns from the start of the task,
Tmin that of the shortest success in the group, so only successes are scaled and the order of failures stays. This is the
shortest-path adjustment of MobileRL (arXiv 2509.18119); 0 < shortest <= 1, no public source gives its constant. n_i counts
turns that repeat the turn before, or that end a cycle of 3 to 5 actions done twice (MAI-UI, 2512.22047; the constant is not
public). u_i counts unreadable turns (0.1 each in ClawGUI's public configuration). refusal is our own: a small reward for saying that
the task is not done, where a false claim earns nothing. An attempt that gives up counts as failed, whatever the state is.
"""

from __future__ import annotations

from collections.abc import Sequence

from guiderail.agent.types import Action, Outcome, Rollout
from guiderail.rl.credit.uis1 import CreditRules

CYCLES = (3, 4, 5)


def reward(outcome: Outcome) -> float:
    """0 to 1."""
    return float(outcome.success) if outcome.progress is None else outcome.progress


def attempt_rewards(group: Sequence[Rollout], rules: CreditRules) -> list[float]:
    """r_i of attempts at one task; each has an outcome."""
    lengths = [rollout.start + len(rollout.turns) for rollout in group]
    won = [
        length for length, one in zip(lengths, group, strict=True) if one.outcome is not None and one.outcome.success
    ]
    shortest = min(won, default=0)
    rewards = []
    for rollout, length in zip(group, lengths, strict=True):
        outcome = rollout.outcome or Outcome(False)
        value = reward(outcome)
        if outcome.success:
            value *= 1 - rules.shortest * (length - shortest) / length
        if rollout.ended == "gave_up" and not outcome.success:
            value += rules.refusal
        actions = [turn.action for turn in rollout.turns]
        value -= rules.repeat * repeats(actions) + rules.invalid * actions.count(None)
        rewards.append(value)
    return rewards


def repeats(actions: Sequence[Action | None]) -> int:
    """The number of turns that do again what was just done: one action twice in a row, or a cycle of 3 to 5 actions twice.
    The same kind of action elsewhere on the screen is another action. An unreadable turn does nothing and repeats nothing."""
    return sum(any(_again(actions[: t + 1], size) for size in (1, *CYCLES)) for t in range(len(actions)))


def _again(past: Sequence[Action | None], size: int) -> bool:
    if len(past) < 2 * size:
        return False
    last = past[-size:]
    return None not in last and list(last) == list(past[-2 * size : -size])
