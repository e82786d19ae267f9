"""SOP, the semi-online performance of UI-S1 (section 3.5): the walk with no patch, greedy, scored by how far it came.

For episode i with t_i steps, s_i of them matched before the first mismatch: PG = mean(s_i / t_i), TSR = mean[s_i = t_i],
Score = (PG + TSR) / 2. Also the offline metrics TM, GR, SR of single steps under the expert's history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from guiderail.agent.types import Click, LongPress, Step
from guiderail.envs.recordings.match import MatchRules
from guiderail.rl.score.statistics import Interval, bootstrap_mean, clustered, wilson


@dataclass(frozen=True, slots=True)
class Scored:
    """One episode's outcome. steps: t_i. matched: s_i. crashed episodes are unscored, never 0.

    wiped: the rules' public evaluator would have raised at the step after (`envs.recordings.progress.agreed`): progress 0.
    """

    episode_id: str
    steps: int
    matched: int
    crashed: bool = False
    wiped: bool = False


def progress(row: Scored) -> float:
    """s_i / t_i; 0 where it is wiped."""
    return 0.0 if row.wiped else row.matched / row.steps


def score(rows: Sequence[Scored], rules: MatchRules) -> dict[str, Any]:
    """{PG, TSR, Score, intervals, n, unscored, rules}, rates as fractions of 1. PG and Score with bootstrap intervals
    over episodes, TSR with Wilson's."""
    scored = [row for row in rows if not row.crashed]
    rates = [progress(row) for row in scored]
    success = [float(rate == 1.0) for rate in rates]
    both = [(p + s) / 2 for p, s in zip(rates, success, strict=True)]
    intervals: dict[str, Interval] = {
        "PG": bootstrap_mean(rates),
        "TSR": wilson(int(sum(success)), len(success)),
        "Score": bootstrap_mean(both),
    }
    n = len(scored)
    return {
        "PG": sum(rates) / n if n else None,
        "TSR": sum(success) / n if n else None,
        "Score": sum(both) / n if n else None,
        "intervals": intervals,
        "n": n,
        "unscored": len(rows) - n,
        "rules": asdict(rules),
    }


@dataclass(frozen=True, slots=True)
class StepScored:
    """One step's outcome under the expert's history."""

    episode_id: str
    index: int
    grounded: bool
    type_ok: bool
    exact: bool
    crashed: bool = False


def offline_score(rows: Sequence[StepScored], rules: MatchRules) -> dict[str, Any]:
    """{TM, GR, SR, intervals, n, unscored, rules}: type match, grounding (exact among steps whose expert touches a
    point), step success. Intervals resample episodes, since steps of one episode are not independent."""
    scored = [row for row in rows if not row.crashed]
    touching = [row for row in scored if row.grounded]
    parts = {
        "TM": [(row.episode_id, row.type_ok) for row in scored],
        "GR": [(row.episode_id, row.exact) for row in touching],
        "SR": [(row.episode_id, row.exact) for row in scored],
    }
    result: dict[str, Any] = {k: sum(ok for _, ok in v) / len(v) if v else None for k, v in parts.items()}
    result["intervals"] = {name: clustered(values) for name, values in parts.items()}
    return result | {"n": len(scored), "unscored": len(rows) - len(scored), "rules": asdict(rules)}


def touches(step: Step) -> bool:
    """Whether the expert's action points at something: the steps that GR counts."""
    return isinstance(step.action, Click | LongPress)
