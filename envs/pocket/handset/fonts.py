"""The font, at any size, and the size at which words fit."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont


@lru_cache(maxsize=64)
def font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(1, pixels))


@lru_cache(maxsize=4096)
def fit(text: str, pixels: int, room: float) -> tuple[int, float]:
    """(font size, width of the words) in pixels: at most `pixels`, smaller where the words are wider than `room`."""
    while pixels > 6 and font(pixels).getlength(text) > room:
        pixels -= 1
    return pixels, font(pixels).getlength(text)
