"""Scoring a policy on recordings: SOP and single steps, from the same rows that `rejudge` reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agent.dialects import Dialect
from agent.dialogue import Dialogue
from agent.errors import DataError, UnreadableAction
from agent.policy import GREEDY, Policy, Sampling
from agent.screen import ScreenTransform
from agent.types import Episode, Rollout, Verdict
from envs.match import MatchRules, judge
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


def rejudge(
    kind: str, rows: Iterable[Mapping[str, Any]], episodes: Sequence[Episode], dialect: Dialect, rules: MatchRules
) -> dict[str, Any]:
    """Score recorded answers under other rules; no model needed.

    kind: "sop" or "offline". A walk that stopped where the new rules would have gone on is counted in `open_ended`: its
    progress is then a lower bound, since nobody knows what the policy would have said next.
    """
    known = {episode.id: episode for episode in episodes}
    scored: list[Scored] = []
    steps: list[StepScored] = []
    open_ended = 0
    for number, row in enumerate(rows, 1):
        episode = known.get(str(row["episode_id"]))
        if episode is None:
            raise DataError(f"rollouts.jsonl:{number}", f"episode {row['episode_id']!r} is not in the data")
        verdicts = [_again(turn, episode, dialect, rules) for turn in row["turns"]]
        if kind == "offline":
            steps.append(_step_scored(episode, int(row["index"]), verdicts[0] if verdicts else None))
        else:
            scored.append(_scored(episode, verdicts, row["ended"]))
            stopped = len(verdicts) < len(episode.steps) and row["ended"] != "crashed"
            open_ended += stopped and all(verdict.exact for verdict in verdicts)
    result = offline_score(steps, rules) if kind == "offline" else score(scored, rules)
    return result | ({} if kind == "offline" else {"open_ended": open_ended})


def _again(turn: Mapping[str, Any], episode: Episode, dialect: Dialect, rules: MatchRules) -> Verdict:
    step = episode.steps[turn["index"]]
    try:
        return judge(step, dialect.read(turn["text"], ScreenTransform(*turn["screen"])).action, rules)
    except UnreadableAction as error:
        return judge(step, error, rules)
