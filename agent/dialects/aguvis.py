"""Aguvis: reasoning, then one call of pyautogui or of its mobile functions, in fractions of the screen.

    Thought: The profile is at the top right.
    Action: Click the profile.
    pyautogui.click(x=0.91, y=0.07)

The call is parsed, never run. scroll(page=...) turns a wheel, as pyautogui defines it: positive moves the view up (finger
down), negative moves it down; hscroll positive moves it right (finger left). mobile.swipe(from_coord, to_coord) is finger
motion; swipes are written this way. One screenshot; the earlier steps are lines of text, here the turns' own action lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from guiderail.agent.codec import Reply, action_from_json
from guiderail.agent.dialects.base import (
    Composed,
    Dialect,
    action_line,
    bounded,
    describe,
    integrate,
    numbered,
    one_line,
    reply,
    unsayable,
    view,
)
from guiderail.agent.dialects.calls import Call, numbers, point, quote, read_call
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    Action,
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

UNIT = ScreenTransform(1, 1)
CANNOT = frozenset({"answer", "key", "system_button Menu"})
_FREE = ("message", "text", "app_name")
_ORDER = {
    "pyautogui.click": ("x", "y"),
    "pyautogui.write": ("message",),
    "pyautogui.press": ("keys",),
    "pyautogui.scroll": ("page",),
    "pyautogui.hscroll": ("page",),
    "mobile.swipe": ("from_coord", "to_coord"),
    "mobile.long_press": ("x", "y"),
    "mobile.open_app": ("app_name",),
    "mobile.wait": ("seconds",),
    "mobile.terminate": ("status",),
}
"""Arguments by position, as the prompt names them."""
_CALL = re.compile(r"^[ \t]*(?=(?:pyautogui|mobile|browser|terminate|answer)\b[.(])", re.MULTILINE)

_SYSTEM = """You operate a phone by calls in the style of pyautogui. Coordinates are fractions of the screen, from 0 to 1.
pyautogui.click(x, y)
pyautogui.write(message='...')
pyautogui.press(keys=['enter'])
mobile.swipe(from_coord=[x, y], to_coord=[x, y]): the finger's motion
mobile.long_press(x, y)
mobile.home()
mobile.back()
mobile.open_app(app_name='...')
mobile.wait(seconds)
mobile.terminate(status='success' or 'failure')"""


def _say(thought: str | None, action: Action, _: ScreenTransform) -> str:
    head = "" if thought is None else f"Thought: {thought}\n"
    call = _words(action)
    return head + f"Action: {one_line(describe(action))}\n{call}"


def _words(action: Action) -> str:
    match action:
        case Click(place):
            return f"pyautogui.click({_place(place)})"
        case LongPress(place):
            return f"mobile.long_press({_place(place)})"
        case Swipe(start, end):
            return f"mobile.swipe(from_coord=[{_pair(start)}], to_coord=[{_pair(end)}])"
        case Type(text):
            return f"pyautogui.write(message={quote(text)})"
        case Open(text):
            return f"mobile.open_app(app_name={quote(text)})"
        case SystemButton("Back" | "Home" as button):
            return f"mobile.{button.lower()}()"
        case SystemButton("Enter"):
            return "pyautogui.press(keys=['enter'])"
        case Wait(seconds):
            return f"mobile.wait(seconds={round(seconds, 3)})"
        case Terminate(status):
            return f"mobile.terminate(status='{status}')"
    raise unsayable("aguvis", action)


def _place(place: Point) -> str:
    return f"x={place.x:.4f}, y={place.y:.4f}"


def _pair(place: Point) -> str:
    return f"{place.x:.4f}, {place.y:.4f}"


def _read(text: str, _: ScreenTransform) -> Reply:
    """The call in the last line that starts a known call; the text before it is the thought."""
    at = -1
    for found in _CALL.finditer(bounded(text)):
        at = found.end()
    if at < 0:
        raise UnreadableAction("no call of pyautogui or mobile", _thought(text))
    return reply(_thought(text[:at]), lambda: _action(read_call(text[at:], _FREE, _ORDER)))


def _thought(before: str) -> str | None:
    """The text after "Thought:" up to the action line, without the recipient names that decoding leaves at both ends."""
    head = before.strip().removeprefix("all\n")
    head = re.sub(r"(?:^|\n)assistant\s?os$", "", head)
    at = action_line(head)
    return (head[:at] if at >= 0 else head).strip().removeprefix("Thought:").strip() or None


def _action(call: Call) -> Action:
    args = call.args
    match call.name.rpartition(".")[2]:
        case "click":
            return _at("click", args)
        case "long_press":
            return _at("long_press", args)
        case "swipe":
            ends = point(args.get("from_coord"), "from_coord"), point(args.get("to_coord"), "to_coord")
            return action_from_json({"action": "swipe", "coordinate": ends[0], "coordinate2": ends[1]}, UNIT)
        case "scroll" | "hscroll" as wheel:
            return _wheel(wheel, args)
        case "write":
            return action_from_json({"action": "type", "text": args.get("message")}, UNIT)
        case "press":
            return _press(args.get("keys") or args.get("key"))
        case "home" | "back" as button:
            return action_from_json({"action": "system_button", "button": button}, UNIT)
        case "open_app":
            return action_from_json({"action": "open", "text": args.get("app_name")}, UNIT)
        case "wait":
            seconds = numbers(args.get("seconds", "2"))
            return action_from_json({"action": "wait", "time": seconds[0] if len(seconds) == 1 else None}, UNIT)
        case "answer":
            return action_from_json({"action": "answer", "text": args.get("text")}, UNIT)
        case "terminate":
            return action_from_json({"action": "terminate", "status": args.get("status")}, UNIT)
    raise UnreadableAction(f"{call.name}() is not an action of a phone")


def _at(name: str, args: dict[str, str]) -> Action:
    place = point(f"{args.get('x', '')} {args.get('y', '')}", "the point")
    return action_from_json({"action": name, "coordinate": place}, UNIT)


def _wheel(name: str, args: dict[str, str]) -> Action:
    pages = numbers(args.get("page", ""))
    if len(pages) != 1 or pages[0] == 0:
        raise UnreadableAction(f"page is {args.get('page', '')[:60]!r}, expected a number other than 0")
    words = ("up", "down") if name == "scroll" else ("right", "left")
    return view(words[pages[0] < 0])


def _press(keys: str | None) -> Action:
    key = (keys or "").strip("[]'\" ").lower()
    if key not in ("enter", "return"):
        raise UnreadableAction(f"the key {key[:60]!r} is not on a phone, expected enter")
    return SystemButton("Enter")


def _remember(turn: str) -> str:
    """The turn's own action line, else its call."""
    at = action_line(turn)
    return one_line(turn[at + len("Action:") :].strip().partition("\n")[0] if at >= 0 else turn)


def _compose(goal: str, history: Sequence[str], picture: Picture) -> Composed:
    steps = numbered(history) or "None"
    return picture, f"Choose the next move from the screenshot.\n\nInstruction: {goal}\n\nPrevious actions:\n{steps}"


AGUVIS = Dialect(
    name="aguvis",
    system=_SYSTEM,
    first=lambda goal: goal,
    later="",
    integrate=integrate,
    say=_say,
    read=_read,
    remember=_remember,
    compose=_compose,
    space="unit",
    images=1,
    cannot=CANNOT,
    forgets=frozenset({"long_press.seconds"}),
)
