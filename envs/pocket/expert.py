"""The next finger movement towards a `Want`, such as "on this page, tap this".

A template says what it wants next, from the phone's state alone. `move` finds the way there: it closes pop-ups, leaves wrong
apps, opens the page and scrolls until the target is visible. So the same expert works on undisturbed and disturbed phones,
and after mistakes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from guiderail.agent.types import (
    Action,
    Answer,
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
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.ui import DISMISS, Op, Placed, Scene

Route = tuple[tuple[str, str], ...]
"""Pages below an app's first page, as (page, argument)."""


@dataclass(frozen=True, slots=True)
class Want:
    """The next thing to bring about.

    app, route: the page where it happens. ops: tried from the last to the first, so ("ask", "delete") answers a dialog
    that is open and opens it otherwise. text: what the field named by `ops` = ("focus", name) must hold; enter: press
    Enter once it does. hold: reach ops[0] by a long press. menu: reach the dialog through the Menu button. use_open: start
    the app by name. say: what a careful person would note down now, such as what is done already. answer: give the user
    this answer.
    """

    app: str = ""
    route: Route = ()
    ops: tuple[Op, ...] = ()
    text: str | None = None
    hold: bool = False
    menu: bool = False
    enter: bool = False
    use_open: bool = False
    say: str = ""
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One expert step. target: the cell that it acts on. thought: an informative one, which `thought` may replace."""

    action: Action
    thought: str
    target: Placed | None = None


VAGUE = ("next", "go on", "tap it", "continue", "now this")


def move(phone: Phone, want: Want | None) -> Move:
    """The next step towards `want`; Terminate when nothing is wanted any more."""
    box = phone.state.dialog
    if box and box.until:
        return Move(Wait(2.0), "wait for it")
    if box:
        return _dialog(phone, want)
    if want is None:
        return Move(Terminate("success"), "all done")
    return _walk(phone, want) or _arrived(phone, want)


def thought(text: str, seed: int, index: int, informative: float = 0.5) -> str:
    """`text`, or in the other steps a vague thought that remembers nothing. informative: share of steps that get `text`."""
    rng = random.Random(f"thought-{seed}-{index}")
    return text if rng.random() < informative else rng.choice(VAGUE)


def _note(want: Want, text: str) -> str:
    return " ".join(f"{want.say} {text}".split()[:10])


def _dialog(phone: Phone, want: Want | None) -> Move:
    """Answer a dialog as wanted, or close it."""
    found = next((hit for op in reversed(want.ops if want else ()) if (hit := phone.scene().find(op))), None)
    if found and want:
        return _click(phone, found, _note(want, f"tap {found.cell.text}"))
    close = phone.scene().find(DISMISS)
    if close is None:
        return Move(SystemButton("Back"), "close this")
    return _click(phone, close, f"close this tap {close.cell.text}")


def _walk(phone: Phone, want: Want) -> Move | None:
    """One step of the way to the wanted page; None when it is in front."""
    front = phone.state.front
    if front is None or front.app != want.app:
        if want.use_open:
            return Move(Open(want.app), _note(want, f"open {want.app}"))
        if front is not None:
            return Move(SystemButton("Home"), _note(want, "go home"))
        return _reach(phone, want, ("launch", want.app))
    here = tuple(s.key for s in phone.state.stack)
    path = (("main", ""), *want.route)
    if here == path:
        return None
    if here == path[: len(here)]:
        page, argument = path[len(here)]
        return _reach(phone, want, ("go", page, argument))
    return Move(SystemButton("Back"), _note(want, "go back"))


def _arrived(phone: Phone, want: Want) -> Move:
    front = phone.state.front
    if want.answer is not None:
        return Move(Answer(want.answer), _note(want, "tell it"))
    if front and want.text is not None:
        name = want.ops[0][1]
        held = front.fields.get(name, "")
        if held != want.text:
            if front.focus == name and (front.fresh or not held):
                return Move(Type(want.text), _note(want, f"type {want.text}"))
            return _reach(phone, want, want.ops[0])
        if want.enter and front.focus == name:
            return Move(SystemButton("Enter"), _note(want, "press Enter"))
        return _reach(phone, want, want.ops[-1])
    if want.menu:
        return Move(SystemButton("Menu"), _note(want, "open menu"))
    return _reach(phone, want, want.ops[0], want.hold)


def _reach(phone: Phone, want: Want, op: Op, hold: bool = False) -> Move:
    """Tap the cell with this op, or scroll towards it. The thought names the cell in both cases, because only
    looking for it shows whether it is visible."""
    verb = "hold" if hold else "tap"
    scene = phone.scene()
    visible = scene.find(op)
    if visible and not visible.sliver:
        thought = _note(want, f"{verb} {visible.cell.text}")
        if hold:
            return Move(LongPress(_centre(phone, visible), 1.0), thought, visible)
        return _click(phone, visible, thought)
    page = phone.page()
    found = next(((i, c) for i, line in enumerate(page.lines) for c in line if op in (c.op, c.hold)), None)
    if found is None:
        return Move(SystemButton("Back"), _note(want, "go back"))
    line, cell = found
    top, bottom = _reel(scene)
    swipe = Swipe(bottom, top) if phone.is_below(line) else Swipe(top, bottom)
    return Move(swipe, _note(want, f"{verb} {cell.text}"))


def _reel(scene: Scene) -> tuple[Point, Point]:
    """Where a finger scrolls from and to."""
    if scene.reel is None:
        return Point(0.5, 0.3), Point(0.5, 0.7)
    low, high = scene.reel
    third = 0.3 * (high - low)
    return Point(0.5, (low + third) / scene.height), Point(0.5, (high - third) / scene.height)


def _centre(phone: Phone, item: Placed) -> Point:
    left, top, right, bottom = item.box
    return Point((left + right) / 2 / phone.width, (top + bottom) / 2 / phone.height)


def _click(phone: Phone, item: Placed, text: str) -> Move:
    return Move(Click(_centre(phone, item)), text, item)
