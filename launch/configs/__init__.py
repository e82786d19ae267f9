"""The configs that come with the package, found by name from any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import nearest

HERE = Path(__file__).parent
TRAINING = tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def find(name: str) -> Path:
    """The file `name`; else the config of that name that comes with the package: tiny_sft, tiny_sft.yaml, study/pocket.

    Raises SetupError with the names there are.
    """
    given = Path(name)
    if given.is_file():
        return given
    ours = HERE / f"{name.removesuffix('.yaml')}.yaml"
    if ours in HERE.rglob("*.yaml"):
        return ours
    hint = nearest(given.stem, TRAINING)
    names = "" if "expected" in hint else f" (guiderail brings {', '.join(TRAINING)})"
    raise SetupError(f"no config file {name}, and none of that name comes with guiderail{hint}{names}")


def complete(start: str) -> list[str]:
    """Names for the shell's completion."""
    return [name for name in TRAINING if name.startswith(start)]


ConfigArg = Annotated[
    str,
    typer.Argument(
        help=f"a YAML file, or one that comes with guiderail: {', '.join(TRAINING)}",
        autocompletion=complete,
        metavar="CONFIG",
    ),
]
"""The config of a command, for `find`."""
