"""Model text <-> (thought, action), in our own dialect: a think block, then one flat JSON object in an action block.

    <think>why</think>
    <action>
    {"action": "click", "coordinate": [546, 1204]}
    </action>

Keys per action as in UI-S1's action space. Coordinates are pixels of a stated size: the model's picture in model text,
the original screenshot in recorded files. Reading raises UnreadableAction and nothing else.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import dataclass, field
from typing import Any

from guiderail.agent.errors import Raw, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    ACTION_NAMES,
    BUTTONS,
    Action,
    Answer,
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

_FAR = 1e9  # beyond any screen and any pause; larger numbers overflow once they are scaled to another size


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed turn. thought: the content of the think block; None without a block, or where it is blank. raw: the answer as it was
    written, which UI-S1's loose match rules read; None in all dialects but our own."""

    thought: str | None
    action: Action
    raw: Raw | None = field(default=None, compare=False, repr=False)


def say(thought: str | None, action: Action, screen: ScreenTransform) -> str:
    """The turn as text, with coordinates in pixels of `screen`. thought: None writes no think block, "" an empty one."""
    head = "" if thought is None else f"<think>{thought}</think>\n"
    content = json.dumps(action_to_json(action, screen), ensure_ascii=False)
    content = content.replace("</", "<\\/")  # the same JSON, and no text can close the block early
    return f"{head}<action>\n{content}\n</action>"


def read(text: str, screen: ScreenTransform) -> Reply:
    """The first think block and the first action block after it. screen: the size that coordinates refer to. Raises
    UnreadableAction with the reason and the thought."""
    think, end = _block(text, "think")
    thought = (think or "").strip() or None
    action, _ = _block(text, "action", end)
    raw = (text, screen)
    if action is None:
        raise UnreadableAction("no <action>...</action> block", thought, raw)
    try:
        content = json.loads(action)
    except (ValueError, RecursionError) as error:
        raise UnreadableAction(f"the action block is not JSON: {error}"[:200], thought, raw) from None
    try:
        return Reply(thought, action_from_json(content, screen), raw)
    except UnreadableAction as error:
        error.thought, error.raw = thought, raw
        raise


def think_block(text: str) -> str | None:
    """Content of the first think block, stripped; None when missing or blank."""
    return (_block(text, "think")[0] or "").strip() or None


def action_block(text: str) -> str | None:
    """Content of the first action block, even inside the thought; None when missing."""
    return _block(text, "action")[0]


def _block(text: str, tag: str, start: int = 0) -> tuple[str | None, int]:
    """The text between the first opening tag from `start` on and the next closing tag, and the index after it.

    Not a regular expression: one with a lazy middle takes quadratic time on a text of opening tags only.
    """
    opening = text.find(f"<{tag}>", start)
    closing = text.find(f"</{tag}>", opening) if opening >= 0 else -1
    if closing < 0:
        return None, start
    return text[opening + len(tag) + 2 : closing], closing + len(tag) + 3


def action_to_json(action: Action, screen: ScreenTransform) -> dict[str, Any]:
    """One flat JSON object; coordinates are rounded pixels of `screen`."""
    content: dict[str, Any] = {"action": action.name}
    match action:
        case Click(point):
            content["coordinate"] = list(screen.to_pixels(point))
        case LongPress(point, seconds):
            content |= {"coordinate": list(screen.to_pixels(point)), "time": seconds}
        case Swipe(start, end):
            content |= {"coordinate": list(screen.to_pixels(start)), "coordinate2": list(screen.to_pixels(end))}
        case Type(text) | Open(text) | Answer(text) | Key(text):
            content["text"] = text
        case SystemButton(button):
            content["button"] = button
        case Wait(seconds):
            content["time"] = seconds
        case Terminate(status):
            content["status"] = status
    return content


def action_from_json(content: Any, screen: ScreenTransform) -> Action:
    """The inverse of `action_to_json`. Unknown extra keys are ignored. Raises UnreadableAction."""
    if not isinstance(content, dict):
        raise UnreadableAction(f"the action is a JSON {type(content).__name__}, expected one flat object")
    name = content.get("action")
    match name:
        case "click":
            return Click(_point(content, "coordinate", screen))
        case "long_press":
            return LongPress(_point(content, "coordinate", screen), _seconds(content))
        case "swipe":
            return Swipe(_point(content, "coordinate", screen), _point(content, "coordinate2", screen))
        case "type":
            return Type(_text(content))
        case "answer":
            return Answer(_text(content))
        case "open":
            return Open(_text(content))
        case "key":
            return Key(_text(content))
        case "wait":
            return Wait(_seconds(content))
        case "system_button":
            button = content.get("button")
            for known in BUTTONS:
                if isinstance(button, str) and button.lower() == known.lower():
                    return SystemButton(known)
            raise UnreadableAction(f"button {show(button)}, expected one of {', '.join(BUTTONS)}")
        case "terminate":
            status = content.get("status")
            if status in ("success", "failure"):
                return Terminate(status)
            raise UnreadableAction(f"status {show(status)}, expected success or failure")
    raise UnreadableAction(f"action {show(name)}, expected one of {', '.join(ACTION_NAMES)}")


def show(value: Any) -> str:
    """A short repr: a value in model text may be a megabyte long, or nest deeper than repr can follow."""
    return reprlib.repr(value)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableAction(f"{what} is {show(value)}, expected a number")
    if not -_FAR <= value <= _FAR:  # also refuses nan
        raise UnreadableAction(f"{what} is {show(value)}, expected a number of sensible size")
    return float(value)


def _point(content: dict[str, Any], key: str, screen: ScreenTransform) -> Point:
    value = content.get(key)
    if not isinstance(value, list) or len(value) != 2:
        raise UnreadableAction(f"{key} is {show(value)}, expected [x, y]")
    return screen.to_fraction(_number(value[0], f"{key} x"), _number(value[1], f"{key} y"))


def _text(content: dict[str, Any]) -> str:
    value = content.get("text")
    if not isinstance(value, str):
        raise UnreadableAction(f"text is {show(value)}, expected a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UnreadableAction(f"text {show(value)} holds half of a surrogate pair and can be neither typed nor stored")
    return value


def _seconds(content: dict[str, Any]) -> float:
    """`time` is optional in recorded data; 2 s is what AndroidControl's converter writes."""
    seconds = _number(content.get("time", 2), "time")
    if seconds < 0:
        raise UnreadableAction(f"time is {seconds:g}, expected at least 0")
    return seconds
