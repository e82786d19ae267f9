"""How each role of cells is painted. A painter draws all but the cell's words and returns the words' colour."""

from __future__ import annotations

from collections.abc import Callable

from guiderail.envs.pocket.handset.brush import Brush
from guiderail.envs.pocket.handset.palette import Colour, Palette
from guiderail.envs.pocket.ui import Cell, Dress

WHITE: Colour = (255, 255, 255)
Painter = Callable[[Brush, Cell, Dress], Colour]


def backdrop(dress: Dress, colours: Palette) -> Colour | None:
    """What a cell lies on; None for the wallpaper or a dialog."""
    if dress.role in ("clock", "app", "say", "option", "choice") or _on_wallpaper(dress):
        return None
    return colours.bar if dress.role in ("key", "bar", "pill", "entry", "round") else colours.back


def _on_wallpaper(dress: Dress) -> bool:
    return "home" in (dress.detail, dress.picture) and dress.role in ("navigation", "status")


def _row(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    colours, middle = brush.colours, brush.high / 2
    if dress.picture:
        brush.picture(dress.picture, 36, middle, 40)
    if dress.detail:
        left = 72.0 if dress.picture else 16.0
        brush.small(dress.detail, left, middle + 12, 14, colours.muted, room=brush.wide - left - 76)
    if dress.trail:
        brush.glyph(dress.trail, brush.wide - 30, middle, 22, colours.accent)
    if cell.kind == "toggle":
        _switch(brush, brush.wide - 68, middle, bool(cell.checked))
    elif cell.kind == "check":
        _radio(brush, brush.wide - 28, middle, bool(cell.checked))
    return colours.text


def _switch(brush: Brush, left: float, middle: float, on: bool) -> None:
    colours = brush.colours
    if on:
        brush.bar(left, middle - 14, left + 52, middle + 14, colours.accent, 14)
        brush.bar(left + 28, middle - 10, left + 48, middle + 10, colours.on_accent, 10)
    else:
        brush.bar(left, middle - 14, left + 52, middle + 14, colours.muted, 14)
        brush.bar(left + 2, middle - 12, left + 50, middle + 12, colours.bar, 12)
        brush.bar(left + 8, middle - 7, left + 22, middle + 7, colours.muted, 7)


def _radio(brush: Brush, x: float, y: float, on: bool) -> None:
    colours = brush.colours
    line = colours.accent if on else colours.muted
    brush.bar(x - 10, y - 10, x + 10, y + 10, line, 10)
    brush.bar(x - 8, y - 8, x + 8, y + 8, colours.back, 8)
    if on:
        brush.bar(x - 5, y - 5, x + 5, y + 5, line, 5)


def _hero(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    brush.picture(dress.picture, brush.wide / 2, 66, 96)
    brush.small(dress.detail, brush.wide / 2, 166, 14, brush.colours.muted, "m")
    return brush.colours.text


def _app(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    brush.picture(dress.picture, brush.wide / 2, 44, 56)
    return WHITE


def _clock(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    brush.small(dress.detail, brush.wide / 2, 132, 16, WHITE, "m")
    return WHITE


def _bubble(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    colours, mine = brush.colours, dress.role == "said"
    length = brush.length(cell.text, 16, brush.wide - 96) + 32
    left = brush.wide - 16 - length if mine else 16
    brush.bar(left, 6, left + length, brush.high - 6, colours.accent if mine else colours.tint, 20)
    return colours.on_accent if mine else colours.on_tint


def _field(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    """Outlined; with a cursor while it has the focus."""
    colours, middle = brush.colours, brush.high / 2
    behind = colours.back if dress.role == "field" else colours.bar
    line, edge = (colours.accent, 2.0) if cell.focused else (colours.muted, 1.0)
    left, right = 16.0, brush.wide - (16 if dress.role == "field" else 4)
    brush.frame(left, middle - 26, right, middle + 26, line, behind, edge)
    if cell.focused:
        x = 32 + (brush.length(cell.text, 16, brush.wide - 56) + 2 if cell.checked else -3)
        brush.bar(x, middle - 10, x + 1.6, middle + 10, colours.accent)
    return colours.text if cell.checked else colours.muted


def _empty(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    brush.glyph("search" if "result" in cell.text else "box", brush.wide / 2, 96, 56, brush.colours.line)
    return brush.colours.muted


def _bar(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    colours = brush.colours
    brush.bar(brush.wide / 2 - 30, 10, brush.wide / 2 + 30, 40, colours.tint, 15)
    if dress.picture:
        brush.glyph(dress.picture.partition(":")[2], brush.wide / 2, 25, 20, colours.on_tint)
    return colours.text


def _pill(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    colours, middle = brush.colours, brush.high / 2
    brush.bar(20, middle - 24, brush.wide - 20, middle + 24, colours.accent, 24)
    if dress.picture:
        wide = brush.length(cell.text, 15, brush.wide - 96)
        brush.glyph(dress.picture.partition(":")[2], brush.wide / 2 - wide / 2 - 6, middle, 20, colours.on_accent)
    return colours.on_accent


def _round(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    x, y = brush.wide / 2, brush.high / 2
    brush.bar(x - 24, y - 24, x + 24, y + 24, brush.colours.accent, 24)
    brush.glyph(dress.picture.partition(":")[2], x + 1, y, 22, brush.colours.on_accent)
    return brush.colours.on_accent


def _tool(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    brush.glyph(dress.picture.partition(":")[2], brush.wide / 2, brush.high / 2, 24, brush.colours.text)
    return brush.colours.text


def _navigation(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    ink = WHITE if _on_wallpaper(dress) else brush.colours.muted
    brush.glyph(dress.picture.partition(":")[2], brush.wide / 2, brush.high / 2, 18, ink)
    return ink


def _status(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    """detail: names of glyphs and, last, the battery's percent."""
    ink, middle = WHITE if _on_wallpaper(dress) else brush.colours.text, brush.high / 2
    *signs, percent = dress.detail.split()
    x = brush.wide - 26
    brush.bar(x - 5, middle - 7, x + 5, middle + 7, ink, 1.5)
    brush.bar(x - 2, middle - 9, x + 2, middle - 6, ink, 1)
    if int(percent) < 90:
        empty = brush.colours.back if not _on_wallpaper(dress) else brush.colours.muted
        brush.bar(x - 3.5, middle - 5.5, x + 3.5, middle - 5.5 + 11 * (1 - int(percent) / 100), empty)
    brush.small(f"{percent}%", x - 10, middle, 12, ink, "r")
    for k, name in enumerate(reversed(signs)):
        brush.glyph(name, x - 52 - 19 * k, middle, 15, ink)
    return ink


def _say(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    if dress.picture:
        brush.glyph(dress.picture.partition(":")[2], 42, brush.high / 2 + 4, 30, brush.colours.accent)
    return brush.colours.text


def _key(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    colours, special = brush.colours, len(cell.text) > 1 and cell.text != "space"
    enter = cell.text == "Enter"
    brush.bar(
        2.5,
        4,
        brush.wide - 2.5,
        brush.high - 4,
        colours.accent if enter else colours.tint if special else colours.back,
        6,
    )
    ink = colours.on_accent if enter else colours.on_tint if special else colours.text
    if dress.picture:
        brush.glyph(dress.picture.partition(":")[2], brush.wide / 2, brush.high / 2, 22, ink)
    return colours.muted if cell.text == "space" else ink


def _text(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    return brush.colours.text


def _option(brush: Brush, cell: Cell, dress: Dress) -> Colour:
    return brush.colours.accent


PAINTERS: dict[str, Painter] = {
    "row": _row,
    "hero": _hero,
    "app": _app,
    "clock": _clock,
    "heard": _bubble,
    "said": _bubble,
    "field": _field,
    "entry": _field,
    "empty": _empty,
    "body": _text,
    "title": _text,
    "tool": _tool,
    "bar": _bar,
    "pill": _pill,
    "round": _round,
    "navigation": _navigation,
    "status": _status,
    "say": _say,
    "option": _option,
    "choice": _text,
    "key": _key,
}
