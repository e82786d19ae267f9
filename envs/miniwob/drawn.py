"""Experts of pages that are drawn: shapes, shades, digits of check boxes, and things to count."""

from __future__ import annotations

import re

from guiderail.envs.miniwob.browser import Browser
from guiderail.envs.miniwob.clicking import COLORS
from guiderail.envs.miniwob.moves import Moves, click, fields, named, submit, type_into
from guiderail.envs.miniwob.page import Node, Page

SHAPES = {"circle": "circle", "rect": "rectangle", "polygon": "triangle"}
DIGITS = (0x6999996, 0x2622222, 0x699248F, 0x6916196, 0x8AAF222, 0xF88E196, 0x698E996, 0xF912244, 0x6996996, 0x6997196)
"""How each digit is drawn in check boxes: seven rows, each a hexadecimal digit, whose four bits are the boxes."""


def click_shape(on: Browser) -> Moves:
    page = on.look()
    yield click(on, _fitting(on, page, page.goal.removeprefix("Click on a ").split())[0], "this one fits")


def count_shape(on: Browser) -> Moves:
    page = on.look()
    found = re.fullmatch(r"How many (.*)s are there\?", page.goal)
    if found:
        count = len(_fitting(on, page, found[1].split()))
        yield click(on, named(page, str(count), "button"), f"there are {count}")


def _fitting(on: Browser, page: Page, words: list[str]) -> list[Node]:
    """Shapes that fit a description such as ["large", "red", "digit"]. The last word is what is drawn, its kind, or "item"."""
    *traits, what = words

    def fits(node: Node) -> bool:
        drawn = node.text or SHAPES[node.tag]
        kind = "shape" if node.tag in SHAPES else "digit" if drawn.isdigit() else "letter"
        size = "large" if node.height > 15 else "small"  # 10 or 20 pixels; letters a little more
        color = _numbers(on.fill(node.ref))
        return what in ("item", kind, drawn) and all(t == size or COLORS.get(t) == color for t in traits)

    return page.all(lambda n: n.tag in (*SHAPES, "text") and fits(n))


def click_shades(on: Browser) -> Moves:
    page = on.look()
    found = re.search(r"shades of (red|green|blue)", page.goal)
    if found:
        place = ("red", "green", "blue").index(found[1])
        for shade in page.all(lambda n: n.tag == "span"):
            parts = _numbers(shade.background)
            if parts and max(range(3), key=lambda k: parts[k]) == place:
                yield click(on, shade, f"a shade of {found[1]}")
        yield submit(on)


def _numbers(color: str) -> tuple[int, ...]:
    """The red, green and blue of "rgb(1, 2, 3)"."""
    return tuple(int(part) for part in re.findall(r"\d+", color)[:3])


def number_checkboxes(on: Browser) -> Moves:
    page = on.look()
    found = re.search(r"number \"(\d)\"", page.goal)
    if found:
        for place, box in enumerate(page.all(lambda n: n.tag == "input_checkbox")):
            if DIGITS[int(found[1])] >> (27 - place) & 1:
                yield click(on, box, f"row {place // 4 + 1}, box {place % 4 + 1}")
        yield submit(on)


def visual_addition(on: Browser) -> Moves:
    page = on.look()
    yield from type_into(on, fields(page)[0], str(len(page.all(lambda n: n.has("addition-block")))))
    yield submit(on)
