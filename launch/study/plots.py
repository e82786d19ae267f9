"""The study in charts: PNG and SVG, white background. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from guiderail.launch.report.figures import BLUE, GREEN, GREY, ORANGE, RED, STYLE, save
from guiderail.launch.study.digest import METRICS, Checkpoint, arms, comparisons, gap, load, over_seeds, points, title
from guiderail.launch.study.plan import Plan
from guiderail.rl.score.study import Mean, correlation

PARTS = {
    "comparison": (BLUE, "comparison"),
    "told": (RED, "thoughts told"),
    "ablations": (GREEN, "ablations"),
    "metrics": (ORANGE, "early or bad"),
    "": ("black", "unplanned"),
}
PANELS = {
    "online": "online success, all tasks",
    "online, sampled": "online success, sampled",
    "SOP TSR": "SOP TSR",
    "SOP TSR, sampled": "SOP TSR, sampled",
    "online, memory": "online success, memory tasks",
    "noted": "noted what had to be noted",
}


def draw(plan: Plan, records: Path, out: Path) -> list[Path]:
    """Write out/NAME.svg and .png; returns the paths."""
    found = load(records)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context(STYLE):
        if groups := arms(plan, found, "comparison", "told"):
            made.append(save(out, "online", _arms(plan, groups)))
        if pairs := comparisons(plan, found, "ablations"):
            made.append(save(out, "ablations", _gaps(pairs)))
        made.append(save(out, "metrics", _metrics(plan, found)))
    return [out / f"{name}.{kind}" for name in made for kind in ("svg", "png")]


def _arms(plan: Plan, groups: dict[str, list[Checkpoint]]) -> Figure:
    """Rates by arm."""
    rows = [f"{title(plan, arm)} ({len(group)})" for arm, group in groups.items()]
    names = ("online", "online, sampled", "SOP TSR, sampled", "online, memory", "noted")
    figure = _forest(
        rows, {name: [over_seeds(METRICS[name], group) for group in groups.values()] for name in names}, "%"
    )
    for axis in figure.axes:
        axis.set_xlim(left=0)
    return figure


def _gaps(pairs: list[tuple[str, list[Checkpoint], list[Checkpoint]]]) -> Figure:
    """Differences between the arms that the plan compares, over the same seeds and tasks."""
    rows = [words for words, _, _ in pairs]
    names = ("online", "online, memory", "SOP TSR", "SOP TSR, sampled")
    made = {name: [gap(METRICS[name], first, second) for _, first, second in pairs] for name in names}
    figure = _forest(rows, made, "points")
    for axis in figure.axes:
        axis.axvline(0, color="black", linewidth=0.8, zorder=1)
    return figure


def _forest(rows: list[str], panels: Mapping[str, Sequence[Mean | None]], unit: str) -> Figure:
    """One panel per metric that any row was scored by: mean, interval, seeds as dots."""
    shown = {name: column for name, column in panels.items() if any(column)}
    figure = Figure(figsize=(3 + 2.2 * len(shown), 0.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, (name, column) in zip(axes, shown.items(), strict=True):
        for y, made in enumerate(column):
            if made is None:
                continue
            low, high = made.interval
            axis.plot([100 * low, 100 * high], [y, y], color=BLUE, linewidth=2, solid_capstyle="butt", zorder=2)
            axis.scatter(
                [100 * v for v in made.by_seed], [y] * len(made.by_seed), s=9, color=GREY, zorder=3, linewidths=0
            )
            axis.scatter([100 * made.value], [y], s=26, color=BLUE, zorder=4, linewidths=0)
        axis.set(xlabel=unit, title=PANELS[name])
        axis.grid(axis="x", color="#e3e6e9", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel("dot: mean, bar: 95 % interval over seeds and tasks, grey: seeds", fontsize=7)
    return figure


def _metrics(plan: Plan, found: list[Checkpoint]) -> Figure:
    """Each metric against online success, one dot per checkpoint."""
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes: Any = figure.subplots(1, 4, sharey=True)
    for axis, name in zip(axes, ("SOP PG", "SOP TSR", "SOP Score", "one-step SR"), strict=True):
        names, x, y = points(found, name)
        part = {c.name: plan.arms[c.arm].part if c.arm in plan.arms else "" for c in found}
        for kind, (colour, label) in PARTS.items():
            chosen = [i for i, checkpoint in enumerate(names) if part[checkpoint] == kind]
            if chosen:
                across, up = [100 * x[i] for i in chosen], [100 * y[i] for i in chosen]
                axis.scatter(across, up, s=14, color=colour, alpha=0.75, linewidths=0, label=label)
        made = correlation(names, x, y)
        said = (
            "r not defined"
            if made is None
            else f"r {made.pearson:.2f} [{made.interval[0]:.2f}, {made.interval[1]:.2f}]"
        )
        if made is not None:
            said += f"\none left out {made.drop_one[0]:.2f} to {made.drop_one[1]:.2f}"
        axis.set(xlabel=f"{name} %", title=said)
        axis.grid(color="#e3e6e9", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_ylabel("online success %")
    axes[0].legend(frameon=False, fontsize=7)
    return figure
