"""The options --style and --size of commands that draw Pocket phones."""

from __future__ import annotations

from typing import Annotated

import typer

from guiderail.envs.pocket.state import STYLES, size_of_style
from guiderail.launch.options import one_of, parse_size

PocketStyle = Annotated[
    str,
    typer.Option(help="easy (text on a grid, few words), free, or phone (bars, keyboard, icons, many wordings)"),
]
PocketSize = Annotated[
    str | None, typer.Option(help="screen in pixels, WxH; default: 160x288, with --style phone 360x800")
]


def pocket_screen(style: str, size: str | None) -> tuple[int, int]:
    """(width, height) in pixels. Raises SetupError for an unknown style and for anything else than WIDTHxHEIGHT."""
    one_of("--style", style, tuple(STYLES))
    return parse_size("--size", size) if size else size_of_style(style)
