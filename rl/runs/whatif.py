"""What a patch is worth: rollouts continued from a recorded mismatch, under one patch and under another.

A recorded rollout is kept up to its mismatch at step T. Each arm repairs that turn with its own patch ("none" ends the
rollout there), then the policy continues without repairs. The outcome is the share of the remaining steps that it matches
before its next mismatch. Both arms use the same seed for every later answer, so that their outcomes are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Policy, Sampling
from guiderail.agent.types import Completion, Episode, Patch, Repair, Rollout, Turn
from guiderail.envs.recordings.match import MatchRules
from guiderail.envs.recordings.replay import own_prompt, read_turn, repair_turn, walk
from guiderail.rl.credit.uis1 import Reward, step_reward
from guiderail.rl.rollout.drive import drive
from guiderail.rl.score.statistics import paired_difference

ENOUGH = 0.05


@dataclass(frozen=True)
class Fork:
    """A recorded walk at a mismatch that is not at the last step. key names the walk; turns end with the mismatch. begin: so many
    steps before them are the expert's (`method.start=any`)."""

    key: tuple[object, ...]
    episode: Episode
    turns: tuple[Turn, ...]
    begin: int = 0

    @property
    def step(self) -> int:
        return self.turns[-1].index

    @property
    def asked(self) -> int:
        """How many steps a whole walk is asked for."""
        return len(self.episode.targets) - self.begin

    @property
    def left(self) -> int:
        """How many steps are asked for after it."""
        return self.asked - len(self.turns)


@dataclass(frozen=True)
class Suffix:
    """matched: share of the steps after the fork that agree before the next mismatch, 0 to 1. reward: sum of the step
    rewards up to and with that mismatch. stops: the turns at which the walk mismatched, by number, the fork first, then its
    end."""

    fork: Fork
    matched: float
    reward: float
    stops: tuple[int, ...]


@dataclass(frozen=True)
class Lab:
    """draws: how often each suffix is walked, each time from its own seed. thoughts: as for `walk`."""

    policy: Policy
    dialogue: Dialogue
    sampling: Sampling
    rules: MatchRules
    reward: Reward
    seed: int = 0
    draws: int = 4
    width: int = 64
    thoughts: bool = True

    def walk(self, forks: Sequence[Fork], patch: Patch | None, further: bool = False) -> list[Suffix | None]:
        """draws outcomes per fork, in order; None where a machine crashed. further: repair later mismatches as well."""
        if patch is None:
            return [Suffix(fork, 0.0, 0.0, (len(fork.turns) - 1,)) for fork in forks for _ in range(self.draws)]
        again = [
            ((self.seed, "what if", *fork.key, fork.step, draw), fork) for fork in forks for draw in range(self.draws)
        ]
        repairs = (((*key, "repair"), repair_turn(f.episode, f.turns[-1], patch, self.dialogue)) for key, f in again)
        repaired = drive(repairs, self.policy, self.sampling, width=self.width)
        suffixes = (
            (key, self._suffix(fork, turn, patch if further else None))
            for (key, fork), turn in zip(again, repaired, strict=True)
        )
        rollouts = drive(suffixes, self.policy, self.sampling, width=self.width)
        return [self._measured(fork, rollout) for (_, fork), rollout in zip(again, rollouts, strict=True)]

    def _suffix(self, fork: Fork, repaired: Turn, further: Patch | None) -> Any:
        past = (*fork.turns[:-1], repaired)
        return walk(
            fork.episode,
            dialogue=self.dialogue,
            rules=self.rules,
            patch=further,
            past=past,
            begin=fork.begin,
            thoughts=self.thoughts,
        )

    def _measured(self, fork: Fork, rollout: Rollout) -> Suffix | None:
        if rollout.ended == "crashed":
            return None
        here = len(fork.turns) - 1
        wrong = [t for t, turn in enumerate(rollout.turns) if t > here and not turn.exact]
        end = wrong[0] if wrong else fork.asked
        reward = sum(step_reward(turn, self.reward) for turn in rollout.turns[here + 1 : end + 1])
        done = () if wrong and rollout.ended != "finished" else (fork.asked,)
        return Suffix(fork, (end - here - 1) / fork.left, reward, (here, *wrong, *done))


def forks(
    rows: Sequence[Mapping[str, Any]],
    episodes: Mapping[str, Episode],
    dialogue: Dialogue,
    rules: MatchRules,
    at: Callable[[str, int], bool] = lambda episode, step: True,
    thoughts: bool = True,
) -> list[Fork]:
    """Every recorded mismatch that a patch could repair, of the (episode, step) pairs that `at` accepts. thoughts: as for
    `walk`."""
    found = []
    for row in rows:
        turns: list[Turn] = []
        episode = episodes[row["unit"]]
        begin = episode.targets.index(row["start"]) if "start" in row else 0
        before = [episode.steps[index] for index in episode.targets[:begin]]
        told = [dialogue.retell(s.thought if thoughts else None, s.action, s.screenshot) for s in before]
        for line in row["turns"][: len(episode.targets) - 1 - begin]:
            prompt = own_prompt(episode, line["index"], told + [turn.history_text() for turn in turns], dialogue)
            said = Completion(line["text"], finish=line["finish"])
            repairs = sum(turn.repair is not None for turn in turns)
            turn = read_turn(episode, line["index"], prompt, said, dialogue, rules, repairs)
            if not turn.exact and at(episode.id, turn.index):
                key = (row["generation"], row["visit"], row["unit"], row["sample"])
                found.append(Fork(key, episode, (*turns, turn), begin))
            if "repair" in line:
                done = Repair(episode.steps[turn.index].action, line["repair"]["strategy"], text=line["repair"]["text"])
                turn = replace(turn, repair=done)
            turns.append(turn)
    return found


def effect(first: Sequence[Suffix | None], second: Sequence[Suffix | None]) -> dict[str, Any]:
    """First arm against second, on pairs both walked: {matched, reward, n, forks, first, second, difference, interval,
    words} and the same by position and by the expert's action at the fork. Intervals resample forks."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    by: dict[str, dict[str, list[tuple[Suffix, Suffix]]]] = {"position": {}, "action": {}}
    for a, b in pairs:
        steps = a.fork.episode.steps
        third = ("early", "middle", "late")[min(2, 3 * a.fork.step // max(1, len(steps) - 1))]
        by["position"].setdefault(third, []).append((a, b))
        by["action"].setdefault(steps[a.fork.step].action.name, []).append((a, b))
    return _effect(pairs) | {
        f"by_{name}": {key: _effect(rows) for key, rows in sorted(groups.items())} for name, groups in by.items()
    }


def _effect(pairs: Sequence[tuple[Suffix, Suffix]]) -> dict[str, Any]:
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


def budget(outcomes: Sequence[Suffix | None]) -> dict[str, Any]:
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


def _share(outcome: Suffix, repairs: int) -> float:
    return (outcome.stops[repairs] - repairs) / outcome.fork.asked
