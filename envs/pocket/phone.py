"""A phone: what fingers, keys and time do to its state.

The state is data, so `snapshot` is a copy, equal seeds give equal phones, and phones can be compared.
"""

from __future__ import annotations

import copy
import time

from guiderail.envs.pocket.apps import perform, view
from guiderail.envs.pocket.handset import layout
from guiderail.envs.pocket.handset.dress import dress
from guiderail.envs.pocket.state import STYLES, Dialog, OpenPage, State
from guiderail.envs.pocket.ui import DISMISS, NOTHING, Op, Overlay, Page, Scene, scene, shown_lines
from guiderail.envs.pocket.words import POPUPS

TAP_SLOP = 0.02
"""A finger that moves less than this share of the screen makes a tap."""
_SIGNS = (
    ("Airplane", "airplane"),
    ("Vibrate", "vibrate"),
    ("Bluetooth", "bluetooth"),
    ("Location", "place"),
    ("Wifi", "wifi"),
)
"""Switches that the status bar of style "phone" shows, with their glyphs."""


class Phone:
    """A state and its behaviour. `width`, `height` in pixels fix what is visible; input positions are screen fractions.
    Without them the screen has its style's own size."""

    def __init__(self, state: State, width: int | None = None, height: int | None = None):
        own = STYLES["phone" if state.appearance.handset else "easy"]
        self.state, self.width, self.height = state, width or own[0], height or own[1]
        self.scene()  # refuses impossible sizes here, not at the first screenshot

    # ------------------------------------------------------------------------------------------------ what is shown

    def page(self) -> Page:
        page = view(self.state)
        return dress(self.state, page) if self._handset else page

    @property
    def _handset(self) -> bool:
        return self.state.appearance.handset

    def scene(self) -> Scene:
        """What is visible now and where."""
        state = self.state
        page = self.page()
        box = state.dialog
        overlay = Overlay(box.text, tuple(box.options)) if box else None
        scroll = self._scroll(page)
        if self._handset:
            size = self.width, self.height
            return layout.lay_out(page, scroll, state.appearance, size, overlay, self._chrome())
        return scene(page, scroll, state.appearance, self.width, self.height, overlay)

    def _chrome(self) -> layout.Chrome:
        state, front = self.state, self.state.front
        signs = [sign for name, sign in _SIGNS if state.is_on(name)]
        signs += [] if state.is_on("Airplane") else ["signal"]
        now = time.strftime("%H:%M", time.gmtime(state.now))
        typing = front is not None and front.focus and state.dialog is None
        deep = len(state.stack) > 1
        return layout.Chrome(now, (*signs, str(state.battery)), deep, state.keys if typing else "")

    def is_below(self, line: int) -> bool:
        """Whether a line of the page in front lies below what is shown, rather than above it."""
        page, front = self.page(), self.state.front
        if self._handset:
            return layout.is_below(page, line, self._scroll(page), self.width, self.height, self._chrome())
        now = front.scroll if front else self.state.home_scroll
        return line >= now + self._shown(page) - 1

    def scrolls(self) -> bool:
        """Whether the page in front is longer than what is shown of it."""
        return self.state.dialog is None and self._scroll_end(self.page()) > 0

    def _scroll(self, page: Page) -> float:
        wanted = self.state.front.scroll if self.state.front else self.state.home_scroll
        return min(wanted, self._scroll_end(page))

    def _scroll_end(self, page: Page) -> float:
        if self._handset:
            return layout.scroll_end(page, self.width, self.height, self._chrome())
        return float(max(0, len(page.lines) - self._shown(page)))

    def _shown(self, page: Page) -> int:
        height = self.height / (self.width / 10)
        return shown_lines(height, self.state.appearance, bool(page.title), bool(page.footer), page.tall)

    # -------------------------------------------------------------------------------------------------------- input

    def tap(self, x: float, y: float) -> None:
        """A tap. Where there is nothing to tap, only time passes."""
        hit = self.scene().at(x * self.width, y * self.height)
        self._input(hit.cell.op if hit else NOTHING)

    def hold(self, x: float, y: float) -> None:
        """A long press."""
        hit = self.scene().at(x * self.width, y * self.height)
        self._input(hit.cell.hold if hit else NOTHING)

    def swipe(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Finger motion; content follows the finger, so a finger going up shows what is further down."""
        state = self.state
        if state.dialog is None and abs(y1 - y0) > abs(x1 - x0):
            page = self.page()
            lines = self._dragged(page, y0, y1)
            value = min(max(0.0, self._scroll(page) + lines), self._scroll_end(page))
            if state.front:
                state.front.scroll = value
            else:
                state.home_scroll = value
        self._input(NOTHING)

    def _dragged(self, page: Page, y0: float, y1: float) -> float:
        """How far a finger's way scrolls: in lines, or in dp for style "phone", where only the list scrolls."""
        if self._handset:
            top, bottom = layout.window(page, self.width, self.height, self._chrome())
            dp = self.width / layout.WIDTH
            return (y0 - y1) * self.height / dp if top <= y0 * self.height / dp < bottom else 0.0
        step = self.state.appearance.line * (2 if page.tall else 1) * self.width / 10
        lines = min(max((y0 - y1) * self.height / step, -1000.0), 1000.0)
        return float(round(lines)) if self.state.appearance.snap else lines

    def type(self, text: str) -> None:
        """Text into the focused field; nothing happens without one. Only printable characters arrive."""
        self._write(text)
        self._input(NOTHING)

    def _write(self, text: str) -> None:
        most = self.state.longest_text
        front, kept = self.state.front, "".join(c for c in text if c.isprintable())[:most]
        if front and front.focus and self.state.dialog is None and kept:
            before = "" if front.fresh else front.fields.get(front.focus, "")
            front.fields[front.focus] = (before + kept)[:most]
            front.fresh = False
            self.state.keys = "small" if self.state.keys == "capital" else self.state.keys

    def key(self, name: str) -> None:
        """A key by its Android name without KEYCODE_, in capitals. Unknown keys do nothing."""
        self._press(name)
        self._input(NOTHING)

    def _press(self, name: str) -> None:
        handler = {
            "BACK": self._back,
            "HOME": self._home,
            "MENU": self._menu,
            "ENTER": self._enter,
            "DEL": self._delete,
        }
        if name in ("VOLUME_UP", "VOLUME_DOWN"):
            system = self.state.settings["system"]
            now = system.get("volume_music", "")
            level = (int(now) if now.isdecimal() else 0) + (1 if name == "VOLUME_UP" else -1)
            system["volume_music"] = str(min(15, max(0, level)))
        elif name in handler:
            handler[name]()

    def open(self, app: str) -> bool:
        """Bring an app to the front on its first page. False when there is no such app."""
        found = next((a for a in self.state.apps if a.casefold() == app.strip().casefold()), None)
        if found and (self.state.dialog is None or not self.state.dialog.popup):
            self.state.dialog = None
            self.state.stack = [OpenPage(found)]
        self._input(NOTHING)
        return found is not None

    def elapse(self, seconds: float) -> None:
        """Let time pass."""
        self.state.clock += max(0.0, seconds)
        box = self.state.dialog
        if box and box.until and self.state.clock >= box.until:
            self.state.dialog = None
            self.do(box.then)

    def _input(self, op: Op) -> None:
        """After every user input: do `op`, let a second pass, show a pop-up that is due."""
        state = self.state
        state.inputs += 1
        self.do(op)
        self.elapse(1.0)
        number = state.popups.get(state.inputs)
        if number is not None:
            if state.dialog is None:
                text, button = POPUPS[number % len(POPUPS)]
                state.dialog = Dialog(text, [(button, DISMISS)], popup=True)
            else:
                state.popups[state.inputs + 1] = number

    def do(self, op: Op) -> None:
        """What a cell does, without a finger: close the dialog it may be in, then act."""
        state = self.state
        match op:
            case ():
                return
            case ("press", name):
                self._press(name)
                return
            case ("write", letter):
                self._write(letter)
                return
            case ("keys", keyboard):
                state.keys = keyboard
                return
        state.dialog = None
        match op:
            case ("dismiss",):
                pass
            case ("launch", app):
                state.stack = [OpenPage(app)]
            case ("go", page, arg):
                state.go(page, arg)
            case ("focus", name):
                state.focus(name)
            case _:
                perform(state, op)

    def _back(self) -> None:
        box = self.state.dialog
        if box:
            if not box.until:
                self.state.dialog = None
        elif self.state.front and self.state.front.focus:
            self.state.blur()
        else:
            self.state.back()

    def _home(self) -> None:
        box = self.state.dialog
        if box is None or not box.popup:
            self.state.dialog, self.state.stack, self.state.home_scroll = None, [], 0.0

    def _menu(self) -> None:
        menu = self.page().menu
        if menu and self.state.dialog is None:
            self.state.dialog = Dialog("Menu", [*menu, ("Close", DISMISS)])

    def _enter(self) -> None:
        if self.state.front and self.state.front.focus and self.state.dialog is None:
            self.do(self.page().enter)

    def _delete(self) -> None:
        front = self.state.front
        if front and front.focus and self.state.dialog is None:
            before = front.fields.get(front.focus, "")
            front.fields[front.focus] = "" if front.fresh else before[:-1]
            front.fresh = False

    # ----------------------------------------------------------------------------------------------------- snapshots

    def snapshot(self) -> State:
        return copy.deepcopy(self.state)

    def restore(self, state: State) -> None:
        """Go back to a snapshot; the snapshot itself stays untouched."""
        self.state = copy.deepcopy(state)
