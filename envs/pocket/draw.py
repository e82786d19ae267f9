"""Scenes as pictures. Each cell is drawn once and kept; a frame is a background with cells pasted in."""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from guiderail.envs.pocket.handset.paint import paint, state_box, words_box
from guiderail.envs.pocket.ui import Cell, Placed, Scene

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Theme:
    back: Colour
    text: Colour
    bar: Colour
    bar_text: Colour
    accent: Colour
    edge: Colour

    @property
    def hint(self) -> Colour:
        (a, b, c), (x, y, z) = self.text, self.back
        return (a + x) // 2, (b + y) // 2, (c + z) // 2


LIGHT = Theme((255, 255, 255), (20, 20, 20), (38, 70, 120), (255, 255, 255), (24, 128, 92), (205, 210, 216))
DARK = Theme((26, 28, 34), (240, 240, 240), (60, 44, 92), (255, 255, 255), (232, 150, 40), (70, 74, 84))
ICON_COLOURS: tuple[Colour, ...] = (
    (110, 118, 130),
    (52, 130, 220),
    (40, 165, 90),
    (235, 180, 40),
    (220, 70, 60),
    (150, 80, 200),
    (235, 90, 150),
    (40, 170, 180),
    (130, 100, 60),
    (90, 60, 220),
    (200, 120, 40),
)


@lru_cache(maxsize=64)
def theme(number: int) -> Theme:
    """0 light, 1 dark, any other number a random readable palette."""
    if number < 2:
        return (LIGHT, DARK)[number]
    rng = random.Random(number)
    hue, dark = rng.random(), rng.random() < 0.5

    def tone(h: float, lightness: float, saturation: float) -> Colour:
        r, g, b = colorsys.hls_to_rgb(h % 1, lightness, saturation)
        return round(r * 255), round(g * 255), round(b * 255)

    back = tone(hue, rng.uniform(0.05, 0.15) if dark else rng.uniform(0.9, 1.0), rng.uniform(0, 0.4))
    text = tone(hue, rng.uniform(0.88, 1.0) if dark else rng.uniform(0.0, 0.14), rng.uniform(0, 0.3))
    bar = tone(hue + rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.34), rng.uniform(0.3, 0.7))
    accent = tone(hue + rng.uniform(0.2, 0.8), 0.6 if dark else 0.32, 0.7)
    return Theme(back, text, bar, (255, 255, 255), accent, tone(hue, 0.3 if dark else 0.8, 0.15))


@lru_cache(maxsize=64)
def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=pixels)


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB image of its size. Equal scenes give equal pixels."""
    if scene.appearance.handset:
        return paint(scene)
    colours = theme(scene.appearance.theme)
    frame = Image.new("RGB", (scene.width, scene.height), colours.back)
    if not any(p.layer == "header" for p in scene.placed):
        ImageDraw.Draw(frame).rectangle(
            (0, 0, scene.width, round(scene.appearance.top * scene.width / 10) - 1), fill=colours.bar
        )
    for item in scene.placed:
        if item.layer == "list":
            _paste(frame, item, scene)
    for item in scene.placed:
        if item.layer in ("header", "footer"):
            _paste(frame, item, scene)
    if scene.panel:
        left, top, right, bottom = scene.panel
        edge = max(2, scene.width // 80)
        ImageDraw.Draw(frame).rectangle(
            (left - edge, top - edge, right + edge - 1, bottom + edge - 1), fill=colours.accent
        )
        for item in scene.active:
            _paste(frame, item, scene)
    return frame


def text_box(item: Placed, scene: Scene) -> tuple[int, int, int, int]:
    """Pixels that hold the cell's words: left, top, right, bottom."""
    if scene.appearance.handset:
        return words_box(item, scene)
    size, right = _fit(item, scene)
    half = size * 0.6
    x, y = item.text_at
    box = item.box
    return x, max(box[1], round(y - half)), min(right, box[2]), min(box[3], round(y + half))


def word_boxes(item: Placed, scene: Scene) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Each word of the cell with its pixels (all words together where they do not snap), inside `text_box`."""
    left, top, right, bottom = text_box(item, scene)
    if not scene.appearance.snap:
        return [(item.cell.text, (left, top, right, bottom))]
    placed = _words(item.cell.text, _fit(item, scene)[0], scene.width / 10, True)
    return [(word, (left + x, top, min(right, left + round(end)), bottom)) for word, x, end in placed if word]


def mark_box(item: Placed, scene: Scene) -> tuple[int, int, int, int] | None:
    """Pixels of the switch or tick box that shows the cell's state; None for other kinds."""
    if scene.appearance.handset:
        return state_box(item, scene)
    unit = scene.width / 10
    start, end = {"toggle": (2.1, 0.3), "check": (1.3, 0.46)}.get(item.cell.kind, (0.0, 0.0))
    if not start:
        return None
    right, y, half = item.box[2], item.text_at[1], round(unit * 0.42)
    return right - round(start * unit), y - half, right - round(end * unit), y + half


def _paste(frame: Image.Image, item: Placed, scene: Scene) -> None:
    left, top, right, bottom = item.box
    size, _ = _fit(item, scene)
    cell = Cell(
        item.cell.text, kind=item.cell.kind, checked=item.cell.checked, icon=item.cell.icon, focused=item.cell.focused
    )
    unit = scene.width / 10
    sprite = _sprite(
        cell,
        (right - left, bottom - top),
        (item.text_at[0] - left, item.text_at[1] - top),
        size,
        unit,
        scene.appearance.snap,
        scene.appearance.theme,
    )
    frame.paste(sprite, (left, top))


def _fit(item: Placed, scene: Scene) -> tuple[int, int]:
    """Font size in pixels that keeps the words inside their cell, and the x where they end."""
    unit = scene.width / 10
    reserved = {"toggle": 2.4, "check": 1.6, "button": 0.5}.get(item.cell.kind, 0.2) * unit
    room = item.box[2] - reserved - item.text_at[0]
    return _fit_text(
        item.cell.text, round(scene.appearance.font * unit), unit, scene.appearance.snap, room, item.text_at[0]
    )


@lru_cache(maxsize=4096)
def _fit_text(text: str, size: int, unit: float, snap: bool, room: float, x: int) -> tuple[int, int]:
    while size > 6:
        end = _words(text, size, unit, snap)[-1][2] if text else 0.0
        if end <= room:
            break
        size -= 1
    return size, round(x + (_words(text, size, unit, snap)[-1][2] if text else 0))


def _words(text: str, size: int, unit: float, snap: bool) -> list[tuple[str, int, float]]:
    """(word, x, end) relative to the text's origin. With `snap` each word starts on a whole unit."""
    font = _font(size)
    if not snap:
        return [(text, 0, font.getlength(text))]
    placed, x = [], 0.0
    for word in text.split(" "):
        start = -(-x // unit) * unit
        end = start + font.getlength(word)
        placed.append((word, round(start), end))
        x = end + 0.15 * unit
    return placed


@lru_cache(maxsize=512)  # at 540 px wide a cell is 0.2 MB
def _sprite(
    cell: Cell,
    size: tuple[int, int],
    text_at: tuple[int, int],
    font_size: int,
    unit: float,
    snap: bool,
    theme_number: int,
) -> Image.Image:
    colours = theme(theme_number)
    width, height = size
    image = Image.new("RGB", size, colours.bar if cell.kind == "title" else colours.back)
    pen = ImageDraw.Draw(image)
    fill = colours.bar_text if cell.kind == "title" else colours.text
    edge = max(1, round(unit / 16))
    if cell.kind == "button":
        pad = round(unit * 0.25)
        box = (pad, pad, width - 1 - pad, height - 1 - pad)
        pen.rounded_rectangle(box, radius=round(unit * 0.4), fill=colours.bar)
        fill = colours.bar_text
    elif cell.kind == "field":
        pad = round(unit * 0.25)
        line = colours.accent if cell.focused else colours.edge
        pen.rectangle(
            (pad, pad, width - 1 - pad, height - 1 - pad), outline=line, width=edge * (2 if cell.focused else 1)
        )
        if not cell.checked:
            fill = colours.hint
    elif cell.kind in ("row", "toggle", "check"):
        pen.rectangle((0, height - edge, width, height), fill=colours.edge)
    elif cell.kind == "icon":
        _icon(pen, cell, text_at, unit, font_size)
    if cell.kind in ("toggle", "check"):
        _mark(pen, cell, width, text_at[1], unit, colours)
    for word, x, _end in _words(cell.text, font_size, unit, snap):
        pen.text(
            (text_at[0] + x, text_at[1] + round(font_size * 0.36)), word, font=_font(font_size), fill=fill, anchor="ls"
        )
    return image


def _icon(pen: ImageDraw.ImageDraw, cell: Cell, text_at: tuple[int, int], unit: float, font_size: int) -> None:
    side = round(unit * 1.9)
    x, y = text_at[0], round(text_at[1] - unit * 0.6) - side
    pen.rounded_rectangle((x, y, x + side - 1, y + side - 1), radius=round(unit * 0.4), fill=ICON_COLOURS[cell.icon])
    letter = _font(round(unit * 1.2))
    pen.text((x + side / 2, y + side / 2), cell.text[0], font=letter, fill=(255, 255, 255), anchor="mm")


def _mark(pen: ImageDraw.ImageDraw, cell: Cell, width: int, middle: int, unit: float, colours: Theme) -> None:
    """A switch or a tick box at the right end, in whole units."""
    r = round(unit * 0.42)
    if cell.kind == "toggle":
        left, right = width - round(2.1 * unit), width - round(0.3 * unit)
        pen.rounded_rectangle(
            (left, middle - r, right, middle + r), radius=r, fill=colours.accent if cell.checked else colours.edge
        )
        x = right - r if cell.checked else left + r
        pen.ellipse((x - r + 2, middle - r + 2, x + r - 2, middle + r - 2), fill=(255, 255, 255))
    else:
        left = width - round(1.3 * unit)
        box = (left, middle - r, left + 2 * r, middle + r)
        pen.rectangle(box, outline=colours.text, width=max(1, round(unit / 12)))
        if cell.checked:
            pen.rectangle((box[0] + r // 2, box[1] + r // 2, box[2] - r // 2, box[3] - r // 2), fill=colours.accent)
