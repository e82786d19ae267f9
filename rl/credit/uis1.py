"""UI-S1's credit (arXiv 2509.11543, sections 3.3 and 3.4): step rewards, returns, two advantages, a filter on groups.

The comparisons are fair because a group's N rollouts share what they are compared on: at step t all of them see the same
recorded screenshot with the same goal, and over a whole episode all of them had the same goal. Arithmetic over verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev
from typing import Literal, get_args

from guiderail.agent.types import Rollout, Turn
from guiderail.rl.credit.samples import Credited, Signal, StepSample

ReturnMode = Literal["paper", "released", "full"]
RETURN_MODES: tuple[ReturnMode, ...] = get_args(ReturnMode)
EpisodeMode = Literal["total", "first", "last", "released"]
EPISODE_MODES: tuple[EpisodeMode, ...] = get_args(EpisodeMode)
SpreadOf = Literal["first_return", "final_reward", "none"]

Rows = list[list[float]]
"""rows[i][t]: one number for turn t of rollout i."""

EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class RewardRules:
    """Paper: r = 0.1 f + 0.4 [f] type + 0.5 [f type] exact, so 0, .1, .5 or 1.

    format: reward of a readable action behind a non-blank thought. gated: an answer out of format earns nothing else.
    Released code instead adds 0.1 f to 0.9 {1 exact, .5 right type, .1 readable, 0 where its matcher raises}, with no gate
    (method 4.1). Under loose match rules, such as uis1-released-training, readable means that the answer is JSON.
    thought: our own addition, for agents that must note what they read: this much times the words that the thought shares with the
    expert's (`envs.recordings.match.words_shared`).
    """

    name: str = "paper"
    format: float = 0.1
    readable: float = 0.0
    type: float = 0.4
    exact: float = 0.5
    thought: float = 0.0
    gated: bool = True


PAPER = RewardRules()
THOUGHTS = RewardRules("thoughts", thought=0.5)
RELEASED = RewardRules("released", format=0.1, readable=0.09, type=0.36, exact=0.45, gated=False)

Terms = Sequence[tuple[str, float]]
"""A turn's reward by its named terms."""
Reward = RewardRules | Callable[[Turn], Terms]


@dataclass(frozen=True, slots=True)
class CreditRules:
    """A(i,t) = episode_weight * A^E(i) + step_weight * A^S(i,t) (paper eq. 12; omega is step_weight).

    gamma: discount of the returns. scale: divide by the group's standard deviation (else subtract the mean only).
    unbiased: n - 1 in that deviation. eta: a group is kept when its spread exceeds it. spread_of: the spread of what;
    "none" keeps every group of two or more. shortest, refusal, repeat, invalid: of live attempts, see rl/credit/shaping.py.
    """

    reward: Reward = PAPER
    gamma: float = 0.5
    returns: ReturnMode = "paper"
    episode: EpisodeMode = "total"
    episode_weight: float = 1.0
    step_weight: float = 1.0
    scale: bool = True
    unbiased: bool = True
    eta: float = 0.3
    spread_of: SpreadOf = "first_return"
    shortest: float = 0.0
    refusal: float = 0.0
    repeat: float = 0.0
    invalid: float = 0.0


def credit(group: Sequence[Rollout], rules: CreditRules) -> Credited:
    """A group of rollouts along one recording -> one sample per turn, and whether the group is worth learning from."""
    rewards, rets = judged(group, rules)
    steps = step_advantages(rets, scale=rules.scale, unbiased=rules.unbiased)
    episodes = episode_advantages(rewards, rets, rules.episode, scale=rules.scale, unbiased=rules.unbiased)
    samples = [
        [
            StepSample(
                unit=rollout.unit,
                sample=rollout.sample,
                index=turn.index,
                prompt=turn.prompt,
                completion=turn.completion,
                reward=rewards[i][t],
                ret=rets[i][t],
                advantage_episode=episodes[i][t],
                advantage_step=steps[i][t],
                advantage=rules.episode_weight * episodes[i][t] + rules.step_weight * steps[i][t],
            )
            for t, turn in enumerate(rollout.turns)
        ]
        for i, rollout in enumerate(group)
    ]
    eta = -1.0 if rules.spread_of == "none" else rules.eta
    return Credited(samples, signal(spreading(samples, rules), [rollout.matched for rollout in group], eta))


# -------------------------------------------------------------------------------------------------- reward (section 3.3)


def step_reward(turn: Turn, rules: Reward = PAPER) -> float:
    """Each term builds on the one before. "Format" means the whole format: a thought without a readable action is 0."""
    return sum(value for _, value in reward_terms(turn, rules))


def reward_terms(turn: Turn, rules: Reward = PAPER) -> Terms:
    """The reward by term, in the order they are added."""
    if not isinstance(rules, RewardRules):
        return rules(turn)
    verdict, formatted = turn.verdict, turn.thought is not None
    if verdict is None or not verdict.readable or (rules.gated and not formatted):
        return []
    terms = [("format", rules.format * formatted)]
    terms += [("readable", rules.readable)] if verdict.judgeable else []
    terms += [("type", rules.type)] if verdict.type_ok or verdict.exact else []
    terms += [("exact", rules.exact)] if verdict.exact else []
    return [*terms, ("thought", rules.thought * verdict.thought)] if rules.thought and verdict.thought else terms


# ------------------------------------------------------------------------------------------------------- return (eq. 9)


def judged(group: Sequence[Rollout], rules: CreditRules) -> tuple[Rows, Rows]:
    """(step rewards, returns) of every turn, from its verdict."""
    rewards = [[step_reward(turn, rules.reward) for turn in rollout.turns] for rollout in group]
    rets = [
        returns(row, [turn.exact for turn in rollout.turns], rules.gamma, rules.returns)
        for row, rollout in zip(rewards, group, strict=True)
    ]
    return rewards, rets


def returns(rewards: Sequence[float], exact: Sequence[bool], gamma: float, mode: ReturnMode = "paper") -> list[float]:
    """R_t = sum over k = t..t_end of gamma^(k-t) r_k, for every step t of one rollout.

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


# --------------------------------------------------------------------------------------------- advantages (eq. 10 to 12)


def normalise(values: Sequence[float], *, scale: bool = True, unbiased: bool = True) -> list[float]:
    """(v - mean) / (std + 1e-6); `scale` False only subtracts the mean. One value, or equal values, give 0."""
    if len(values) < 2 or max(values) == min(values):
        return [0.0] * len(values)
    mean = fmean(values)
    spread = (stdev(values) if unbiased else pstdev(values)) + EPSILON if scale else 1.0
    return [(value - mean) / spread for value in values]


def step_advantages(group: Sequence[Sequence[float]], *, scale: bool = True, unbiased: bool = True) -> Rows:
    """group[i][t] = R_t of rollout i. Each step is normalised over the rollouts that reached it (eq. 10)."""
    result: Rows = [[0.0] * len(row) for row in group]
    for t in range(max(map(len, group), default=0)):
        alive = [i for i, row in enumerate(group) if t < len(row)]
        normal = normalise([group[i][t] for i in alive], scale=scale, unbiased=unbiased)
        for i, value in zip(alive, normal, strict=True):
            result[i][t] = value
    return result


def episode_advantages(
    rewards: Sequence[Sequence[float]],
    group_returns: Sequence[Sequence[float]],
    mode: EpisodeMode = "total",
    *,
    scale: bool = True,
    unbiased: bool = True,
) -> Rows:
    """rewards[i][t], group_returns[i][t] of rollout i -> the episode advantage of every step (eq. 11).

    One number per trajectory, normalised over trajectories: "total" undiscounted sum of rewards, "first" R_1, "last" the
    last reward (the paper's text read literally). "released" reproduces the public code: each step's own reward,
    normalised over all step rows of the group; a single row keeps its raw reward (method audit, B1 and B15).
    """
    if mode == "released":
        rows = [r for row in rewards for r in row]
        flat = iter(normalise(rows, scale=scale, unbiased=unbiased) if len(rows) > 1 else rows)
        return [[next(flat) for _ in row] for row in rewards]
    values = normalise(trajectory_numbers(rewards, group_returns, mode), scale=scale, unbiased=unbiased)
    return [[value] * len(row) for value, row in zip(values, rewards, strict=True)]


def trajectory_numbers(
    rewards: Sequence[Sequence[float]], group_returns: Sequence[Sequence[float]], mode: EpisodeMode
) -> list[float]:
    """The one number per trajectory that the episode level compares ("released" has none: it compares steps)."""
    if mode == "total":
        return [sum(row) for row in rewards]
    return [row[0] for row in group_returns] if mode == "first" else [row[-1] for row in rewards]


# ---------------------------------------------------------------------------------------- filter (dynamic sampling, 5.6)


def spreading(samples: Sequence[Sequence[StepSample]], rules: CreditRules) -> list[float]:
    """The number per rollout whose spread the filter looks at: R_1, or the last reward."""
    return [row[0].ret if rules.spread_of == "first_return" else row[-1].reward for row in samples]


def signal(values: Sequence[float], right: Sequence[bool], eta: float) -> Signal:
    """Keep a group when the (biased) std of its rollouts' `values` exceeds `eta`; else say why it carries no signal.

    right[i]: whether rollout i did everything right. A group of one has no comparison and is "alike".
    """
    if len(values) < 2:
        return "alike"
    if pstdev(values) > eta:
        return "kept"
    return "all right" if all(right) else "alike" if any(right) else "all wrong"
