"""Draws on one cell, in dp."""

from __future__ import annotations

from PIL import Image, ImageDraw

from guiderail.envs.pocket.handset.fonts import fit, font
from guiderail.envs.pocket.handset.glyphs import glyph, rounded
from guiderail.envs.pocket.handset.palette import Colour, Palette
from guiderail.envs.pocket.handset.pictures import picture


class Brush:
    """image: "RGB", or "RGBA" where what lies behind shows. dp: pixels of one dp. wide, high: of the cell, in dp."""

    def __init__(self, image: Image.Image, dp: float, colours: Palette):
        self.image, self.dp, self.colours = image, dp, colours
        self.wide, self.high = image.width / dp, image.height / dp

    def bar(self, left: float, top: float, right: float, bottom: float, fill: Colour, radius: float = 0.0) -> None:
        """A filled rectangle with round corners."""
        x, y = round(left * self.dp), round(top * self.dp)
        w, h = max(1, round(right * self.dp) - x), max(1, round(bottom * self.dp) - y)
        self.image.paste(fill, (x, y), rounded(w, h, radius * self.dp))

    def frame(
        self, left: float, top: float, right: float, bottom: float, line: Colour, inside: Colour, edge: float
    ) -> None:
        """A rectangle with round corners and an edge."""
        self.bar(left, top, right, bottom, line, 8)
        self.bar(left + edge, top + edge, right - edge, bottom - edge, inside, 8 - edge)

    def glyph(self, name: str, x: float, y: float, side: float, fill: Colour) -> None:
        """A pictogram around (x, y)."""
        pixels = max(1, round(side * self.dp))
        self.image.paste(fill, (round(x * self.dp - pixels / 2), round(y * self.dp - pixels / 2)), glyph(name, pixels))

    def picture(self, what: str, x: float, y: float, side: float) -> None:
        """A picture around (x, y)."""
        pixels = max(1, round(side * self.dp))
        image, mask = picture(what, pixels, self.colours)
        self.image.paste(image, (round(x * self.dp - pixels / 2), round(y * self.dp - pixels / 2)), mask)

    def length(self, text: str, size: float, room: float) -> float:
        """How long `words` draws a text, in dp."""
        return fit(text, round(size * self.dp), room * self.dp)[1] / self.dp

    def words(self, text: str, at: tuple[int, int], size: float, anchor: str, room: float, fill: Colour) -> None:
        """at: pixels, the middle line and the left end, middle or right end ("l", "m", "r")."""
        pixels, wide = fit(text, round(size * self.dp), room * self.dp)
        x = round(at[0] - {"l": 0.0, "m": wide / 2, "r": wide}[anchor])
        pen = ImageDraw.Draw(self.image)
        pen.text((x, at[1] + round(pixels * 0.36)), text, font=font(pixels), fill=fill, anchor="ls")

    def small(
        self, text: str, x: float, y: float, size: float, fill: Colour, anchor: str = "l", room: float = 1000
    ) -> None:
        self.words(text, (round(x * self.dp), round(y * self.dp)), size, anchor, min(room, self.wide - 8), fill)
