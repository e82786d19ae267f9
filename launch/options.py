"""Options that several commands share. Each is declared once: alone, or as a field of a group that a command takes whole.

A group is a frozen dataclass. Its fields are declared as the parameters of a command are:

    @dataclass(frozen=True, slots=True)
    class AgentSpec:
        model: Annotated[str | None, typer.Option(help="...")] = None

    @app.command()
    @spread
    def sop(data: DataArg, who: AgentSpec, out: Out = None) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from functools import partial, wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer

from guiderail.agent.errors import SetupError
from guiderail.envs.recordings.match import ALL_RULES

DataArg = Annotated[
    str,
    typer.Argument(
        help="standard JSONL, the folder that holds episodes.jsonl or parquet files, or OWNER/NAME of a data set on the Hub",
        metavar="DATA",
    ),
]
Rules = Annotated[
    str, typer.Option("--rules", help=f"how two actions are compared: {', '.join(ALL_RULES)}, or path/to/file.py:NAME")
]
Temperature = Annotated[float, typer.Option(help="0 is greedy", min=0)]
Seed = Annotated[int, typer.Option(help="seed of everything random")]
Width = Annotated[int, typer.Option(help="episodes under way at once", min=1)]
Scale = Annotated[int, typer.Option(help="screenshot pixels per page pixel; a page has 160x210")]
DataFolder = Annotated[Path, typer.Option("--out", help="folder to write: episodes.jsonl, images/, DATASET.md")]
Out = Annotated[Path | None, typer.Option(help="run folder to write")]
Resume = Annotated[bool, typer.Option("--resume", help="continue the run in --out with what has no score yet")]
TrustFiles = Annotated[
    bool, typer.Option("--trust-files", help="run the Python files that the run names as its parts: docs/own-parts.md")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output, nothing else there")]

Name = TypeVar("Name", bound=str)


class Fixed:
    """Fields of a group that a command does not offer; they keep the group's default.

    who: Annotated[AgentSpec, Fixed("images")] = AgentSpec(images=1)
    """

    def __init__(self, *names: str):
        self.names = names


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer reads it: a parameter that is a dataclass becomes one option per field.

    The parameter's default, an instance, gives the options' defaults, so that each command can have its own. The command
    itself receives the group, built from the options.
    """
    groups: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    flat: list[Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, fixed = _group(parameter.annotation)
        if kind is None:
            flat.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        default = parameter.default
        fields = [f for f in inspect.signature(kind, eval_str=True).parameters.values() if f.name not in fixed]
        for field in fields:
            value = field.default if default is Parameter.empty else getattr(default, field.name)
            flat.append(field.replace(kind=Parameter.KEYWORD_ONLY, default=value))
        make = kind if default is Parameter.empty else partial(replace, default)
        groups[parameter.name] = make, [field.name for field in fields]

    @wraps(command)
    def called(**given: Any) -> None:
        made = {name: make(**{field: given.pop(field) for field in fields}) for name, (make, fields) in groups.items()}
        command(**given, **made)

    called.__signature__ = Signature(flat)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return called


def _group(annotation: Any) -> tuple[Any, set[str]]:
    """(dataclass, names of its fixed fields) of a parameter that stands for a group; (None, ...) for any other."""
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else [annotation]
    fixed = {name for note in notes if isinstance(note, Fixed) for name in note.names}
    return (kind if is_dataclass(kind) else None), fixed


def one_of(option: str, value: str, known: Sequence[Name]) -> Name:
    """The known name that `value` is. Raises SetupError for any other."""
    for name in known:
        if name == value:
            return name
    raise SetupError(f"{option} {value!r}: expected {' or '.join(known)}")


def parse_size(option: str, text: str, other: str = "") -> tuple[int, int]:
    """(width, height) of "WIDTHxHEIGHT". Raises SetupError for anything else; `other`: what the option also takes."""
    width, x, height = text.partition("x")
    if not x or not width.isdecimal() or not height.isdecimal():
        raise SetupError(f"{option} {text!r}: expected WIDTHxHEIGHT, such as 1080x2400{other}")
    return int(width), int(height)
