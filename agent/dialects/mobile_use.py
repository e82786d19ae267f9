"""Qwen's `mobile_use` tool call, as in the model family's own mobile agent recipes.

    <tool_call>
    {"name": "mobile_use", "arguments": {"action": "click", "coordinate": [546, 1204]}}
    </tool_call>

The arguments are our own flat JSON keys. Qwen2.5-VL uses pixels of the resized picture, whose size the prompt gives.
Qwen3-VL always uses a screen of 999 x 999, and writes a thought and one line about its action before the call. Each prompt
shows one screenshot, and the earlier steps as one line of text: Qwen2.5-VL's own calls, Qwen3-VL's own action lines. A swipe
is finger motion from point to point.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from guiderail.agent.codec import Reply, action_from_json, action_to_json, show
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
)
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Picture

QWEN25_CANNOT = frozenset({"answer"})
QWEN3_CANNOT = frozenset({"open", "key"})
GRID = ScreenTransform(999, 999)

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"

_ARGUMENTS = {
    "key": '{"action": "key", "text": "volume_up"}: an adb key event',
    "click": '{"action": "click", "coordinate": [x, y]}',
    "long_press": '{"action": "long_press", "coordinate": [x, y], "time": seconds}',
    "swipe": '{"action": "swipe", "coordinate": [x, y], "coordinate2": [x2, y2]}: the finger moves from the first point '
    "to the second",
    "type": '{"action": "type", "text": "..."}: into the focused field',
    "answer": '{"action": "answer", "text": "..."}: tell the user something',
    "system_button": '{"action": "system_button", "button": "Back" | "Home" | "Menu" | "Enter"}',
    "open": '{"action": "open", "text": "app name"}',
    "wait": '{"action": "wait", "time": seconds}',
    "terminate": '{"action": "terminate", "status": "success" | "failure"}',
}


def _system(size: str, cannot: frozenset[str], answer: str) -> str:
    actions = "\n".join(f"- {line}" for name, line in _ARGUMENTS.items() if name not in cannot)
    return f"""You operate a phone through one tool, mobile_use. Its arguments are one of:
{actions}
Coordinates are x from the left and y from the top on a screen of {size}. Aim at the middle of what you touch.

{answer}
{_OPEN}
{{"name": "mobile_use", "arguments": {{...}}}}
{_CLOSE}"""


def _say(cannot: frozenset[str], name: str, text: str | None, action: Action, screen: ScreenTransform) -> str:
    """text: written before the call, None for nothing."""
    if action.name in cannot:
        raise unsayable(name, action)
    call = json.dumps({"name": "mobile_use", "arguments": action_to_json(action, screen)}, ensure_ascii=False)
    call = call.replace("</", "<\\/")  # the same JSON, and no text can close the block early
    before = (text or "").replace(_OPEN, "tool_call")  # else reading would begin there
    return (f"{before}\n" if before else "") + f"{_OPEN}\n{call}\n{_CLOSE}"


def _say_qwen25(thought: str | None, action: Action, screen: ScreenTransform) -> str:
    return _say(QWEN25_CANNOT, "qwen2_5_vl", thought, action, screen)


def _say_qwen3(thought: str | None, action: Action, _: ScreenTransform) -> str:
    lines = ("" if not thought else f"Thought: {thought}\n") + f"Action: {one_line(describe(action))}"
    return _say(QWEN3_CANNOT, "qwen3_vl", lines, action, GRID)


def _read(text: str, screen: ScreenTransform, lines: bool) -> Reply:
    """lines: whether thought and action have lines of their own before the call."""
    before, opened, rest = bounded(text).partition(_OPEN)
    thought = (_thought(before) if lines else before.strip()) or None
    if not opened:
        raise UnreadableAction(f"no {_OPEN} block", thought)
    try:
        call = json.loads(rest.partition(_CLOSE)[0])
    except (ValueError, RecursionError) as error:
        raise UnreadableAction(f"the tool call is not JSON: {error}"[:200], thought) from None
    arguments = call.get("arguments") if isinstance(call, dict) else None
    if not isinstance(arguments, dict):
        raise UnreadableAction(f"the tool call is {show(call)}, expected an object with arguments", thought)
    return reply(thought, lambda: action_from_json(arguments, screen))


def _thought(before: str) -> str:
    """The text after "Thought:" up to the line of the action."""
    head = before.strip()
    at = action_line(head)
    return (head[:at] if at >= 0 else head).strip().removeprefix("Thought:").strip()


def _read_qwen25(text: str, screen: ScreenTransform) -> Reply:
    return _read(text, screen, lines=False)


def _read_qwen3(text: str, _: ScreenTransform) -> Reply:
    return _read(text, GRID, lines=True)


def _remember_call(turn: str) -> str:
    """The turn's own call as one line; the whole turn where there is none."""
    _, opened, rest = turn.partition(_OPEN)
    return one_line(rest.partition(_CLOSE)[0] if opened else turn)


def _remember_line(turn: str) -> str:
    """The turn's own action line."""
    before = turn.partition(_OPEN)[0].strip()
    at = action_line(before)
    return one_line(before[at + len("Action:") :] if at >= 0 else turn)


def _compose(goal: str, history: Sequence[str], picture: Picture) -> Composed:
    done = numbered(history, "; ")
    return f"The user asks: {goal}\nDone so far on this device: {done or 'nothing'}", picture


_COMMON = partial(Dialect, first=lambda goal: goal, later="", integrate=integrate, compose=_compose, images=1)

QWEN2_5_VL = _COMMON(
    name="qwen2_5_vl",
    system=_system("WIDTHxHEIGHT", QWEN25_CANNOT, "Answer with one call:"),
    say=_say_qwen25,
    read=_read_qwen25,
    remember=_remember_call,
    space="picture",
    cannot=QWEN25_CANNOT,
)
QWEN3_VL = _COMMON(
    name="qwen3_vl",
    system=_system(
        "999x999",
        QWEN3_CANNOT,
        "Answer with three parts and nothing else: one sentence after `Thought:`, one short imperative after `Action:`, "
        "and one call:",
    ),
    say=_say_qwen3,
    read=_read_qwen3,
    remember=_remember_line,
    space="thousand",
    cannot=QWEN3_CANNOT,
)
