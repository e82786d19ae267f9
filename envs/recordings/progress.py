"""How far a walk came, by its verdicts: the one place that knows what an exception of a public evaluator costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from guiderail.envs.recordings.match import MatchRules


class Judged(Protocol):
    """A verdict, of a turn or of a record (`agent.types.Verdict`)."""

    @property
    def readable(self) -> bool: ...
    @property
    def exact(self) -> bool: ...
    @property
    def judgeable(self) -> bool: ...


def agreed(verdicts: Iterable[Judged | None], rules: MatchRules) -> tuple[int, bool]:
    """(steps before the first that is not exact, whether an exception there wipes them). None: nothing was said there.

    Later steps do not count, because the public evaluator never gets to them.
    """
    done = 0
    for verdict in verdicts:
        if verdict is None or not verdict.exact:
            return done, verdict is not None and rules.error_zeroes_progress and _raised(verdict, rules)
        done += 1
    return done, False


def _raised(verdict: Judged, rules: MatchRules) -> bool:
    """Records made before rules could be `loose` do not say so of an answer: there each unreadable answer counts."""
    return not verdict.judgeable or not (rules.loose or verdict.readable)
