"""Scoring a policy on recordings: SOP and single steps. Recorded answers are scored again in `rl.profiles`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.dialogue import Dialogue
from agent.policy import GREEDY, Policy, Sampling
from agent.types import Episode, Rollout, Verdict
from envs.match import MatchRules
from envs.replay import step_walk, walk
from rl.rollout import drive
from rl.sop import Scored, StepScored, offline_score, score, touches

Record = Callable[[Rollout], None]


def evaluate_sop(
    episodes: Sequence[Episode],
    policy: Policy,
    dialogue: Dialogue,
    rules: MatchRules,
    *,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    width: int = 64,
    record: Record | None = None,
) -> dict[str, Any]:
    """`rl.sop.score` of one walk per episode with no patch."""
    walks = (((seed, episode.id), walk(episode, dialogue=dialogue, rules=rules)) for episode in episodes)
    rollouts = drive(walks, policy, sampling, width=width, on_finished=record)
    rows = [
        _scored(episode, [turn.verdict for turn in rollout.turns], rollout.ended)
        for episode, rollout in zip(episodes, rollouts, strict=True)
    ]
    return score(rows, rules)


def evaluate_offline(
    episodes: Sequence[Episode],
    policy: Policy,
    dialogue: Dialogue,
    rules: MatchRules,
    *,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    width: int = 64,
    thoughts: bool = True,
    record: Record | None = None,
) -> dict[str, Any]:
    """`rl.sop.offline_score` of every step under the expert's history."""
    steps = [(episode, index) for episode in episodes for index in range(len(episode.steps))]
    walks = (((seed, e.id, t), step_walk(e, t, dialogue=dialogue, rules=rules, thoughts=thoughts)) for e, t in steps)
    rollouts = drive(walks, policy, sampling, width=width, on_finished=record)
    rows = [
        _step_scored(episode, index, rollout.turns[0].verdict if rollout.turns else None)
        for (episode, index), rollout in zip(steps, rollouts, strict=True)
    ]
    return offline_score(rows, rules)


def _scored(episode: Episode, verdicts: Sequence[Verdict], ended: str) -> Scored:
    matched = next((i for i, verdict in enumerate(verdicts) if not verdict.exact), len(verdicts))
    erred = any(not (verdict.readable and verdict.judgeable) for verdict in verdicts)
    return Scored(episode.id, len(episode.steps), matched, ended == "crashed", erred)


def _step_scored(episode: Episode, index: int, verdict: Verdict | None) -> StepScored:
    grounded = touches(episode.steps[index])
    if verdict is None:
        return StepScored(episode.id, index, grounded, False, False, crashed=True)
    return StepScored(episode.id, index, grounded, verdict.type_ok, verdict.exact)
