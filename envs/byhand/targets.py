"""What a touch is aimed at."""

from __future__ import annotations

from collections.abc import Iterable

from guiderail.agent.types import Point
from guiderail.envs.live.device import Element


def targets(elements: Iterable[Element], point: Point) -> list[Element]:
    """What a touch at this point may be aimed at, the likeliest first: the smallest element that reacts to touch, then what
    else holds the point."""
    held = [element for element in elements if element.box.contains(point)]
    return sorted(held, key=lambda element: (not element.clickable, element.box.area))
