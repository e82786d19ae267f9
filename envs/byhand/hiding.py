"""Personal data on a screen: found by pattern in the tree, blacked out before the screenshot is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from guiderail.agent.types import Box, Screenshot
from guiderail.envs.live.device import Element, encode_png

PATTERNS = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "number": re.compile(r"\d(?:[ ().+/-]{0,3}\d){5,}"),
}
"""By name. A number has six digits or more, as those of phones, cards and accounts have; blanks, brackets, dots and dashes
may stand between them. Times and small amounts are shorter."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """An element whose words hold personal data. pattern: the name of the pattern that found it."""

    box: Box
    pattern: str


def personal(elements: Iterable[Element], patterns: Sequence[str] = tuple(PATTERNS)) -> list[Hidden]:
    """The elements whose words one of these patterns finds, each once."""
    found: dict[Box, Hidden] = {}
    for element in elements:
        for name in patterns:
            if PATTERNS[name].search(element.text):
                found.setdefault(element.box, Hidden(element.box, name))
    return list(found.values())


def blacked_out(shot: Screenshot, boxes: Sequence[Box]) -> Screenshot:
    """The screenshot with these boxes filled, as a PNG; the very same one where there are none. Every pixel that a box
    touches is black."""
    if not boxes:
        return shot
    image = shot.image()
    draw = ImageDraw.Draw(image)
    for box in boxes:
        left, top = int(box.left * shot.width), int(box.top * shot.height)
        right, bottom = -int(-box.right * shot.width // 1), -int(-box.bottom * shot.height // 1)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=(0, 0, 0))
    return encode_png(image)
