"""guiderail record ... --by-hand: a page in which a person acts and every step is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.launch import show
from guiderail.launch.console.command import HOST_HELP, require_server, serve_pages
from guiderail.launch.console.devices import DeviceSpec, Place, free_phone, open_place

if TYPE_CHECKING:
    from guiderail.envs.live.attempts import Session

ByHand = Annotated[bool, typer.Option("--by-hand", help="a person acts, in a page of the browser")]
_option = partial(typer.Option, rich_help_panel="With --by-hand")
Places = Callable[[str, int], Place]
"""(goal, number of the task) -> where one attempt takes place."""


@dataclass(frozen=True, slots=True)
class HandOptions:
    """How a person records. hide: patterns of `envs.byhand.hiding`."""

    annotator: Annotated[str, _option(help="who records; part of every episode's id")] = ""
    hide: Annotated[
        str, _option(help="black out what the screen's tree shows to be personal: email,number or none")
    ] = "email,number"
    host: Annotated[str, _option(help=HOST_HELP)] = "127.0.0.1"
    port: Annotated[int, _option(help="0: a free one", min=0, max=65535)] = 0

    def patterns(self) -> list[str]:
        """Raises SetupError."""
        from guiderail.envs.byhand.hiding import PATTERNS

        named = [name.strip() for name in self.hide.split(",") if name.strip() and name.strip() != "none"]
        unknown = [name for name in named if name not in PATTERNS]
        if unknown:
            raise SetupError(f"--hide {unknown[0]!r}: expected {', '.join(PATTERNS)}, or none")
        return named


def record_by_hand(out: Path, hand: HandOptions, places: Places, seed: int, asks_goal: bool = False) -> None:
    """Serve the recorder until Ctrl-C."""
    require_server()
    from guiderail.envs.byhand.recorder import Recorder
    from guiderail.launch.console.recording import Session, record_page

    session = Session(Recorder(out, hand.annotator, hand.patterns()), places, seed, asks_goal)
    try:
        serve_pages([record_page(session)], hand.host, hand.port)
    finally:
        session.close()
        episodes, failed = session.written
        show.err.print(
            f"{out}: {episodes} episodes written, {failed} failed ones kept apart", markup=False, highlight=False
        )


def pocket_places(split: str, style: str, size: tuple[int, int]) -> Places:
    """Live tasks of the split, in the order that the seed draws; a goal of one's own gets a phone as it comes."""

    def place(goal: str, number: int) -> Place:
        from guiderail.envs.pocket.tasks import SPLITS
        from guiderail.envs.pocket.world import PocketTasks

        if split not in SPLITS:
            raise SetupError(f"split {split!r}, expected one of {', '.join(SPLITS)}")
        if goal:
            return free_phone(goal, number, split, style, size)
        world = PocketTasks(1, number, split, style, size)
        ((name, _),) = world.listed()
        session = world.open(0)
        return Place(session.task(name), {"name": "pocket", "split": split, "style": style}, session.close, quick=True)

    return place


def miniwob_places(suite: str, scale: int) -> Places:
    """The pages of a suite, one after the other, each with the seed of its number."""

    def place(goal: str, number: int) -> Place:
        from guiderail.envs.miniwob.suites import suite as pages_of
        from guiderail.envs.miniwob.tasks import WebTasks

        if goal:
            raise SetupError("a page of MiniWoB++ has its own goal; leave yours out")
        pages: Sequence[str] = pages_of(suite)
        page = pages[number % len(pages)]
        world = WebTasks(page, 1, number, scale)
        session: Session = world.open(0)
        ((name, _),) = world.listed()
        return Place(session.task(name), {"name": "miniwob", "page": page, "scale": scale}, session.close, quick=True)

    return place


def android_places(serial: str, apps: Path | None, settle: float) -> Places:
    """The one phone; the person says what is to be done."""

    def place(goal: str, number: int) -> Place:
        return open_place(DeviceSpec(serial, goal, apps=apps, settle=settle))

    return place
