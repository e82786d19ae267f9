"""Parts by name: the package's own, those of installed distributions, and those in a file of the user.

A part is a patch, a reward, a dialect, ...; each kind has one `Registry`. A name is one of
- the package's own;
- an entry point in the kind's group: installing a distribution adds it;
- "path/to/file.py:NAME": the file is run as code when its part is used.
Only the name goes to other processes, and each of them loads the part for itself: a module that was loaded from a file
cannot be imported by its name, so nothing defined in one can be unpickled elsewhere.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from guiderail.agent.errors import SetupError

T = TypeVar("T")
V = TypeVar("V")


class Registry(Mapping[str, T]):
    """The parts of one kind. As a mapping it holds the package's own; `find` also loads those of users.

    kind: the word for one part, in messages and in run records. group: the entry points that add names. accept(name,
    found): the part that a user's object stands for; raises TypeError that says what came and what was expected.
    """

    def __init__(self, kind: str, group: str, ours: Mapping[str, T], accept: Callable[[str, object], T]):
        self.kind, self.group, self._ours, self._accept = kind, group, dict(ours), accept

    def __getitem__(self, name: str) -> T:
        return self._ours[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ours)

    def __len__(self) -> int:
        return len(self._ours)

    def find(self, name: str) -> T:
        """The part of that name, loaded and checked. Raises SetupError."""
        point = self.check(name)
        if point is None and not names_file(name):
            return self._ours[name]
        place, found = self._from_file(name) if point is None else self._from_distribution(point)
        try:
            return self._accept(name, found)
        except TypeError as error:
            raise SetupError(f"{place} is not a {self.kind}: {error}") from None

    def check(self, name: str) -> metadata.EntryPoint | None:
        """The entry point of that name, if it is one. Raises SetupError for a name that nobody has, or two have. Runs no
        code: files and distributions are loaded by `find` only."""
        if names_file(name):
            return None
        points = [point for point in _installed(self.group, tuple(sys.path)) if point.name == name]
        owners = [*(["guiderail"] if name in self else []), *map(_distribution, points)]
        if not owners:
            raise SetupError(self._unknown(name))
        if len(owners) > 1:
            raise SetupError(
                f"the {self.kind} {name!r} comes from {' and from '.join(owners)}; uninstall one of them, or rename its "
                f"entry point in {self.group}"
            )
        return points[0] if points else None

    def origin(self, name: str) -> dict[str, str] | None:
        """Where a user's part comes from, for the run record: name, and file and sha256 or distribution and version. None
        for the package's own. Raises SetupError."""
        point = self.check(name)
        if point is not None:
            version = "" if point.dist is None else point.dist.version
            return {"name": name, "distribution": "" if point.dist is None else point.dist.name, "version": version}
        if not names_file(name):
            return None
        path, _ = _split(name)
        return {"name": name, "file": str(path), "sha256": hashlib.sha256(_read(path.resolve())).hexdigest()}

    def _unknown(self, name: str) -> str:
        known = [*self, *(point.name for point in _installed(self.group, tuple(sys.path)))]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f", did you mean {close[0]!r}?" if close else ";"
        return f"unknown {self.kind} {name!r}{hint} known: {', '.join([*known, 'path/to/file.py:NAME'])}"

    def _from_file(self, name: str) -> tuple[str, object]:
        path, attribute = _split(name)
        module = vars(_module(path.resolve()))
        if attribute not in module:
            fitting = [one for one, value in module.items() if not one.startswith("_") and self._accepts(one, value)]
            has = f"it has {', '.join(fitting)}" if fitting else f"it has no {self.kind} at all"
            raise SetupError(f"{path} has no {attribute!r}; {has}; expected {path}:NAME")
        return name, module[attribute]

    def _from_distribution(self, point: metadata.EntryPoint) -> tuple[str, object]:
        place = f"the {self.kind} {point.name!r} of {_distribution(point)} ({point.value})"
        try:
            return place, point.load()
        except Exception as error:
            raise SetupError(
                f"{place} cannot be loaded: {type(error).__name__}: {error}; repair or uninstall it"
            ) from error

    def _accepts(self, name: str, found: object) -> bool:
        try:
            self._accept(name, found)
        except TypeError:
            return False
        return True


def origins(*chosen: tuple[Registry[Any], str]) -> dict[str, dict[str, dict[str, str]]]:
    """{"parts": {kind: origin}} of those that are not the package's own, to be merged into a run record; {} for none. A
    second one of a kind goes by "kind name"."""
    found: dict[str, dict[str, str]] = {}
    for registry, name in chosen:
        if (origin := registry.origin(name)) is not None:
            found[f"{registry.kind} {name}" if registry.kind in found else registry.kind] = origin
    return {"parts": found} if found else {}


def names_file(name: str) -> bool:
    """Whether this name makes `find` run a file. Ask before finding a name that was read from a file of somebody else."""
    return name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def nearest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" or the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else f", expected one of {', '.join(names)}"


# ------------------------------------------------------------------------------------------- checks of a user's object


def function_of(found: object, parameters: int, expected: str) -> Callable[..., Any]:
    """found, if it is a function of that many positional parameters; else TypeError. expected: such a function in words."""
    if callable(found) and not isinstance(found, type):
        try:
            inspect.signature(found).bind(*[None] * parameters)
            return found
        except TypeError:
            raise TypeError(f"got {_shown(found)}, expected {expected}") from None
        except ValueError:  # functions written in C may have no signature to look at
            return found
    raise TypeError(f"got {_shown(found)}, expected {expected}")


def value_of(found: object, type_: type[V]) -> V:
    """found, if it is a value of this dataclass and every field holds what its annotation says; else TypeError."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if not isinstance(found, type_):
        raise TypeError(f"got {_shown(found)}, expected a value of {type_.__module__}.{type_.__name__}")
    for name, annotation in get_type_hints(type_).items():
        value = getattr(found, name)
        try:
            TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value, strict=True)
        except ValidationError as error:
            raise TypeError(f"its {name} is {str(value)[:80]!r}: {error.errors()[0]['msg']}") from None
    return found


def _shown(found: object) -> str:
    if isinstance(found, type):
        return f"the class {found.__name__}"
    if not callable(found):
        return f"{str(found)[:80]!r} ({type(found).__name__})"
    try:
        return f"{getattr(found, '__name__', type(found).__name__)}{inspect.signature(found)}"
    except ValueError:
        return repr(found)[:80]


# ------------------------------------------------------------------------------------------------------------- loading


def _split(name: str) -> tuple[Path, str]:
    """The file and the name in it, "" where none is given."""
    file, _, attribute = (name if not name.endswith(".py") else name + ":").rpartition(":")
    return Path(file).expanduser(), attribute


@cache
def _read(path: Path) -> bytes:
    """Read once per process: what is recorded is then what was run."""
    if not path.is_file():
        raise SetupError(f"there is no file {path}; the current folder is {Path.cwd()}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error}") from None


@cache
def _module(path: Path) -> ModuleType:
    """The file, run as a module of its own: sys.path does not change, so it can import what is installed, not its
    neighbours. It is listed in sys.modules, where dataclasses look their module up."""
    name = f"guiderail_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    content = _read(path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(content, path, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 1
        raise SetupError(f"{path}:{line}: this file cannot be run: {type(error).__name__}: {error}") from error
    return module


@cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    """path: sys.path, where distributions are looked for; with another one the answer may differ."""
    return tuple(metadata.entry_points(group=group))


def _distribution(point: metadata.EntryPoint) -> str:
    return "an unknown distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"
