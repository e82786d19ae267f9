"""A phone's scene as pixels. Each cell is drawn once and kept; a frame is a background with cells pasted in."""

from __future__ import annotations

import math
from functools import lru_cache

from PIL import Image

from guiderail.envs.pocket.handset.brush import Brush
from guiderail.envs.pocket.handset.fonts import fit
from guiderail.envs.pocket.handset.glyphs import rounded
from guiderail.envs.pocket.handset.keyboard import KEYBOARD
from guiderail.envs.pocket.handset.layout import NAVIGATION, WIDTH, wording
from guiderail.envs.pocket.handset.palette import Palette, palette
from guiderail.envs.pocket.handset.pictures import wallpaper
from guiderail.envs.pocket.handset.roles import PAINTERS, backdrop
from guiderail.envs.pocket.ui import Cell, Placed, Scene

Box = tuple[int, int, int, int]
GLASS = 0.38
"""How much darker the screen behind a dialog is."""


def paint(scene: Scene) -> Image.Image:
    """The scene as an RGB image of its size. Equal scenes give equal pixels."""
    colours, size = palette(scene.appearance.theme), (scene.width, scene.height)
    home = any(item.cell.dress and item.cell.dress.role == "app" for item in scene.placed)
    frame = wallpaper(*size, colours).copy() if home else Image.new("RGB", size, colours.back)
    keys = [item.box for item in scene.placed if item.layer == "keys"]
    if keys:
        low = round((scene.height * WIDTH / scene.width - NAVIGATION - KEYBOARD) * scene.width / WIDTH)
        frame.paste(colours.bar, (0, low, scene.width, max(box[3] for box in keys)))
    for item in scene.placed:
        if item.layer != "dialog":
            _paste(frame, item, scene, colours)
    if scene.panel:
        frame = frame.point([round(v * (1 - GLASS)) for v in range(256)] * 3)
        left, top, right, bottom = scene.panel
        frame.paste(colours.bar, (left, top), rounded(right - left, bottom - top, 20 * scene.width / WIDTH))
    for item in scene.placed:
        if item.layer == "dialog":
            _paste(frame, item, scene, colours)
    return frame


def words_box(item: Placed, scene: Scene) -> Box:
    """Pixels that hold the cell's words: left, top, right, bottom. Of a cell that shows none: the cell."""
    dp = scene.width / WIDTH
    left, top, right, bottom = item.box
    text = wording(item.cell, (right - left) / dp, _high(item) / dp)
    if not text.size or not item.cell.text:
        return item.box
    size, wide = fit(item.cell.text, round(text.size * dp), text.room * dp)
    start = round(item.text_at[0] - {"l": 0.0, "m": wide / 2, "r": wide}[text.anchor])
    low, high = (min(max(round(item.text_at[1] + half), top), bottom) for half in (-0.6 * size, 0.6 * size))
    return max(left, start), low, min(right, math.ceil(start + wide)), high


def state_box(item: Placed, scene: Scene) -> Box | None:
    """Pixels of the switch or the radio button that shows the cell's state; None for other kinds."""
    if item.cell.kind not in ("toggle", "check"):
        return None
    dp, wide = scene.width / WIDTH, 52 if item.cell.kind == "toggle" else 24
    right, middle = item.box[2] - round(16 * dp), (item.box[1] + item.box[3]) // 2
    return right - round(wide * dp), middle - round(14 * dp), right, middle + round(14 * dp)


def _high(item: Placed) -> int:
    """Pixels from top to bottom of the whole cell."""
    low, high = item.span or (item.box[1], item.box[3])
    return high - low


def _paste(frame: Image.Image, item: Placed, scene: Scene, colours: Palette) -> None:
    left, top, right, bottom = item.box
    first = item.span[0] if item.span else top
    at = item.text_at[0] - left, item.text_at[1] - first
    sprite = _sprite(item.cell, (right - left, _high(item)), at, scene.width / WIDTH, scene.appearance.theme)
    if (top - first, bottom - first) != (0, sprite.height):
        sprite = sprite.crop((0, top - first, right - left, bottom - first))
    frame.paste(sprite, (left, top), sprite if sprite.mode == "RGBA" else None)


@lru_cache(maxsize=160)  # at 1080 px wide a row is 0.7 MB
def _sprite(cell: Cell, size: tuple[int, int], text_at: tuple[int, int], dp: float, theme: int) -> Image.Image:
    colours = palette(theme)
    dress = cell.dress
    assert dress is not None, "style phone draws dressed cells"
    behind = backdrop(dress, colours)
    image = Image.new("RGB", size, behind) if behind else Image.new("RGBA", size, (255, 255, 255, 0))
    brush = Brush(image, dp, colours)
    ink = PAINTERS[dress.role](brush, cell, dress)
    text = wording(cell, size[0] / dp, size[1] / dp)
    if text.size and cell.text:
        brush.words(cell.text, text_at, text.size, text.anchor, text.room, ink)
    return image
