"""A plan as it is printed, and as the tables of docs/cluster.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from guiderail.launch import show
from guiderail.launch.plan.machines import GIB
from guiderail.launch.plan.planned import Planned, as_words

HEAD = ("GPUs", "GiB", "hours", "$", "micro-batches", "")


def time_of(hours: float) -> str:
    """ "40 min", "5.2 h", "3.1 days"."""
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def held(one: Planned) -> str:
    """ "41 of 80": GiB."""
    return f"{one.memory.peak / GIB:.0f} of {one.cluster.gpu.memory:.0f}"


def row(one: Planned) -> tuple[str, ...]:
    """A line of the comparison, as in HEAD."""
    return (
        one.cluster.name,
        held(one),
        f"{one.hours:.1f}" if one.fits else "-",
        f"{one.cost:.0f}" if one.fits else "-",
        str(one.setting.micro) if one.fits else "-",
        "" if one.fits else "does not fit",
    )


def comparison(plans: Sequence[Planned], chosen: Planned | None) -> Table:
    table = Table(title="cheapest first", title_justify="left")
    table.caption = "micro-batches: the training.gradient_accumulation_steps that learn from every kept turn"
    for name in HEAD:
        table.add_column(name, justify="right" if name not in ("GPUs", "") else "left", no_wrap=True)
    for one in plans:
        cells = row(one)
        table.add_row(*cells[:-1], "chosen" if one is chosen else cells[-1])
    return table


def details(one: Planned, change: Mapping[str, Any]) -> Table:
    """Memory and seconds by part."""
    table = Table("memory per GPU", "GiB", title=one.cluster.name, title_justify="left")
    for name, size in one.memory.parts.items():
        table.add_row(name, f"{size / GIB:.2f}")
    peak, has = one.memory.peak / GIB, one.cluster.gpu.memory
    left = peak - sum(one.memory.parts.values()) / GIB
    table.add_row("libraries, fragments", f"{left:.2f}", end_section=True)
    table.add_row("peak", f"{peak:.1f} of {has:g}", end_section=True)
    for name, value in one.spent.seconds.items():
        table.add_row(f"{name}, per generation", f"{value:.1f} s")
    table.add_row(f"whole run: {one.spent.generations} generations", f"{time_of(one.hours)}, ${one.cost:.0f}")
    if not one.fits:
        said = as_words(change) or "a larger GPU, or more of them"
        table.caption = f"does not fit; change {said}"
    elif one.spent.learned < 0.95:
        table.caption = (
            f"{one.spent.learned:.0%} of the turns fit into the update, drawn at random; raise "
            "training.gradient_accumulation_steps and steps_per_generation to learn from all"
        )
    return table


def print_plan(plans: Sequence[Planned], chosen: Planned | None, change: Mapping[str, Any], said: str) -> None:
    if len(plans) > 1:
        show.out.print(comparison(plans, chosen))
    shown = chosen or min(plans, key=lambda one: one.memory.peak / one.cluster.gpu.memory)
    show.out.print(details(shown, change))
    show.err.print(said, style="dim", highlight=False)
