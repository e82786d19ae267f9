"""Experts of pages on which things are dragged: shapes, lists, sliders, corners."""

from __future__ import annotations

import re

from guiderail.agent.types import Click, Key, Swipe
from guiderail.envs.miniwob.browser import Browser
from guiderail.envs.miniwob.drawn import SHAPES
from guiderail.envs.miniwob.moves import Move, Moves, click, first, submit
from guiderail.envs.miniwob.page import Node, fraction


def drag(node: Node, right: float, down: float) -> Move:
    """From the middle of `node`, by so many pixels of the page."""
    x, y = node.left + node.width / 2, node.top + node.height / 2
    return Move(Swipe(fraction(x, y), fraction(x + right, y + down)), "drag it there", node.box)


def onto(node: Node, other: Node, right: float = 0.0, down: float = 0.0) -> Move:
    """From the middle of `node` to the middle of `other`, and so many pixels farther."""
    across = other.left + other.width / 2 - node.left - node.width / 2
    return drag(node, across + right, other.top + other.height / 2 - node.top - node.height / 2 + down)


def drag_box(on: Browser) -> Moves:
    page = on.look()
    yield onto(first(page, lambda n: n.id == "draggableSmall"), first(page, lambda n: n.id == "draggableLarge"))
    yield submit(on)


def drag_shape(on: Browser) -> Moves:
    page = on.look()
    shape = first(page, lambda n: n.tag in ("circle", "rect", "polygon", "text"))
    right, down = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[page.fields["target"]]
    yield drag(shape, 30 * right, 30 * down)
    yield submit(on)


def drag_shapes(on: Browser) -> Moves:
    page = on.look()
    box = first(page, lambda n: n.id == "shape-container")
    for shape in page.all(lambda n: n.tag in SHAPES and n != box and f"{SHAPES[n.tag]}s" in page.goal):
        yield onto(shape, box)
    yield submit(on)


def drag_items(on: Browser) -> Moves:
    page = on.look()
    rows = page.all(lambda n: n.tag == "li")
    here = next(k for k, row in enumerate(rows) if page.goal.startswith(f"Drag {page.words(row)} "))
    where = page.goal.removeprefix(f"Drag {page.words(rows[here])} ")
    ordinal = re.search(r"\d", where)
    places = {"to the top.": 0, "to the bottom.": len(rows) - 1, "up by one position.": here - 1}
    yield _slide(rows, here, int(ordinal[0]) - 1 if ordinal else places.get(where, here + 1))


def _slide(rows: list[Node], here: int, there: int) -> Move:
    """A list that is being sorted makes room when what is dragged has passed the middle of another."""
    down = rows[there].top - rows[here].top
    past = rows[here].height / 4
    return onto(rows[here], rows[there], 0.0, past if down > 0 else -past if down < 0 else 0.0)


def drag_sort_numbers(on: Browser) -> Moves:
    """The smallest number to the top, then the next to the second place, and so on."""
    for place in range(len(_numbers(on)) - 1):
        numbers = _numbers(on)
        smallest = numbers.index(min(numbers[place:]), place)
        if smallest != place:
            yield _slide(on.look().all(lambda n: n.tag == "li"), smallest, place)
    yield submit(on)


def _numbers(on: Browser) -> list[int]:
    page = on.look()
    return [int(page.words(row)) for row in page.all(lambda n: n.tag == "li")]


def resize_textarea(on: Browser) -> Moves:
    page = on.look()
    corner = first(page, lambda n: n.has("ui-resizable-se"))
    far = 15 if "larger" in page.goal else -15
    yield drag(corner, far, far)
    yield submit(on)


def use_slider(on: Browser) -> Moves:
    """The ends tell what a pixel is worth; arrow keys do the rest."""
    found = re.search(r"Select (-?\d+) with", on.look().goal)
    if found is None:
        return
    wanted = int(found[1])
    yield click(on, _handle(on), "take the slider")
    yield Move(Key("MOVE_HOME"), "to its lowest value", _handle(on).box)
    low, start = _value(on), _handle(on)
    yield Move(Key("MOVE_END"), "to its highest value", _handle(on).box)
    high, end = _value(on), _handle(on)
    share = (wanted - high) / (high - low)
    yield drag(end, share * (end.left - start.left), share * (end.top - start.top))
    yield from _by_keys(on, wanted)
    yield submit(on)


def use_slider_2(on: Browser) -> Moves:
    """Three sliders from 0 to 20."""
    page = on.look()
    wanted = [int(number) for number in re.findall(r"\d+", page.goal)]
    for place, (slider, number) in enumerate(zip(page.all(lambda n: n.has("ui-slider")), wanted, strict=True)):
        spot = slider.left + min(slider.width * number / 20, slider.width - 1)
        yield Move(Click(fraction(spot, slider.top + slider.height / 2)), f"this one to {number}", slider.box)
        yield from _by_keys(on, number, place)
    yield submit(on)


def _by_keys(on: Browser, wanted: int, place: int = 0) -> Moves:
    """Arrow keys move the slider that was touched last by one."""
    while (far := wanted - _value(on, place)) != 0:
        yield Move(Key("DPAD_RIGHT" if far > 0 else "DPAD_LEFT"), f"{abs(far)} more", _handle(on, place).box)


def _handle(on: Browser, place: int = 0) -> Node:
    return on.look().all(lambda n: n.has("ui-slider-handle"))[place]


def _value(on: Browser, place: int = 0) -> int:
    return int(on.look().all(lambda n: n.id.startswith("val"))[place].text)
