"""Our own dialect (for Qwen2.5-VL and Qwen3-VL), in full and in brief.

Coordinates are absolute pixels of the resized picture that the model is shown. BRIEF has the same turns without the
instructions: a model trained from scratch learns the format from examples, and every prompt token costs. Its pictures come
first, so that the rollouts of a group share the long part of the prompt.
"""

from __future__ import annotations

from guiderail.agent.dialects.base import Dialect, integrate

_FORMAT = "Answer in this format:\n<think>your reasoning</think>\n<action>\none JSON object\n</action>"

_SYSTEM = """You operate a phone for a user. Each turn shows the current screen; you answer with the next single action.

## Format
Reason first, then act:
<think>
What the screen shows, what is already done, what comes next and why.
</think>
<action>
{"action": "click", "coordinate": [x, y]}
</action>

## Actions
One flat JSON object: the action's name and its arguments side by side. Coordinates are pixels of the picture shown.
- {"action": "click", "coordinate": [x, y]}
- {"action": "long_press", "coordinate": [x, y], "time": seconds}
- {"action": "swipe", "coordinate": [x, y], "coordinate2": [x2, y2]}: move the finger from the first point to the second
- {"action": "type", "text": "..."}: enter text into the focused field
- {"action": "system_button", "button": "Back" | "Home" | "Menu" | "Enter"}
- {"action": "open", "text": "app name"}
- {"action": "wait", "time": seconds}
- {"action": "answer", "text": "..."}: tell the user something
- {"action": "key", "text": "key event name"}
- {"action": "terminate", "status": "success" | "failure"}

If the user asked a question, use answer before terminate."""


GUIDERAIL = Dialect(
    name="guiderail",
    system=_SYSTEM,
    first=lambda goal: f"Goal: {goal}\n{_FORMAT}",
    later=_FORMAT,
    integrate=integrate,
)

BRIEF = Dialect(
    name="brief",
    system="",
    first=lambda goal: goal,
    later="next",
    integrate=lambda goal: f"think: {goal}",
    pictures_first=True,
)
