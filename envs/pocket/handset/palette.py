"""Colours of a phone, drawn from its theme's number: light or dark, around one hue, readable."""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass
from functools import lru_cache

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Palette:
    """back: of pages. bar: of bars and dialogs. muted: second lines. line: thin lines. accent: what acts. tint: soft accent."""

    dark: bool
    hue: float
    back: Colour
    bar: Colour
    text: Colour
    muted: Colour
    line: Colour
    accent: Colour
    on_accent: Colour
    tint: Colour
    on_tint: Colour


def tone(hue: float, lightness: float, saturation: float) -> Colour:
    r, g, b = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(r * 255), round(g * 255), round(b * 255)


@lru_cache(maxsize=64)
def palette(number: int) -> Palette:
    rng = random.Random(f"palette-{number}")
    hue, dark = rng.random(), rng.random() < 0.35
    steps = (
        ((0.075, 0.10), (0.13, 0.12), (0.91, 0.10), (0.68, 0.06), (0.28, 0.08), (0.76, 0.55), (0.14, 0.5), (0.27, 0.3))
        if dark
        else ((0.985, 0.3), (0.945, 0.3), (0.11, 0.1), (0.40, 0.06), (0.84, 0.1), (0.36, 0.5), (1.0, 0.0), (0.88, 0.5))
    )
    on_tint = (0.9, 0.4) if dark else (0.18, 0.5)
    return Palette(dark, hue, *(tone(hue, lightness, saturation) for lightness, saturation in (*steps, on_tint)))


def bright(word: str) -> Colour:
    """A strong colour that white reads well on, always the same for a word."""
    rng = random.Random(f"bright-{word}")
    return tone(rng.random(), rng.uniform(0.36, 0.46), rng.uniform(0.4, 0.62))
