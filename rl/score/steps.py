"""Scoring a policy on recordings: SOP and single steps. Recorded answers are scored again in `rl.score.profiles`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import GREEDY, Policy, Sampling
from guiderail.agent.types import Episode, Rollout, Verdict
from guiderail.envs.recordings.match import MatchRules
from guiderail.envs.recordings.progress import agreed
from guiderail.envs.recordings.replay import step_walk, walk
from guiderail.rl.rollout.drive import drive
from guiderail.rl.score.sop import Scored, StepScored, offline_score, score, touches

Record = Callable[[Rollout], None]
Known = Mapping[tuple[str, int], Rollout]
"""Rollouts that an interrupted run has made, by unit and first step (0 for whole walks)."""


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
    known: Known = {},  # noqa: B006 - never written
) -> dict[str, Any]:
    """`rl.score.sop.score` of one walk per episode with no patch."""
    missing = [episode for episode in episodes if (episode.id, 0) not in known]
    walks = (((seed, episode.id), walk(episode, dialogue=dialogue, rules=rules)) for episode in missing)
    made = drive(walks, policy, sampling, width=width, on_finished=_telling(record))
    rollouts = _in_order([(episode.id, 0) for episode in episodes], known, made)
    rows = [_scored(episode, rollout, rules) for episode, rollout in zip(episodes, rollouts, strict=True)]
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
    known: Known = {},  # noqa: B006 - never written
) -> dict[str, Any]:
    """`rl.score.sop.offline_score` of every step under the expert's history."""
    steps = [(episode, index) for episode in episodes for index in episode.targets]
    missing = [(episode, t) for episode, t in steps if (episode.id, t) not in known]
    walks = (((seed, e.id, t), step_walk(e, t, dialogue=dialogue, rules=rules, thoughts=thoughts)) for e, t in missing)
    made = drive(walks, policy, sampling, width=width, on_finished=_telling(record))
    rollouts = _in_order([(episode.id, t) for episode, t in steps], known, made)
    rows = [
        _step_scored(episode, index, rollout.turns[0].verdict if rollout.turns else None)
        for (episode, index), rollout in zip(steps, rollouts, strict=True)
    ]
    return offline_score(rows, rules)


def _telling(record: Record | None) -> Callable[[int, Rollout], None] | None:
    return None if record is None else lambda _, rollout: record(rollout)


def _in_order(keys: Sequence[tuple[str, int]], known: Known, made: Iterable[Rollout]) -> list[Rollout]:
    """One rollout per key. made: those that are not known, in their order."""
    fresh = iter(made)
    return [known[key] if key in known else next(fresh) for key in keys]


def _scored(episode: Episode, rollout: Rollout, rules: MatchRules) -> Scored:
    matched, wiped = agreed((turn.verdict for turn in rollout.turns), rules)
    return Scored(episode.id, len(episode.targets), matched, rollout.ended == "crashed", wiped)


def _step_scored(episode: Episode, index: int, verdict: Verdict | None) -> StepScored:
    grounded = touches(episode.steps[index])
    if verdict is None:
        return StepScored(episode.id, index, grounded, False, False, crashed=True)
    return StepScored(episode.id, index, grounded, verdict.type_ok, verdict.exact)
