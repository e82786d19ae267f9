"""A phone, an emulator or a pocket phone as a Device through the adb client alone, and the adb commands for each action.

Typed text goes through `input text` in the device's shell, quoted as one word, so no character of it is syntax there.
Newlines and tabs become spaces (a newline would press Enter) and other control characters are dropped. `input text` cannot
type non-ASCII characters. With `unicode_keyboard` such text is sent to the ADBKeyBoard input method as base64 (broadcast
ADB_INPUT_B64; the method must be installed and active); without it these characters are dropped.
"""

from __future__ import annotations

import base64
import re
import shlex
import shutil
import struct
import subprocess
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.types import (
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
from guiderail.envs.live.device import Element, Kind

DUMP = "/sdcard/window_dump.xml"
LONGEST_WAIT = 60.0
SWIPE_MS = 500
KEYCODES: dict[Button, str] = {"Back": "BACK", "Home": "HOME", "Menu": "MENU", "Enter": "ENTER"}
_PNG = b"\x89PNG\r\n\x1a\n"
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


class Adb:
    """The adb client of one device. Arguments are passed as a list, never through a shell of this machine.

    serial: as `adb devices` lists it, or HOST:PORT, which `connect` reaches. server_port: of the adb server; None means
    $ANDROID_ADB_SERVER_PORT, or adb's own default 5037. timeout: seconds for one call.
    """

    def __init__(self, serial: str, adb: str = "adb", server_port: int | None = None, timeout: float = 90.0):
        if shutil.which(adb) is None:
            raise SetupError(
                f"no adb client at {adb!r}; run: apt-get install adb (or give the SDK's platform-tools/adb)"
            )
        self.serial, self._timeout = serial, timeout
        self._head = [adb] if server_port is None else [adb, "-P", str(server_port)]

    def connect(self) -> None:
        """Connect to a HOST:PORT device, also after the adb server was lost. Raises EnvCrashed when it does not answer."""
        if ":" in self.serial:
            said = self._call([*self._head, "connect", self.serial]).decode("utf-8", "replace")
            if "connected to" not in said:
                raise EnvCrashed(f"adb connect {self.serial}: {said.strip()[:200]}")
        self.run("wait-for-device")

    def disconnect(self) -> None:
        if ":" in self.serial:
            self._call([*self._head, "disconnect", self.serial], check=False)

    def run(self, *args: str) -> bytes:
        """What `adb -s SERIAL ARGS` prints. Raises EnvCrashed when the client, the server or the device fails."""
        return self._call([*self._head, "-s", self.serial, *args])

    def shell(self, args: Sequence[str]) -> str:
        """One command with its arguments; each is quoted, so shell syntax in them is text for the device's shell too. Its own
        status is not told: a tool of Android that throws ends with 255, as adb does where the device was lost."""
        return self.run("shell", f"{shlex.join(args)} || false").decode("utf-8", "replace").replace("\r\n", "\n")

    def push(self, local: Path, remote: str) -> None:
        self.run("push", str(local), remote)

    def pull(self, remote: str, local: Path) -> None:
        self.run("pull", remote, str(local))

    def _call(self, command: list[str], check: bool = True) -> bytes:
        try:
            done = subprocess.run(command, capture_output=True, timeout=self._timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise EnvCrashed(f"adb {command[-1][:80]!r}: no answer in {self._timeout:.0f} s") from None
        except OSError as error:
            raise EnvCrashed(f"cannot run {command[0]}: {error}") from error
        if check and done.returncode != 0 and _is_adb_failure(done.returncode, done.stderr):
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise EnvCrashed(f"adb {command[-1][:80]!r}: {said[-1][:200] if said else 'the connection was lost'}")
        return done.stdout


def _is_adb_failure(code: int, stderr: bytes) -> bool:
    """Whether the server or the device was lost. A command that fails on the device is an ordinary answer. adb ends with
    status 255 when the device disappears during a command."""
    return code == 255 or code < 0 or any(line.startswith((b"error:", b"adb:", b"* ")) for line in stderr.splitlines())


class AdbDevice:
    """adb: the client of one device; apps: name -> "package/activity" (or a package) for Open.

    settle: seconds for the screen to come to rest after each action (an emulator needs about 1). The waiting happens on the
    device, so a simulated phone with its own clock costs no time here.
    """

    def __init__(
        self,
        adb: Adb,
        apps: Mapping[str, str] | None = None,
        settle: float = 0.0,
        unicode_keyboard: bool = False,
    ):
        self.adb, self.apps = adb, app_table(apps or {})
        self._settle, self._unicode = settle, unicode_keyboard
        self._answers: list[str] = []
        adb.connect()
        hide_pointer_lines(self.shell)
        self._size = (0, 0)
        self.screenshot()

    def screenshot(self) -> Screenshot:
        data = self.adb.run("exec-out", "screencap", "-p")
        if data[:8] != _PNG or len(data) < 57 or data[-8:-4] != b"IEND":
            raise EnvCrashed(f"screencap gave {len(data)} bytes that are not a PNG")
        self._size = struct.unpack(">II", data[16:24])
        return Screenshot(*self._size, data=data)

    def act(self, action: Action) -> None:
        if isinstance(action, Answer):
            self._answers.append(action.text)
        for command in adb_commands(action, self._size, self.apps, self._unicode):
            self.shell(command)
        if self._settle:
            self.shell(["sleep", str(self._settle)])

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    def shell(self, args: list[str]) -> str:
        return self.adb.shell(args)

    def elements(self) -> list[Element]:
        """From `uiautomator dump`; empty when the device cannot dump now (moving screens, protected windows)."""
        return read_window(dump_window(self.shell), *self._size)

    def snapshot(self) -> object:
        """adb alone cannot save the state of a device. Emulators can, see `envs.android.emulator`."""
        raise EnvCrashed("adb cannot save the state of a device; use an emulator's own snapshots")

    def restore(self, token: object) -> None:
        raise TypeError("this token was not made by this device")

    def close(self) -> None:
        self.adb.disconnect()


def hide_pointer_lines(shell: Callable[[list[str]], object]) -> None:
    """Agents must not see where the last finger was. android_env switches these lines on whenever it launches."""
    for name in ("show_touches", "pointer_location"):
        shell(["settings", "put", "system", name, "0"])


def dump_window(shell: Callable[[list[str]], str]) -> str:
    """What `uiautomator dump` writes about the screen. Where it fails it may write nothing, so an older dump goes first."""
    shell(["rm", "-f", DUMP])
    shell(["uiautomator", "dump", DUMP])
    return shell(["cat", DUMP])


# ---------------------------------------------------------------------------------------------------- actions as commands


def adb_commands(
    action: Action, size: tuple[int, int], apps: Mapping[str, str], unicode_keyboard: bool = False
) -> list[list[str]]:
    """The device commands of an action on a screen of `size` (width, height) in pixels; [] for actions that change nothing."""
    match action:
        case Click(point):
            return [["input", "tap", *_pixel(point, size)]]
        case LongPress(point, seconds):
            held = str(round(1000 * min(seconds, LONGEST_WAIT)))
            return [["input", "swipe", *_pixel(point, size), *_pixel(point, size), held]]
        case Swipe(start, end):
            return [["input", "swipe", *_pixel(start, size), *_pixel(end, size), str(SWIPE_MS)]]
        case Type(text):
            return type_commands(text, unicode_keyboard)
        case SystemButton(button):
            return [["input", "keyevent", f"KEYCODE_{KEYCODES[button]}"]]
        case Key(text):
            return key_commands(text)
        case Open(text):
            return open_commands(text, apps)
        case Wait(seconds):
            return [["sleep", str(min(seconds, LONGEST_WAIT))]]
    return []


def _pixel(point: Point, size: tuple[int, int]) -> tuple[str, str]:
    x, y = (min(max(int(at * n), 0), n - 1) for at, n in zip((point.x, point.y), size, strict=True))
    return str(x), str(y)


def type_commands(text: str, unicode_keyboard: bool = False) -> list[list[str]]:
    """How text is typed; see the head of this file."""
    text = "".join(" " if c in "\n\r\t" else c for c in text if c in "\n\r\t" or unicodedata.category(c)[0] != "C")
    if text.isascii() or not unicode_keyboard:
        return [["input", "text", piece] for piece in _pieces("".join(c for c in text if c.isascii()))]
    message = base64.b64encode(text.encode()).decode()
    return [["am", "broadcast", "-a", "ADB_INPUT_B64", "--es", "msg", message]]


def key_commands(name: str) -> list[list[str]]:
    """[] for names that no key can have."""
    plain = name.strip().upper().removeprefix("KEYCODE_")
    if not re.fullmatch(r"[A-Z0-9_]{1,40}", plain):
        return []
    return [["input", "keyevent", plain if plain.isdigit() else f"KEYCODE_{plain}"]]


def open_commands(name: str, apps: Mapping[str, str]) -> list[list[str]]:
    """[] for apps that the table does not hold, because the name comes from a model. apps: as `app_table` makes it."""
    target = apps.get(plain_name(name))
    if target is None:
        return []
    if "/" in target:
        return [["am", "start", "-W", "-n", target]]
    return [["monkey", "-p", target, "-c", "android.intent.category.LAUNCHER", "1"]]


def app_table(apps: Mapping[str, str]) -> dict[str, str]:
    """The table with its names as `plain_name` compares them."""
    return {plain_name(name): target for name, target in apps.items()}


def plain_name(name: str) -> str:
    return " ".join(name.split()).casefold()


def _pieces(text: str, size: int = 100) -> list[str]:
    """Pieces that `input text` types unchanged. It would turn %s into a blank, so % and s are typed separately."""
    return [part[k : k + size] for part in re.split(r"(?<=%)(?=s)", text) for k in range(0, len(part), size)]


# ------------------------------------------------------------------------------------------------------------- the window


def read_window(xml: str, width: int, height: int) -> list[Element]:
    """The elements of a `uiautomator dump`, top to bottom; [] for any other text. Sizes in pixels.

    Nodes that have words or react to a tap are kept; those of size zero are not visible. Entity declarations are refused,
    because the text comes from the device.
    """
    start = xml.find("<hierarchy")
    if start < 0 or "<!" in xml:
        return []
    try:
        root = ElementTree.fromstring(xml[start : xml.rfind(">") + 1])
    except ElementTree.ParseError:
        return []
    return window_elements((node.attrib for node in root.iter("node")), width, height)


def window_elements(nodes: Iterable[Mapping[str, str]], width: int, height: int) -> list[Element]:
    """The elements of nodes with the attributes of a `uiautomator dump`, top to bottom. Sizes in pixels."""
    found = [e for node in nodes if (e := _element(node, width, height))]
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
