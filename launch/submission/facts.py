"""What counts of an attempt: that its numbers are computed from. Text and actions are let go once they are checked, so a large
bundle fits in little memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from guiderail.agent.types import Ended
from guiderail.launch.submission.schema import Attempt, Turn

LONGEST_REASON = 200


class Judged(NamedTuple):
    readable: bool
    type_ok: bool
    exact: bool
    judgeable: bool


class Seen(NamedTuple):
    """One turn. screenshot: its SHA-256. verdict: along a recording. acted: whether it holds an action."""

    tokens: int | None
    screenshot: str | None
    verdict: Judged | None
    acted: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """One attempt; the fields are those of `schema.Attempt`. success, progress, dirty (whether it has side effects),
    checked_by: of the outcome, None without one. helped: whether a person made some of the turns."""

    unit: str
    start: int | None
    sample: int
    ended: Ended
    success: bool | None
    progress: float | None
    dirty: bool | None
    checked_by: str | None
    reason: str
    steps: int | None
    seed: int
    budget: int | None
    group: str | None
    turns: tuple[Seen, ...]
    helped: bool = False

    @property
    def task(self) -> str:
        """What the manifest declares: a unit, or UNIT/STEP."""
        return self.unit if self.start is None else f"{self.unit}/{self.start}"


def facts(row: Attempt) -> Facts:
    outcome = row.outcome
    return Facts(
        row.unit,
        row.start,
        row.sample,
        row.ended,
        None if outcome is None else outcome.success,
        None if outcome is None else outcome.progress,
        None if outcome is None or outcome.side_effects is None else bool(outcome.side_effects),
        None if outcome is None else outcome.checked_by,
        row.reason[:LONGEST_REASON],
        row.steps,
        row.seed,
        row.budget,
        row.group,
        tuple(_seen(turn) for turn in row.turns),
        any(turn.by == "person" for turn in row.turns),
    )


def _seen(turn: Turn) -> Seen:
    verdict = turn.verdict
    judged = None if verdict is None else _JUDGED[verdict.readable, verdict.type_ok, verdict.exact, verdict.judgeable]
    return Seen(turn.tokens, turn.screenshot, judged, turn.action is not None)


_FLAGS = (False, True)
_JUDGED = {(a, b, c, d): Judged(a, b, c, d) for a in _FLAGS for b in _FLAGS for c in _FLAGS for d in _FLAGS}
"""One of each, shared by all turns."""
