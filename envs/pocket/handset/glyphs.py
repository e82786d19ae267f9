"""Pictograms on a grid of 24 x 24, as data, and their masks at any size.

A stroke is a name and numbers: "p" polygon (points), "l" line (width, points), "o" disc (x, y, radius), "c" ring (width, x, y,
radius), "a" arc (width, x, y, radius, start, end in degrees, clockwise from the right), "r" rounded rectangle (left, top,
right, bottom, radius). A capital letter erases.
"""

from __future__ import annotations

import math
from functools import lru_cache

from PIL import Image, ImageDraw

Stroke = tuple[str, tuple[float, ...]]
FINE = 4
"""Masks are drawn this much larger and then reduced, which makes edges smooth."""


def _strokes(text: str) -> tuple[Stroke, ...]:
    """Parse "o 12 8 4; l 2 3 4 5 6"."""
    return tuple((part.split()[0], tuple(map(float, part.split()[1:]))) for part in text.split(";"))


def _star(points: int, outer: float, inner: float) -> str:
    turns = [(outer if k % 2 == 0 else inner, math.pi * k / points - math.pi / 2) for k in range(2 * points)]
    return "p " + " ".join(f"{12 + r * math.cos(a):.2f} {12.6 + r * math.sin(a):.2f}" for r, a in turns)


_GLYPHS = {
    "wifi": "a 2.3 12 20 14 225 315; a 2.3 12 20 9 225 315; o 12 18.6 2.6",
    "bluetooth": "l 2 6.5 7 17 16.5 12 21 12 3 17 7.5 6.5 17",
    "airplane": "p 10.7 3 12 1.5 13.3 3 13.3 9 21.5 14 21.5 16 13.3 13.6 13.3 19 15.6 20.7 15.6 22 12 21 8.4 22 8.4 20.7 10.7 19 "
    "10.7 13.6 2.5 16 2.5 14 10.7 9",
    "data": "l 2.2 8 20 8 5; l 2.2 4.3 8.7 8 5 11.7 8.7; l 2.2 16 4 16 19; l 2.2 12.3 15.3 16 19 19.7 15.3",
    "globe": "c 2 12 12 9; l 1.8 3 12 21 12; a 1.8 18.5 12 11 130 230; a 1.8 5.5 12 11 310 50",
    "place": "o 12 9 7; p 5.6 11.5 18.4 11.5 12 22; O 12 9 2.7",
    "rotate": "a 2.2 12 12.5 7.5 -60 210; p 14.2 1.5 14.2 9.5 20.5 5",
    "vibrate": "r 8 3 16 21 2; R 9.6 5.5 14.4 18 0.4; l 1.8 5 8 5 16; l 1.8 19 8 19 16; l 1.8 2.2 10 2.2 14; l 1.8 21.8 10 21.8 14",
    "sound": "p 3 9 7 9 12 4.5 12 19.5 7 15 3 15; a 2 12 12 4.5 -50 50; a 2 12 12 8.8 -50 50",
    "person": "o 12 8 4.3; r 4 14 20 25 7; R 3 20.5 21 26 0",
    "call": "l 4 5.6 6.2 7.6 11.6 12.4 16.4 17.8 18.4; o 5.9 5.9 2.7; o 18.1 18.1 2.7",
    "message": "r 3 4 21 17 3; p 6 15 6 21.5 12 16; L 1.7 7 8.6 17 8.6; L 1.7 7 12.4 14 12.4",
    "star": _star(5, 10.4, 4.4),
    "note": "r 4.5 3 19.5 21 2.5; L 1.7 8 8 16 8; L 1.7 8 12 16 12; L 1.7 8 16 13 16",
    "clock": "o 12 12 9.5; L 2 12 6.5 12 12 16 14.5",
    "alarm": "c 2.2 12 13 7.6; l 1.9 12 9 12 13.4 14.8 15; l 2.4 3.4 6.4 7 3.4; l 2.4 20.6 6.4 17 3.4",
    "cart": "l 2.2 2 3.5 5 3.5 8.2 15 18 15 20.6 7 6.2 7; o 9.2 19.5 1.9; o 17 19.5 1.9",
    "search": "c 2.4 10 10 6.2; l 2.6 14.8 14.8 20.4 20.4",
    "basket": "r 4 8 20 21 3; a 2 12 8.6 4 180 360; O 8.2 11.6 1; O 15.8 11.6 1",
    "plus": "l 2.2 12 5 12 19; l 2.2 5 12 19 12",
    "minus": "l 2.2 5 12 19 12",
    "check": "l 2.4 4.5 12.5 9.7 17.7 19.8 6.8",
    "trash": "r 6 7.5 18 21 2; r 4.5 4.4 19.5 6.3 0.6; r 9.5 2.8 14.5 5 0.6",
    "send": "p 3 4 21.5 12 3 20 3 14 14 12 3 10",
    "music": "o 8 18 3.2; o 17 16 3.2; l 2 10.3 18 10.3 5 19.3 3 19.3 16",
    "play": "p 7 4.5 19.5 12 7 19.5",
    "pause": "r 6.5 4.5 10.3 19.5 0.8; r 13.7 4.5 17.5 19.5 0.8",
    "heart": "o 7.4 8.6 4.7; o 16.6 8.6 4.7; p 3.3 10.8 7 5 12 7.6 17 5 20.7 10.8 12 20.6",
    "queue": "l 2 3 6 15 6; l 2 3 11 15 11; l 2 3 16 10 16; p 14 14 21.5 18 14 22",
    "camera": "r 3 7 21 20 2.5; r 8.5 4.5 15.5 8 1; O 12 13.3 4.2; o 12 13.3 2.6",
    "map": "p 2.5 5.5 8.5 3 8.5 18.5 2.5 21; p 9.5 3 14.5 5.5 14.5 21 9.5 18.5; p 15.5 5.5 21.5 3 21.5 18.5 15.5 21",
    "mail": "r 3 5 21 19 2; L 1.7 3.6 7 12 13 20.4 7",
    "radio": "r 3 9 21 20 2; l 1.8 6 8.5 18 3.5; O 8.5 14.5 3; L 1.5 14 13 18.6 13; L 1.5 14 16.5 18.6 16.5",
    "gear": "o 12 12 7; l 3.6 12 2.6 12 21.4; l 3.6 2.6 12 21.4 12; l 3.6 5.4 5.4 18.6 18.6; l 3.6 18.6 5.4 5.4 18.6; O 12 12 3.2",
    "update": "a 2.2 12 12 8 -40 90; a 2.2 12 12 8 140 270; p 14.5 8.5 21.5 8.5 19.5 3; p 9.5 15.5 2.5 15.5 4.5 21",
    "back": "l 2.1 20 12 4.6 12; l 2.1 11 5.2 4.2 12 11 18.8",
    "dots": "o 12 5 1.9; o 12 12 1.9; o 12 19 1.9",
    "shift": "p 12 3.5 20.5 12 16 12 16 19.5 8 19.5 8 12 3.5 12",
    "delete": "p 8.5 5 21.5 5 21.5 19 8.5 19 2.5 12; L 1.8 11.5 9 17.5 15; L 1.8 17.5 9 11.5 15",
    "enter": "l 2 19.5 6 19.5 12.5 5.5 12.5; l 2 10 8 5.2 12.5 10 17",
    "go-back": "p 17 4.5 17 19.5 5.5 12",
    "go-down": "p 4.5 7.5 19.5 7.5 12 18.5",
    "go-home": "c 2.2 12 12 7.4",
    "go-recent": "r 5.5 5.5 18.5 18.5 1.6; R 7.6 7.6 16.4 16.4 0.4",
    "signal": "p 2.5 21 21.5 21 21.5 2.5",
    "wait": "a 2.4 12 12 8.6 -80 190",
    "box": "r 3.5 3.5 20.5 20.5 2",
}


@lru_cache(maxsize=512)
def glyph(name: str, side: int) -> Image.Image:
    """The pictogram as a mask of side x side pixels, mode "L". Raises KeyError for an unknown name."""
    return mask(_strokes(_GLYPHS[name]), side, side, side / 24)


@lru_cache(maxsize=512)
def rounded(width: int, height: int, radius: float) -> Image.Image:
    """A filled rectangle with round corners, as a smooth mask."""
    return mask((("r", (0, 0, width, height, min(radius, width / 2, height / 2))),), width, height, 1.0)


def mask(strokes: tuple[Stroke, ...], width: int, height: int, scale: float) -> Image.Image:
    large = Image.new("L", (width * FINE, height * FINE), 0)
    pen = ImageDraw.Draw(large)
    for kind, numbers in strokes:
        _stroke(pen, kind.lower(), [n * scale * FINE for n in numbers], 255 if kind.islower() else 0, numbers)
    return large.resize((width, height), Image.Resampling.BOX)


def _stroke(pen: ImageDraw.ImageDraw, kind: str, n: list[float], fill: int, given: tuple[float, ...]) -> None:
    match kind:
        case "p":
            pen.polygon(n, fill=fill)
        case "l":
            width, points = n[0], list(zip(n[1::2], n[2::2], strict=True))
            pen.line(points, fill=fill, width=round(width), joint="curve")
            for x, y in (points[0], points[-1]):
                pen.ellipse((x - width / 2, y - width / 2, x + width / 2 - 1, y + width / 2 - 1), fill=fill)
        case "o":
            pen.ellipse((n[0] - n[2], n[1] - n[2], n[0] + n[2] - 1, n[1] + n[2] - 1), fill=fill)
        case "c":
            box = (n[1] - n[3], n[2] - n[3], n[1] + n[3] - 1, n[2] + n[3] - 1)
            pen.ellipse(box, outline=fill, width=round(n[0]))
        case "a":
            box = (n[1] - n[3], n[2] - n[3], n[1] + n[3] - 1, n[2] + n[3] - 1)
            pen.arc(box, given[4], given[5], fill=fill, width=round(n[0]))
        case "r":
            pen.rounded_rectangle((n[0], n[1], n[2] - 1, n[3] - 1), radius=n[4], fill=fill)
