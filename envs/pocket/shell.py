"""The phone's own adb shell: just enough of Android's commands for android_env and AndroidWorld to feel at home."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable

from envs.device import encode_png
from envs.pocket.draw import draw
from envs.pocket.phone import Phone
from envs.pocket.tree import PACKAGE, component, window_xml

DUMP = "/sdcard/window_dump.xml"
KEYCODES = {3: "HOME", 4: "BACK", 24: "VOLUME_UP", 25: "VOLUME_DOWN", 66: "ENTER", 67: "DEL", 82: "MENU"}
_SYNTAX = re.compile(r"&&|\|\||[|;&\n`<>()]|\$\(")

Result = tuple[int, str]


def run(phone: Phone, args: list[str]) -> str:
    """Run one command; every argument arrives as it is."""
    return run_line(phone, shlex.join(args))


def run_line(phone: Phone, line: str) -> str:
    """Run a shell line: quoting, `&&`, `||`, `;`, `|`. Anything else of a shell's syntax is refused, not guessed."""
    try:
        return _pipeline(phone, _tokens(line))[1]
    except _Syntax as error:
        return f"sh: {error}\n"


class _Syntax(Exception):
    pass


def _tokens(line: str) -> list[tuple[str, bool]]:
    """(word, is it an operator). Quoted operators are words."""
    tokens: list[tuple[str, bool]] = []
    word: str | None = None
    k = 0
    while k < len(line):
        char = line[k]
        operator = _SYNTAX.match(line, k)
        if char == "'" or char == '"':
            end = line.find(char, k + 1)
            while char == '"' and end > 0 and line[end - 1] == "\\":
                end = line.find(char, end + 1)
            if end < 0:
                raise _Syntax(f"unterminated quote {char}")
            body = line[k + 1 : end]
            if char == '"' and re.search(r"[`$]", body):
                raise _Syntax("expansion is not supported")
            word = (word or "") + (re.sub(r'\\(["\\])', r"\1", body) if char == '"' else body)
            k = end + 1
        elif operator or char.isspace():
            if word is not None:
                tokens.append((word, False))
                word = None
            if operator:
                tokens.append((operator.group(), True))
            k += len(operator.group()) if operator else 1
        elif char == "\\" and k + 1 < len(line):
            word, k = (word or "") + line[k + 1], k + 2
        else:
            word, k = (word or "") + char, k + 1
    return [*tokens, (word, False)] if word is not None else tokens


def _pipeline(phone: Phone, tokens: list[tuple[str, bool]]) -> Result:
    status, output, given = 0, "", ""
    argv: list[str] = []
    skip = False
    for word, operator in [*tokens, (";", True)]:
        if not operator:
            argv.append(word)
            continue
        if word not in ("&&", "||", "|", ";", "\n"):
            raise _Syntax(f"{word!r} is not supported")
        if argv and not skip:
            status, text = _command(phone, argv, given)
            given = text if word == "|" else ""
            output += "" if word == "|" else text
        argv = []
        if word != "|":
            skip = (word == "&&" and status != 0) or (word == "||" and status == 0)
    return status, output


def _command(phone: Phone, argv: list[str], given: str) -> Result:
    name, args = argv[0], [a for a in argv[1:] if a != ""]
    if name == "sh" and args[:1] == ["-c"] and len(args) == 2:
        return _pipeline(phone, _tokens(args[1]))
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
                if a == b:
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
            if phone.screen and component(phone.screen.app).startswith(f"{package}/"):
                phone.state.stack = []
            return 0, ""
        case ["stack", "list"]:
            return 0, _stacks(phone)
        case ["broadcast", *rest]:
            return _broadcast(phone, rest)
    return 1, "Error: unknown am command\n"


def _am_start(phone: Phone, args: list[str]) -> Result:
    wanted = _option(args, "-n")
    if "android.intent.category.HOME" in args:
        phone.key("HOME")
        return 0, "Starting: Intent\n"
    for app in phone.state.apps:
        if wanted == component(app):
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
    return 0, "Broadcast completed: result=0\n"


def _option(args: list[str], flag: str) -> str:
    return args[args.index(flag) + 1] if flag in args[:-1] else ""


def _stacks(phone: Phone) -> str:
    name = component(phone.screen.app) if phone.screen else f"{PACKAGE}.launcher/.Home"
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
            name = component(phone.screen.app) if phone.screen else f"{PACKAGE}.launcher/.Home"
            return 0, f"  mCurrentFocus=Window{{1 u0 {name}}}\n  mFocusedApp=ActivityRecord{{1 u0 {name} t1}}\n"
        case ["activity"]:
            return 0, f"ACTIVITY MANAGER\n{_stacks(phone)}"
    return 1, f"Can't find service: {' '.join(args[:1])}\n"


def _uiautomator(phone: Phone, args: list[str]) -> Result:
    if args[:1] != ["dump"]:
        return 1, "Error: usage: uiautomator dump [file]\n"
    if args[1:] == ["/dev/tty"]:
        return 0, window_xml(phone) + f"\nUI hierchary dumped to: {args[1]}\n"
    phone.files[args[1] if args[1:] else DUMP] = window_xml(phone).encode()
    return 0, f"UI hierchary dumped to: {args[1] if args[1:] else DUMP}\n"


def _screencap(phone: Phone, args: list[str]) -> Result:
    """Only into a file: text output cannot hold a picture. `adb pull` or `adb exec-out screencap -p` bring it over."""
    match args:
        case ["-p", path] | [path] if path != "-p":
            phone.files[path] = encode_png(draw(phone.scene())).encoded()
            return 0, ""
    return 1, "Error: usage: screencap [-p] FILE\n"


def _cat(phone: Phone, args: list[str]) -> Result:
    missing = [a for a in args if a not in phone.files]
    if missing:
        return 1, f"cat: {missing[0]}: No such file or directory\n"
    return 0, b"".join(phone.files[a] for a in args).decode("utf-8", "replace")


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
            return 0, "".join(f"package:{PACKAGE}.{a.lower()}\n" for a in sorted(phone.state.apps))
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


def _sleep(phone: Phone, args: list[str]) -> Result:
    try:
        phone.elapse(min(60.0, float(args[0])))
    except (IndexError, ValueError):
        return 1, "sleep: bad number\n"
    return 0, ""


_COMMANDS: dict[str, Callable[[Phone, list[str]], Result]] = {
    "input": _input,
    "am": _am,
    "settings": _settings,
    "svc": _svc,
    "dumpsys": _dumpsys,
    "uiautomator": _uiautomator,
    "cat": _cat,
    "screencap": _screencap,
    "ls": lambda phone, args: (0, "".join(f"{p}\n" for p in sorted(phone.files) if not args or p.startswith(args[0]))),
    "rm": lambda phone, args: (0, "" if [phone.files.pop(a, b"") for a in args] else "rm: no argument\n"),
    "wm": _wm,
    "pm": _pm,
    "getprop": _getprop,
    "sleep": _sleep,
    "echo": lambda phone, args: (0, " ".join(args) + "\n"),
    "whoami": lambda phone, args: (0, "shell\n"),
    "date": lambda phone, args: (0, "Sun Oct 15 15:34:00 UTC 2023\n"),
}
