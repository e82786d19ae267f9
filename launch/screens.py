"""Says once when a model looks at screens of another size than it was made for: small models are lost there."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from guiderail.agent.types import Episode
from guiderail.launch import show
from guiderail.launch.agents import Voice

Size = tuple[int, int]
"""(width, height) in pixels."""

MOST_SIZES = 32
"""A model that was trained on more sizes than these is not tied to any."""


def sizes_of(episodes: Iterable[Episode]) -> tuple[Size, ...] | None:
    """The sizes of all recorded screens, sorted; None if there are more than MOST_SIZES."""
    found = {(step.screenshot.width, step.screenshot.height) for episode in episodes for step in episode.steps}
    return tuple(sorted(found)) if len(found) <= MOST_SIZES else None


def png_size(data: bytes) -> Size:
    """The size in the head of a PNG."""
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def other_screens(model: str, voice: Voice, sizes: Sequence[Size] | None) -> bool:
    """Print a warning on standard error, and return True, if the model was made for other screens than these."""
    strange = [size for size in sizes or () if voice.screens and size not in voice.screens]
    if not strange or voice.screens is None:
        return False
    show.err.print(
        f"{model} was made for screens of {_listed(voice.screens)} pixels, not of {_listed(strange)}: "
        "expect a lower score, or train it on such screens",
        style="yellow",
        markup=False,
        highlight=False,
    )
    return True


def _listed(sizes: Sequence[Size]) -> str:
    named = [f"{width}x{height}" for width, height in sizes[:3]]
    return ", ".join(named) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
