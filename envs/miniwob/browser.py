"""A page of MiniWoB++ in headless Chromium as a Device.

How actions become input: clicks and long presses are done with the mouse. A swipe over something that scrolls turns the
wheel by as much as the finger moves, as on a touch screen; anywhere else it drags the mouse. Text goes to the focused
element key by key: newlines and tabs as spaces (a newline would press Enter), without other control characters and the
private characters that WebDriver takes for keys. Enter and a few keys by name work; Back, Home, Menu and Open do nothing.
"""

from __future__ import annotations

import base64
import time
import unicodedata
from collections.abc import Callable
from tempfile import TemporaryDirectory

from miniwob.fields import get_field_extractor
from miniwob.selenium_instance import SeleniumInstance
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import (
    Action,
    Answer,
    Click,
    Key,
    LongPress,
    Point,
    Screenshot,
    Swipe,
    SystemButton,
    Type,
    Wait,
)
from guiderail.envs.live.chromium import Tab, start_driver, stop_driver
from guiderail.envs.live.device import Element
from guiderail.envs.miniwob.page import HEIGHT, WIDTH, Page, elements, read_page

LONGEST_WAIT = 60.0
HOUR_MS = 3_600_000
DRAG_POINTS = 8
KEYS = {
    "ENTER": Keys.ENTER,
    "BACKSPACE": Keys.BACKSPACE,
    "DEL": Keys.BACKSPACE,  # Android's name for it
    "FORWARD_DEL": Keys.DELETE,
    "DELETE": Keys.DELETE,
    "TAB": Keys.TAB,
    "ESCAPE": Keys.ESCAPE,
    "SPACE": Keys.SPACE,
    "DPAD_UP": Keys.ARROW_UP,
    "DPAD_DOWN": Keys.ARROW_DOWN,
    "DPAD_LEFT": Keys.ARROW_LEFT,
    "DPAD_RIGHT": Keys.ARROW_RIGHT,
    "MOVE_HOME": Keys.HOME,
    "MOVE_END": Keys.END,
    "PAGE_UP": Keys.PAGE_UP,
    "PAGE_DOWN": Keys.PAGE_DOWN,
}
# Without the last line a decided page would cover itself with a START button that begins another episode.
_BEGIN = """
core.EPISODE_MAX_TIME = arguments[1];
Math.seedrandom(arguments[0]);
core.startEpisodeReal();
core.startEpisode = function () {};
"""
_READY = "return WOB_TASK_READY;"
_STANDING = "return [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL];"
_LOOK = "return [core.getUtterance(), core.getDOMInfo()];"
_FILL = "return getComputedStyle(core.previousDOMInfo[arguments[0]]).fill;"
_SCROLLS = """
for (let e = document.elementFromPoint(arguments[0], arguments[1]); e && e !== document.body; e = e.parentElement) {
  const style = getComputedStyle(e);
  const [flow, more] = arguments[2] ? [style.overflowX, e.scrollWidth > e.clientWidth + 1]
                                    : [style.overflowY, e.scrollHeight > e.clientHeight + 1];
  if (more && (flow === "auto" || flow === "scroll" || e.tagName === "TEXTAREA" || e.tagName === "SELECT")) return true;
}
return false;
"""
# A turned wheel moves the page some frames later: wait until six frames in a row show no more movement.
_SETTLE = """
const done = arguments[0];
let last = NaN, still = 0, frames = 0;
(function look() {
  const now = [...document.querySelectorAll("*")].reduce((sum, e) => sum + e.scrollTop + e.scrollLeft, 0);
  still = now === last ? still + 1 : 0;
  last = now;
  if (still >= 6 || ++frames > 120) done(); else requestAnimationFrame(look);
})();
"""
# A point of the element that a mouse reaches: the centre, or else the first point of a grid that nothing covers.
_REACH = """
const e = core.previousDOMInfo[arguments[0]], [width, height] = [arguments[1], arguments[2]];
if (!e) return null;
for (const r of e.getClientRects())
  for (const v of [.5, .25, .75, .1, .9])
    for (const u of [.5, .25, .75, .1, .9]) {
      const x = r.left + u * r.width, y = r.top + v * r.height;
      if (x < 1 || y < 1 || x > width - 1 || y > height - 1) continue;
      const hit = document.elementFromPoint(x, y);
      if (hit && (hit === e || e.contains(hit))) return [x, y];
    }
return null;
"""


class _Instance(SeleniumInstance):  # type: ignore[misc]
    """The package's instance with a driver that runs in small containers and never outlives this process."""

    folder: TemporaryDirectory[str]

    def create_driver(self) -> None:
        self.folder = TemporaryDirectory(prefix="guiderail-", ignore_cleanup_errors=True)
        self.driver = start_driver(self.folder.name)


class Browser(Tab):
    """One Chromium. scale: screenshot pixels per page pixel. Raises EnvCrashed from everything but close."""

    def __init__(self, scale: int = 2):
        self.scale = scale
        self._extract: Callable[[str], list[tuple[str, str]]] = lambda text: []
        with self.machine():
            self._instance = _Instance(0, "click-test", headless=True)
            self._instance.start()
            self.driver = self._instance.driver
            size = {"width": self._instance.window_width, "height": self._instance.window_height}
            self.command("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=scale, mobile=False)

    def begin(self, name: str, seed: int) -> str:
        """Load a page afresh and start its episode; returns the goal."""
        self._extract = get_field_extractor(name)
        with self.machine():
            self.driver.get(self._instance.url.replace("click-test.html", f"{name}.html"))
            self.driver.execute_script(_BEGIN, seed, HOUR_MS)
            for _ in range(100):
                if self.driver.execute_script(_READY):
                    return self.look().goal
                time.sleep(0.05)
        raise EnvCrashed(f"the page {name} did not become ready")

    def look(self) -> Page:
        with self.machine():
            utterance, raw = self.driver.execute_script(_LOOK)
        if isinstance(utterance, dict):
            return read_page(utterance["utterance"], utterance["fields"], raw)
        return read_page(utterance, dict(self._extract(utterance)), raw)

    def reach(self, ref: int) -> tuple[float, float] | None:
        """Where a mouse reaches an element of the last `look`, in page pixels; None where it cannot."""
        with self.machine():
            point = self.driver.execute_script(_REACH, ref, WIDTH, HEIGHT)
        return None if point is None else (float(point[0]), float(point[1]))

    def fill(self, ref: int) -> str:
        """The colour of a drawn shape of the last `look`, as "rgb(red, green, blue)"."""
        with self.machine():
            return str(self.driver.execute_script(_FILL, ref))

    def standing(self) -> tuple[bool, float]:
        """(decided, raw reward)."""
        with self.machine():
            done, reward = self.driver.execute_script(_STANDING)
        return bool(done), float(reward)

    def shoot(self) -> bytes:
        """PNG of the task's part of the page, scale x 160 by scale x 210 pixels."""
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
        with self.machine():
            made = self.command("Page.captureScreenshot", format="png", clip=clip, optimizeForSpeed=True)
        return base64.b64decode(made["data"])

    def scrolls(self, x: int, y: int, sideways: bool) -> bool:
        return bool(self.driver.execute_script(_SCROLLS, x, y, sideways))

    def close(self) -> None:
        if not hasattr(self, "driver"):
            return
        stop_driver(self.driver, at_once=self.broken)
        self._instance.folder.cleanup()


class BrowserDevice:
    """One episode of a page. There is no shell, and a snapshot is the list of actions: `restore` plays them again."""

    def __init__(self, browser: Browser, name: str, seed: int):
        self._browser, self._name, self._seed = browser, name, seed
        self._answers: list[str] = []
        self._done: list[Action] = []
        self.goal = browser.begin(name, seed)

    def screenshot(self) -> Screenshot:
        scale = self._browser.scale
        return Screenshot(WIDTH * scale, HEIGHT * scale, data=self._browser.shoot())

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    def elements(self) -> list[Element]:
        return elements(self._browser.look())

    def shell(self, args: list[str]) -> str:
        """Always empty: a page has no shell."""
        return ""

    def snapshot(self) -> object:
        return (tuple(self._done), self.answers)

    def restore(self, token: object) -> None:
        match token:
            case (tuple(done), tuple(answers)):
                self._browser.begin(self._name, self._seed)
                self._done.clear()
                for action in done:
                    self.act(action)
                self._answers = list(answers)
            case _:
                raise TypeError("this token was not made by this device")

    def act(self, action: Action) -> None:
        self._done.append(action)
        with self._browser.machine():
            match action:
                case Click(point):
                    self._press(point, 0.0)
                case LongPress(point, seconds):
                    self._press(point, min(seconds, LONGEST_WAIT))
                case Swipe(start, end):
                    self._swipe(start, end)
                case Type(text):
                    self._type(text)
                case SystemButton(button):
                    self._keys(Keys.ENTER if button == "Enter" else "")
                case Key(text):
                    self._keys(KEYS.get(text.strip().upper().removeprefix("KEYCODE_"), ""))
                case Wait(seconds):
                    time.sleep(min(seconds, LONGEST_WAIT))
                case Answer(text):
                    self._answers.append(text)

    def _press(self, point: Point, seconds: float) -> None:
        chain = ActionChains(self._browser.driver, duration=0)
        mouse = chain.w3c_actions.pointer_action
        mouse.move_to_location(*_pixels(point))
        mouse.pointer_down()
        if seconds:
            mouse.pause(seconds)
        mouse.pointer_up()
        chain.w3c_actions.perform()

    def _swipe(self, start: Point, end: Point) -> None:
        (x, y), (to_x, to_y) = _pixels(start), _pixels(end)
        sideways = abs(to_x - x) > abs(to_y - y)
        chain = ActionChains(self._browser.driver, duration=0)
        if self._browser.scrolls(x, y, sideways):
            chain.w3c_actions.wheel_action.scroll(x=x, y=y, delta_x=x - to_x, delta_y=y - to_y, duration=0)
            chain.w3c_actions.perform()
            self._browser.driver.execute_async_script(_SETTLE)
            return
        mouse = chain.w3c_actions.pointer_action
        mouse.move_to_location(x, y)
        mouse.pointer_down()
        for k in range(1, DRAG_POINTS + 1):
            mouse.move_to_location(x + (to_x - x) * k // DRAG_POINTS, y + (to_y - y) * k // DRAG_POINTS)
        mouse.pointer_up()
        chain.w3c_actions.perform()

    def _type(self, text: str) -> None:
        spaced = "".join(" " if c in "\n\r\t" else c for c in text)
        plain = "".join(c for c in spaced if unicodedata.category(c)[0] != "C")
        if all(ord(c) < 0x10000 for c in plain):
            self._keys(plain)
        else:  # the driver has keys for the basic plane only
            self._browser.command("Input.insertText", text=plain)

    def _keys(self, keys: str) -> None:
        if not keys:
            return
        chain = ActionChains(self._browser.driver, duration=0)
        for key in keys:
            chain.w3c_actions.key_action.key_down(key)
            chain.w3c_actions.key_action.key_up(key)
        chain.w3c_actions.perform()

    def close(self) -> None:
        """Nothing: the browser belongs to the session."""


def _pixels(point: Point) -> tuple[int, int]:
    """The page pixel under a point; points off the screen are moved to its edge."""
    x, y = int(point.x * WIDTH), int(point.y * HEIGHT)
    return min(max(x, 0), WIDTH - 1), min(max(y, 0), HEIGHT - 1)
