"""The phone's commands for files and time, as toybox has them."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Callable
from datetime import UTC, datetime

from envs.pocket.files import FileError, real
from envs.pocket.phone import Phone
from envs.pocket.script import Result


def text_of(data: bytes) -> str:
    """Bytes as the shell hands them on; `bytes_of` gives them back exactly."""
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
        if phone.files.is_folder(path):
            names = phone.files.names(path)
            places = [posixpath.join(real(path), n) for n in names]
        elif path in phone.files:
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
    folder = place not in phone.files
    when = _stamp(phone.state.epoch if folder else phone.files.changed(place))
    size = 4096 if folder else len(phone.files[place])
    return f"{'drwxrws---' if folder else '-rw-rw----'} 1 u0_a158 media_rw {size} {when} {name}"


def _stamp(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond:06d}000 +0000"


def cat(phone: Phone, args: list[str]) -> Result:
    said: list[bytes] = []
    status, words = _each("cat", args, lambda path: said.append(phone.files[path]))
    return status, text_of(b"".join(said)) + words


def rm(phone: Phone, args: list[str]) -> Result:
    flags, paths = _split(args)
    return _each("rm", paths, lambda path: phone.files.remove(path, "r" in flags), forgive="f" in flags)


def mkdir(phone: Phone, args: list[str]) -> Result:
    """Without -p what exists already is an error."""
    flags, paths = _split(args)

    def make(path: str) -> None:
        if "p" not in flags and phone.files.is_folder(path):
            raise FileError(f"{path}: File exists")
        phone.files.make_folder(path)

    return _each("mkdir", paths, make)


def _two(name: str, phone: Phone, args: list[str], do: Callable[[str, str, float], None]) -> Result:
    _, paths = _split(args)
    if len(paths) < 2:
        return 1, f"{name}: Needs 2 arguments\n"
    return _each(name, paths[:-1], lambda path: do(path, paths[-1], phone.now))


def cp(phone: Phone, args: list[str]) -> Result:
    """`cp -a DIR/. OTHER` copies what DIR holds."""

    def copy(source: str, target: str, now: float) -> None:
        if source.endswith("/."):
            for name in phone.files.names(source[:-2]):
                phone.files.copy(posixpath.join(source[:-2], name), target, now)
        else:
            phone.files.copy(source, target, now)

    return _two("cp", phone, args, copy)


def mv(phone: Phone, args: list[str]) -> Result:
    return _two("mv", phone, args, phone.files.move)


def touch(phone: Phone, args: list[str]) -> Result:
    def one(path: str) -> None:
        phone.files.write(path, phone.files.get(path), phone.now)

    return _each("touch", _split(args)[1], one)


def find(phone: Phone, args: list[str]) -> Result:
    """PATH with -type f, -type d, -name PATTERN, -mindepth N and -delete; -o between types allows both."""
    path = args[0] if args and not args[0].startswith("-") else "/"
    if not phone.files.is_folder(path) and path not in phone.files:
        return 1, f"find: {path}: No such file or directory\n"
    kinds = {args[k + 1] for k, a in enumerate(args[:-1]) if a == "-type"} or {"f", "d"}
    names = [args[k + 1] for k, a in enumerate(args[:-1]) if a == "-name"]
    least = int(depth) if (depth := _after(args, "-mindepth")).isdecimal() else 0
    shown = []
    for place in phone.files.under(path):
        kind = "f" if place in phone.files else "d"
        deep = place[len(real(path).rstrip("/")) :].count("/")
        if deep >= least and kind in kinds and all(_like(posixpath.basename(place), n) for n in names):
            shown.append(path.rstrip("/") + place[len(real(path).rstrip("/")) :] or "/")
    if "-delete" in args:
        return _each("find", shown, lambda one: phone.files.remove(one, recursive=True)) if shown else (0, "")
    return 0, "".join(f"{p}\n" for p in shown)


def _after(args: list[str], flag: str) -> str:
    return args[args.index(flag) + 1] if flag in args[:-1] else ""


def _like(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def test(phone: Phone, args: list[str]) -> Result:
    """`[ -d PATH ]`, with -f, -e, -n, -z, and = or != between words."""
    match [a for a in args if a != "]"]:
        case ["-d", path]:
            return int(not phone.files.is_folder(path)), ""
        case ["-f", path]:
            return int(path not in phone.files), ""
        case ["-e", path]:
            return int(path not in phone.files and not phone.files.is_folder(path)), ""
        case ["-n" | "-z" as flag, text]:
            return int(bool(text) != (flag == "-n")), ""
        case [a, "=" | "==", b]:
            return int(a != b), ""
        case [a, "!=", b]:
            return int(a == b), ""
    return 2, "sh: [: bad test\n"


def chmod(phone: Phone, args: list[str]) -> Result:
    """Nobody is kept out here; but what is not there cannot be changed."""
    _, paths = _split(args)
    missing = [p for p in paths[1:] if p not in phone.files and not phone.files.is_folder(p)]
    return (1, f"chmod: {missing[0]}: No such file or directory\n") if missing else (0, "")


def date(phone: Phone, args: list[str]) -> Result:
    """Now; +%s and other formats; or MMDDhhmm[[CC]YY][.ss] to set it."""
    match args:
        case []:
            return 0, f"{datetime.fromtimestamp(phone.now, UTC):%a %b %e %H:%M:%S} UTC {_year(phone)}\n"
        case ["+%s"]:
            return 0, f"{int(phone.now)}\n"
        case [text] if text.startswith("+"):
            return 0, datetime.fromtimestamp(phone.now, UTC).strftime(text[1:]) + "\n"
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
    return datetime.fromtimestamp(phone.now, UTC).year


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
}
