"""An attended attempt as plain JSON values: what a page draws, and what `guiderail run --json` prints."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from guiderail.agent.types import Action, Click, LongPress, Point, Swipe, Turn
from guiderail.envs.live.device import Element
from guiderail.launch.console.risky import touched
from guiderail.launch.console.standing import Standing
from guiderail.launch.sheet import said

LONGEST = 4000
"""Characters of any text that a model or a device wrote."""


def view(attempt: Standing) -> dict[str, Any]:
    """screen.src is the digest of its image; positions are fractions of the screen."""
    with attempt.lock:
        screen = attempt.screen
        return {
            "revision": attempt.revision,
            "phase": attempt.phase,
            "seconds": round(time.monotonic() - attempt.since, 1),
            "running": attempt.running,
            "goal": cut(attempt.goal),
            "unit": attempt.place.task.id if attempt.place else "",
            "agent": attempt.actor.name if attempt.actor else "",
            "max_steps": attempt.max_steps,
            "screen": screen and {"src": screen.digest, "w": screen.width, "h": screen.height},
            "turns": [turn_view(turn, attempt) for turn in attempt.turns],
            "proposal": attempt.proposal and turn_view(attempt.proposal, attempt),
            "question": attempt.question,
            "ended": attempt.ended,
            "success": None if attempt.outcome is None else attempt.outcome.success,
            "checked_by": None if attempt.outcome is None else attempt.outcome.checked_by,
            "reason": cut(attempt.reason),
            "can_undo": attempt.undoable,
            "note": cut(attempt.note),
        }


def turn_view(turn: Turn, attempt: Standing) -> dict[str, Any]:
    """p: the probability of the whole answer word for word, where the policy reports it. likely: see likely.py."""
    screen, logprobs = turn.screen.screenshot, turn.completion.logprobs
    seen = attempt.seen.get(turn.index, ())
    return {
        "index": turn.index,
        "by": turn.by,
        "thought": None if turn.thought is None else cut(turn.thought),
        "action": None if turn.action is None else drawn(turn.action, seen),
        "text": cut(turn.completion.text),
        "note": cut(turn.note),
        "p": math.exp(sum(logprobs)) if logprobs else None,
        "screen": {"src": screen.digest, "w": screen.width, "h": screen.height},
        "likely": [
            {
                "action": one.action and drawn(one.action, seen),
                "share": one.share,
                "drawn": one.drawn,
                "chosen": one.chosen,
            }
            for one in attempt.likely.get(turn.index, ())
        ],
    }


def drawn(action: Action, seen: Sequence[Element] = ()) -> dict[str, Any]:
    """{name, label, at?, to?}: what to call it and what to draw. seen: what was visible, so that a touch has a name."""
    row: dict[str, Any] = {"name": action.name, "label": cut(said(action))}
    match action:
        case Click(point) | LongPress(point):
            row["at"] = place(point)
            if words := touched(point, seen):
                row["label"] = cut(f"{said(action)} “{words}”")
        case Swipe(start, end):
            row |= {"at": place(start), "to": place(end)}
    return row


def place(point: Point) -> list[float]:
    return [round(point.x, 4), round(point.y, 4)]


def cut(text: str) -> str:
    """No longer than LONGEST, and without halves of surrogate pairs, which no JSON reader takes."""
    plain = text.encode("utf-8", "replace").decode()
    return plain if len(plain) <= LONGEST else plain[:LONGEST] + "…"
