"""Which of an agent's actions to ask about first: those that leave the device, cost money, or cannot be taken back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from guiderail.agent.types import Action, Click, LongPress, Point
from guiderail.envs.live.device import Element

WORDS = (
    *(
        "send",
        "reply",
        "post",
        "publish",
        "share",
        "submit",
        "call",
        "dial",
        "pay",
        "buy",
        "purchase",
        "order",
        "checkout",
    ),
    *(
        "subscribe",
        "donate",
        "transfer",
        "book",
        "delete",
        "remove",
        "erase",
        "uninstall",
        "install",
        "reset",
        "format",
    ),
)
_RISKY = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)


def risk(action: Action | None, elements: Callable[[], Sequence[Element]]) -> str:
    """The question to ask before this action; "" for none. Only touches are looked at, by the words of what they touch. Where
    a device cannot say what is on its screen, every touch is asked about.

    The words are English. This catches the plain cases; it is no guarantee.
    """
    match action:
        case Click(point) | LongPress(point):
            found = list(elements())
            if not found:
                return "The device does not say what is on its screen. Let the agent touch it?"
            words = touched(point, found)
            return (
                f"This may leave the device or cost money: {words[:200]!r}. Allow it?" if _RISKY.search(words) else ""
            )
    return ""


def touched(point: Point, elements: Sequence[Element]) -> str:
    """The words of the smallest element that reacts to a touch there, and of what lies in it."""
    under = [e for e in elements if e.box.contains(point)]
    target = min((e for e in under if e.clickable), key=lambda e: e.box.area, default=None)
    if target is None:
        return " ".join(e.text for e in under if e.text)
    inside = [e.text for e in elements if e is not target and e.text and target.box.contains(e.box.center)]
    return " ".join(filter(None, [target.text, *inside]))
