"""AgentCPM-GUI: one compact JSON object after the model's published schema.

    {"thought":"The heart is at the top.","POINT":[729,69]}

POINT is in thousandths of the screen. POINT alone is a click; with `duration` over 200 (milliseconds) a long press; with
`to` a swipe, where `to` is the direction of the finger or the end point. `duration` alone is a pause. STATUS may stand
beside an action; an ending STATUS ends the task. The dialect cannot express opening an app, so 607 of AndroidControl's 1,543
test tasks cannot be done in it: that is the model's own vocabulary, not an omission here (method audit, B19). One screenshot
and no history, as in the model's training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from guiderail.agent.codec import Reply, action_from_json, show
from guiderail.agent.dialects.base import THOUSAND, Composed, Dialect, bounded, finger, integrate, reply, unsayable
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    Action,
    Click,
    Direction,
    LongPress,
    Picture,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)

CANNOT = frozenset({"open", "answer", "key", "system_button Menu"})
TAP_MS = 200  # the schema's default duration; a longer one makes a touch a long press
_ENDED = {"finish": "success", "satisfied": "success", "impossible": "failure", "interrupt": "failure"}
_ENDED["need_feedback"] = "failure"
_BUTTONS = {"HOME": "Home", "BACK": "Back", "ENTER": "Enter", "APPSELECT": "Menu"}
_TOWARDS: dict[Direction, tuple[int, str]] = {"up": (-1, "y"), "down": (1, "y"), "left": (-1, "x"), "right": (1, "x")}
_REACH = 0.3  # of the screen, for a swipe that names a direction only
_JSON = json.JSONDecoder()

_SYSTEM = """You operate an Android phone by touch. From the question and the current screenshot, write the next operation
as one compact JSON object without blanks. Begin with "thought", then use these keys:
"POINT":[x,y]  touch there; x and y run from 0 to 1000 over width and height
"to":"up"|"down"|"left"|"right"|[x,y]  together with POINT: move the finger that way or to that point
"duration":ms  how long a touch or a pause lasts, 200 if left out; over 200 a touch is a long press
"PRESS":"HOME"|"BACK"|"ENTER"
"TYPE":"text"
"STATUS":"continue"|"finish"|"satisfied"|"impossible"|"interrupt"|"need_feedback"  "continue" if left out"""


def _say(thought: str | None, action: Action, _: ScreenTransform) -> str:
    content = ({} if thought is None else {"thought": thought}) | _content(action)
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _content(action: Action) -> dict[str, Any]:
    match action:
        case Click(place):
            return {"POINT": list(THOUSAND.to_pixels(place))}
        case LongPress(place, seconds):
            return {"POINT": list(THOUSAND.to_pixels(place)), "duration": max(TAP_MS + 1, round(1000 * seconds))}
        case Swipe(start, end):
            return {"POINT": list(THOUSAND.to_pixels(start)), "to": list(THOUSAND.to_pixels(end))}
        case Type(text):
            return {"TYPE": text}
        case SystemButton("Back" | "Home" | "Enter" as button):
            return {"PRESS": button.upper()}
        case Wait(seconds):
            return {"duration": round(1000 * seconds)}
        case Terminate(status):
            return {"STATUS": "finish" if status == "success" else "impossible"}
    raise unsayable("agentcpm", action)


def _read(text: str, _: ScreenTransform) -> Reply:
    """The first JSON object of the turn. An unreadable turn is not taken for a pause, which needs `duration`."""
    start = bounded(text).find("{")
    if start < 0:
        raise UnreadableAction("no JSON object")
    try:
        content, _end = _JSON.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise UnreadableAction(f"the turn is not JSON: {error}"[:200]) from None
    said = content.get("thought")
    # Half a surrogate pair, which JSON can spell, can be neither stored nor shown.
    thought = said.strip().encode(errors="replace").decode() or None if isinstance(said, str) else None
    return reply(thought, lambda: _action(content))


def _action(content: dict[str, Any]) -> Action:
    status = content.get("STATUS")
    if isinstance(status, str) and status in _ENDED:
        return action_from_json({"action": "terminate", "status": _ENDED[status]}, THOUSAND)
    if "POINT" in content:
        return _touch(content)
    if "PRESS" in content:
        press = content["PRESS"]
        known = _BUTTONS.get(press) if isinstance(press, str) else None
        return action_from_json({"action": "system_button", "button": known or press}, THOUSAND)
    for key, name in (("TYPE", "type"), ("OPEN_APP", "open")):
        if key in content:
            return action_from_json({"action": name, "text": content[key]}, THOUSAND)
    if "duration" in content:
        return action_from_json({"action": "wait", "time": _seconds(content)}, THOUSAND)
    raise UnreadableAction(f"no action in {show(content)}, expected POINT, PRESS, TYPE, duration or an ending STATUS")


def _touch(content: dict[str, Any]) -> Action:
    start, to = content["POINT"], content.get("to")
    if isinstance(to, str):
        sign, axis = _TOWARDS[finger(to).direction]
        match action_from_json({"action": "click", "coordinate": start}, THOUSAND):
            case Click(Point(x, y) as place):
                return Swipe(place, Point(x + sign * _REACH, y) if axis == "x" else Point(x, y + sign * _REACH))
    if to is not None:
        return action_from_json({"action": "swipe", "coordinate": start, "coordinate2": to}, THOUSAND)
    seconds = _seconds(content)
    if isinstance(seconds, float) and seconds > TAP_MS / 1000:
        return action_from_json({"action": "long_press", "coordinate": start, "time": seconds}, THOUSAND)
    return action_from_json({"action": "click", "coordinate": start}, THOUSAND)


def _seconds(content: dict[str, Any]) -> Any:
    """`duration` in seconds; a value that is not a number stays as it is and is refused later."""
    duration = content.get("duration", TAP_MS)
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not -1e12 < duration < 1e12:
        return duration
    return duration / 1000


def _compose(goal: str, history: Sequence[str], picture: Picture) -> Composed:
    return f"<Question>{goal}</Question>\nCurrent screenshot: ", picture


AGENTCPM = Dialect(
    name="agentcpm",
    system=_SYSTEM,
    first=lambda goal: goal,
    later="",
    integrate=integrate,
    say=_say,
    read=_read,
    compose=_compose,
    space="thousand",
    images=1,
    cannot=CANNOT,
)
