"""Any android_env.AndroidEnv as a Device: an emulator, a phone, the pocket phone, the fake simulator.

Touch goes through env.step, everything else through adb. How text is typed: `input text` in the device's shell, quoted as
one word, so no character of it is syntax there. Newlines and tabs become spaces (a newline would press Enter) and other
control characters are dropped. `input text` cannot type non-ASCII characters; with `unicode_keyboard` such text is sent
to the ADBKeyBoard input method as base64 (broadcast ADB_INPUT_B64; the method must be installed and active), without it
they are dropped.
"""

from __future__ import annotations

import base64
import re
import shlex
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import numpy as np
from android_env.components.errors import AndroidEnvError
from android_env.proto import adb_pb2, state_pb2
from PIL import Image

from agent.errors import EnvCrashed
from agent.types import (
    Action,
    Answer,
    Box,
    Button,
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
from envs.device import Element, Kind, encode_png

TOUCH, LIFT, REPEAT = 0, 1, 2
DUMP = "/sdcard/window_dump.xml"
LONGEST_WAIT = 60.0
SWIPE_POINTS = 8
KEYCODES: dict[Button, str] = {"Back": "BACK", "Home": "HOME", "Menu": "MENU", "Enter": "ENTER"}
_KINDS: tuple[tuple[str, Kind], ...] = (
    ("EditText", "field"),
    ("Switch", "toggle"),
    ("ToggleButton", "toggle"),
    ("CheckBox", "check"),
    ("RadioButton", "check"),
    ("ImageButton", "icon"),
    ("ImageView", "icon"),
    ("Button", "button"),
)
_BOUNDS = re.compile(r"\[(-?\d+),(-?\d+)\]\[(-?\d+),(-?\d+)\]")


class AndroidDevice:
    """env: what to drive; it is reset here once. apps: name -> "package/activity" (or a package) for Open.

    settle: seconds to let the screen come to rest after each action (an emulator needs about 1).
    sleep: how time passes; a simulator with its own clock hands in its own.
    close_env: whether `close` ends the environment.
    """

    def __init__(
        self,
        env: Any,
        apps: Mapping[str, str] | None = None,
        settle: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        unicode_keyboard: bool = False,
        close_env: bool = True,
    ):
        self.env = env
        self.apps = {_plain(name): target for name, target in (apps or {}).items()}
        self._settle, self._sleep = settle, sleep
        self._unicode, self._close_env = unicode_keyboard, close_env
        self._answers: list[str] = []
        self._snapshots = 0
        with _machine():
            self._pixels: np.ndarray[Any, np.dtype[np.uint8]] = env.reset().observation["pixels"]

    # ---------------------------------------------------------------------------------------------------- looking

    def pixels(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The screen now, uint8 (height, width, 3)."""
        self._step(REPEAT, Point(0, 0))
        return self._pixels

    def screenshot(self) -> Screenshot:
        return encode_png(Image.fromarray(self.pixels(), "RGB"))

    def elements(self) -> list[Element]:
        """From `uiautomator dump`; empty when the device cannot dump now (moving screens, protected windows)."""
        self.shell(["uiautomator", "dump", DUMP])
        height, width = self._pixels.shape[:2]
        return read_window(self.shell(["cat", DUMP]), width, height)

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    # ----------------------------------------------------------------------------------------------------- acting

    def act(self, action: Action) -> None:
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
                self.shell(["input", "keyevent", f"KEYCODE_{KEYCODES[button]}"])
            case Key(text):
                self._key(text)
            case Open(text):
                self._open(text)
            case Wait(seconds):
                self._sleep(min(seconds, LONGEST_WAIT))
            case Answer(text):
                self._answers.append(text)
        if self._settle:
            self._sleep(self._settle)

    def _press(self, point: Point, seconds: float) -> None:
        self._step(TOUCH, point)
        if seconds:
            self._sleep(seconds)
        self._step(LIFT, point)

    def _swipe(self, start: Point, end: Point) -> None:
        """The last point is touched twice: a finger that stops before it lifts drags, and does not fling."""
        for k in [*range(SWIPE_POINTS), SWIPE_POINTS - 1]:
            t = k / (SWIPE_POINTS - 1)
            self._step(TOUCH, Point(start.x + t * (end.x - start.x), start.y + t * (end.y - start.y)))
        self._step(LIFT, end)

    def _type(self, text: str) -> None:
        text = "".join(" " if c in "\n\r\t" else c for c in text if c in "\n\r\t" or unicodedata.category(c)[0] != "C")
        if text.isascii() or not self._unicode:
            for piece in _pieces("".join(c for c in text if c.isascii())):
                self.shell(["input", "text", piece])
        else:
            message = base64.b64encode(text.encode()).decode()
            self.shell(["am", "broadcast", "-a", "ADB_INPUT_B64", "--es", "msg", message])

    def _key(self, name: str) -> None:
        """Names that no key can have do nothing."""
        plain = name.strip().upper().removeprefix("KEYCODE_")
        if re.fullmatch(r"[A-Z0-9_]{1,40}", plain):
            self.shell(["input", "keyevent", plain if plain.isdigit() else f"KEYCODE_{plain}"])

    def _open(self, name: str) -> None:
        """Apps that the table does not hold do nothing: the name came from a model."""
        target = self.apps.get(_plain(name))
        if target is None:
            return
        if "/" in target:
            self.shell(["am", "start", "-W", "-n", target])
        else:
            self.shell(["monkey", "-p", target, "-c", "android.intent.category.LAUNCHER", "1"])

    def _step(self, kind: int, point: Point) -> None:
        action = {
            "action_type": np.array(kind, np.int32),
            "touch_position": np.array([min(max(point.x, 0.0), 1.0), min(max(point.y, 0.0), 1.0)], np.float32),
        }
        with _machine():
            timestep = self.env.step(action)
        if timestep.last():
            raise EnvCrashed("android_env ended the episode by itself (simulator failure or a limit of its task)")
        self._pixels = timestep.observation["pixels"]

    # ------------------------------------------------------------------------------------------------------- shell

    def shell(self, args: list[str]) -> str:
        """One command with its arguments; each is quoted, so shell syntax in them is text. Raises EnvCrashed."""
        generic = adb_pb2.AdbRequest.GenericRequest(args=["shell", shlex.join(args)])
        with _machine():
            response = self.env.execute_adb_call(adb_pb2.AdbRequest(generic=generic))
        if response.status != adb_pb2.AdbResponse.Status.OK:
            raise EnvCrashed(f"adb shell {args[0]}: {response.error_message}")
        return str(response.generic.output.decode("utf-8", "replace"))

    # --------------------------------------------------------------------------------------------------- snapshots

    def snapshot(self) -> object:
        """A machine snapshot under a new name, with the answers so far."""
        self._snapshots += 1
        name = f"guiderail-{self._snapshots}"
        with _machine():
            response = self.env.save_state(state_pb2.SaveStateRequest(args={"snapshot_name": name}))
        if response.status != state_pb2.SaveStateResponse.Status.OK:
            raise EnvCrashed(f"cannot save state: {response.error_message}")
        return name, self.answers

    def restore(self, token: object) -> None:
        match token:
            case (str(name), tuple(answers)):
                with _machine():
                    response = self.env.load_state(state_pb2.LoadStateRequest(args={"snapshot_name": name}))
                if response.status != state_pb2.LoadStateResponse.Status.OK:
                    raise EnvCrashed(f"cannot load state {name}: {response.error_message}")
                self._answers = list(answers)
            case _:
                raise TypeError("this token was not made by this device")

    def close(self) -> None:
        if self._close_env:
            self.env.close()


@contextmanager
def _machine() -> Iterator[None]:
    """What android_env raises is the machine's fault, never the agent's."""
    try:
        yield
    except (AndroidEnvError, NotImplementedError, OSError) as error:
        raise EnvCrashed(f"{type(error).__name__}: {error}") from error


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _pieces(text: str, size: int = 100) -> list[str]:
    """Pieces that `input text` types as they are: it would turn %s into a blank, so % and s go separately."""
    return [part[k : k + size] for part in re.split(r"(?<=%)(?=s)", text) for k in range(0, len(part), size)]


def read_window(xml: str, width: int, height: int) -> list[Element]:
    """The elements of a `uiautomator dump`, top to bottom; [] when this is no dump. Sizes in pixels.

    Kept are nodes with words or an own reaction; zero-sized ones are not visible. Entity declarations are refused: the
    text comes from the device.
    """
    start = xml.find("<hierarchy")
    if start < 0 or "<!" in xml:
        return []
    try:
        root = ElementTree.fromstring(xml[start : xml.rfind(">") + 1])
    except ElementTree.ParseError:
        return []
    found = [e for node in root.iter("node") if (e := _element(node.attrib, width, height))]
    return sorted(found, key=lambda e: (e.box.top, e.box.left))


def _element(node: Mapping[str, str], width: int, height: int) -> Element | None:
    words = node.get("text") or node.get("content-desc") or ""
    clickable = node.get("clickable") == "true"
    bounds = _BOUNDS.fullmatch(node.get("bounds", ""))
    if not bounds or not (words or clickable):
        return None
    left, top, right, bottom = (int(v) for v in bounds.groups())
    if right <= left or bottom <= top:
        return None
    name = node.get("class", "")
    kind: Kind = next((k for ending, k in _KINDS if name.endswith(ending)), "row" if clickable else "text")
    checked = node.get("checked") == "true" if node.get("checkable") == "true" else None
    box = Box(left / width, top / height, right / width, bottom / height)
    return Element(words, box, kind, clickable, checked, node.get("focused") == "true")
