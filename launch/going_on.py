"""What to run next: after a command is stopped, after the disk is full, and after it is done. Exit codes that mean one thing."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from guiderail.agent.disk import is_full
from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.launch import show

NOTHING_LEARNED = 3
"""RL in which every group was dropped."""
NOTHING_SCORED = 4
"""An evaluation of which every attempt is unscored."""
STOPPED = 130
"""Ctrl-C, as shells count it."""


@contextmanager
def going_on(out: Path | None = None, resume: str = "") -> Iterator[None]:
    """Around the work of a command. Ctrl-C ends it with the command that goes on and exit code 130; a full disk is a
    SetupError with that command. out: the folder it writes. resume: the option with which it goes on, if it can."""
    try:
        yield
    except KeyboardInterrupt:
        if int(os.environ.get("RANK", "0")) == 0:
            goes_on = f"; to go on, run: {again(resume)}" if out is not None else ""
            show.err.print(f"stopped{goes_on}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(STOPPED) from None
    except GuiderailError:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        where = f" for {out}" if out is not None else ""
        raise SetupError(f"no space left on the disk{where} ({error}); free some, then run: {again(resume)}") from error


def again(resume: str = "") -> str:
    """The command that was typed, with the option `resume`. Under a launcher the command is the launcher's."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"the same command again{f' with {resume}' if resume else ''}"
    words = ["guiderail", *sys.argv[1:]]
    return shlex.join([*words, resume] if resume and resume not in words else words)


def then(*commands: str) -> None:
    """Say which commands come next."""
    for number, command in enumerate(commands):
        head = "next:" if number == 0 else "  or:"
        show.err.print(f"{head} {command}", style="dim", markup=False, highlight=False, soft_wrap=True)


def after_scoring(
    result: Mapping[str, Any], out: Path | None, causes: Iterable[str] = (), inside: str | None = None
) -> None:
    """What follows an evaluation: the next command, or an exit code of its own where nothing could be scored. inside: where
    `out` holds several runs, the one to submit."""
    if not result["n"] and result["unscored"]:
        why = "; ".join(dict.fromkeys(filter(None, causes))) or "no cause was recorded"
        show.err.print(
            f"nothing was scored: all {result['unscored']} attempts failed for other reasons than the agent: {why[:2000]}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(NOTHING_SCORED)
    if out is not None:
        folder, one = shlex.quote(str(out)), shlex.quote(str(out / inside if inside else out))
        then(f"guiderail report {folder} --out {folder}-report", f"guiderail submit build {one} --out {one}.zip")
