"""Pictures: faces, goods, record covers, app icons, a wallpaper. Each is drawn from its name, so it is always the same."""

from __future__ import annotations

import math
import random
from functools import lru_cache

from PIL import Image, ImageDraw

from guiderail.envs.pocket.handset.dress import APP_GLYPHS
from guiderail.envs.pocket.handset.fonts import font
from guiderail.envs.pocket.handset.glyphs import FINE, glyph, mask, rounded
from guiderail.envs.pocket.handset.palette import Colour, Palette, bright, tone

SHAPES = {
    "bottle": ("r 9.5 2.5 14.5 6 1; p 9.8 5 14.2 5 16.5 10 7.5 10; r 7.5 9 16.5 21.5 2.5", "r 7.5 13 16.5 18 0"),
    "carton": ("p 6.5 8 12 3 17.5 8; r 6.5 7.5 17.5 21.5 1", "r 6.5 12 17.5 18 0"),
    "loaf": (
        "o 7.5 10.5 4.8; o 12 9.6 5.2; o 16.5 10.5 4.8; r 4 10.5 20 19.5 2",
        "l 1.2 8 9 9.5 13; l 1.2 12 8.5 13.5 12.5",
    ),
    "fruit": ("o 12 13.8 7.6; o 9.4 13 6; o 14.6 13 6", "l 1.5 12 7 13.2 3; a 1.4 9 10.5 3 180 270"),
    "bunch": (
        "o 8 10.5 3.4; o 14.5 10.5 3.4; o 11 15 3.4; o 17 15.3 3; o 12.5 19 2.8; o 7.4 15.2 2.8",
        "l 1.5 12 8 13 3",
    ),
    "bag": ("r 5.5 6.5 18.5 21.5 2.5; p 7 3 17 3 18.2 8 5.8 8", "r 8.5 11 15.5 17.5 1.5"),
    "box": ("r 4 6.5 20 20 1.5", "r 4 10.5 20 15 0"),
    "jar": ("r 6.5 3.5 17.5 7 1; r 5.5 7.5 18.5 21.5 3", "r 5.5 11.5 18.5 17 0"),
    "fish": ("p 2.5 12 8 7 15 7.5 18 12 15 16.5 8 17; p 16 12 21.8 7 21.8 17", "o 7 11 1.2"),
    "egg": ("o 12 14 7; o 12 11.5 6.2; o 12 9 4.6", "a 1.3 10 11 3 180 260"),
    "root": (
        "p 5.5 8 18.5 8 14 18 12 22 10 18; o 12 9 6.2",
        "l 1.5 12 4 12 1.8; l 1.5 9.5 5 7.5 2.2; l 1.5 14.5 5 16.5 2.2",
    ),
}
"""A body and what is drawn over it, as strokes of `glyphs`."""
GOODS = {
    "milk": "carton 0.58",
    "bread": "loaf 0.08",
    "apples": "fruit 0.99",
    "rice": "bag 0.12",
    "eggs": "egg 0.09",
    "tea": "box 0.3",
    "salt": "jar 0.6",
    "beans": "jar 0.02",
    "corn": "root 0.14",
    "soap": "bottle 0.5",
    "fish": "fish 0.56",
    "nuts": "bunch 0.08",
    "plums": "bunch 0.78",
    "honey": "jar 0.12",
    "butter": "box 0.14",
    "cheese": "loaf 0.13",
    "coffee": "bag 0.05",
    "cocoa": "box 0.04",
    "flour": "bag 0.6",
    "garlic": "root 0.15",
    "ginger": "root 0.1",
    "grapes": "bunch 0.82",
    "lemons": "fruit 0.15",
    "limes": "fruit 0.27",
    "mango": "fruit 0.1",
    "onions": "root 0.06",
    "pasta": "box 0.11",
    "pears": "fruit 0.22",
    "pepper": "jar 0.0",
    "sugar": "bag 0.92",
    "brown rice": "bag 0.07",
    "oat milk": "carton 0.11",
    "rye bread": "loaf 0.06",
    "green tea": "box 0.36",
    "olive oil": "bottle 0.2",
    "sea salt": "jar 0.55",
}
"""A shape, and its hue from 0 to 1."""


def picture(what: str, side: int, colours: Palette) -> tuple[Image.Image, Image.Image]:
    """(RGB image, its mask "L"), both side x side pixels. what: "kind:name"."""
    kind, _, name = what.partition(":")
    match kind:
        case "avatar":
            image = Image.new("RGB", (side, side), bright(name))
            letter = ImageDraw.Draw(image)
            letter.text((side / 2, side / 2), name[0], font=font(round(side * 0.5)), fill=(255, 255, 255), anchor="mm")
            return image, rounded(side, side, side / 2)
        case "good":
            return _good(name, side), rounded(side, side, side * 0.2)
        case "cover":
            return _cover(name, side), rounded(side, side, side * 0.12)
        case "app":
            return _badge(APP_GLYPHS.get(name, "box"), side, 0.56, bright(f"{name} app"), (255, 255, 255)), rounded(
                side, side, side / 2
            )
    return _badge(name, side, 0.6, colours.tint, colours.on_tint), rounded(side, side, side / 2)


def _badge(name: str, side: int, share: float, back: Colour, fore: Colour) -> Image.Image:
    image = Image.new("RGB", (side, side), back)
    inner = max(1, round(side * share))
    at = (side - inner) // 2
    image.paste(fore, (at, at), glyph(name, inner))
    return image


def _good(name: str, side: int) -> Image.Image:
    shape, hue = GOODS.get(name, "box 0.5").split()
    body, over = SHAPES[shape]
    image = Image.new("RGB", (side, side), tone(float(hue) + 0.45, 0.93, 0.35))
    inner = round(side * 0.8)
    at = (side - inner) // 2
    for strokes, colour in ((body, tone(float(hue), 0.52, 0.62)), (over, tone(float(hue) + 0.04, 0.8, 0.55))):
        parsed = tuple((p.split()[0], tuple(map(float, p.split()[1:]))) for p in strokes.split(";"))
        image.paste(colour, (at, at), mask(parsed, inner, inner, inner / 24))
    return image


def _cover(name: str, side: int) -> Image.Image:
    rng = random.Random(f"cover-{name}")
    hue = rng.random()
    large = Image.new("RGB", (side * FINE, side * FINE), tone(hue, 0.3, 0.45))
    pen, edge = ImageDraw.Draw(large), side * FINE
    for k in range(5):
        x, y, r = rng.uniform(0, edge), rng.uniform(edge * 0.2, edge), edge * rng.uniform(0.15, 0.5)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tone(hue + 0.07 * k, 0.38 + 0.09 * k, 0.55))
    return large.resize((side, side), Image.Resampling.BOX)


@lru_cache(maxsize=4)
def wallpaper(width: int, height: int, colours: Palette) -> Image.Image:
    """Hills under a sky, in the phone's hue."""
    base = 0.16 if colours.dark else 0.4
    top, low = tone(colours.hue, base, 0.45), tone(colours.hue + 0.08, base + 0.14, 0.45)
    sky = Image.new("RGB", (1, 64))
    sky.putdata([tuple(round(a + (b - a) * k / 63) for a, b in zip(top, low, strict=True)) for k in range(64)])
    image = sky.resize((width, height), Image.Resampling.BICUBIC)
    rng = random.Random(f"hills-{colours.hue}")
    for k in range(4):
        level, swing, turn, waves = height * (0.52 + 0.13 * k), height * 0.05, rng.uniform(0, 6), rng.uniform(3, 6)
        rim = [(x, level + swing * math.sin(turn + waves * x / width)) for x in range(0, width + 2, 2)]
        shade = tone(colours.hue + 0.05 + 0.03 * k, base + 0.1 - (0.045 if colours.dark else 0.08) * (k + 1), 0.35)
        ImageDraw.Draw(image).polygon([*rim, (width, height), (0, height)], fill=shade)
    return image
