"""A simulated phone of MobileGym as a Device. Actions go through MobileGym's own input layer.

It has no double tap and no drag of its own among our actions; a swipe that begins on something which does not scroll is
seen by the page as the finger's movement. Text is added to the focused field, and to nothing where none is focused.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Mapping

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import (
    Action,
    Answer,
    Box,
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
from guiderail.envs.live.device import Element
from guiderail.envs.mobilegym.page import HEIGHT, WIDTH, Page

LONGEST_WAIT, LONGEST_PRESS, SHORTEST_PRESS = 60.0, 10.0, 0.8
SWIPE_MS = 400
KEYS = {"ENTER": "Enter", "BACK": "Back", "HOME": "Home", "APP_SWITCH": "Menu", "MENU": "Menu"}
_PRESS = {
    "Enter": "() => { window.__SIM_INPUT__.enter(); }",
    "Back": "() => { window.__OS__.handleBack(); }",
    "Home": "() => { window.__OS__.goHome(); }",
    "Menu": "() => { (window.__SIM_INPUT__.recent ?? window.__OS__.showRecents)(); }",
}
# Android's keys DEL and CLEAR: a field's value is set as MobileGym's own input layer sets it, so that the page notices.
_EDIT = """() => {
  const at = document.activeElement;
  if (!at?.matches?.("input, textarea")) return;
  const left = %s;
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(at), "value").set.call(at, left);
  at.dispatchEvent(new Event("input", {bubbles: true}));
}"""
EDITS = {"CLEAR": _EDIT % '""', "DEL": _EDIT % "[...at.value].slice(0, -1).join('')"}
EDITS["BACKSPACE"] = EDITS["DEL"]
_TAP = "(x, y) => { window.__SIM_INPUT__.tap(x, y); }"
_HOLD = "(x, y, ms) => window.__SIM_INPUT__.longPress(x, y, ms)"
_SWIPE = "(from, to, ms) => window.__SIM_INPUT__.swipe(from, to, {ms})"
# MobileGym's own typing throws where nothing is focused; a person's typing then does nothing.
_TYPE = """async text => {
  const at = document.activeElement;
  if (at?.matches?.("input, textarea") || at?.isContentEditable) await window.__SIM_INPUT__.type(text);
}"""
_OPEN = "app => { window.__OS__.openApp(app); }"
# Things to press (as MobileGym marks them, or as the browser knows them), fields, and texts that stand alone. A thing that
# something else covers at its middle is not seen.
ELEMENTS = """(width, height, most) => {
  const press = '[data-trigger],[data-action],button,a[href],select,[role="button"],[role="switch"],[role="tab"]';
  const made = [];
  for (const e of document.body.querySelectorAll("*")) {
    const field = e.matches("input:not([type=checkbox]):not([type=radio]), textarea") || e.getAttribute("contenteditable") === "true";
    const own = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent).join(" ").trim();
    const pressable = e.matches(press) || (e.style.cursor === "pointer");
    const tick = e.matches('input[type=checkbox], input[type=radio], [role="switch"], [aria-checked]');
    if (!field && !pressable && !own && !tick) continue;
    if (!pressable && !field && !tick && e.parentElement?.closest(press)) continue;
    const r = e.getBoundingClientRect();
    const [left, top, right, bottom] = [Math.max(r.left, 0), Math.max(r.top, 0), Math.min(r.right, width), Math.min(r.bottom, height)];
    if (right - left < 1 || bottom - top < 1) continue;
    const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    if (!hit || !(e.contains(hit) || hit.contains(e))) continue;
    const checked = !tick ? null : e.checked ?? e.getAttribute("aria-checked") === "true";
    made.push({
      text: String(field ? e.value ?? e.textContent : (e.innerText || e.getAttribute("aria-label") || "")).trim().slice(0, 500),
      box: [left / width, top / height, right / width, bottom / height],
      kind: field ? "field" : tick ? "toggle" : pressable ? "button" : "text",
      clickable: pressable || field || tick, checked, focused: e === document.activeElement,
    });
    if (made.length >= most) break;
  }
  return made;
}"""
MOST_ELEMENTS = 500


class GymPhone:
    """One attempt's phone. begin: sets the page up anew, as at the start of the attempt. apps: names of apps -> their ids.

    There is no shell. A snapshot holds what was done, and the state it led to: `restore` begins anew, does it again, which
    brings back the screen and the way back from it, and puts the state right where time has left a trace.
    """

    def __init__(self, page: Page, begin: Callable[[], object], apps: Mapping[str, str]):
        self.page = page
        self._begin, self._apps = begin, apps
        self._answers: list[str] = []
        self._done: list[Action] = []

    def screenshot(self) -> Screenshot:
        scale = self.page.scale
        return Screenshot(WIDTH * scale, HEIGHT * scale, data=self.page.shoot())

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    def act(self, action: Action) -> None:
        self._done.append(action)
        match action:
            case Click(point):
                self.page.evaluate(_TAP, *_css(point))
            case LongPress(point, seconds):
                held = min(max(seconds, SHORTEST_PRESS), LONGEST_PRESS)
                self.page.evaluate(_HOLD, *_css(point), 1000 * held)
            case Swipe(start, end):
                ends = [dict(zip("xy", _css(point), strict=True)) for point in (start, end)]
                self.page.evaluate(_SWIPE, *ends, SWIPE_MS)
            case Type(text):
                self.page.evaluate(_TYPE, _plain(text))
            case SystemButton(button):
                self.page.evaluate(_PRESS[button])
            case Key(text):
                key = text.strip().upper().removeprefix("KEYCODE_")
                if key in KEYS or key in EDITS:
                    self.page.evaluate(_PRESS[KEYS[key]] if key in KEYS else EDITS[key])
            case Open(text):
                if app := self._apps.get(text.strip().lower()):
                    self.page.evaluate(_OPEN, app)
            case Wait(seconds):
                time.sleep(min(max(seconds, 0.0), LONGEST_WAIT))
            case Answer(text):
                self._answers.append(text)
        self.page.settle()

    def elements(self) -> list[Element]:
        found = self.page.evaluate(ELEMENTS, WIDTH, HEIGHT, MOST_ELEMENTS)
        made = [Element(**(one | {"box": Box(*one["box"])})) for one in found]
        return sorted(made, key=lambda element: (element.box.top, element.box.left))

    def shell(self, args: list[str]) -> str:
        """Always empty: this phone has no shell."""
        return ""

    def snapshot(self) -> object:
        return (tuple(self._done), self.answers, self.page.state(), self.page.route())

    def restore(self, token: object) -> None:
        match token:
            case (tuple(done), tuple(answers), dict(state), dict(route)):
                self._begin()
                self._done.clear()
                for action in done:
                    self.act(action)
                if self.page.state() != state:
                    self.page.set_state(state, deep=False)
                    self.page.settle()
                if self.page.route() != route:
                    raise EnvCrashed(f"MobileGym: doing it again led to {self.page.route()}, not to {route}")
                self._answers = list(answers)
            case _:
                raise TypeError("this token was not made by this device")

    def close(self) -> None:
        """Nothing: the page belongs to the session."""


def _css(point: Point) -> tuple[float, float]:
    """CSS pixels of a point; points off the screen are moved to its edge."""
    return min(max(point.x * WIDTH, 0.0), WIDTH - 1.0), min(max(point.y * HEIGHT, 0.0), HEIGHT - 1.0)


def _plain(text: str) -> str:
    """Without control and private characters; line ends stay."""
    return "".join(c for c in text if c == "\n" or unicodedata.category(c)[0] != "C")
