"""Small charts as inline SVG, coloured by the style sheet, so that they follow light and dark mode.

Not matplotlib's SVG: it puts colours into style attributes, which the pages' content security policy blocks, and takes
100 ms per chart, of which a report has hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

W, H = 300, 96
SWATCH = Markup('<svg viewBox="0 0 10 10" aria-hidden="true"><rect class="%s" width="10" height="10" rx="2"/></svg>')


def tag(name: str, text: str = "", /, *children: Markup, **attributes: object) -> Markup:
    """An SVG element; `cls` is class, an underscore in a name a hyphen. Everything is escaped."""
    named = ((key.rstrip("_").replace("cls", "class").replace("_", "-"), value) for key, value in attributes.items())
    head = "".join(f' {key}="{escape(_plain(value))}"' for key, value in named)
    return Markup(f"<{name}{head}>{escape(text)}{''.join(children)}</{name}>")


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _chart(label: str, width: float, height: float, *children: Markup) -> Markup:
    size = {"width": width, "height": height, "viewBox": f"0 0 {width:g} {height:g}"}
    return tag("svg", "", *children, cls="chart", **size, role="img", aria_label=label)


def whisker(row: Mapping[str, Any]) -> Markup:
    """A rate between 0 and 1 with its interval."""
    x = {key: 4 + 192 * min(1.0, max(0.0, float(row[key]))) for key in ("value", "low", "high")}
    label = f"{percent(row['value'])}, 95 % interval {percent(row['low'])} to {percent(row['high'])}"
    return tag(
        "svg",
        "",
        tag("line", cls="track", x1=4, x2=196, y1=8, y2=8),
        tag("line", cls="whisker", x1=x["low"], x2=x["high"], y1=8, y2=8),
        tag("circle", cls="dot", cx=x["value"], cy=8, r=4.5),
        cls="whiskers",
        viewBox="0 0 200 16",
        preserveAspectRatio="xMinYMid",
        role="img",
        aria_label=label,
    )


def curve(name: str, points: Sequence[tuple[int, float]]) -> Markup:
    """A number over updates: the raw line faint, a running mean on top. Labels: lowest and highest value, first and last
    update."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return Markup("")
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]
    points = [*points[: -1 : max(1, len(points) // 600)], points[-1]]
    left, right, top, bottom = 50.0, W - 6.0, 8.0, H - 16.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return left + across * (right - left), bottom - up * (bottom - top)

    def line(values: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in values)

    drawn = [tag("path", cls="axis", d=f"M{left},{top}V{bottom}H{right}")]
    if len(points) == 1:
        (x, y) = at(*points[0])
        drawn.append(tag("circle", cls="dot", cx=x, cy=y, r=3))
    else:
        drawn.append(tag("path", cls="line raw" if len(points) > 12 else "line", d=line(points)))
        if len(points) > 12:
            drawn.append(tag("path", cls="line", d=line(smooth(points))))
    labels = [(left - 5, top + 5, "end", short(high)), (left - 5, bottom + 1, "end", short(low))] if high > low else []
    labels += [(left - 5, H / 2, "end", short(low))] if high == low else []
    labels += [(left, H - 3, "start", str(first)), (right, H - 3, "end", f"update {last}")]
    drawn += [tag("text", text, x=x, y=y, text_anchor=anchor) for x, y, anchor, text in labels]
    return _chart(f"{name}: from {short(points[0][1])} to {short(points[-1][1])} at update {last}", W, H, *drawn)


def smooth(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Running mean over a tenth of the curve, centred."""
    half = max(1, len(points) // 20)
    rows = []
    for i, (x, _) in enumerate(points):
        window = [y for _, y in points[max(0, i - half) : i + half + 1]]
        rows.append((float(x), sum(window) / len(window)))
    return rows


def dropped(generations: Sequence[Mapping[str, Any]]) -> Markup:
    """Stacked bars of groups by generation: kept, all right, all wrong, alike."""
    shown = generations[-80:]
    most = max((row["n"] for row in shown), default=1)
    step = min(34.0, 640 / max(1, len(shown)))
    bars = []
    for i, row in enumerate(shown):
        y = 110.0
        for name, cls in FILLS.items():
            height = 100 * row[name] / most
            y -= height
            title = tag("title", f"generation {row['generation']}: {row[name]} {name}")
            if height:
                bars.append(tag("rect", "", title, cls=cls, x=34 + i * step, y=y, width=step * 0.82, height=height))
    right = 34 + step * len(shown)
    texts = [(30.0, 114, "end", "0"), (30.0, 16, "end", str(most)), (34.0, 126, "start", str(shown[0]["generation"]))]
    texts += [(max(right, 160), 126, "end", f"generation {shown[-1]['generation']}")]
    labels = [tag("text", text, x=x, y=y, text_anchor=anchor) for x, y, anchor, text in texts]
    return _chart(
        "groups by generation",
        max(180, right + 8),
        130,
        tag("path", cls="axis", d=f"M34,10V110H{right:g}"),
        *bars,
        *labels,
    )


FILLS = {"kept": "fill-kept", "all right": "fill-right", "all wrong": "fill-wrong", "alike": "fill-alike"}


def histogram(bars: Sequence[Mapping[str, Any]]) -> Markup:
    """Counts over labelled bins."""
    most = max((bar["n"] for bar in bars), default=1)
    step = min(44.0, 420 / max(1, len(bars)))
    drawn = [tag("path", cls="axis", d=f"M10,130H{14 + step * len(bars):g}")]
    for i, bar in enumerate(bars):
        height, x = 105 * bar["n"] / most, 12 + i * step
        title = tag("title", f"step {bar['label']}: {bar['n']} rollouts, {percent(bar['share'])}")
        drawn.append(tag("rect", "", title, cls="bar", x=x, y=130 - height, width=step * 0.8, height=height, rx=2))
        drawn.append(tag("text", bar["label"], x=x + step * 0.4, y=144, text_anchor="middle"))
        drawn.append(tag("text", str(bar["n"]), x=x + step * 0.4, y=125 - height, text_anchor="middle"))
    return _chart("first divergence by step", 450, 150, *drawn)


def offsets(points: Sequence[Sequence[float]]) -> Markup:
    """Clicks relative to the expert's point, in fractions of the screen, cut at -0.5 and 0.5."""
    drawn = [tag("rect", cls="axis", x=10, y=10, width=280, height=280, rx=4)]
    drawn += [
        tag("path", cls="axis", d="M150,10V290M10,150H290"),
        tag("circle", cls="axis", cx=150, cy=150, r=0.04 * 280),
    ]
    for dx, dy, exact in sorted(points, key=lambda p: bool(p[2])):
        x, y = (150 + 280 * min(0.5, max(-0.5, v)) for v in (dx, dy))
        drawn.append(tag("circle", cls="hit" if exact else "miss", cx=x, cy=y, r=2.6))
    texts = [(290, 304, "end", "right →"), (10, 304, "start", "← left of the expert's point")]
    drawn += [tag("text", text, x=x, y=y, text_anchor=anchor) for x, y, anchor, text in texts]
    return _chart("clicks relative to the expert's point", 300, 310, *drawn)


def overlay(screen: Mapping[str, Any]) -> Markup:
    """The expert's target and the policy's wrong touches on a screen, to put over its picture."""
    w, h = float(screen["w"]), float(screen["h"])
    unit = w / 110
    drawn = []
    for left, top, right, bottom in screen["boxes"][:1]:
        place = {"x": left * w, "y": top * h, "width": (right - left) * w, "height": (bottom - top) * h, "rx": 2 * unit}
        drawn += [
            tag("rect", cls=cls, stroke_width=unit * s, **place) for cls, s in (("halo", 4.6), ("mark-expert", 2.2))
        ]
    mark = screen["expert"]
    if "to" in mark:
        (x1, y1), (x2, y2) = mark["at"], mark["to"]
        place = {"x1": x1 * w, "y1": y1 * h, "x2": x2 * w, "y2": y2 * h}
        drawn += [
            tag("line", cls=cls, stroke_width=unit * s, **place) for cls, s in (("halo", 6.0), ("mark-expert", 3.0))
        ]
    for x, y in screen["points"]:
        drawn.append(tag("circle", cls="other", cx=x * w, cy=y * h, r=3.2 * unit, stroke_width=unit * 0.7))
    return tag("svg", "", *drawn, viewBox=f"0 0 {w:g} {h:g}", preserveAspectRatio="none", aria_hidden="true")


def percent(value: float | None) -> str:
    """ "31.2 %", or a dash for None."""
    return "–" if value is None else f"{100 * float(value):.1f} %"


def short(value: float) -> str:
    """Three significant digits, whatever the size."""
    if value == 0 or (1e-3 <= abs(value) < 1e4):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
