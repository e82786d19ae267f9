"""How UI-S1's public code reads an answer: any JSON in the first action block, with no check of names and arguments.

Its matchers look up keys as they need them, so an answer fails in one of two ways. A key that every comparison touches
raises for every expert action. An argument raises only where the comparison gets as far as this argument, which is where the
kinds of the two actions agree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from guiderail.agent.codec import action_block, show
from guiderail.agent.errors import Raw
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    BUTTONS,
    Action,
    Answer,
    Button,
    Click,
    Key,
    LongPress,
    Open,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)

_NOWHERE = Point(0.0, 0.0)
_TEXTS: dict[str, type[Type | Open | Answer | Key]] = {"type": Type, "open": Open, "answer": Answer, "key": Key}


class NotJSON(Exception):
    """The answer has no JSON in its action block."""


class Raises(Exception):
    """The public code raises on this answer, whatever the expert did."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An action whose name is not of the vocabulary. It agrees with no expert."""

    name: str


def loosely(raw: Raw) -> tuple[Action | Unknown, str]:
    """The action of an answer, and what is wrong with its argument, "" for nothing. A wrong argument is filled in, since only
    the kind of the action counts then. A button may be unknown. Raises `NotJSON` and `Raises`."""
    text, screen = raw
    content = _json(action_block(text))
    if not isinstance(content, dict):
        raise Raises(f"the action is a JSON {type(content).__name__}, not an object")
    start, end = (_point(content, key, screen) for key in ("coordinate", "coordinate2"))
    if "action" not in content:
        raise Raises("there is no key 'action'")
    name = content["action"]
    missing = "there is no key 'coordinate'" if start is None else ""
    match name:
        case "click":
            return Click(start or _NOWHERE), missing
        case "long_press":
            return LongPress(start or _NOWHERE), missing
        case "swipe":
            missing = missing or ("there is no key 'coordinate2'" if end is None else "")
            return Swipe(start or _NOWHERE, end or _NOWHERE), missing
        case "type" | "open" | "answer" | "key":
            words = content.get("text")
            return _TEXTS[name](words if isinstance(words, str) else ""), _not_text("text", words)
        case "wait":
            return Wait(), ""
        case "system_button":
            return SystemButton(_button(content.get("button"))), _not_text("button", content.get("button"))
        case "terminate":
            return Terminate("success" if content.get("status") == "success" else "failure"), ""
    return Unknown(show(name)), ""


def _json(block: str | None) -> Any:
    if block is None:
        raise NotJSON("no <action>...</action> block")
    try:
        return json.loads(block.strip())
    except (ValueError, RecursionError) as error:
        raise NotJSON(f"the action block is not JSON: {error}"[:200]) from None


def _point(content: dict[str, Any], key: str, screen: ScreenTransform) -> Point | None:
    """The first two numbers of a key; None where the key is missing."""
    if key not in content:
        return None
    value = content[key]
    try:
        return screen.to_fraction(value[0], value[1])
    except (TypeError, KeyError, IndexError, OverflowError):
        raise Raises(f"{key} is {show(value)}, not [x, y]") from None


def _not_text(key: str, value: Any) -> str:
    return "" if isinstance(value, str) else f"{key} is {show(value)}, not a string"


def _button(value: Any) -> Button:
    word = value.lower().strip() if isinstance(value, str) else ""
    return next((known for known in BUTTONS if known.lower() == word), cast(Button, show(value)))
