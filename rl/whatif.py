"""What a repair is worth: the same suffix walked again after another patch at the same mismatch, with the same seeds.

A recorded walk up to its mismatch at step T is taken as it was. Each arm repairs that one turn its own way ("none" ends the
walk there) and the policy goes on alone; how much of the remaining recording it then matches before its next mismatch is
the outcome. Arms share the random stream of every question after the repair, so their difference is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from agent.dialogue import Dialogue
from agent.policy import Policy, Sampling
from agent.types import Completion, Episode, Patch, Repair, Rollout, Turn
from envs.match import MatchRules
from envs.replay import hear, mend, walk
from rl.reward import RewardRules, step_reward
from rl.rollout import drive
from rl.statistics import paired_difference

ENOUGH = 0.05


@dataclass(frozen=True)
class Fork:
    """A recorded walk at a mismatch that is not at the last step. key names the walk; turns end with the mismatch."""

    key: tuple[object, ...]
    episode: Episode
    turns: tuple[Turn, ...]

    @property
    def step(self) -> int:
        return len(self.turns) - 1


@dataclass(frozen=True)
class Outcome:
    """matched: share of the steps after the fork that agree before the next mismatch, 0 to 1. reward: sum of the step
    rewards up to and with that mismatch. stops: the steps at which the walk mismatched, the fork first, then its end."""

    fork: Fork
    matched: float
    reward: float
    stops: tuple[int, ...]


@dataclass(frozen=True)
class Lab:
    """draws: how often each suffix is walked, each time from its own seed."""

    policy: Policy
    dialogue: Dialogue
    sampling: Sampling
    rules: MatchRules
    reward: RewardRules
    seed: int = 0
    draws: int = 4
    width: int = 64

    def walk(self, forks: Sequence[Fork], patch: Patch | None, further: bool = False) -> list[Outcome | None]:
        """draws outcomes per fork, in order; None where a machine crashed. further: repair later mismatches as well."""
        if patch is None:
            return [Outcome(fork, 0.0, 0.0, (fork.step,)) for fork in forks for _ in range(self.draws)]
        again = [
            ((self.seed, "what if", *fork.key, fork.step, draw), fork) for fork in forks for draw in range(self.draws)
        ]
        repairs = (((*key, "repair"), mend(f.episode, f.turns[-1], patch, self.dialogue)) for key, f in again)
        mended = drive(repairs, self.policy, self.sampling, width=self.width)
        suffixes = (
            (key, self._suffix(fork, turn, patch if further else None))
            for (key, fork), turn in zip(again, mended, strict=True)
        )
        rollouts = drive(suffixes, self.policy, self.sampling, width=self.width)
        return [self._outcome(fork, rollout) for (_, fork), rollout in zip(again, rollouts, strict=True)]

    def _suffix(self, fork: Fork, mended: Turn, further: Patch | None) -> Any:
        past = (*fork.turns[:-1], mended)
        return walk(fork.episode, dialogue=self.dialogue, rules=self.rules, patch=further, past=past)

    def _outcome(self, fork: Fork, rollout: Rollout) -> Outcome | None:
        if rollout.ended == "crashed":
            return None
        new = rollout.turns[fork.step + 1 :]
        wrong = [turn.index for turn in new if not turn.verdict.exact]
        end = wrong[0] if wrong else len(fork.episode.steps)
        reward = sum(step_reward(turn, self.reward) for turn in new if turn.index <= end)
        left = len(fork.episode.steps) - fork.step - 1
        done = () if wrong and rollout.ended != "finished" else (len(fork.episode.steps),)
        return Outcome(fork, (end - fork.step - 1) / left, reward, (fork.step, *wrong, *done))


def forks(
    rows: Sequence[Mapping[str, Any]],
    episodes: Mapping[str, Episode],
    dialogue: Dialogue,
    rules: MatchRules,
    at: Callable[[str, int], bool] = lambda episode, step: True,
) -> list[Fork]:
    """Every recorded mismatch that a patch could repair, of the (episode, step) pairs that `at` accepts."""
    found = []
    for row in rows:
        turns: list[Turn] = []
        episode = episodes[row["episode_id"]]
        for line in row["turns"][: len(episode.steps) - 1]:
            shots = [step.screenshot for step in episode.steps[: line["index"] + 1]]
            prompt = dialogue.prompt(episode.goal, shots, [turn.history_text() for turn in turns])
            said = Completion(line["text"], finish=line["finish"])
            repairs = sum(turn.repair is not None for turn in turns)
            turn = hear(episode, line["index"], prompt, said, dialogue, rules, repairs)
            if not turn.verdict.exact and at(episode.id, turn.index):
                key = (row["generation"], row["visit"], row["unit"], row["sample"])
                found.append(Fork(key, episode, (*turns, turn)))
            if "repair" in line:
                done = Repair(episode.steps[turn.index].action, line["repair"]["strategy"], text=line["repair"]["text"])
                turn = replace(turn, repair=done)
            turns.append(turn)
    return found


def effect(first: Sequence[Outcome | None], second: Sequence[Outcome | None]) -> dict[str, Any]:
    """First arm against second, on pairs both walked: {matched, reward, n, forks, first, second, difference, interval,
    words} and the same by position and by the expert's action at the fork. Intervals resample forks."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    by: dict[str, dict[str, list[tuple[Outcome, Outcome]]]] = {"position": {}, "action": {}}
    for a, b in pairs:
        steps = a.fork.episode.steps
        third = ("early", "middle", "late")[min(2, 3 * a.fork.step // max(1, len(steps) - 1))]
        by["position"].setdefault(third, []).append((a, b))
        by["action"].setdefault(steps[a.fork.step].action.name, []).append((a, b))
    return _effect(pairs) | {
        f"by_{name}": {key: _effect(rows) for key, rows in sorted(groups.items())} for name, groups in by.items()
    }


def _effect(pairs: Sequence[tuple[Outcome, Outcome]]) -> dict[str, Any]:
    values = [("\x1f".join(map(str, (*a.fork.key, a.fork.step))), a.matched, b.matched) for a, b in pairs]
    if not values:
        return {"n": 0, "forks": 0, "words": "nothing to compare"}
    first, second = fmean(a for _, a, _ in values), fmean(b for _, _, b in values)
    low, high = interval = paired_difference(values)
    apart = not low <= 0 <= high
    verdict = ("better" if first > second else "worse") if apart else "not distinguishable"
    return {
        "n": len(values),
        "forks": len({name for name, _, _ in values}),
        "first": first,
        "second": second,
        "difference": first - second,
        "interval": interval,
        "reward": [fmean(a.reward for a, _ in pairs), fmean(b.reward for _, b in pairs)],
        "words": f"{verdict}: {100 * (first - second):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]",
    }


def budget(outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    """From walks repaired without limit: matched[b], the mean share of a recording that the policy matches itself when b
    repairs are allowed (walks whose fork is their first mismatch; a repaired step is not matched), and the smallest budget
    after which one more repair adds less than 5 points."""
    walks = [o for o in outcomes if o is not None and all(turn.repair is None for turn in o.fork.turns)]
    if not walks:
        return {"matched": [], "suggested": None}
    most = max(len(o.stops) for o in walks)
    matched = [fmean(_share(o, min(b, len(o.stops) - 1)) for o in walks) for b in range(most)]
    suggested = next((b for b, (now, more) in enumerate(pairwise(matched)) if more - now < ENOUGH), most - 1)
    return {"matched": matched, "suggested": suggested, "enough": ENOUGH, "walks": len(walks)}


def _share(outcome: Outcome, repairs: int) -> float:
    return (outcome.stops[repairs] - repairs) / len(outcome.fork.episode.steps)
