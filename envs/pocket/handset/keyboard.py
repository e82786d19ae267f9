"""The soft keyboard: its keys write, erase, change its layout or press Enter."""

from __future__ import annotations

from collections.abc import Iterator

from guiderail.envs.pocket.ui import Cell, Dress, Op

HIGH, WIDE, SIDE = 52.0, 36.0, 54.0
"""Height of a key, width of a letter, width of a key at the side, in dp."""
EDGE, SPACE = 4.0, 180.0
KEYBOARD = 4 * HIGH + 2 * EDGE
"""Height of all, in dp."""
LAYOUTS = {
    "small": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "capital": ("QWERTYUIOP", "ASDFGHJKL", "ZXCVBNM"),
    "symbols": ("1234567890", "@#$%&-+()", "*\"':;!?"),
}


def keys(layout: str) -> Iterator[tuple[float, float, float, Cell]]:
    """(left, top, width, key) from the keyboard's top left corner, in dp."""
    first, second, third = LAYOUTS[layout]
    for row, (letters, left) in enumerate(((first, 0.0), (second, WIDE / 2), (third, SIDE))):
        for k, letter in enumerate(letters):
            yield left + k * WIDE, EDGE + row * HIGH, WIDE, _key(letter, ("write", letter))
    shift: Op = ("keys", "small" if layout == "capital" else "capital")
    rest = SIDE + WIDE * len(third)
    yield 0.0, EDGE + 2 * HIGH, SIDE, _key("Shift", shift, "glyph:shift")
    yield rest, EDGE + 2 * HIGH, SIDE, _key("Delete", ("press", "DEL"), "glyph:delete")
    low = EDGE + 3 * HIGH
    other = _key("ABC", ("keys", "small")) if layout == "symbols" else _key("?123", ("keys", "symbols"))
    yield 0.0, low, SIDE, other
    yield SIDE, low, WIDE, _key(",", ("write", ","))
    yield SIDE + WIDE, low, SPACE, _key("space", ("write", " "))
    yield SIDE + WIDE + SPACE, low, WIDE, _key(".", ("write", "."))
    yield SIDE + 2 * WIDE + SPACE, low, SIDE, _key("Enter", ("press", "ENTER"), "glyph:enter")


def _key(text: str, op: Op, picture: str = "") -> Cell:
    return Cell(text, op, "button", dress=Dress("key", picture=picture))
