"""What all ways are made of: find, tap, hold, write, read a list."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from guiderail.agent.types import Action, Answer, Click, LongPress, Open, Point, Swipe, Type
from guiderail.envs.live.device import Element

Seen = Sequence[Element]
Params = Mapping[str, Any]
Way = Generator[Action, Seen, Seen]
"""Yields actions, is sent what is visible after each, returns what was visible last."""
Ways = Mapping[str, Callable[[Seen, Params], Way]]
"""AndroidWorld's task name -> a way through it."""

FURTHER = Swipe(Point(0.5, 0.75), Point(0.5, 0.25))
BACK = Swipe(Point(0.5, 0.25), Point(0.5, 0.75))


def find(seen: Seen, text: str, start: str = "") -> Generator[Action, Seen, Element]:
    """Scroll down to the end, then up, until an element with this text, or one that starts so, reacts. A field may hold the
    same text after a search. Raises LookupError."""
    wanted = plain(text)
    for direction in (FURTHER, BACK):
        before: Seen = ()
        while [*seen] != [*before]:
            for element in seen:
                here = plain(element.text)
                if (
                    element.clickable
                    and element.kind != "field"
                    and (here == wanted or (start and here.startswith(start)))
                ):
                    return element
            before, seen = seen, (yield direction)
    raise LookupError(text)


def plain(text: str) -> str:
    return " ".join(text.split())


def tap(seen: Seen, *texts: str) -> Way:
    for text in texts:
        element = yield from find(seen, text)
        seen = yield Click(element.box.center)
    return seen


def hold(seen: Seen, text: str, choice: str) -> Way:
    element = yield from find(seen, text)
    seen = yield LongPress(element.box.center, 1.0)
    return (yield from tap(seen, choice))


def field(seen: Seen, index: int) -> Point:
    return [e for e in seen if e.kind == "field"][index].box.center


def write(seen: Seen, *texts: str | None) -> Way:
    """One text per field, top to bottom; None leaves a field alone."""
    for index, text in enumerate(texts):
        if text is not None:
            yield Click(field(seen, index))
            seen = yield Type(text)
    return seen


def rows(seen: Seen) -> list[str]:
    return [e.text for e in seen if e.kind == "row"]


def read(seen: Seen, enough: Callable[[list[str]], bool] = lambda texts: False) -> Generator[Action, Seen, list[str]]:
    """All rows of a list, or as many as are enough. Rows that two screens share are counted once."""
    texts = rows(seen)
    while not enough(texts):
        before, seen = seen, (yield FURTHER)
        if [*seen] == [*before]:
            break
        new = rows(seen)
        shared = next((k for k in range(min(len(texts), len(new)), 0, -1) if texts[-k:] == new[:k]), 0)
        texts += new[shared:]
    return texts


def answered(*texts: str) -> Way:
    return (yield Answer(", ".join(texts)))


def taps(app: str, *texts: str) -> Callable[[Seen, Params], Way]:
    def way(seen: Seen, p: Params) -> Way:
        seen = yield Open(app)
        return (yield from tap(seen, *texts))

    return way
