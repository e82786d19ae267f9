"""The report's charts for papers: SVG and PNG, white background. The same run gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from guiderail.launch.report.runs import Curves

STYLE: Any = {
    "svg.hashsalt": "guiderail",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in the name of a template is not a formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#58626d",
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.dpi": 200,
    "savefig.bbox": "tight",
}
BLUE, GREEN, RED, GREY, ORANGE = "#0b5cad", "#1a7f37", "#b42318", "#8a939c", "#c2480a"


def draw(
    folder: Path, curves: Curves, names: list[str], groups: dict[str, Any] | None, atlas: dict[str, Any]
) -> list[str]:
    """Write folder/NAME.svg and .png; returns the names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context(STYLE):
        shown = [name for name in names if len(curves.get(name, [])) > 1]
        if shown:
            made.append(save(folder, "learning-curves", _curves(curves, shown)))
        if groups:
            made.append(save(folder, "groups", _groups(groups["generations"])))
        if atlas["first"]["bars"]:
            made.append(save(folder, "first-divergence", _bars(atlas["first"])))
        if atlas["confusion"]["rows"]:
            made.append(save(folder, "confusion", _confusion(atlas["confusion"])))
        if atlas["offsets"]["points"]:
            made.append(save(folder, "click-offsets", _offsets(atlas["offsets"]["points"])))
    return made


def save(folder: Path, name: str, figure: Figure) -> str:
    """Write folder/NAME.svg and .png; returns the name."""
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png")
    return name


def _curves(curves: Curves, names: list[str]) -> Figure:
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.6 * columns, 1.9 * rows), layout="constrained")
    for i, name in enumerate(names):
        axis = figure.add_subplot(rows, columns, i + 1)
        axis.plot(*zip(*curves[name], strict=True), color=BLUE, linewidth=1.2)
        axis.set_title(name)
        axis.set_xlabel("update" if i >= len(names) - columns else "")
    return figure


def _groups(generations: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(5, 2.2), layout="constrained")
    axis = figure.add_subplot()
    base = [0] * len(generations)
    for name, colour in (("kept", BLUE), ("all right", GREEN), ("all wrong", RED), ("alike", GREY)):
        heights = [row[name] for row in generations]
        axis.bar([row["generation"] for row in generations], heights, bottom=base, color=colour, label=name)
        base = [a + b for a, b in zip(base, heights, strict=True)]
    axis.set(xlabel="generation", ylabel="groups")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _bars(first: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(4, 2.2), layout="constrained")
    axis = figure.add_subplot()
    axis.bar([bar["label"] for bar in first["bars"]], [bar["n"] for bar in first["bars"]], color=BLUE)
    axis.set(
        xlabel="step of the first divergence",
        ylabel="rollouts",
        title=f"{first['never']} of {first['walks']} never diverge",
    )
    return figure


def _confusion(table: dict[str, Any]) -> Figure:
    columns, rows = table["columns"], table["rows"]
    figure = Figure(figsize=(1.6 + 0.55 * len(columns), 1.2 + 0.36 * len(rows)), layout="constrained")
    axis = figure.add_subplot()
    shares = [[cell["share"] for cell in row["cells"]] for row in rows]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(columns)), [name.replace("_", " ") for name in columns], rotation=40, ha="right")
    axis.set_yticks(range(len(rows)), [row["expert"].replace("_", " ") for row in rows])
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share:
                colour = "white" if share > 0.6 else "black"
                axis.text(x, y, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=7)
    axis.set(xlabel="policy", ylabel="expert")
    return figure


def _offsets(points: list[list[float]]) -> Figure:
    figure = Figure(figsize=(3, 3), layout="constrained")
    axis = figure.add_subplot()
    for exact, colour, label in ((False, ORANGE, "does not agree"), (True, GREEN, "agrees")):
        chosen = [(x, y) for x, y, right in points if bool(right) is exact]
        if chosen:
            across, down = zip(*chosen, strict=True)
            axis.scatter(across, down, s=5, alpha=0.5, color=colour, label=label, linewidths=0)
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.axvline(0, color=GREY, linewidth=0.5)
    axis.set(xlim=(-0.6, 0.6), ylim=(0.6, -0.6), xlabel="right of the expert's point", ylabel="below it")
    axis.legend(frameon=False, fontsize=7)
    return figure
