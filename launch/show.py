"""What is printed: a result as one table or one JSON object on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from guiderail.agent.untrusted import printable


class _Plain(Console):
    """A console on which text is text: no markup, no emoji codes, and nothing that steers the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **(how | {"markup": False, "emoji": False}))

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*(_cleaned(one) if isinstance(one, Text) else one for one in objects), **how)


def _cleaned(text: Text) -> Text:
    """A copy, as `printable` has it. That goes one for one, so the styles stay where they are."""
    made = text.copy()
    made.plain = printable(text.plain)
    return made


out = _Plain()
err = _Plain(stderr=True)


def result(value: Mapping[str, Any], as_json: bool, shown: Table | Text) -> None:
    """Print a result: the JSON object alone, or a table, or a text whose lines are as long as they should be."""
    if as_json:
        print(_STEERING.sub(_escaped, json.dumps(strict(value), ensure_ascii=False)))
    else:
        out.print(shown, soft_wrap=isinstance(shown, Text))


_STEERING = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""What JSON may hold as it is, and a terminal obeys."""


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def strict(value: Any) -> Any:
    """The value as JSON allows it: NaN and infinities become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value


def percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    """ "31.2 [28.0, 34.5]" in percent, or "-" when nothing was scored."""
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    return text if interval is None else f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def points(difference: float, interval: Sequence[float], p: float | None = None) -> str:
    """A difference of rates, as fractions: "+3.0 points [-1.0, +7.0], p = 0.2"."""
    low, high = interval
    text = f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text if p is None else f"{text}, p = {p:.2g}"


def scores(title: str, rows: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> Table:
    """One line per row; one column per key, with its 95 % interval; then n and unscored."""
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for key in keys:
        table.add_column(f"{key} %", justify="right")
    for key in ("n", "unscored"):
        table.add_column(key, justify="right")
    for name, row in rows.items():
        cells = [percent(row[key], row["intervals"][key] if "intervals" in row else row["interval"]) for key in keys]
        table.add_row(name, *cells, str(row["n"]), str(row["unscored"]))
    return table


def cells(title: str, result: Mapping[str, Any], kinds: Sequence[str]) -> Table:
    """One line per area, one column per kind of target, then the totals."""
    found = result["cells"]
    table = Table("", *(f"{kind} %" for kind in kinds), "all %", "n", title=title, title_justify="left")
    areas = sorted({name.rpartition(" ")[0] for name in found} - {""})
    whole = {"accuracy": result["accuracy"], "interval": result["interval"], "n": result["n"]}
    for area in (*areas, ""):
        names = [f"{area} {kind}".strip() for kind in kinds]
        total = found[area] if area else whole
        row = [_rate(found.get(name)) for name in names]
        table.add_row(area or "all", *row, _rate(total), str(total["n"]), end_section=area in areas[-1:])
    table.caption = f"mean of cells {percent(result['cell_mean'])}, unreadable {result['unreadable']}"
    return table


def _rate(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else percent(row["accuracy"], row["interval"])


def likelihoods(title: str, result: Mapping[str, Any]) -> Table:
    """One line per kind of expert action, then the total."""
    table = Table(title=title, title_justify="left")
    for name in ("", "mean p %", "geometric %", "p > 0.5 %", "greedy %", "log p thought", "n"):
        table.add_column(name, justify="right" if name else "left")
    for name, row in (*result["by_action"].items(), ("all", result)):
        p, half, greedy = (percent(row[key], row["intervals"][key]) for key in ("p", "above_half", "greedy"))
        thought = "-" if row["logp_thought"] is None else f"{row['logp_thought']:.2f}"
        table.add_row(name, p, percent(row["p_geometric"]), half, greedy, thought, str(row["n"]))
    table.caption = (
        f"{result['seconds']:.1f} s, {result['steps_per_second']:.0f} steps/s, {result['unscored']} unscored"
    )
    return table


def pairs(head: str, values: Mapping[str, Any]) -> Table:
    """One line per name and value."""
    table = Table(head, "", show_header=bool(head))
    for name, value in values.items():
        counts = isinstance(value, Mapping) and ", ".join(f"{key} {count}" for key, count in value.items())
        table.add_row(name, counts or str(value))
    return table


def differences(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Two runs under each profile, in words."""
    table = Table("", "first run against the second", "n", "left out", title=title, title_justify="left")
    for name, row in rows.items():
        said = "\n".join(metric["words"] for metric in row["metrics"].values())
        table.add_row(name, said, str(row["n"]), str(row["left_out"]))
    return table


def progress() -> Progress:
    """A bar on standard error with count and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=err,
        transient=True,
    )


@contextmanager
def bar(name: str, total: int) -> Iterator[Callable[[], None]]:
    """`progress` with one line; call what it yields to advance the line by one."""
    with progress() as shown:
        task = shown.add_task(name, total=total, note="")
        yield lambda: shown.advance(task)
