"""Sizes: original pixels <-> the model's pixels <-> screen fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Picture, Point, Screenshot


@dataclass(frozen=True, slots=True)
class Vision:
    """How a model family resizes screenshots.

    factor: both sides become multiples of it (Qwen2.5-VL: patch 14 x merge 2 = 28; Qwen3-VL: 16 x 2 = 32).
    min_pixels, max_pixels: bounds on the resized area, in pixels.
    """

    factor: int = 28
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 12800 * 28 * 28

    def picture(self, screenshot: Screenshot) -> Picture:
        """The screenshot at the size at which this model sees it. Raises SetupError as `smart_resize` does."""
        width, height = smart_resize(screenshot.width, screenshot.height, self)
        return Picture(screenshot, width, height)


def smart_resize(width: int, height: int, vision: Vision) -> tuple[int, int]:
    """Qwen-VL's resize rule: round to multiples of factor, then scale into the area bounds. Returns (width, height).

    Raises SetupError for a side under 2 px or an aspect ratio over 200. Idempotent for the shapes of screens (ratio up to
    8): a returned size maps to itself.
    """
    f = vision.factor
    if min(width, height) < 2 or max(width, height) / min(width, height) > 200:
        raise SetupError(f"screen {width}x{height}: sides must be at least 2 px and their ratio at most 200")
    w, h = max(f, round(width / f) * f), max(f, round(height / f) * f)
    if w * h > vision.max_pixels:
        scale = math.sqrt(width * height / vision.max_pixels)
        w, h = max(f, math.floor(width / scale / f) * f), max(f, math.floor(height / scale / f) * f)
    elif w * h < vision.min_pixels:
        scale = math.sqrt(vision.min_pixels / (width * height))
        w, h = math.ceil(width * scale / f) * f, math.ceil(height * scale / f) * f
    return w, h


@dataclass(frozen=True, slots=True)
class ScreenTransform:
    """Pixels of a width x height picture to screen fractions and back. Rounding moves a point by at most half a pixel."""

    width: int
    height: int

    def to_fraction(self, x: float, y: float) -> Point:
        """Pixels -> screen fractions."""
        return Point(x / self.width, y / self.height)

    def to_pixels(self, point: Point) -> tuple[int, int]:
        """Screen fractions -> rounded pixels (x, y)."""
        return round(point.x * self.width), round(point.y * self.height)
