r"""UI-TARS: a thought and one function call.

    Thought: The search box is empty.
    Action: click(start_box='<|box_start|>(197,525)<|box_end|>')

1.0 (Qwen2-VL) uses thousandths of the screen and wraps points in box tokens; a server may or may not show those tokens, so
reading ignores them and the history always has them. 1.5 (Qwen2.5-VL) uses pixels of the resized picture and is prompted
with `point='<point>x y</point>'`; it answers in either form. All forms are read in both.

scroll(direction=...) names the direction of the view: "down" shows what is below, the finger moves up. drag(start, end) and
scroll(start_box, end_box) are finger motion. 1.0 writes a swipe as a direction (as in its AndroidControl evaluation), 1.5 as
a drag. finished() ends the task "regardless of whether it succeeds", so failure cannot be expressed. Both keep a dialogue:
the task in a message of its own, then screenshots and own turns, with the last five screenshots.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from guiderail.agent.codec import Reply, action_from_json
from guiderail.agent.dialects.base import (
    THOUSAND,
    Dialect,
    action_line,
    bounded,
    integrate,
    reply,
    unsayable,
    view,
    view_word,
)
from guiderail.agent.dialects.calls import Call, point, quote, read_call
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    Action,
    Click,
    LongPress,
    Open,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)

CANNOT = frozenset({"answer", "key", "system_button Menu", "system_button Enter", "terminate failure"})
_FREE = ("content", "app_name")
_BARE = re.compile(r"=(['\"])\s*\((\s*-?[\d.]+\s*,\s*-?[\d.]+\s*)\)\s*\1")


def _first(points: str) -> str:
    return f"""You operate a phone. Given a task and what you did and saw so far, choose the next action.

Write two lines:
Thought: a short plan in English that ends in the next step and what it touches
Action: one call out of the list

{points}

Task: """


_FIRST_10 = _first(
    """click(start_box='<|box_start|>(x1,y1)<|box_end|>')
long_press(start_box='<|box_start|>(x1,y1)<|box_end|>', time='')
type(content='')
scroll(direction='down or up or right or left')
open_app(app_name='')
press_back()
press_home()
wait()
finished() # the task is over"""
)
_FIRST_15 = _first(
    r"""click(point='<point>x1 y1</point>')
long_press(point='<point>x1 y1</point>')
type(content='') # escape ' as \' and a new line as \n
scroll(point='<point>x1 y1</point>', direction='down or up or right or left')
open_app(app_name='')
drag(start_point='<point>x1 y1</point>', end_point='<point>x2 y2</point>')
press_home()
press_back()
wait()
finished(content='') # the task is over"""
)


def _call(action: Action, name: str, screen: ScreenTransform, place: Callable[[Point, ScreenTransform], str]) -> str:
    """place: how this version writes an argument that is a point."""
    new = place is _place_15
    match action:
        case Click(point):
            return f"click({place(point, screen)})"
        case LongPress(point):
            return f"long_press({place(point, screen)}" + (")" if new else ", time='')")
        case Swipe(start, end) if new:
            return f"drag(start_{place(start, screen)}, end_{place(end, screen)})"
        case Swipe():
            return f"scroll(direction='{view_word(action)}')"
        case Type(text):
            return f"type(content={quote(text)})"
        case Open(text):
            return f"open_app(app_name={quote(text)})"
        case SystemButton("Back" | "Home" as button):
            return f"press_{button.lower()}()"
        case Wait():
            return "wait()"
        case Terminate("success"):
            return "finished(content='')" if new else "finished()"
    raise unsayable(name, action)


def _place_10(place: Point, _: ScreenTransform) -> str:
    return "start_box='<|box_start|>({},{})<|box_end|>'".format(*THOUSAND.to_pixels(place))


def _place_15(place: Point, screen: ScreenTransform) -> str:
    return "point='<point>{} {}</point>'".format(*screen.to_pixels(place))


def _turn(thought: str | None, call: str) -> str:
    return ("" if thought is None else f"Thought: {thought}\n") + f"Action: {call}"


def _say_10(thought: str | None, action: Action, screen: ScreenTransform) -> str:
    return _turn(thought, _call(action, "ui_tars", screen, _place_10))


def _say_15(thought: str | None, action: Action, screen: ScreenTransform) -> str:
    return _turn(thought, _call(action, "ui_tars_1_5", screen, _place_15))


def _read_10(text: str, _: ScreenTransform) -> Reply:
    return _read(text, THOUSAND)


def _read(text: str, screen: ScreenTransform) -> Reply:
    """The first call after the last line that starts with "Action:"."""
    line = action_line(bounded(text))
    line = line if line >= 0 else text.rfind("Action:")
    if line < 0:
        raise UnreadableAction("no Action: line", text.strip().removeprefix("Thought:").strip() or None)
    thought = text[:line].strip().removeprefix("Thought:").strip() or None
    call, more, _ = text[line + len("Action:") :].partition(")\n\n")
    return reply(thought, lambda: _action(read_call(call + more, _FREE), screen))


def _action(call: Call, screen: ScreenTransform) -> Action:
    args = call.args
    start = args.get("start_box") or args.get("point") or args.get("start_point")
    end = args.get("end_box") or args.get("end_point")
    match call.name:
        case "click" | "long_press":
            return action_from_json({"action": call.name, "coordinate": point(start, "the point")}, screen)
        case "scroll" if end is None:
            return view(args.get("direction"))
        case "drag" | "scroll":
            ends = {"coordinate": point(start, "the start"), "coordinate2": point(end, "the end")}
            return action_from_json({"action": "swipe", **ends}, screen)
        case "type":
            return action_from_json({"action": "type", "text": args.get("content")}, screen)
        case "open_app" | "open":
            return action_from_json({"action": "open", "text": args.get("app_name")}, screen)
        case "press_back" | "press_home" | "press_enter":
            return action_from_json({"action": "system_button", "button": call.name.removeprefix("press_")}, screen)
        case "wait":
            return Wait()
        case "finished":
            return Terminate("success")
    raise UnreadableAction(f"{call.name}() is not an action of a phone")


def _with_box_tokens(turn: str) -> str:
    """Wrap points in the box tokens that the model writes and decoding drops as special."""
    return _BARE.sub(r"=\1<|box_start|>(\2)<|box_end|>\1", turn)


_COMMON = partial(Dialect, system="", later="", integrate=integrate, goal_apart=True, images=5, cannot=CANNOT)

UI_TARS = _COMMON(
    name="ui_tars",
    first=lambda goal: _FIRST_10 + goal,
    say=_say_10,
    read=_read_10,
    remember=_with_box_tokens,
    space="thousand",
    swipe="view",
    forgets=frozenset({"wait.seconds", "long_press.seconds", "swipe.points"}),
)
UI_TARS_1_5 = _COMMON(
    name="ui_tars_1_5",
    first=lambda goal: _FIRST_15 + goal,
    say=_say_15,
    read=_read,
    space="picture",
    forgets=frozenset({"wait.seconds", "long_press.seconds"}),
)
