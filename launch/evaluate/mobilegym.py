"""guiderail evaluate mobilegym: success on MobileGym's tasks, judged by MobileGym's own code, from the user's checkout."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.launch import parts, show
from guiderail.launch.agents import AgentSpec
from guiderail.launch.evaluate.live import LiveOptions, report, score_live
from guiderail.launch.options import Json, Out, one_of, spread


@spread
def mobilegym(
    who: AgentSpec,
    checkout: Annotated[
        str | None,
        typer.Option(help="a MobileGym checkout with built pages; default: GUIDERAIL_MOBILEGYM", metavar="DIR"),
    ] = None,
    split: Annotated[
        str, typer.Option(help="test (256 tasks, the leaderboard's), train (160) or payment (7)")
    ] = "test",
    language: Annotated[
        str, typer.Option(help="of phone and goals: zh, or en (tasks with an English goal only)")
    ] = "zh",
    tasks: Annotated[str, typer.Option(help="task names with commas, or experts: those that have an expert")] = "",
    seeds: Annotated[int, typer.Option(help="instances per task, where it has parameters to draw")] = 1,
    scale: Annotated[int, typer.Option(help="screenshot pixels per CSS pixel; the screen has 360x800")] = 2,
    accept_mobilegym_terms: Annotated[
        bool, typer.Option("--accept-mobilegym-terms", help="accept the terms of MobileGym's data; asked for once")
    ] = False,
    live: LiveOptions = LiveOptions(),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """MobileGym, 28 simulated apps: its own tasks and judges, answers given in its form (docs/mobilegym.md)."""
    from guiderail.envs.mobilegym.bench import LANGUAGES, SPLITS

    one_of("--split", split, SPLITS)
    spoken = one_of("--language", language, LANGUAGES)
    _agree(accept_mobilegym_terms)
    parts.require("selenium", "mobilegym")
    from guiderail.envs.mobilegym.checkout import Checkout
    from guiderail.envs.mobilegym.tasks import MobileGym

    found = Checkout.at(checkout)
    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    world = MobileGym(str(found.folder), split, names, seeds, live.seed, spoken, scale)
    left_out = Counter(why for why in world.chosen.values() if why)
    for why, count in sorted(left_out.items()):
        show.err.print(f"{count} tasks left out: {why}", style="dim", markup=False, highlight=False)
    details = {"split": split, "language": language, "seeds": seeds, "scale": scale, "tasks": tasks}
    details |= {"commit": found.commit, "without_data": sorted(found.without_data)}
    live = replace(live, width=max(live.width, live.workers))
    result = score_live("mobilegym", world, who, live, out, details)
    report(f"MobileGym {split}", who, result, as_json, out=out)


def _agree(said: bool) -> None:
    """Raises SetupError where the terms have not been accepted, now or before."""
    from guiderail.envs.mobilegym import terms

    if said:
        terms.accept()
    elif not terms.accepted():
        if not sys.stdin.isatty():
            terms.require()
        show.err.print(terms.TEXT, markup=False, highlight=False)
        if not typer.confirm("Do you accept these terms?", err=True):
            raise SetupError(f"MobileGym's terms were not accepted; to accept them, add {terms.OPTION}")
        terms.accept()
