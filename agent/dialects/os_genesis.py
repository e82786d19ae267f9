"""OS-Genesis: a low-level thought and one action as JSON in AndroidWorld's vocabulary.

    Low-level thought: Click 'Get started' to open the settings.
    action: {"action_type": "click", "x": 539.5, "y": 2148.0}

x and y are pixels of the original screenshot (the model was trained with accessibility trees in these units), so a prompt
in this dialect should show the picture at its original size. scroll names the direction of the view: "down" shows what is
below, the finger moves up. `type` may hold the point of the field, which our Type drops. One screenshot; the earlier steps
are lines of text. The accessibility tree stays empty: a policy here sees pixels only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from guiderail.agent.codec import Reply, action_from_json, show
from guiderail.agent.dialects.base import (
    Composed,
    Dialect,
    bounded,
    integrate,
    numbered,
    one_line,
    reply,
    unsayable,
    view,
    view_word,
)
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    Action,
    Answer,
    Click,
    LongPress,
    Open,
    Picture,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)

CANNOT = frozenset({"key", "system_button Menu"})
_BUTTONS = {"Back": "navigate_back", "Home": "navigate_home", "Enter": "keyboard_enter"}
_STATUS = {"success": "successful", "failure": "infeasible"}
_HEADER = re.compile(r"^[ \t]*action:[ \t]*", re.MULTILINE | re.IGNORECASE)
_LABEL = "low-level thought:"
_JSON = json.JSONDecoder()

_TASK = """You are an expert at operating phones. Below are a task, the steps taken so far and the current screenshot.

Task: {goal}

Steps so far:
{history}

Accessibility tree: {{}}

Write the low-level thought and the action of the next step:
Low-level thought: ...
action: {{"action_type": ...}}"""


def _say(thought: str | None, action: Action, screen: ScreenTransform) -> str:
    head = "" if thought is None else f"Low-level thought: {thought}\n"
    return head + f"action: {json.dumps(_content(action, screen), ensure_ascii=False)}"


def _content(action: Action, screen: ScreenTransform) -> dict[str, Any]:
    match action:
        case Click(place) | LongPress(place):
            return {"action_type": action.name, **_place(place, screen)}
        case Swipe():
            return {"action_type": "scroll", "direction": view_word(action)}
        case Type(text) | Answer(text):
            return {"action_type": action.name, "text": text}
        case Open(text):
            return {"action_type": "open_app", "app_name": text}
        case SystemButton(button) if button in _BUTTONS:
            return {"action_type": _BUTTONS[button]}
        case Wait():
            return {"action_type": "wait"}
        case Terminate(status):
            return {"action_type": "status", "goal_status": _STATUS[status]}
    raise unsayable("os_genesis", action)


def _place(place: Point, screen: ScreenTransform) -> dict[str, int]:
    x, y = screen.to_pixels(place)
    return {"x": x, "y": y}


def _read(text: str, screen: ScreenTransform) -> Reply:
    """The JSON after the first line that starts with "action:", else the first JSON of the turn."""
    header = _HEADER.search(bounded(text))
    start = text.find("{", header.end() if header else 0)
    thought = _thought(text[: header.start() if header else max(start, 0)])
    return reply(thought, lambda: _action(_object(text, start), screen))


def _thought(before: str) -> str | None:
    head = before.strip()
    return (head[len(_LABEL) :].strip() if head.lower().startswith(_LABEL) else head) or None


def _object(text: str, start: int) -> dict[str, Any]:
    if start < 0:
        raise UnreadableAction("no action as a JSON object")
    try:
        content, _ = _JSON.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise UnreadableAction(f"the action is not JSON: {error}"[:200]) from None
    if not isinstance(content, dict):
        raise UnreadableAction(f"the action is {show(content)}, expected a JSON object")
    return content


def _action(content: dict[str, Any], screen: ScreenTransform) -> Action:
    name, text = content.get("action_type"), content.get("text")
    match name:
        case "click" | "long_press":
            return action_from_json({"action": name, "coordinate": [content.get("x"), content.get("y")]}, screen)
        case "scroll":
            return view(content.get("direction"))
        case "type" | "input_text":
            return action_from_json({"action": "type", "text": text}, screen)
        case "answer":
            return action_from_json({"action": "answer", "text": text}, screen)
        case "open_app":
            return action_from_json({"action": "open", "text": content.get("app_name")}, screen)
        case "wait":
            return Wait()
        case "status":
            known = {"successful": "success", "complete": "success", "infeasible": "failure"}
            status = content.get("goal_status")
            status = known.get(status, status) if isinstance(status, str) else status
            return action_from_json({"action": "terminate", "status": status}, screen)
    for button, known_name in _BUTTONS.items():
        if name == known_name:
            return action_from_json({"action": "system_button", "button": button}, screen)
    raise UnreadableAction(f"action_type {show(name)} is not an action of the vocabulary")


def _remember(turn: str) -> str:
    """The turn's own thought and action on one line."""
    header = _HEADER.search(turn)
    if header is None:
        return one_line(turn)
    return one_line(f"{_thought(turn[: header.start()]) or ''} action: {turn[header.end() :]}")


def _compose(goal: str, history: Sequence[str], picture: Picture) -> Composed:
    return picture, _TASK.format(goal=goal, history=numbered(history))


OS_GENESIS = Dialect(
    name="os_genesis",
    system="",
    first=lambda goal: goal,
    later="",
    integrate=integrate,
    say=_say,
    read=_read,
    remember=_remember,
    compose=_compose,
    space="original",
    swipe="view",
    images=1,
    cannot=CANNOT,
    forgets=frozenset({"wait.seconds", "long_press.seconds", "swipe.points"}),
)
