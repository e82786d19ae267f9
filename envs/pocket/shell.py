"""The phone's own adb shell: just enough of Android's commands for android_env and AndroidWorld to feel at home."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable

from envs.device import encode_png
from envs.pocket import aosp, toolbox
from envs.pocket.draw import draw
from envs.pocket.files import FileError
from envs.pocket.phone import TAP_SLOP, Phone
from envs.pocket.script import Result, Script, ScriptError
from envs.pocket.toolbox import bytes_of, text_of
from envs.pocket.tree import activity, component, window_xml

DUMP = "/sdcard/window_dump.xml"
KEYCODES = {3: "HOME", 4: "BACK", 24: "VOLUME_UP", 25: "VOLUME_DOWN", 66: "ENTER", 67: "DEL", 82: "MENU"}


def run(phone: Phone, args: list[str]) -> str:
    """Run one command; every argument arrives as it is."""
    return run_line(phone, shlex.join(args))


def run_line(phone: Phone, line: str) -> str:
    """Run a shell line and return what it prints; `envs.pocket.script` says what is understood."""
    return execute(phone, line)[1].decode("utf-8", "replace")


def execute(phone: Phone, line: str) -> tuple[int, bytes]:
    """Exit status and output of a shell line; a line that is not understood has status 2 and says so."""
    status, text = _script(phone, line)
    return status, bytes_of(text)


def _script(phone: Phone, line: str) -> Result:
    def write(path: str, text: str, append: bool) -> None:
        before = phone.files.get(path) if append else b""
        phone.files.write(path, before + bytes_of(text), phone.now)

    try:
        return Script(line, lambda argv, given: _command(phone, argv, given), write, phone.files.match).run()
    except (ScriptError, FileError) as error:
        return 2, f"sh: {error}\n"


def _command(phone: Phone, argv: list[str], given: str) -> Result:
    name, args = argv[0], [a for a in argv[1:] if a != ""]
    if name == "sh" and args[:1] == ["-c"] and len(args) == 2:
        return _script(phone, args[1])
    if name == "grep":
        return _grep(args, given)
    command = _COMMANDS.get(name)
    return command(phone, args) if command else (127, f"sh: {name}: not found\n")


def _grep(args: list[str], given: str) -> Result:
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


def _am(phone: Phone, args: list[str]) -> Result:
    match args:
        case ["start", *rest]:
            return _am_start(phone, rest)
        case ["force-stop", package]:
            if activity(phone).startswith(f"{package}/"):
                phone.state.stack = []
            return 0, ""
        case ["stack", "list"]:
            return 0, _stacks(phone)
        case ["stack", "remove", _]:
            phone.state.stack = []
            return 0, ""
        case ["broadcast", *rest]:
            return _broadcast(phone, rest)
    return 1, "Error: unknown am command\n"


def _am_start(phone: Phone, args: list[str]) -> Result:
    wanted = _option(args, "-n")
    if "android.intent.category.HOME" in args:
        phone.key("HOME")
        return 0, "Starting: Intent\n"
    components = phone.state.aosp.components if phone.state.aosp else {}
    for app in phone.state.apps:
        if wanted == components.get(app, component(app)):
            phone.open(app)
            return 0, f"Starting: Intent {{ cmp={wanted} }}\nStatus: ok\n"
    return 1, f"Error type 3\nError: Activity class {{{wanted}}} does not exist.\n"


def _broadcast(phone: Phone, args: list[str]) -> Result:
    """ADB_INPUT_B64 is how non-ASCII text is typed on real devices (ADBKeyBoard): base64 of UTF-8 in extra `msg`."""
    if _option(args, "-a") == "ADB_INPUT_B64":
        import base64
        import binascii

        try:
            phone.type(base64.b64decode(_option(args, "msg"), validate=True).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError):
            return 1, "Error: bad msg\n"
    clipper = _option(args, "-a") if phone.state.aosp else ""
    if phone.state.aosp and clipper in ("clipper.set", "clipper.get"):
        if clipper == "clipper.set":
            phone.state.aosp.clipboard = _option(args, "text")
        return 0, f'Broadcast completed: result=-1, data="{phone.state.aosp.clipboard}"\n'
    return 0, "Broadcast completed: result=0\n"


def _option(args: list[str], flag: str) -> str:
    return args[args.index(flag) + 1] if flag in args[:-1] else ""


def _stacks(phone: Phone) -> str:
    name = activity(phone)
    return (
        "RootTask id=1 type=standard mode=fullscreen\n"
        f"  taskId=1: {name} bounds=[0,0][{phone.width},{phone.height}] userId=0 visible=true "
        f"topActivity=ComponentInfo{{{name}}}\n"
    )


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
            phone.switch(names[service], verb == "enable")
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
            return 0, f"ACTIVITY MANAGER\n{_stacks(phone)}"
    return 1, f"Can't find service: {' '.join(args[:1])}\n"


def _uiautomator(phone: Phone, args: list[str]) -> Result:
    if args[:1] != ["dump"]:
        return 1, "Error: usage: uiautomator dump [file]\n"
    if args[1:] == ["/dev/tty"]:
        return 0, window_xml(phone) + f"\nUI hierchary dumped to: {args[1]}\n"
    path = args[1] if args[1:] else DUMP
    phone.files.write(path, window_xml(phone).encode(), phone.now)
    return 0, f"UI hierchary dumped to: {path}\n"


def _screencap(phone: Phone, args: list[str]) -> Result:
    picture = encode_png(draw(phone.scene())).encoded()
    match args:
        case [] | ["-p"]:
            return 0, text_of(picture)
        case ["-p", path] | [path]:
            phone.files.write(path, picture, phone.now)
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
            aosp.forget(phone, package)
            return 0, "Success\n"
        case ["list", *_] | ["clear", _] | ["grant", *_]:
            return 0, "Success\n"
    return 1, "Error: unknown pm command\n"


def _content(phone: Phone, args: list[str]) -> Result:
    """The contacts provider; nothing else is provided here."""
    if args[:1] != ["query"] or not _option(args, "--uri").startswith("content://contacts/phones"):
        return 0, "No result found.\n"
    rows = phone.state.aosp.contacts if phone.state.aosp else []
    lines = [f"Row: {k} display_name={name}, number={number}\n" for k, (name, number) in enumerate(rows)]
    return 0, "".join(lines) or "No result found.\n"


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


def _sleep(phone: Phone, args: list[str]) -> Result:
    try:
        phone.elapse(min(60.0, float(args[0])))
    except (IndexError, ValueError):
        return 1, "sleep: bad number\n"
    return 0, ""


_COMMANDS: dict[str, Callable[[Phone, list[str]], Result]] = {
    **toolbox.COMMANDS,
    "input": _input,
    "am": _am,
    "settings": _settings,
    "svc": _svc,
    "dumpsys": _dumpsys,
    "uiautomator": _uiautomator,
    "screencap": _screencap,
    "content": _content,
    "restorecon": lambda phone, args: (0, ""),
    "service": lambda phone, args: (0, "Result: Parcel(00000000 '....')\n"),
    "wm": _wm,
    "pm": _pm,
    "getprop": _getprop,
    "sleep": _sleep,
    "echo": lambda phone, args: (0, " ".join(args) + "\n"),
    "whoami": lambda phone, args: (0, "root\n"),
}
