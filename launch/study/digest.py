"""What tables and plots show, computed from records alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.launch.study.plan import Plan
from guiderail.launch.study.records import SUFFIX, Line, read_record
from guiderail.rl.score.study import Difference, Mean, difference, mean

Value = Callable[[Line], tuple[float, float] | None]
"""(numerator, denominator) of a line's share; None where the line was not scored."""


@dataclass(frozen=True)
class Checkpoint:
    arm: str
    seed: int
    header: Mapping[str, Any]
    lines: list[Line]

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A share over lines of one kind. value: what a line adds. memory: only tasks that need memory, or only the others."""

    kind: str
    value: Value
    memory: bool | None = None

    def of(self, checkpoint: Checkpoint, world: str = "test") -> tuple[dict[str, float], dict[str, float]]:
        """task -> numerator, task -> denominator."""
        tops, bottoms = {}, {}
        for line in checkpoint.lines:
            if line["kind"] != self.kind or line["world"] != world:
                continue
            if self.memory is not None and bool(line["memory"]) is not self.memory:
                continue
            found = self.value(line)
            if found is not None and found[1] > 0:
                tops[line["task"]], bottoms[line["task"]] = found
        return tops, bottoms


def _ok(line: Line) -> tuple[float, float] | None:
    return None if line["ok"] is None else (float(line["ok"]), 1.0)


def _progress(line: Line) -> tuple[float, float] | None:
    return None if line["matched"] is None else (line["matched"] / line["of"], 1.0)


def _whole(line: Line) -> tuple[float, float] | None:
    return None if line["matched"] is None else (float(line["matched"] == line["of"]), 1.0)


def _both(line: Line) -> tuple[float, float] | None:
    return (
        None if line["matched"] is None else ((line["matched"] / line["of"] + (line["matched"] == line["of"])) / 2, 1.0)
    )


def _whole_where_noted(line: Line) -> tuple[float, float] | None:
    """Only of recordings at which the agent noted all that it had to: can it act on its notes?"""
    return _whole(line) if line.get("due") and line["noted"] == line["due"] else None


def _ok_with_popups(line: Line) -> tuple[float, float] | None:
    return _ok(line) if line.get("popups") else None


def _claimed_falsely(line: Line) -> tuple[float, float] | None:
    """Of the failures."""
    return (float(line["claimed"]), 1.0) if line.get("claimed") is not None and line["ok"] == 0 else None


def _part(top: str, bottom: str) -> Value:
    return lambda line: (float(line[top]), float(line[bottom])) if top in line else None


ONLINE = Metric("live", _ok)
METRICS: dict[str, Metric] = {
    "online": ONLINE,
    "online, memory": Metric("live", _ok, True),
    "online, other": Metric("live", _ok, False),
    "SOP PG": Metric("sop", _progress),
    "SOP TSR": Metric("sop", _whole),
    "SOP Score": Metric("sop", _both),
    "one-step SR": Metric("steps", _part("exact", "n")),
    "SOP TSR, memory": Metric("sop", _whole, True),
    "online, sampled": Metric("live_sampled", _ok),
    "online, memory, sampled": Metric("live_sampled", _ok, True),
    "SOP TSR, sampled": Metric("sop_sampled", _whole),
    "informative, sampled": Metric("sop_sampled", _part("told", "turns")),
    "informative, memory": Metric("sop", _part("told", "turns"), True),
    "noted": Metric("sop", _part("noted", "due"), True),
    "noted, sampled": Metric("sop_sampled", _part("noted", "due"), True),
    "SOP TSR where noted": Metric("sop", _whole_where_noted, True),
    "SOP TSR where noted, sampled": Metric("sop_sampled", _whole_where_noted, True),
    "informative, online": Metric("live", _part("told", "turns")),
    "online, pop-ups": Metric("live", _ok_with_popups),
    "online, pop-ups, sampled": Metric("live_sampled", _ok_with_popups),
    "false claims": Metric("live", _claimed_falsely),
    "false claims, sampled": Metric("live_sampled", _claimed_falsely),
}


def load(records: Path) -> list[Checkpoint]:
    """Every record of the folder, by name. Raises SetupError when there is none, DataError for a broken one."""
    found = []
    for path in sorted(records.glob(f"*{SUFFIX}")):
        header, lines = read_record(path)
        found.append(Checkpoint(header["arm"], header["seed"], header, lines))
    if not found:
        raise SetupError(f"no records in {records}; make some: guiderail study pocket --records {records}")
    return found


def arms(plan: Plan, checkpoints: list[Checkpoint], *parts: str) -> dict[str, list[Checkpoint]]:
    """The arms of these parts that have records, in the plan's order. No part: every arm, those not in the plan last."""
    by_arm: dict[str, list[Checkpoint]] = {}
    for name in [*plan.arms, *sorted({c.arm for c in checkpoints} - set(plan.arms))]:
        if parts and (name not in plan.arms or plan.arms[name].part not in parts):
            continue
        mine = sorted((c for c in checkpoints if c.arm == name), key=lambda c: c.seed)
        if mine:
            by_arm[name] = mine
    return by_arm


def title(plan: Plan, arm: str) -> str:
    return plan.arms[arm].title if arm in plan.arms else arm


def over_seeds(metric: Metric, group: list[Checkpoint], world: str = "test") -> Mean | None:
    """`rl.score.study.mean` of one arm."""
    pairs = {checkpoint.seed: metric.of(checkpoint, world) for checkpoint in group}
    kept = {seed: pair for seed, pair in pairs.items() if pair[0]}
    if not kept:
        return None
    return mean(
        {seed: tops for seed, (tops, _) in kept.items()}, {seed: bottoms for seed, (_, bottoms) in kept.items()}
    )


def comparisons(
    plan: Plan, checkpoints: list[Checkpoint], *parts: str
) -> list[tuple[str, list[Checkpoint], list[Checkpoint]]]:
    """("this minus that", this arm, that arm) for every comparison of the plan in these parts whose arms both have records."""
    every = arms(plan, checkpoints)
    return [
        (f"{title(plan, arm)} minus {title(plan, other).removeprefix('+ ')}", group, every[other])
        for arm, group in arms(plan, checkpoints, *parts).items()
        for other in plan.arms[arm].against
        if other in every
    ]


def gap(metric: Metric, first: list[Checkpoint], second: list[Checkpoint]) -> Difference | None:
    """`rl.score.study.difference` of two arms, seed by seed. A single checkpoint that was not trained, or from which the other
    arm went on, is paired with every seed that has it as its start."""
    ours, theirs = ({c.seed: metric.of(c)[0] for c in arm} for arm in (first, second))
    if len(second) == 1:
        [start] = second
        theirs |= {c.seed: metric.of(start)[0] for c in first if not start.header["train"] or _after(c) == start.name}
    return difference(ours, theirs)


def _after(checkpoint: Checkpoint) -> str:
    return str((checkpoint.header["train"] or {}).get("after", ""))


def points(checkpoints: list[Checkpoint], against: str) -> tuple[list[str], list[float], list[float]]:
    """(names, values of METRICS[against], online success) of every checkpoint, on the tasks that all of them were scored on."""
    metric = METRICS[against]
    both = [c for c in checkpoints if metric.of(c)[0] and ONLINE.of(c)[0]]
    return [c.name for c in both], _common(metric, both), _common(ONLINE, both)


def _common(metric: Metric, checkpoints: list[Checkpoint]) -> list[float]:
    scored = [metric.of(c) for c in checkpoints]
    shared = set.intersection(*(set(tops) for tops, _ in scored)) if scored else set()
    return [sum(t[k] for k in sorted(shared)) / max(1e-9, sum(b[k] for k in sorted(shared))) for t, b in scored]
