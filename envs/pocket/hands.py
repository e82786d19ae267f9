"""Actions directly on a phone, without android_env: for recording and for tests."""

from __future__ import annotations

import math

from guiderail.agent.types import (
    Action,
    Answer,
    Click,
    Key,
    LongPress,
    Open,
    Point,
    Screenshot,
    Swipe,
    SystemButton,
    Type,
    Wait,
)
from guiderail.envs.android.adb import key_commands, type_commands
from guiderail.envs.live.device import Element, encode_png
from guiderail.envs.pocket.adb.shell import run
from guiderail.envs.pocket.draw import draw
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import State
from guiderail.envs.pocket.tree import elements


def perform(phone: Phone, action: Action) -> tuple[str, ...]:
    """Do one action. Returns the answers that it gave to the user."""
    match action:
        case Click(point):
            phone.tap(*_on_screen(point))
        case LongPress(point, seconds):
            (phone.hold if seconds >= 0.5 else phone.tap)(*_on_screen(point))
        case Swipe(start, end):
            phone.swipe(*_on_screen(start), *_on_screen(end))
        case Type(text):
            for command in type_commands(text):
                run(phone, command)
        case SystemButton(button):
            phone.key(button.upper())
        case Key(text):
            for command in key_commands(text):
                run(phone, command)
        case Open(text):
            phone.open(text)
        case Wait(seconds):
            phone.elapse(min(seconds, 60.0))
        case Answer(text):
            return (text,)
    return ()


def _on_screen(point: Point) -> tuple[float, float]:
    """Points outside are moved to the edge, as on all devices."""
    return min(max(point.x, 0.0), INSIDE), min(max(point.y, 0.0), INSIDE)


INSIDE = math.nextafter(1.0, 0.0)


class PhoneInHand:
    """A phone as a Device in this process, without android_env: fast, for recording and tests."""

    def __init__(self, phone: Phone):
        self.phone = phone
        self._answers: list[str] = []

    def screenshot(self) -> Screenshot:
        return encode_png(draw(self.phone.scene()))

    def act(self, action: Action) -> None:
        self._answers += perform(self.phone, action)

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    def shell(self, args: list[str]) -> str:
        return run(self.phone, args)

    def elements(self) -> list[Element]:
        return elements(self.phone)

    def snapshot(self) -> object:
        return self.phone.snapshot(), self.answers

    def restore(self, token: object) -> None:
        match token:
            case (State() as state, tuple(answers)):
                self.phone.restore(state)
                self._answers = list(answers)
            case _:
                raise TypeError("this token was not made by this device")

    def close(self) -> None:
        pass
