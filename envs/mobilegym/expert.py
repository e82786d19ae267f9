"""Experts: scripts that solve tasks of MobileGym by the same actions as an agent, and see more of the phone than its screen.

A script is one line of steps with ` > ` between them; {name} is what was drawn for the instance, {name_shown} as its goal
words it; {name_inner} what of it stands in brackets, else all of it; {name:a=b,...} by what the screen calls it:

    text            press what says this (also its label); text~2 the second such thing; one|two: either
    #trigger        press what MobileGym marks with this trigger; #trigger?id={x} the one with this parameter
    @action         press what it marks with this action
    ^text           press the button or switch in the row of this text
    &x,y            press this point of the 360x800 screen, where a button has neither mark nor text
    _step           hold instead of press
    ?label          press the field with this placeholder; ? the first field, ?~2 the second
    =text           write into the focused field
    !back !home !enter !clear !wait !up !down       buttons, empty the field, wait, swipe the finger
    +app            open an app by its id

Where a task wants an answer, the expert then opens the answer sheet, fills in what MobileGym's judge expects, and submits:
so it solves tasks that ask something without having looked. It is a ceiling for what acting needs, not for seeing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from guiderail.agent.types import (
    Action,
    Box,
    Click,
    Key,
    LongPress,
    Open,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)
from guiderail.envs.mobilegym.device import GymPhone
from guiderail.envs.mobilegym.finding import Beyond, How, Target, find
from guiderail.envs.mobilegym.scripts import SCRIPTS

HOLD_SECONDS = 0.8
MOST_SWIPES, MOST_LOOKS = 12, 3
SHEET, SUBMIT, ADD = "answer_sheet", "提交答案|Submit", "添加一项|Add item"
_BUTTONS: Mapping[str, Action] = {
    "back": SystemButton("Back"),
    "home": SystemButton("Home"),
    "enter": SystemButton("Enter"),
    "clear": Key("CLEAR"),
    "wait": Wait(1.0),
    "up": Swipe(Point(0.5, 0.7), Point(0.5, 0.4)),
    "down": Swipe(Point(0.5, 0.4), Point(0.5, 0.7)),
}
_HOWS: Mapping[str, How] = {"#": "trigger", "@": "action", "?": "field", "^": "beside", "&": "point"}


@dataclass(frozen=True, slots=True)
class Move:
    """box: what the action is aimed at, as screen fractions, from the page itself."""

    action: Action
    thought: str
    box: Box | None = None


Moves = Iterator[Move]


class Started(Protocol):
    """What an expert asks of a task: `tasks.GymTask`."""

    name: str
    phone: GymPhone | None
    bench_task: Any

    def expected(self) -> list[Any]: ...


def expert(task: Started) -> Moves:
    """The moves of a started task's expert. It gives up where a step does not find what it wants."""
    try:
        yield from _steps(task)
    except LookupError as error:
        yield Move(Terminate("failure"), str(error))


def _steps(task: Started) -> Moves:
    script = SCRIPTS.get(task.name, "")
    words = _words(task)
    for step in script.split(" > ") if script else ():
        yield from take(task, step.format_map(words))
    if task.bench_task.answer_fields:
        yield from _answer(task)
    yield Move(Terminate("success"), "done")


def known(name: str, asks: bool) -> bool:
    """Whether there is an expert. asks: the task wants nothing but an answer."""
    return name in SCRIPTS or asks


class _Word(str):
    """{mode:grid=双列,list=单列}: what a drawn value is called on the screen."""

    def __format__(self, spec: str) -> str:
        called = dict(pair.split("=", 1) for pair in spec.split(",")) if spec else {}
        return called.get(str(self), str(self))


def _words(task: Started) -> dict[str, str]:
    """What was drawn, by name; with _shown as the goal says it."""
    made = task.bench_task
    words: dict[str, str] = {}
    for name, value in made.params.items():
        rule = made.parameters.get(name, {})
        shown = rule.get("display")
        if shown is None and isinstance(rule.get("values"), dict):
            shown = {inner: outer for outer, inner in rule["values"].items()}
        words[name] = _Word(value)
        words[f"{name}_inner"] = str(value).rpartition("(")[2].rstrip(")")
        words[f"{name}_shown"] = str(made._apply_display(name, value, shown)) if shown is not None else str(value)
    return words


def take(task: Started, step: str) -> Moves:
    """One step of a script, already in the instance's words."""
    kind, rest = step[:1], step[1:]
    if kind == "!":
        yield Move(_BUTTONS[rest], rest)
    elif kind == "+":
        yield Move(Open(rest), f"open {rest}")
    elif kind == "=":
        yield Move(Type(rest), f"write {rest}")
    else:
        yield from press(task, rest if kind == "_" else step, hold=kind == "_")


def _read(what: str) -> tuple[How, str, dict[str, str], int]:
    """The arguments of `find` that a step stands for."""
    how: How = _HOWS.get(what[:1], "text")
    name = what if how == "text" else what[1:]
    name, _, count = name.partition("~") if re.search(r"~\d+$", name) else (name, "", "1")
    name, _, query = name.partition("?") if how == "trigger" else (name, "", "")
    given = dict(pair.split("=", 1) for pair in query.split("&")) if query else {}
    return how, name, given, int(count) - 1


def press(task: Started, what: str, hold: bool = False) -> Moves:
    """Bring something into sight and press it."""
    wanted = [_read(one) for one in what.split("|")]
    if task.phone is None:
        raise LookupError("the task has not been started")
    looks = 0
    for _ in range(MOST_SWIPES + MOST_LOOKS):
        match next(filter(None, (find(task.phone.page, *one) for one in wanted)), None):
            case Target(point, box):
                action = LongPress(point, HOLD_SECONDS) if hold else Click(point)
                yield Move(action, f"press {what}", box)
                return
            case Beyond(start, end):
                yield Move(Swipe(start, end), f"scroll to {what}")
            case None if looks < MOST_LOOKS:
                looks += 1
                yield Move(Wait(1.0), f"wait for {what}")
            case None:
                break
    raise LookupError(f"there is no {what}")


def _answer(task: Started) -> Moves:
    """Fill in and submit the form."""
    made = task.bench_task
    fields, expected = made._resolve_answer_fields(), task.expected()
    yield Move(Open(SHEET), "open the answer sheet")
    if len(fields) != len(expected):
        raise LookupError(f"the form has {len(fields)} fields, the judge wants {len(expected)} answers")
    inputs = 0
    for field, value in zip(fields, expected, strict=True):
        values = value if isinstance(value, list) else [value]
        if field.get("repeatable"):
            for one in values:
                yield from press(task, ADD)
                inputs += 1
                yield from press(task, f"?~{inputs}")
                yield Move(Type(str(one)), f"write {one}")
        elif field.get("type") == "choice":
            yield from press(task, str(value))
        else:
            inputs += 1
            yield from press(task, f"?~{inputs}")
            yield Move(Type(str(values[0])), f"write {values[0]}")
    if inputs:
        yield Move(SystemButton("Back"), "close the keyboard")
    yield from press(task, SUBMIT)
