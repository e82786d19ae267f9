"""The phone's own adb shell: the commands of Android that android_env and AndroidWorld need."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable

from guiderail.envs.live.device import encode_png
from guiderail.envs.pocket import aosp
from guiderail.envs.pocket.adb import toolbox
from guiderail.envs.pocket.adb.intents import am, monkey, stacks
from guiderail.envs.pocket.adb.providers import content, sqlite3
from guiderail.envs.pocket.adb.script import Result, Script, ScriptError
from guiderail.envs.pocket.adb.toolbox import bytes_of, text_of
from guiderail.envs.pocket.draw import draw
from guiderail.envs.pocket.files import FileError
from guiderail.envs.pocket.phone import TAP_SLOP, Phone
from guiderail.envs.pocket.tree import activity, component, window_xml

DUMP = "/sdcard/window_dump.xml"
KEYCODES = {3: "HOME", 4: "BACK", 24: "VOLUME_UP", 25: "VOLUME_DOWN", 66: "ENTER", 67: "DEL", 82: "MENU"}


def run(phone: Phone, args: list[str]) -> str:
    """Run one command. Every argument arrives unchanged."""
    return run_line(phone, shlex.join(args))


def run_line(phone: Phone, line: str) -> str:
    """Run a shell line and return what it prints; `envs.pocket.adb.script` describes the language."""
    return execute(phone, line)[1].decode("utf-8", "replace")


def execute(phone: Phone, line: str) -> tuple[int, bytes]:
    """Exit status and output of a shell line; a line that is not understood has status 2 and prints why."""
    status, text = _script(phone, line)
    return status, bytes_of(text)


def _script(phone: Phone, line: str) -> Result:
    def write(path: str, text: str, append: bool) -> None:
        before = phone.state.files.get(path) if append else b""
        phone.state.files.write(path, before + bytes_of(text), phone.state.now)

    try:
        return Script(line, lambda argv, given: _command(phone, argv, given), write, phone.state.files.match).run()
    except (ScriptError, FileError) as error:
        return 2, f"sh: {error}\n"


def _command(phone: Phone, argv: list[str], given: str) -> Result:
    name, args = argv[0], [a for a in argv[1:] if a != ""]
    if name == "sh" and args[:1] == ["-c"] and len(args) == 2:
        return _script(phone, args[1])
    if name in _FILTERS:
        return _FILTERS[name](phone, args, given)
    command = _COMMANDS.get(name)
    return command(phone, args) if command else (127, f"sh: {name}: not found\n")


def _grep(phone: Phone, args: list[str], given: str) -> Result:
    words = [a for a in args if not a.startswith("-")]
    flags = "".join(a[1:] for a in args if a.startswith("-"))
    pattern = words[0] if words else ""
    try:
        wanted = re.compile(pattern if "E" in flags else re.escape(pattern), re.IGNORECASE if "i" in flags else 0)
    except re.error:
        return 2, "grep: bad regex\n"
    kept = [line for line in given.splitlines() if bool(wanted.search(line)) != ("v" in flags)]
    return (0 if kept else 1), "".join(f"{line}\n" for line in kept)


def _input(phone: Phone, args: list[str]) -> Result:
    try:
        match args:
            case ["tap", x, y]:
                phone.tap(_at(x, phone.width), _at(y, phone.height))
            case ["swipe", x0, y0, x1, y1, *duration]:
                a = _at(x0, phone.width), _at(y0, phone.height)
                b = _at(x1, phone.width), _at(y1, phone.height)
                if max(abs(b[0] - a[0]), abs(b[1] - a[1])) <= TAP_SLOP:
                    (phone.hold if duration and int(duration[0]) >= 500 else phone.tap)(*a)
                else:
                    phone.swipe(*a, *b)
            case ["text", *words] if words:
                phone.type(" ".join(words).replace("%s", " "))
            case ["keyevent", *keys] if keys:
                for key in keys:
                    name = KEYCODES.get(int(key), "") if key.isdigit() else key.upper().removeprefix("KEYCODE_")
                    phone.key(name)
            case _:
                return 1, "Error: unknown input command\n"
    except ValueError:
        return 1, "Error: not a number\n"
    return 0, ""


def _at(text: str, size: int) -> float:
    """A pixel as a fraction; its middle, so that it maps back to the same pixel. Raises ValueError."""
    pixel = float(text)
    if not math.isfinite(pixel):
        raise ValueError(text)
    return (pixel + 0.5) / size


def _settings(phone: Phone, args: list[str]) -> Result:
    spaces = phone.state.settings
    match args:
        case ["get", space, key] if space in spaces:
            return 0, spaces[space].get(key, "null") + "\n"
        case ["put", space, key, *value] if space in spaces and len(value) <= 1:
            spaces[space][key] = value[0] if value else ""
            return 0, ""
        case ["delete", space, key] if space in spaces:
            return 0, f"Deleted {int(spaces[space].pop(key, None) is not None)} rows\n"
        case ["list", space] if space in spaces:
            return 0, "".join(f"{k}={v}\n" for k, v in sorted(spaces[space].items()))
    return 1, "Error: usage: settings get|put|delete|list global|system|secure [key] [value]\n"


def _svc(phone: Phone, args: list[str]) -> Result:
    names = {"wifi": "Wifi", "bluetooth": "Bluetooth", "data": "Data"}
    match args:
        case [service, ("enable" | "disable") as verb] if service in names:
            phone.state.switch(names[service], verb == "enable")
            return 0, ""
    return 1, "Error: usage: svc wifi|bluetooth|data enable|disable\n"


def _dumpsys(phone: Phone, args: list[str]) -> Result:
    match args[:1]:
        case ["input"]:
            return 0, (
                "INPUT MANAGER (dumpsys input)\n  SurfaceOrientation: 0\n"
                f"  Viewport INTERNAL: displayId=0, orientation=0, logicalFrame=[0, 0, {phone.width}, {phone.height}], "
                f"physicalFrame=[0, 0, {phone.width}, {phone.height}]\n"
            )
        case ["window"]:
            name = activity(phone)
            return 0, f"  mCurrentFocus=Window{{1 u0 {name}}}\n  mFocusedApp=ActivityRecord{{1 u0 {name} t1}}\n"
        case ["activity"]:
            return 0, f"ACTIVITY MANAGER\n{stacks(phone)}"
    return 1, f"Can't find service: {' '.join(args[:1])}\n"


def _uiautomator(phone: Phone, args: list[str]) -> Result:
    if args[:1] != ["dump"]:
        return 1, "Error: usage: uiautomator dump [file]\n"
    if args[1:] == ["/dev/tty"]:
        return 0, window_xml(phone) + f"\nUI hierchary dumped to: {args[1]}\n"
    path = args[1] if args[1:] else DUMP
    phone.state.files.write(path, window_xml(phone).encode(), phone.state.now)
    return 0, f"UI hierchary dumped to: {path}\n"


def _screencap(phone: Phone, args: list[str]) -> Result:
    picture = encode_png(draw(phone.scene())).encoded()
    match args:
        case [] | ["-p"]:
            return 0, text_of(picture)
        case ["-p", path] | [path]:
            phone.state.files.write(path, picture, phone.state.now)
            return 0, ""
    return 1, "Error: usage: screencap [-p] [FILE]\n"


def _wm(phone: Phone, args: list[str]) -> Result:
    match args:
        case ["size"]:
            return 0, f"Physical size: {phone.width}x{phone.height}\n"
        case ["density"]:
            return 0, f"Physical density: {max(120, phone.width * 420 // 1080)}\n"
    return 1, "Error: unknown wm command\n"


def _pm(phone: Phone, args: list[str]) -> Result:
    match args:
        case ["list", "packages", *_]:
            components = phone.state.aosp.components if phone.state.aosp else {}
            names = [components.get(a, component(a)).partition("/")[0] for a in sorted(phone.state.apps)]
            return 0, "".join(f"package:{name}\n" for name in names)
        case ["clear", package] if phone.state.aosp:
            aosp.forget(phone.state, package)
            return 0, "Success\n"
        case ["list", *_] | ["clear", _] | ["grant", *_]:
            return 0, "Success\n"
    return 1, "Error: unknown pm command\n"


def _getprop(phone: Phone, args: list[str]) -> Result:
    known = {
        "ro.build.version.release": "13",
        "ro.build.version.sdk": "33",
        "ro.product.model": "Pocket",
        "sys.boot_completed": "1",
    }
    if args:
        return 0, known.get(args[0], "") + "\n"
    return 0, "".join(f"[{k}]: [{v}]\n" for k, v in known.items())


def _logcat(phone: Phone, args: list[str]) -> Result:
    """A log in which nothing has been written. It ends at once, as with -d: a phone whose time stands has nothing to add."""
    return 0, "" if "-c" in args else "--------- beginning of main\n"


def _reboot(phone: Phone, args: list[str]) -> Result:
    """Apps are closed; what they stored stays."""
    phone.state.stack, phone.state.dialog, phone.state.home_scroll = [], None, 0.0
    return 0, ""


def _sleep(phone: Phone, args: list[str]) -> Result:
    try:
        phone.elapse(min(60.0, float(args[0])))
    except (IndexError, ValueError):
        return 1, "sleep: bad number\n"
    return 0, ""


_COMMANDS: dict[str, Callable[[Phone, list[str]], Result]] = {
    **toolbox.COMMANDS,
    "input": _input,
    "am": am,
    "monkey": monkey,
    "settings": _settings,
    "svc": _svc,
    "dumpsys": _dumpsys,
    "uiautomator": _uiautomator,
    "screencap": _screencap,
    "content": content,
    "sqlite3": sqlite3,
    "logcat": _logcat,
    "reboot": _reboot,
    "restorecon": lambda phone, args: (0, ""),
    "service": lambda phone, args: (0, "Result: Parcel(00000000 '....')\n"),
    "wm": _wm,
    "pm": _pm,
    "getprop": _getprop,
    "sleep": _sleep,
    "echo": lambda phone, args: (0, " ".join(args) + "\n"),
    "whoami": lambda phone, args: (0, "root\n"),
}
_FILTERS: dict[str, Callable[[Phone, list[str], str], Result]] = {**toolbox.FILTERS, "grep": _grep}
