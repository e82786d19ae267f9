"""The phone's commands for files and time, as toybox has them."""

from __future__ import annotations

import fnmatch
import hashlib
import posixpath
from collections.abc import Callable
from datetime import UTC, datetime

from guiderail.envs.pocket.adb.script import Result
from guiderail.envs.pocket.files import FileError, real
from guiderail.envs.pocket.phone import Phone


def text_of(data: bytes) -> str:
    """Bytes as the shell's text; `bytes_of` gives back the same bytes."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _split(args: list[str]) -> tuple[str, list[str]]:
    """All flags as one word, and the rest."""
    flags = "".join(a[1:] for a in args if a.startswith("-") and a != "-")
    return flags, [a for a in args if not a.startswith("-")]


def _each(name: str, paths: list[str], do: Callable[[str], object], forgive: bool = False) -> Result:
    said, failed = "", not paths
    for path in paths:
        try:
            do(path)
        except FileError as error:
            if not forgive:
                said, failed = f"{said}{name}: {error}\n", True
    return (1, said or f"{name}: Needs 1 argument\n") if failed else (0, "")


def ls(phone: Phone, args: list[str]) -> Result:
    """Names, or with -l one line each: mode, links, owner, group, size, time of change to the nanosecond, zone, name."""
    flags, paths = _split(args)
    said, status = "", 0
    for path in paths or ["/"]:
        if phone.state.files.is_folder(path):
            names = phone.state.files.names(path)
            places = [posixpath.join(real(path), n) for n in names]
        elif path in phone.state.files:
            names, places = [path], [real(path)]
        else:
            said, status = f"{said}ls: {path}: No such file or directory\n", 1
            continue
        lines = (
            [_long(phone, place, name) for place, name in zip(places, names, strict=True)] if "l" in flags else names
        )
        said += "".join(f"{line}\n" for line in lines)
    return status, said


def _long(phone: Phone, place: str, name: str) -> str:
    folder = place not in phone.state.files
    when = _stamp(phone.state.epoch if folder else phone.state.files.changed(place))
    size = 4096 if folder else len(phone.state.files[place])
    return f"{'drwxrws---' if folder else '-rw-rw----'} 1 u0_a158 media_rw {size} {when} {name}"


def _stamp(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond:06d}000 +0000"


def cat(phone: Phone, args: list[str]) -> Result:
    said: list[bytes] = []
    status, words = _each("cat", args, lambda path: said.append(phone.state.files[path]))
    return status, text_of(b"".join(said)) + words


def rm(phone: Phone, args: list[str]) -> Result:
    flags, paths = _split(args)
    return _each("rm", paths, lambda path: phone.state.files.remove(path, "r" in flags), forgive="f" in flags)


def mkdir(phone: Phone, args: list[str]) -> Result:
    """Without -p an existing folder is an error."""
    flags, paths = _split(args)

    def make(path: str) -> None:
        if "p" not in flags and phone.state.files.is_folder(path):
            raise FileError(f"{path}: File exists")
        phone.state.files.make_folder(path)

    return _each("mkdir", paths, make)


def _two(name: str, phone: Phone, args: list[str], do: Callable[[str, str, float], None]) -> Result:
    _, paths = _split(args)
    if len(paths) < 2:
        return 1, f"{name}: Needs 2 arguments\n"
    return _each(name, paths[:-1], lambda path: do(path, paths[-1], phone.state.now))


def cp(phone: Phone, args: list[str]) -> Result:
    """`cp -a DIR/. OTHER` copies what DIR holds."""

    def copy(source: str, target: str, now: float) -> None:
        if source.endswith("/."):
            for name in phone.state.files.names(source[:-2]):
                phone.state.files.copy(posixpath.join(source[:-2], name), target, now)
        else:
            phone.state.files.copy(source, target, now)

    return _two("cp", phone, args, copy)


def mv(phone: Phone, args: list[str]) -> Result:
    return _two("mv", phone, args, phone.state.files.move)


def touch(phone: Phone, args: list[str]) -> Result:
    def one(path: str) -> None:
        phone.state.files.write(path, phone.state.files.get(path), phone.state.now)

    return _each("touch", _split(args)[1], one)


def find(phone: Phone, args: list[str]) -> Result:
    """PATH with -type f, -type d, -name PATTERN, -mindepth N and -delete; -o between types allows both."""
    path = args[0] if args and not args[0].startswith("-") else "/"
    if not phone.state.files.is_folder(path) and path not in phone.state.files:
        return 1, f"find: {path}: No such file or directory\n"
    kinds = {args[k + 1] for k, a in enumerate(args[:-1]) if a == "-type"} or {"f", "d"}
    names = [args[k + 1] for k, a in enumerate(args[:-1]) if a == "-name"]
    least = int(depth) if (depth := _after(args, "-mindepth")).isdecimal() else 0
    shown = []
    for place in phone.state.files.under(path):
        kind = "f" if place in phone.state.files else "d"
        deep = place[len(real(path).rstrip("/")) :].count("/")
        if deep >= least and kind in kinds and all(_like(posixpath.basename(place), n) for n in names):
            shown.append(path.rstrip("/") + place[len(real(path).rstrip("/")) :] or "/")
    if "-delete" in args:
        return _each("find", shown, lambda one: phone.state.files.remove(one, recursive=True)) if shown else (0, "")
    return 0, "".join(f"{p}\n" for p in shown)


def _after(args: list[str], flag: str) -> str:
    return args[args.index(flag) + 1] if flag in args[:-1] else ""


def _like(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def test(phone: Phone, args: list[str]) -> Result:
    """`[ -d PATH ]`, with -f, -e, -n, -z, and = or != between words."""
    match [a for a in args if a != "]"]:
        case ["-d", path]:
            return int(not phone.state.files.is_folder(path)), ""
        case ["-f", path]:
            return int(path not in phone.state.files), ""
        case ["-e", path]:
            return int(path not in phone.state.files and not phone.state.files.is_folder(path)), ""
        case ["-n" | "-z" as flag, text]:
            return int(bool(text) != (flag == "-n")), ""
        case [a, "=" | "==", b]:
            return int(a != b), ""
        case [a, "!=", b]:
            return int(a == b), ""
    return 2, "sh: [: bad test\n"


def chmod(phone: Phone, args: list[str]) -> Result:
    """Permissions have no effect here, but a path that does not exist is an error."""
    _, paths = _split(args)
    missing = [p for p in paths[1:] if p not in phone.state.files and not phone.state.files.is_folder(p)]
    return (1, f"chmod: {missing[0]}: No such file or directory\n") if missing else (0, "")


def date(phone: Phone, args: list[str]) -> Result:
    """Print the time, in a format such as +%s, or set it by MMDDhhmm[[CC]YY][.ss]."""
    match args:
        case []:
            return 0, f"{datetime.fromtimestamp(phone.state.now, UTC):%a %b %e %H:%M:%S} UTC {_year(phone)}\n"
        case ["+%s"]:
            return 0, f"{int(phone.state.now)}\n"
        case [text] if text.startswith("+"):
            return 0, datetime.fromtimestamp(phone.state.now, UTC).strftime(text[1:]) + "\n"
        case [text]:
            for form in ("%m%d%H%M%y.%S", "%m%d%H%M%Y.%S", "%m%d%H%M%y", "%m%d%H%M%Y"):
                try:
                    when = datetime.strptime(text, form).replace(tzinfo=UTC)
                except ValueError:
                    continue
                phone.state.epoch = when.timestamp() - phone.state.clock
                return 0, f"{when:%a %b %e %H:%M:%S} UTC {when.year}\n"
    return 1, f"date: bad date '{' '.join(args)}'\n"


def _year(phone: Phone) -> int:
    return datetime.fromtimestamp(phone.state.now, UTC).year


def _texts(phone: Phone, paths: list[str], given: str) -> list[tuple[str, bytes]]:
    """The named files, or what came through a pipe. Raises FileError."""
    return [(path, phone.state.files[path]) for path in paths] or [("-", bytes_of(given))]


def head(phone: Phone, args: list[str], given: str) -> Result:
    """The first 10 lines; -n LINES, -LINES and -c BYTES say how many."""
    lines, most, paths = 10, -1, []
    words = iter(args)
    for word in words:
        value = next(words, "") if word in ("-n", "-c") else word[1:]
        if not word.startswith("-") or word == "-":
            paths += [word] if word != "-" else []
        elif not value.isdecimal():
            return 1, f"head: bad number '{value}'\n"
        elif word == "-c":
            most = int(value)
        else:
            lines = int(value)
    try:
        texts = _texts(phone, paths, given)
    except FileError as error:
        return 1, f"head: {error}\n"
    cut = [data[:most] if most >= 0 else b"".join(data.splitlines(keepends=True)[:lines]) for _, data in texts]
    return 0, text_of(b"".join(cut))


def md5sum(phone: Phone, args: list[str], given: str) -> Result:
    """-b prints the sums alone."""
    flags, paths = _split(args)
    try:
        texts = _texts(phone, paths, given)
    except FileError as error:
        return 1, f"md5sum: {error}\n"
    sums = [(hashlib.md5(data, usedforsecurity=False).hexdigest(), path) for path, data in texts]
    return 0, "".join(f"{one}\n" if "b" in flags else f"{one}  {path}\n" for one, path in sums)


FILTERS: dict[str, Callable[[Phone, list[str], str], Result]] = {"head": head, "md5sum": md5sum}
COMMANDS: dict[str, Callable[[Phone, list[str]], Result]] = {
    "ls": ls,
    "cat": cat,
    "rm": rm,
    "mkdir": mkdir,
    "cp": cp,
    "mv": mv,
    "touch": touch,
    "find": find,
    "[": test,
    "test": test,
    "chmod": chmod,
    "date": date,
    "true": lambda phone, args: (0, ""),
    "false": lambda phone, args: (1, ""),
}
