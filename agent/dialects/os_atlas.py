"""OS-Atlas (Pro, action mode): two sections, the second holds one action.

    thoughts:
    open the PocketBook app.
    actions:
    OPEN_APP [PocketBook]

Points are in thousandths of the screen: CLICK <point>[[101, 872]]</point>. SCROLL [UP] names the direction of the view, as
the labels of AndroidControl do: the finger moves down. Besides three basic actions the model accepts custom ones that the
prompt defines; LONG_PRESS, OPEN_APP, PRESS_*, ENTER, WAIT, COMPLETE and IMPOSSIBLE are those of its own evaluations. A text
is everything between the first opening and the last closing bracket, unescaped. One screenshot; the earlier steps are lines
of text (the turns' own thoughts here; the public evaluation put the expert's instructions there, method audit B21).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from guiderail.agent.codec import Reply, action_from_json
from guiderail.agent.dialects.base import (
    THOUSAND,
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
from guiderail.agent.dialects.calls import point
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

CANNOT = frozenset({"answer", "key"})
_BUTTONS = {"Back": "PRESS_BACK", "Home": "PRESS_HOME", "Menu": "PRESS_RECENT", "Enter": "ENTER"}
_HEADER = re.compile(r"^[ \t]*actions:[ \t]*", re.MULTILINE | re.IGNORECASE)
_WORD = re.compile(r"\s*([A-Z_]{2,20})(?![A-Za-z_])")

_SYSTEM = """You operate a phone. From the task, the history and the screenshot, decide on the next single action.

Basic actions; points are thousandths of the screen:
CLICK <point>[[x, y]]</point>
TYPE [text]
SCROLL [UP | DOWN | LEFT | RIGHT]

Custom actions of this device:
LONG_PRESS <point>[[x, y]]</point>
OPEN_APP [name]
PRESS_BACK
PRESS_HOME
PRESS_RECENT: the list of recent apps
ENTER
WAIT: until the screen has loaded
COMPLETE: the task is done
IMPOSSIBLE: the task cannot be done

Write two sections:
thoughts:
your reasoning
actions:
one action"""


def _say(thought: str | None, action: Action, _: ScreenTransform) -> str:
    return ("" if thought is None else f"thoughts:\n{thought}\n") + f"actions:\n{_words(action)}"


def _words(action: Action) -> str:
    match action:
        case Click(place):
            return f"CLICK {_place(place)}"
        case LongPress(place):
            return f"LONG_PRESS {_place(place)}"
        case Swipe():
            return f"SCROLL [{view_word(action).upper()}]"
        case Type(text):
            return f"TYPE [{text}]"
        case Open(text):
            return f"OPEN_APP [{text}]"
        case SystemButton(button):
            return _BUTTONS[button]
        case Wait():
            return "WAIT"
        case Terminate(status):
            return "COMPLETE" if status == "success" else "IMPOSSIBLE"
    raise unsayable("os_atlas", action)


def _place(place: Point) -> str:
    return "<point>[[{}, {}]]</point>".format(*THOUSAND.to_pixels(place))


def _read(text: str, _: ScreenTransform) -> Reply:
    """The action after the first line that starts with "actions:"; a turn of an action alone is accepted too."""
    header = _HEADER.search(bounded(text))
    before, rest = (text[: header.start()], text[header.end() :]) if header else ("", text)
    return reply(_thought(before), lambda: _action(rest))


def _thought(before: str) -> str | None:
    head = before.strip()
    return (head[len("thoughts:") :].strip() if head.lower().startswith("thoughts:") else head) or None


def _action(text: str) -> Action:
    word = _WORD.match(text)
    name, rest = (word[1], text[word.end() :]) if word else ("", "")
    match name:
        case "CLICK" | "LONG_PRESS":
            place = point(rest.strip().partition("\n")[0], "the point")
            return action_from_json({"action": name.lower(), "coordinate": place}, THOUSAND)
        case "SCROLL":
            return view(_bracketed(rest))
        case "TYPE":
            return action_from_json({"action": "type", "text": _bracketed(rest)}, THOUSAND)
        case "OPEN_APP":
            return action_from_json({"action": "open", "text": _bracketed(rest)}, THOUSAND)
        case "WAIT":
            return Wait()
        case "COMPLETE" | "IMPOSSIBLE":
            return Terminate("success" if name == "COMPLETE" else "failure")
    for button, known in _BUTTONS.items():
        if name in (known, f"PRESS_{button.upper()}"):
            return action_from_json({"action": "system_button", "button": button}, THOUSAND)
    raise UnreadableAction(f"no action of the vocabulary at {text.strip()[:60]!r}")


def _bracketed(text: str) -> str | None:
    """The text between the first opening and the last closing bracket; None when one is missing."""
    start, end = text.find("["), text.rfind("]")
    return text[start + 1 : end] if 0 <= start < end else None


def _remember(turn: str) -> str:
    """The turn's own thought, or its action where it has none."""
    header = _HEADER.search(turn)
    if header is None:
        return one_line(turn)
    return one_line(_thought(turn[: header.start()]) or turn[header.end() :])


def _compose(goal: str, history: Sequence[str], picture: Picture) -> Composed:
    return "Screenshot: ", picture, f"\nTask: {goal}\nHistory:\n{numbered(history) or 'None'}"


OS_ATLAS = Dialect(
    name="os_atlas",
    system=_SYSTEM,
    first=lambda goal: goal,
    later="",
    integrate=integrate,
    say=_say,
    read=_read,
    remember=_remember,
    compose=_compose,
    space="thousand",
    swipe="view",
    images=1,
    cannot=CANNOT,
    forgets=frozenset({"wait.seconds", "long_press.seconds", "swipe.points"}),
)
