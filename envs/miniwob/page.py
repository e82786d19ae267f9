"""What is on a page: its nodes in page pixels, read from the page's own `core.getDOMInfo`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from guiderail.agent.types import Box, Point
from guiderail.envs.live.device import Element, Kind

WIDTH, HEIGHT = 160, 210
"""The part of the page that is the task, in page (CSS) pixels."""

_KINDS: dict[str, Kind] = {
    "button": "button",
    "input_button": "button",
    "input_submit": "button",
    "input_checkbox": "check",
    "input_radio": "check",
    "textarea": "field",
    "select": "field",
    "a": "row",
    "circle": "icon",
    "rect": "icon",
    "polygon": "icon",
    "img": "icon",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One element, or one line of bare text (tag "t"). ref: negative for bare text. value: of inputs; bool for check
    boxes. parent: position of its parent in the page's list, -1 for the root."""

    ref: int
    parent: int
    tag: str
    left: float
    top: float
    width: float
    height: float
    text: str = ""
    value: str | bool | None = None
    id: str = ""
    classes: str = ""
    background: str = ""
    focused: bool = False
    leaf: bool = True

    @property
    def box(self) -> Box | None:
        """The visible part as screen fractions; None when nothing of it is visible."""
        left, right = max(0.0, self.left), min(float(WIDTH), self.left + self.width)
        top, bottom = max(0.0, self.top), min(float(HEIGHT), self.top + self.height)
        if right <= left or bottom <= top:
            return None
        return Box(left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT)

    def has(self, *names: str) -> bool:
        """Whether it has one of these CSS classes."""
        return not {*names}.isdisjoint(self.classes.split())


@dataclass(frozen=True)
class Page:
    """goal: the utterance, in one line. fields: what the package reads out of it. nodes: depth first, as drawn."""

    goal: str
    fields: Mapping[str, str]
    nodes: tuple[Node, ...]

    def all(self, test: Callable[[Node], bool]) -> list[Node]:
        return [node for node in self.nodes if test(node)]

    def under(self, node: Node) -> list[Node]:
        """Everything inside of `node`, as drawn."""
        start = self.nodes.index(node)
        inside = {start}
        for place in range(start + 1, len(self.nodes)):
            if self.nodes[place].parent in inside:
                inside.add(place)
        return [self.nodes[place] for place in sorted(inside - {start})]

    def parent(self, node: Node) -> Node | None:
        return self.nodes[node.parent] if node.parent >= 0 else None

    def words(self, node: Node) -> str:
        """Its text, with the text of everything inside."""
        return " ".join(n.text for n in (node, *self.under(node)) if n.text)


def read_page(goal: str, fields: Mapping[str, str], raw: Mapping[str, Any]) -> Page:
    """raw: what core.getDOMInfo() returns. It comes from the page, so anything unexpected in it is left out."""
    return Page(goal, fields, tuple(_nodes(raw)))


def _nodes(raw: Mapping[str, Any]) -> Iterator[Node]:
    waiting: list[tuple[Mapping[str, Any], int]] = [(raw, -1)]
    place = 0
    while waiting:
        one, parent = waiting.pop()
        children = one.get("children") or []
        classes = one.get("classes")
        yield Node(
            int(one["ref"]),
            parent,
            str(one["tag"]).lower(),
            float(one["left"]),
            float(one["top"]),
            float(one["width"]),
            float(one["height"]),
            str(one.get("text") or ""),
            one.get("value"),
            str(one.get("id") or ""),
            classes if isinstance(classes, str) else "",
            str(one.get("bgColor") or ""),
            bool(one.get("focused")),
            not children,
        )
        waiting += [(child, place) for child in reversed(children)]
        place += 1


def elements(page: Page) -> list[Element]:
    """What is visible, top to bottom: leaves, and everything that can be typed into or pressed."""
    found = [e for node in page.nodes if (e := _element(node))]
    return sorted(found, key=lambda e: (e.box.top, e.box.left))


def _element(node: Node) -> Element | None:
    box = node.box
    kind = _KINDS.get(node.tag, "field" if node.tag.startswith("input_") else "text")
    if box is None or not (node.leaf or kind != "text"):
        return None
    link = node.has("alink") or node.tag in ("a", "label")
    checked = node.value if isinstance(node.value, bool) else None
    text = node.value if isinstance(node.value, str) and node.value else node.text
    if not text and kind == "text":
        return None
    return Element(text, box, kind, link or kind != "text", checked, node.focused)


def fraction(x: float, y: float) -> Point:
    """Page pixels -> screen fractions."""
    return Point(x / WIDTH, y / HEIGHT)
