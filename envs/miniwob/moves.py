"""What an expert of a page is made of: moves, and how it finds what to aim at.

An expert is a generator of moves. The page changes between two moves, so an expert looks again after each. When it does not
know how to go on, it ends, and its task counts as given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from guiderail.agent.types import Action, Box, Click, Terminate, Type
from guiderail.envs.miniwob.browser import Browser
from guiderail.envs.miniwob.page import Node, Page, fraction


@dataclass(frozen=True, slots=True)
class Move:
    """box: what the action is aimed at, as screen fractions."""

    action: Action
    thought: str
    box: Box | None = None


Moves = Iterator[Move]
Expert = Callable[[Browser], Moves]
GIVE_UP = Move(Terminate("failure"), "I cannot find what I need")


def click(on: Browser, node: Node, thought: str = "", left: float | None = None) -> Move:
    """left: pixels from the node's left edge instead of a point the mouse reaches."""
    where = on.reach(node.ref) if left is None else (node.left + left, node.top + node.height / 2)
    if where is None:
        return GIVE_UP
    return Move(Click(fraction(*where)), thought or f"tap {node.text or node.value or node.id or node.tag}", node.box)


def type_into(on: Browser, node: Node, text: str) -> Moves:
    yield click(on, node, f"go to the field for {text}")
    yield Move(Type(text), f"write {text}", node.box)


def named(page: Page, text: str, tag: str = "") -> Node:
    """The first node with exactly this text."""
    return first(page, lambda n: n.text.strip() == text and n.tag.startswith(tag))


def first(page: Page, test: Callable[[Node], bool]) -> Node:
    return the(filter(test, page.nodes))


def the(found: Iterable[Node]) -> Node:
    """The first of them. Raises LookupError where there is none."""
    for node in found:
        return node
    raise LookupError("no such node")


def fields(page: Page) -> list[Node]:
    return page.all(
        lambda n: n.tag.startswith("input_") and n.tag[6:] in ("text", "password", "number", "date", "time")
    )


def submit(on: Browser) -> Move:
    page = on.look()
    wanted = ("submit", "login", "search", "ok")
    buttons = page.all(lambda n: n.id in ("subbtn", "submit") or n.tag == "button" or n.has("final"))
    for button in buttons:
        if button.id in ("subbtn", "submit") or page.words(button).strip().lower() in wanted:
            return click(on, button, "that is all, submit")
    raise LookupError("no submit button")


def safe(script: Expert) -> Expert:
    """A script that looks for something that does not exist ends there, without an error."""

    def run(on: Browser) -> Moves:
        try:
            yield from script(on)
        except (LookupError, ValueError):
            return

    return run
