"""One finding of the doctor, and how programs and packages are looked for."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "missing", "warn"]
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. purpose: what it is needed for. fix: what to run or change; empty when all is well."""

    purpose: str
    name: str
    state: State
    detail: str
    fix: str = ""


Probe = tuple[str, str, Callable[[], list[Check]]]
"""Purpose, name, and the function that looks."""


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def program(purpose: str, name: str, fix: str, places: Iterable[Path] = (), on_path: bool = True) -> Check:
    found = (shutil.which(name) if on_path else None) or next(
        (str(place) for place in places if os.access(place, os.X_OK) and place.is_file()), None
    )
    if found is None:
        looked = ["PATH"] * on_path + [str(place) for place in places]
        return Check(purpose, name, "missing", f"not in {', '.join(looked)}", fix)
    return Check(purpose, name, "ok", found)


def output(*command: str) -> str:
    """stdout of a short program, at most two seconds; raises if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
    return done.stdout.strip()
