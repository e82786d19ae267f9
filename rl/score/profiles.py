"""Metric profiles: the same recorded answers under other people's rules, so that numbers can be compared.

A profile is how two actions are compared *and* which steps are counted; published AndroidControl numbers differ in both.
Each is named, and states the steps its full protocol has, so that a score over part of them says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guiderail.agent.codec import Reply
from guiderail.agent.dialects import Dialect
from guiderail.agent.errors import DataError, SetupError, UnreadableAction
from guiderail.agent.registry import Registry
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Click, Episode, Verdict
from guiderail.envs.recordings.match import (
    AGENTCPM,
    ALL_RULES,
    OS_ATLAS,
    UIS1_SOP_AS_WRITTEN,
    MatchRules,
    accept,
    judge,
)
from guiderail.envs.recordings.progress import agreed
from guiderail.rl.score.sop import Scored, StepScored, offline_score, progress, score, touches
from guiderail.rl.score.statistics import Interval, clustered, mcnemar, paired_difference

Kind = Literal["sop", "offline"]
Listed = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Profile:
    """rules: how two actions are compared. skips: expert actions whose steps are not counted. listed: only the steps of
    a list are counted, which the user brings. steps: how many steps the whole protocol counts. grounding: GR counts
    "all" steps whose expert touches a point, or only "typed" ones: clicks that were met by a click."""

    name: str
    rules: MatchRules
    about: str
    skips: frozenset[str] = frozenset()
    listed: bool = False
    steps: int | None = None
    grounding: Literal["all", "typed"] = "all"

    def counts(self, episode: Episode, index: int, listed: Listed | None) -> bool:
        step = episode.steps[index]
        chosen = not self.listed or (episode.id, index) in (listed or ())
        return chosen and not step.history and step.action.name not in self.skips


_NO_END = frozenset({"terminate"})
_ABOUT = {
    "guiderail": "Ours: smallest box or 0.04, finger direction, text of at least half the length.",
    "uis1-paper": "UI-S1 as its paper describes it: any box or 0.04, text contained either way.",
    "uis1-released-training": "UI-S1's released reward: vertical swipes exchanged, answers only as typing.",
    "uis1-released-sop": "UI-S1's released evaluator: boxes lost, any swipe right, an error wipes the episode.",
    "uis1-sop-as-written": "UI-S1's evaluator with the boxes it meant to use.",
    "strict": "Inside the smallest box as drawn, the very text, finger direction.",
}
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        *(Profile(name, ALL_RULES[name], about) for name, about in _ABOUT.items()),
        Profile(
            "os-atlas",
            OS_ATLAS,
            "OS-Atlas's script (UI-TARS too): clicks within 14 % of the screen, every step but ends.",
            skips=_NO_END,
            grounding="typed",
        ),
        Profile(
            "androidcontrol-7708",
            OS_ATLAS,
            "OS-Atlas's AndroidControl subset: 1,412 of the 1,543 test episodes, by a list of their steps.",
            skips=_NO_END,
            listed=True,
            steps=7708,
            grounding="typed",
        ),
        Profile(
            "androidcontrol-8444",
            UIS1_SOP_AS_WRITTEN,
            "All 1,543 test episodes of AndroidControl without an end step, boxes enlarged by 1.2 or 0.04.",
            skips=_NO_END,
            steps=8444,
        ),
        Profile(
            "agentcpm",
            AGENTCPM,
            "AgentCPM-GUI's evaluator: no open-app steps, an end step, waiting counts as ending; test and validation split.",
            skips=frozenset({"open"}),
            steps=10161,
        ),
    )
}


def _bare(rules: MatchRules) -> Profile:
    return Profile(rules.name, rules, "")


_KNOWN = Registry(
    ALL_RULES.kind,
    ALL_RULES.group,
    {rules.name: _bare(rules) for rules in ALL_RULES.values()} | PROFILES,
    lambda name, found: _bare(accept(name, found)),
)


def profile(name: str) -> Profile:
    """By the name of a profile or of bare match rules. Raises SetupError."""
    return _KNOWN.find(name)


_STEP = re.compile(r"\D*(\d+)\D+(\d+)\D*")


def read_steps(path: Path) -> Listed:
    """A list of steps: two numbers per line, episode id and step from 0, such as `episode_140_screenshot_3`."""
    if not path.is_file():
        raise SetupError(f"no list of steps at {path}; give the file with --steps")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{number}", f"not UTF-8 text: {error.reason}") from None
    found: set[tuple[str, int]] = set()
    for number, line in enumerate(lines, 1):
        if line.strip():
            match = _STEP.fullmatch(line[:200])
            if match is None:
                raise DataError(f"{path}:{number}", f"{line[:60]!r}, expected an episode's number and a step's")
            found.add((match[1], int(match[2])))
    return frozenset(found)


# ----------------------------------------------------------------------------------------------------- recorded answers


@dataclass(frozen=True)
class Answers:
    """What a run recorded in one walk: the replies from step `start` on, nothing where the machine crashed."""

    episode: Episode
    start: int
    said: tuple[Action | Reply | UnreadableAction, ...]
    ended: str


def recorded(
    kind: Kind, rows: Iterable[Mapping[str, Any]], episodes: Sequence[Episode], dialect: Dialect
) -> list[Answers]:
    """The lines of a run's rollouts.jsonl, read again in the dialect they were said in. Raises DataError."""
    known = {episode.id: episode for episode in episodes}
    answers = []
    for number, row in enumerate(rows, 1):
        episode = known.get(str(row["unit"]))
        if episode is None:
            raise DataError(f"rollouts.jsonl:{number}", f"episode {row['unit']!r} is not in the data")
        said = tuple(_heard(turn, dialect) for turn in row["turns"])
        answers.append(Answers(episode, int(row.get("start", 0)), said, row["ended"]))
    return answers


def _heard(turn: Mapping[str, Any], dialect: Dialect) -> Reply | UnreadableAction:
    try:
        return dialect.read(turn["text"], ScreenTransform(*turn["screen"]))
    except UnreadableAction as error:
        return error


def _verdicts(answers: Answers, profile: Profile, listed: Listed | None) -> dict[int, Verdict]:
    """By step index, of the steps this profile counts."""
    steps = answers.episode.steps
    asked = (index for index in answers.episode.targets if index >= answers.start)
    return {
        index: judge(steps[index], said, profile.rules)
        for index, said in zip(asked, answers.said, strict=False)
        if profile.counts(answers.episode, index, listed)
    }


# ------------------------------------------------------------------------------------------------------------- scoring


def rescore(kind: Kind, answers: Sequence[Answers], profile: Profile, listed: Listed | None = None) -> dict[str, Any]:
    """`rl.score.sop.score` or `rl.score.sop.offline_score` of recorded answers under a profile; no model needed.

    Adds `profile`, `steps` (how many the data has under it), `protocol_steps` (how many the whole protocol has), for single
    steps `hit` (share of readable answers), and for walks `open_ended`: how many stopped where this profile would have gone
    on. Their progress is a lower bound, since nobody knows what the policy would have said next.
    """
    if profile.listed and listed is None:
        raise SetupError(f"the profile {profile.name} counts a list of steps; give the file with --steps")
    if kind == "offline":
        result = _rescore_steps(answers, profile, listed)
    else:
        walks = _walks(answers, profile, listed)
        result = score([row for row, _ in walks], profile.rules)
        result |= {"open_ended": sum(open_ended for _, open_ended in walks)}
    counted = {
        (a.episode.id, i) for a in answers for i in range(len(a.episode.steps)) if profile.counts(a.episode, i, listed)
    }
    return result | {"profile": profile.name, "steps": len(counted), "protocol_steps": profile.steps}


def _walks(answers: Sequence[Answers], profile: Profile, listed: Listed | None) -> list[tuple[Scored, bool]]:
    """Each walk's outcome over the counted steps, and whether it stopped where the profile would have gone on."""
    rows = []
    for answer in answers:
        steps = [i for i in range(len(answer.episode.steps)) if profile.counts(answer.episode, i, listed)]
        if not steps:
            continue
        verdicts = _verdicts(answer, profile, listed)
        matched, wiped = agreed((verdicts.get(i) for i in steps), profile.rules)
        crashed = answer.ended == "crashed"
        row = Scored(answer.episode.id, len(steps), matched, crashed, wiped)
        rows.append((row, not crashed and matched < len(steps) and steps[matched] not in verdicts))
    return rows


def _steps(answers: Sequence[Answers], profile: Profile, listed: Listed | None) -> list[tuple[StepScored, bool]]:
    """Each counted step's outcome, and whether its answer was readable."""
    rows = []
    for answer in answers:
        if not profile.counts(answer.episode, answer.start, listed):
            continue
        verdict = next(iter(_verdicts(answer, profile, listed).values()), None)
        step, name = answer.episode.steps[answer.start], answer.episode.id
        if verdict is None:
            rows.append((StepScored(name, answer.start, touches(step), False, False, crashed=True), False))
            continue
        typed = isinstance(step.action, Click) and verdict.type_ok
        grounded = touches(step) if profile.grounding == "all" else typed
        rows.append((StepScored(name, answer.start, grounded, verdict.type_ok, verdict.exact), verdict.readable))
    return rows


def _rescore_steps(answers: Sequence[Answers], profile: Profile, listed: Listed | None) -> dict[str, Any]:
    rows = _steps(answers, profile, listed)
    result = offline_score([row for row, _ in rows], profile.rules)
    hits = [(row.episode_id, float(readable)) for row, readable in rows if not row.crashed]
    result["hit"] = sum(hit for _, hit in hits) / len(hits) if hits else None
    result["intervals"]["hit"] = clustered(hits)
    return result


# ----------------------------------------------------------------------------------------------------------- comparing


def compare(
    kind: Kind, first: Sequence[Answers], second: Sequence[Answers], profile: Profile, listed: Listed | None = None
) -> dict[str, Any]:
    """Two runs on what both scored: per metric {first, second, difference, interval, p, distinguishable, words}.

    Whole walks (TSR) by McNemar's exact test; means by a paired bootstrap over episodes, since the steps of one episode are
    not independent. p is None where only the interval was computed. Unscored in either run means left out of both.
    """
    a, b = _by_key(kind, first, profile, listed), _by_key(kind, second, profile, listed)
    both = sorted(a.keys() & b.keys())
    metrics = {
        name: _compared(name, [(key[0], a[key][name], b[key][name]) for key in both])
        for name in (("PG", "TSR") if kind == "sop" else ("TM", "SR"))
    }
    return {"profile": profile.name, "n": len(both), "left_out": len(a.keys() ^ b.keys()), "metrics": metrics}


def _by_key(
    kind: Kind, answers: Sequence[Answers], profile: Profile, listed: Listed | None
) -> dict[tuple[str, int], dict[str, float]]:
    if kind == "offline":
        steps = [row for row, _ in _steps(answers, profile, listed) if not row.crashed]
        return {(row.episode_id, row.index): {"TM": row.type_ok, "SR": row.exact} for row in steps}
    walks = [row for row, _ in _walks(answers, profile, listed) if not row.crashed]
    rates = {row.episode_id: progress(row) for row in walks}
    return {(name, 0): {"PG": rate, "TSR": float(rate == 1.0)} for name, rate in rates.items()}


def _compared(name: str, pairs: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    n = max(1, len(pairs))
    first, second = sum(a for _, a, _ in pairs) / n, sum(b for _, _, b in pairs) / n
    interval = paired_difference(pairs)
    p = mcnemar([(a == 1, b == 1) for _, a, b in pairs]) if name == "TSR" else None
    apart = p < 0.05 if p is not None else not interval[0] <= 0 <= interval[1]
    row = {"first": first, "second": second, "difference": first - second, "interval": interval, "p": p}
    return row | {"distinguishable": apart, "words": _in_words(name, first - second, interval, p, apart)}


def _in_words(name: str, difference: float, interval: Interval, p: float | None, apart: bool) -> str:
    low, high = (f"{100 * bound:+.1f}" for bound in interval)
    numbers = f"{100 * difference:+.1f} points [{low}, {high}]" + ("" if p is None else f", p = {p:.2g}")
    if not apart:
        return f"{name}: not distinguishable, {numbers}"
    return f"{name}: the {'first' if difference > 0 else 'second'} run is better, {numbers}"
