"""The one judge: does the policy's action agree with the expert's? Reward, patch and metric all use it.

How two actions are compared is a value, `MatchRules`, not code. A score means something only together with the name of its
rules: the public UI-S1 code holds two matchers that disagree on 14 % of AndroidControl's steps. Both are here, by name.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from guiderail.agent.codec import Reply
from guiderail.agent.errors import Raw, UnreadableAction
from guiderail.agent.registry import Registry, value_of
from guiderail.agent.types import (
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
from guiderail.envs.recordings.loose import NotJSON, Raises, Unknown, loosely


@dataclass(frozen=True, slots=True)
class MatchRules:
    """How two actions are compared. `dataclasses.asdict` of it is written into the record of every run.

    Two actions match exactly only if their types match. The verdict also says whether the types alone match.

    Clicks and long presses:
    boxes: which target boxes accept a click: "smallest" by area, "any", "flat" (only origin "bbox"), "none".
    box_scale: a box is enlarged by this factor about its centre first.
    radius: a click within this Euclidean distance of the expert's point, in screen fractions, is right without a box.
    tolerance: added to radius, because 0.54 - 0.50 > 0.04 in floats.
    radius_beside_boxes: whether the radius also counts at steps that have target boxes. False: there the click must be
    inside a box, and the radius is for steps without boxes.
    press_as_click: an expert's long press is met by a click, not by a long press.

    Swipes:
    swipes: "finger" compares finger directions, "any" accepts every swipe, "flipped" expects down where the recording
    stores up, and up where it stores down. Where the loader has already exchanged the ends of a swipe (`Step.exchanged`),
    that is the one exchange, so "flipped" judges alike however a recording was loaded.
    scroll_label: a recorded direction word replaces the expert's motion.

    Text:
    text: "half" is equality, or containment if the shorter text has at least half the length of the longer, after lower
    case, strip and collapsing inner whitespace. "contains" is containment either way after lower case and strip, so the
    empty text matches everything. "equal" is equality after strip. "first_word" is equality, or the same first word in
    lower case (OS-Atlas describes a token F1 over 0.5, but its script compares one word).

    Other actions:
    answers: an expert's answer or key must be met by the "same" type, or by "type" instead; "error": these rules cannot
    judge such a step.
    status: the status of terminate must be the "same" or may be "any"; "error": these rules cannot judge such a step.
    stops: wait and terminate count as one action, whatever the status: each meets the other exactly.
    buttons_are_types: each system button is an action type of its own, so a wrong button is a wrong type. False: a wrong
    button has the right type and is not exact.
    open_by_click: opening an app may also be done by a click on one of the step's boxes (the app's icon).

    Answers and progress:
    loose: an answer in our own dialect is read as UI-S1's public code reads it (`envs.recordings.loose`): only the keys that
    the comparison touches must be right.
    error_zeroes_progress: where the public code of these rules raises an error, the progress of the whole episode is 0
    (`envs.recordings.progress`).
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
    loose: bool = False
    error_zeroes_progress: bool = False
    radius_beside_boxes: bool = True
    buttons_are_types: bool = False
    stops: bool = False
    press_as_click: bool = False


GUIDERAIL = MatchRules("guiderail")
UIS1_PAPER = MatchRules("uis1-paper", boxes="any", text="contains")
UIS1_RELEASED_TRAINING = MatchRules(
    "uis1-released-training",
    boxes="flat",
    tolerance=0.0,
    swipes="flipped",
    scroll_label=True,
    text="contains",
    answers="type",
    status="any",
    loose=True,
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
    loose=True,
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
"""Inside the smallest box at its recorded size (the radius only where there is no box), equal text, finger direction."""

OS_ATLAS = MatchRules("os-atlas", boxes="none", radius=0.14, tolerance=0.0, text="first_word", buttons_are_types=True)
"""OS-Atlas's AndroidControl script, also UI-TARS's setting: clicks within 14 % of the screen, boxes unused."""

AGENTCPM = MatchRules("agentcpm", boxes="any", tolerance=0.0, text="contains", stops=True, press_as_click=True)
"""AgentCPM-GUI's evaluator on AndroidControl, with one difference: it takes the five nodes of the whole tree that are nearest
to the expert's point, we take the recording's candidate boxes."""

SCREENSPOT = MatchRules("screenspot", boxes="any", box_scale=1.0, radius=0.0, radius_beside_boxes=False)
"""ScreenSpot and ScreenSpot-Pro: the point inside the box, nothing else."""


def accept(name: str, found: object) -> MatchRules:
    """A user's value goes by the name it was asked for, which no other rules have."""
    return replace(value_of(found, MatchRules), name=name)


ALL_RULES = Registry(
    "rules",
    "guiderail.rules",
    RULES | {rules.name: rules for rules in (STRICT, OS_ATLAS, AGENTCPM, SCREENSPOT)},
    accept,
)


def judge(step: Step, said: Action | Reply | UnreadableAction, rules: MatchRules = GUIDERAIL) -> Verdict:
    """Compare what the policy said with the expert's action of `step`. Never raises.

    said: loose rules need the reply, not the action alone, to see how it was written. What agrees with an action that was
    accepted beside the expert's is exact; all other verdicts are those of the expert's action. The thoughts are compared where
    both are known.
    """
    verdict = _accepted(step, said, rules)
    if step.thought is None or not isinstance(said, Reply | UnreadableAction):
        return verdict
    return replace(verdict, thought=words_shared(said.thought or "", step.thought))


def words_shared(a: str, b: str) -> float:
    """F1 of two texts as bags of words, in lower case and without punctuation (SQuAD's token F1, arXiv 1606.05250, which also
    drops articles): 2 * common / (words of a + words of b), and 0 where one has no words."""
    ours, theirs = (Counter(re.findall(r"\w+", text.lower())) for text in (a, b))
    return 2 * (ours & theirs).total() / ((ours.total() + theirs.total()) or 1)


def _accepted(step: Step, said: Action | Reply | UnreadableAction, rules: MatchRules) -> Verdict:
    verdict = _judge(step, said, rules)
    for one in () if verdict.exact else step.accepted:
        other = replace(step, action=one.action, boxes=one.boxes, scroll_label=None, exchanged=False, accepted=())
        if (found := _judge(other, said, rules)).exact:
            return replace(found, why=f"{found.why}; accepted beside the expert's {step.action.name}")
    return verdict


def _judge(step: Step, said: Action | Reply | UnreadableAction, rules: MatchRules) -> Verdict:
    if isinstance(said, Reply | UnreadableAction):
        if rules.loose and said.raw is not None:
            return _loose(step, said.raw, rules)
        if isinstance(said, UnreadableAction):
            return _unreadable(said, rules)
        said = said.action
    return _compare(step, said, rules)


def _loose(step: Step, raw: Raw, rules: MatchRules) -> Verdict:
    """The comparison gets to the arguments where the kinds of the actions agree, except that "any" swipe looks at none."""
    try:
        said, wrong = loosely(raw)
    except NotJSON as error:
        return _unreadable(error, rules)
    except Raises as error:
        return _raised(str(error), rules)
    verdict = _compare(step, said, rules)
    touched = verdict.type_ok and not (isinstance(said, Swipe) and rules.swipes == "any")
    return _raised(wrong, rules) if wrong and touched else verdict


def _compare(step: Step, said: Action | Unknown, rules: MatchRules) -> Verdict:
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
            return _swipe(swipe, expert, step, rules)
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


def _unreadable(error: Exception, rules: MatchRules) -> Verdict:
    return Verdict(False, False, False, f"unreadable: {error}", judgeable=not rules.loose)


def _raised(why: str, rules: MatchRules) -> Verdict:
    return Verdict(True, False, False, f"{rules.name} raises an error: {why}", judgeable=False)


def _no_rule(expert: Action, rules: MatchRules) -> Verdict:
    return Verdict(True, False, False, f"{rules.name} cannot judge an expert's {expert.name}", judgeable=False)


def _targets(step: Step, rules: MatchRules) -> list[Box]:
    """The boxes that accept a click under these rules, before they are enlarged."""
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


def _swipe(said: Swipe, expert: Swipe, step: Step, rules: MatchRules) -> Verdict:
    if rules.swipes == "any":
        return _verdict(True, True, f"swiped {said.direction}, any swipe is accepted")
    wanted, source, label = expert.direction, "expert swiped", step.scroll_label
    flips = rules.swipes == "flipped" and not step.exchanged
    if rules.scroll_label and label is not None:
        wanted, source, flips = label, "the scroll label is", rules.swipes == "flipped"
    if flips:
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
    """First word of the text in brackets, as OS-Atlas's script splits it: "[miles" of "[miles davis]", "[miles]" of "[miles]"."""
    return f"[{text}]".lower().split()[0]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
