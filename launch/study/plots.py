"""The study in pictures: PNG and SVG, white background, the same bytes for the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from launch.report.figures import BLUE, GREEN, GREY, ORANGE, RED, STYLE
from launch.study.digest import METRICS, Checkpoint, arms, load, over_seeds, points, title
from launch.study.plan import Plan
from rl.study import correlation

PARTS = {
    "comparison": (BLUE, "comparison"),
    "told": (RED, "thoughts told"),
    "ablations": (GREEN, "ablations"),
    "metrics": (ORANGE, "early or bad"),
    "": ("black", "unplanned"),
}


def draw(plan: Plan, records: Path, out: Path) -> list[Path]:
    """Write out/NAME.png and .svg; returns the paths."""
    found = load(records)
    out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with matplotlib.rc_context(STYLE):
        for name, parts in (("online", ("comparison", "told")), ("ablations", ("ablations",))):
            groups = arms(plan, found, *parts)
            if groups:
                made += _save(out, name, _arms(plan, groups))
        made += _save(out, "metrics", _metrics(plan, found))
    return made


def _save(out: Path, name: str, figure: Figure) -> list[Path]:
    paths = [out / f"{name}.svg", out / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1])
    return paths


def _arms(plan: Plan, groups: dict[str, list[Checkpoint]]) -> Figure:
    """A panel for each metric that any arm's exam measured: mean, interval, seeds as dots."""
    panels = {
        "online success, all tasks": METRICS["online"],
        "online success, sampled": METRICS["online, sampled"],
        "SOP TSR, sampled": METRICS["SOP TSR, sampled"],
        "online success, memory tasks": METRICS["online, memory"],
        "noted what had to be noted": METRICS["noted"],
    }
    measured = {name: [over_seeds(metric, group) for group in groups.values()] for name, metric in panels.items()}
    shown = {name: rows for name, rows in measured.items() if any(rows)}
    figure = Figure(figsize=(3 + 2.2 * len(shown), 0.8 + 0.3 * len(groups)), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, (name, rows) in zip(axes, shown.items(), strict=True):
        for y, made in enumerate(rows):
            if made is None:
                continue
            low, high = made.interval
            axis.plot([100 * low, 100 * high], [y, y], color=BLUE, linewidth=2, solid_capstyle="butt", zorder=2)
            axis.scatter(
                [100 * v for v in made.by_seed], [y] * len(made.by_seed), s=9, color=GREY, zorder=3, linewidths=0
            )
            axis.scatter([100 * made.value], [y], s=26, color=BLUE, zorder=4, linewidths=0)
        axis.set(xlabel="%", title=name)
        axis.set_xlim(left=0)
        axis.grid(axis="x", color="#e3e6e9", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(groups)), [f"{title(plan, arm)} ({len(group)})" for arm, group in groups.items()])
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    figure.supxlabel(
        "dot: mean, bar: 95 % interval over seeds and tasks, grey: seeds (their number in brackets)", fontsize=7
    )
    return figure


def _metrics(plan: Plan, found: list[Checkpoint]) -> Figure:
    """Each metric against online success, one point per checkpoint."""
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
