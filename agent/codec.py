"""Model text <-> (thought, action), in our own dialect: a think block, then one flat JSON object in an action block.

    <think>why</think>
    <action>
    {"action": "click", "coordinate": [546, 1204]}
    </action>

Keys per action as in UI-S1's action space. Coordinates are pixels of a stated size: the model's picture in model text,
the original screenshot in recorded files. Reading never raises anything but UnreadableAction.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from agent.errors import UnreadableAction
from agent.screen import ScreenTransform
from agent.types import (
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

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """thought: content of the think block, None when there is no block or it is blank."""

    thought: str | None
    action: Action


def say(thought: str | None, action: Action, screen: ScreenTransform) -> str:
    """The turn as text. `thought` None writes no think block, "" an empty one."""
    head = "" if thought is None else f"<think>{thought}</think>\n"
    return f"{head}<action>\n{json.dumps(action_to_json(action, screen), ensure_ascii=False)}\n</action>"


def read(text: str, screen: ScreenTransform) -> Reply:
    """The first think block and the first action block after it. Raises UnreadableAction with one clause of reason."""
    thought = think_block(text)
    think = _THINK.search(text)
    block = _ACTION.search(text, think.end() if think else 0)
    if block is None:
        raise UnreadableAction("no <action>...</action> block", thought)
    try:
        content = json.loads(block.group(1))
    except (ValueError, RecursionError) as error:
        raise UnreadableAction(f"the action block is not JSON: {error}"[:200], thought) from None
    try:
        return Reply(thought, action_from_json(content, screen))
    except UnreadableAction as error:
        error.thought = thought
        raise


def think_block(text: str) -> str | None:
    """Content of the first think block, stripped; None when missing or blank."""
    match = _THINK.search(text)
    return (match.group(1).strip() or None) if match else None


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
            raise UnreadableAction(f"button {button!r}, expected one of {', '.join(BUTTONS)}")
        case "terminate":
            status = content.get("status")
            if status in ("success", "failure"):
                return Terminate(status)
            raise UnreadableAction(f"status {status!r}, expected success or failure")
    raise UnreadableAction(f"action {name!r}, expected one of {', '.join(ACTION_NAMES)}")


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableAction(f"{what} is {value!r}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UnreadableAction(f"{what} is not a finite number")
    return number


def _point(content: dict[str, Any], key: str, screen: ScreenTransform) -> Point:
    value = content.get(key)
    if not isinstance(value, list) or len(value) != 2:
        raise UnreadableAction(f"{key} is {value!r}, expected [x, y]"[:200])
    return screen.to_fraction(_number(value[0], f"{key} x"), _number(value[1], f"{key} y"))


def _text(content: dict[str, Any]) -> str:
    value = content.get("text")
    if not isinstance(value, str):
        raise UnreadableAction(f"text is {value!r}, expected a string"[:200])
    return value


def _seconds(content: dict[str, Any]) -> float:
    """`time` is optional in recorded data; 2 s is what AndroidControl's converter writes."""
    seconds = _number(content.get("time", 2), "time")
    if seconds < 0:
        raise UnreadableAction(f"time is {seconds:g}, expected at least 0")
    return seconds
