"""guiderail evaluate world: success in a live world of the user's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from guiderail.envs.live.worlds import WORLDS, NamedWorld
from guiderail.launch.agents import AgentSpec
from guiderail.launch.evaluate.live import LiveOptions, report, score_live
from guiderail.launch.options import Json, Out, spread


@spread
def world(
    name: Annotated[str, typer.Argument(metavar="WORLD", help="path/to/file.py:NAME, or an installed world")],
    who: AgentSpec,
    live: LiveOptions = LiveOptions(),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Success in a live world of your own: see docs/own-parts.md."""
    live = replace(live, width=max(live.width, live.workers))
    result = score_live("world", NamedWorld(name), who, live, out, {"name": name}, named=[(WORLDS, name)])
    report(f"live {name}", who, result, as_json, out=out)
