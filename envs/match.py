"""The one judge: does the policy's action agree with the expert's? Reward, patch and metric all ask here.

How two actions are compared is a value, not code. A number without the name of its rule is not a number: the public
UI-S1 code holds two matchers that disagree on 14 % of AndroidControl's steps, so both are kept here by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from agent.errors import UnreadableAction
from agent.types import (
    Action,
    Answer,
    Box,
    Click,
    Direction,
    Key,
    LongPress,
    Open,
    Point,
    Step,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Verdict,
    Wait,
)


@dataclass(frozen=True, slots=True)
class MatchRules:
    """How two actions are compared. `dataclasses.asdict` of it belongs into the record of every run.

    boxes: which target boxes accept a click: "smallest" by area, "any", "flat" (only origin "bbox"), "none".
    box_scale: a box is enlarged by this factor about its centre first. radius: Euclidean distance in screen fractions
    within which a click is right anyway. tolerance: added to radius, because 0.54 - 0.50 > 0.04 in floats.
    swipes: "finger" compares finger directions, "any" accepts every swipe, "flipped" wants the expert's up as down and
    down as up. scroll_label: a recorded direction word is used in place of the expert's motion.
    text: "half" is equality, or containment when the shorter has at least half the longer's length, after lower case,
    strip and collapsing inner whitespace; "contains" is containment either way after lower case and strip, so the empty
    text agrees with everything; "equal" is equality of what is stripped; "first_word" is equality, or the same first word
    in lower case (OS-Atlas means a token F1 over 0.5, but its script compares one word).
    answers: an expert's answer or key is met by the "same" type, only by "type", or the rule has no answer ("error").
    status: the status of terminate must be the "same", may be "any", or the rule has no answer ("error").
    open_by_click: opening an app may also be done by a click on one of the step's boxes (the app's icon).
    error_zeroes_progress: an unreadable or unjudgeable step wipes the progress of its whole episode, as
    the exceptions in UI-S1's evaluator do.
    """

    name: str
    boxes: Literal["smallest", "any", "flat", "none"] = "smallest"
    box_scale: float = 1.2
    radius: float = 0.04
    tolerance: float = 1e-9
    swipes: Literal["finger", "any", "flipped"] = "finger"
    scroll_label: bool = False
    text: Literal["half", "contains", "equal", "first_word"] = "half"
    answers: Literal["same", "type", "error"] = "same"
    status: Literal["same", "any", "error"] = "same"
    open_by_click: bool = False
    error_zeroes_progress: bool = False
    radius_beside_boxes: bool = True
    buttons_are_types: bool = False
    stops: bool = False
    press_as_click: bool = False


GUIDERAIL = MatchRules("guiderail")
UIS1_PAPER = MatchRules("uis1-paper", boxes="any", text="contains")
# "flipped" undoes recordings whose vertical swipes are stored inverted; it reproduces the released training only on
# episodes that were loaded as stored (swipes="finger").
UIS1_RELEASED_TRAINING = MatchRules(
    "uis1-released-training",
    boxes="flat",
    tolerance=0.0,
    swipes="flipped",
    scroll_label=True,
    text="contains",
    answers="type",
    status="any",
)
UIS1_RELEASED_VALIDATION = replace(UIS1_RELEASED_TRAINING, name="uis1-released-validation", scroll_label=False)
UIS1_RELEASED_SOP = MatchRules(
    "uis1-released-sop",
    boxes="none",
    tolerance=0.0,
    swipes="any",
    text="contains",
    answers="error",
    status="error",
    error_zeroes_progress=True,
)
UIS1_SOP_AS_WRITTEN = replace(UIS1_RELEASED_SOP, name="uis1-sop-as-written", boxes="any", open_by_click=True)

RULES: dict[str, MatchRules] = {
    rules.name: rules
    for rules in (
        GUIDERAIL,
        UIS1_PAPER,
        UIS1_RELEASED_TRAINING,
        UIS1_RELEASED_VALIDATION,
        UIS1_RELEASED_SOP,
        UIS1_SOP_AS_WRITTEN,
    )
}

STRICT = MatchRules("strict", box_scale=1.0, radius_beside_boxes=False, text="equal")
"""Inside the smallest box as drawn (the radius only where there is none), the very text, finger direction."""

OS_ATLAS = MatchRules("os-atlas", boxes="none", radius=0.14, tolerance=0.0, text="first_word", buttons_are_types=True)
"""OS-Atlas's AndroidControl script, also UI-TARS's setting: clicks within 14 % of the screen, boxes unused."""

AGENTCPM = MatchRules("agentcpm", boxes="any", tolerance=0.0, text="contains", stops=True, press_as_click=True)
"""AgentCPM-GUI's evaluator on AndroidControl. It looks for the five nodes nearest to the expert's point in the whole
tree, where we have the recording's candidate boxes; else as published."""

SCREENSPOT = MatchRules("screenspot", boxes="any", box_scale=1.0, radius=0.0, radius_beside_boxes=False)
"""ScreenSpot and ScreenSpot-Pro: the point inside the box, nothing else."""

ALL_RULES: dict[str, MatchRules] = RULES | {rules.name: rules for rules in (STRICT, OS_ATLAS, AGENTCPM, SCREENSPOT)}


def judge(step: Step, said: Action | UnreadableAction, rules: MatchRules = GUIDERAIL) -> Verdict:
    """Compare what the policy said with the expert's action of `step`. Never raises."""
    if isinstance(said, UnreadableAction):
        return Verdict(False, False, False, f"unreadable: {said}")
    match step.action, said:
        case ((Answer() | Key()) as expert, _) if rules.answers == "error":
            return _no_rule(expert, rules)
        case (Terminate() as expert, _) if rules.status == "error":
            return _no_rule(expert, rules)
        case (Answer(wanted) | Key(wanted), Type(text)) if rules.answers == "type":
            return _text(text, wanted, rules)
        case (Answer() | Key(), _) if rules.answers == "type":
            return _verdict(False, False, f"chose {said.name}, the rule wants type for the expert's {step.action.name}")
        case (Wait() | Terminate(), Wait() | Terminate()) if rules.stops:
            return _verdict(True, True, f"stopped by {said.name}, expert by {step.action.name}: one action here")
        case (LongPress(target), Click(point)) if rules.press_as_click:
            return _click(point, target, _targets(step, rules), rules)
        case (LongPress(), LongPress()) if rules.press_as_click:
            return _verdict(False, False, "chose long_press, this rule takes the expert's for a click")
        case (Click(target), Click(point)) | (LongPress(target), LongPress(point)):
            return _click(point, target, _targets(step, rules), rules)
        case (Open(), Click(point)) if rules.open_by_click and (icons := _targets(step, rules)):
            return _click(point, icons[0].center, icons, rules)
        case (Swipe() as expert, Swipe() as swipe):
            return _swipe(swipe, expert, step.scroll_label, rules)
        case (
            (Type(wanted), Type(text))
            | (Open(wanted), Open(text))
            | (Answer(wanted), Answer(text))
            | (Key(wanted), Key(text))
        ):
            return _text(text, wanted, rules)
        case (SystemButton(wanted), SystemButton(button)):
            same = button == wanted
            return _verdict(same or not rules.buttons_are_types, same, f"pressed {button}, expert pressed {wanted}")
        case (Wait(), Wait()):
            return _verdict(True, True, "waited, as the expert did")
        case (Terminate(wanted), Terminate(status)):
            same = rules.status == "any" or status == wanted
            return _verdict(True, same, f"ended with {status}, expert ended with {wanted}")
    return _verdict(False, False, f"chose {said.name}, expert chose {step.action.name}")


def _verdict(type_ok: bool, exact: bool, why: str) -> Verdict:
    return Verdict(True, type_ok, exact, why)


def _no_rule(expert: Action, rules: MatchRules) -> Verdict:
    return Verdict(True, False, False, f"{rules.name} cannot judge an expert's {expert.name}", judgeable=False)


def _targets(step: Step, rules: MatchRules) -> list[Box]:
    """The boxes that accept a click under these rules, not yet enlarged."""
    match rules.boxes:
        case "none":
            return []
        case "flat":
            return [target.box for target in step.boxes if target.origin == "bbox"]
        case "any":
            return [target.box for target in step.boxes]
        case "smallest":
            # Recordings list every node that holds the point, up to full-page containers: with all of them 22.6 % of
            # random clicks on AndroidControl's test split would be right.
            return sorted((target.box for target in step.boxes), key=lambda box: box.area)[:1]


def _click(point: Point, target: Point, boxes: list[Box], rules: MatchRules) -> Verdict:
    away = math.dist((point.x, point.y), (target.x, target.y))
    # Scaling by 1 would move an edge by a rounding error, and clicks on the edge count.
    grown = boxes if rules.box_scale == 1 else [box.scaled(rules.box_scale) for box in boxes]
    if any(box.contains(point) for box in grown):
        return _verdict(True, True, f"clicked inside the target box, {away:.2g} away from the expert's point")
    near = away <= rules.radius + rules.tolerance and (rules.radius_beside_boxes or not boxes)
    outside = " and outside its box" if boxes and not near else ""
    return _verdict(True, near, f"clicked {away:.2g} away from the expert's point{outside}")


_FLIPPED: dict[Direction, Direction] = {"up": "down", "down": "up", "left": "left", "right": "right"}


def _swipe(said: Swipe, expert: Swipe, label: Direction | None, rules: MatchRules) -> Verdict:
    if rules.swipes == "any":
        return _verdict(True, True, f"swiped {said.direction}, any swipe is accepted")
    wanted, source = expert.direction, "expert swiped"
    if rules.scroll_label and label is not None:
        wanted, source = label, "the scroll label is"
    if rules.swipes == "flipped":
        return _verdict(
            True, said.direction == _FLIPPED[wanted], f"swiped {said.direction}, {source} {wanted}, the rule flips it"
        )
    return _verdict(True, said.direction == wanted, f"swiped {said.direction}, {source} {wanted}")


def _text(said: str, wanted: str, rules: MatchRules) -> Verdict:
    why = f"wrote {_short(said)}, expert wrote {_short(wanted)}"
    if rules.text == "contains":
        a, b = said.lower().strip(), wanted.lower().strip()
        return _verdict(True, a in b or b in a, why)
    if rules.text == "equal":
        return _verdict(True, said.strip() == wanted.strip(), why)
    if rules.text == "first_word":
        return _verdict(True, said == wanted or _first_word(said) == _first_word(wanted), why)
    short, long = sorted((" ".join(said.lower().split()), " ".join(wanted.lower().split())), key=len)
    return _verdict(True, short == long or (short in long and 2 * len(short) >= len(long)), why)


def _first_word(text: str) -> str:
    """Of the text in brackets, as that script splits it: "[miles" of "[miles davis]", but "[miles]" of "[miles]"."""
    return f"[{text}]".lower().split()[0]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
