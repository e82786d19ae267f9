"""A phone: what fingers, keys and time do to its state.

Everything is data, so `snapshot` is a copy, equal seeds give equal phones, and a phone can be compared with another.
"""

from __future__ import annotations

import copy

from envs.pocket.apps import perform, view
from envs.pocket.files import Files
from envs.pocket.state import Dialog, Screen, State, on_value
from envs.pocket.ui import DISMISS, NOTHING, Op, Overlay, Page, Scene, scene, shown_lines
from envs.pocket.words import POPUPS, TOGGLES

TAP_SLOP = 0.02
"""A finger that moves less than this share of the screen taps."""


class Phone:
    """State plus behaviour. `width`, `height` in pixels fix what is visible; input positions are screen fractions."""

    def __init__(self, state: State, width: int = 160, height: int = 288):
        self.state, self.width, self.height = state, width, height
        self.scene()  # refuses impossible sizes now and not at the first look

    @property
    def files(self) -> Files:
        return self.state.files

    @property
    def now(self) -> float:
        """The phone's own time in seconds since 1970."""
        return self.state.epoch + self.state.clock

    # ------------------------------------------------------------------------------------------------ what is shown

    @property
    def screen(self) -> Screen | None:
        """The front page; None on the home screen."""
        return self.state.stack[-1] if self.state.stack else None

    def page(self) -> Page:
        return view(self)

    def scene(self) -> Scene:
        """What is visible now and where."""
        state = self.state
        page = self.page()
        box = state.dialog
        overlay = Overlay(box.text, tuple(box.options)) if box else None
        return scene(page, self._scroll(page), state.look, self.width, self.height, overlay)

    def _scroll(self, page: Page) -> float:
        wanted = self.screen.scroll if self.screen else self.state.home_scroll
        return min(wanted, self._scroll_end(page))

    def _scroll_end(self, page: Page) -> float:
        height = self.height / (self.width / 10)
        shown = shown_lines(height, self.state.look, bool(page.title), bool(page.footer), page.tall)
        return float(max(0, len(page.lines) - shown))

    # -------------------------------------------------------------------------------------------------------- input

    def tap(self, x: float, y: float) -> None:
        """A tap. On nothing it does nothing but let time pass."""
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
            step = state.look.line * (2 if page.tall else 1) * self.width / 10
            lines = min(max((y0 - y1) * self.height / step, -1000.0), 1000.0)
            if state.look.snap:
                lines = float(round(lines))
            value = min(max(0.0, self._scroll(page) + lines), self._scroll_end(page))
            if self.screen:
                self.screen.scroll = value
            else:
                state.home_scroll = value
        self._input(NOTHING)

    def type(self, text: str) -> None:
        """Text into the focused field; nothing happens without one. Only printable characters arrive."""
        screen, kept = self.screen, "".join(c for c in text if c.isprintable())[:200]
        if screen and screen.focus and self.state.dialog is None and kept:
            before = "" if screen.fresh else screen.fields.get(screen.focus, "")
            screen.fields[screen.focus] = (before + kept)[:200]
            screen.fresh = False
        self._input(NOTHING)

    def key(self, name: str) -> None:
        """A key by its Android name without KEYCODE_, in capitals. Unknown keys do nothing."""
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
        self._input(NOTHING)

    def open(self, app: str) -> bool:
        """Bring an app to the front on its first page. False when there is no such app."""
        found = next((a for a in self.state.apps if a.casefold() == app.strip().casefold()), None)
        if found and (self.state.dialog is None or not self.state.dialog.popup):
            self.state.dialog = None
            self.state.stack = [Screen(found)]
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
        """After every user input: do `op`, let a second pass, let a due pop-up appear."""
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
        if op == NOTHING:
            return
        state = self.state
        state.dialog = None
        match op:
            case ("dismiss",):
                pass
            case ("launch", app):
                state.stack = [Screen(app)]
            case ("go", page, arg):
                if self.screen:
                    self._blur()
                    state.stack.append(Screen(self.screen.app, page, arg))
                    if page == "chat" and arg not in state.read:
                        state.read.append(arg)
            case ("focus", name):
                if self.screen:
                    self.screen.focus, self.screen.fresh = name, True
            case _:
                perform(self, op)

    def _blur(self) -> None:
        if self.screen:
            self.screen.focus, self.screen.fresh = "", False

    def back(self) -> None:
        """Leave the front page, as an app does after saving."""
        if self.state.stack:
            self.state.stack.pop()

    def _back(self) -> None:
        box = self.state.dialog
        if box:
            if not box.until:
                self.state.dialog = None
        elif self.screen and self.screen.focus:
            self._blur()
        else:
            self.back()

    def _home(self) -> None:
        box = self.state.dialog
        if box is None or not box.popup:
            self.state.dialog, self.state.stack, self.state.home_scroll = None, [], 0.0

    def _menu(self) -> None:
        menu = self.page().menu
        if menu and self.state.dialog is None:
            self.state.dialog = Dialog("Menu", [*menu, ("Close", DISMISS)])

    def _enter(self) -> None:
        if self.screen and self.screen.focus and self.state.dialog is None:
            self.do(self.page().enter)

    def _delete(self) -> None:
        screen = self.screen
        if screen and screen.focus and self.state.dialog is None:
            before = screen.fields.get(screen.focus, "")
            screen.fields[screen.focus] = "" if screen.fresh else before[:-1]
            screen.fresh = False

    # ----------------------------------------------------------------------------------------------------- snapshots

    def snapshot(self) -> State:
        return copy.deepcopy(self.state)

    def restore(self, state: State) -> None:
        """Go back to a snapshot; the snapshot itself stays untouched."""
        self.state = copy.deepcopy(state)

    # ------------------------------------------------------------------------------------------------------ settings

    def is_on(self, toggle: str) -> bool:
        space, key = TOGGLES[toggle]
        return self.state.settings[space].get(key, "0") not in ("0", "")

    def switch(self, toggle: str, on: bool) -> None:
        space, key = TOGGLES[toggle]
        self.state.settings[space][key] = on_value(toggle) if on else "0"
