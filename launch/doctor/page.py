"""What this machine can do with Guiderail, what is missing for the rest, and how to get it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby

from rich.text import Text

from guiderail.launch.doctor import machine, worlds
from guiderail.launch.doctor.check import Check, Probe

PURPOSES = {  # purpose -> what one can do when nothing is missing for it
    "basics": "record experts on the simulated phone, check and re-judge recordings",
    "training": "train, and use models on this machine",
    "ZeRO": "train large models with DeepSpeed",
    "simulated phones": "evaluate on live simulated phones",
    "imports": "import public datasets",
    "served models": "use models behind a server",
    "reports": "make reports",
    "submissions": "build and verify submissions",
    "MiniWoB++": "record and evaluate on MiniWoB++ web pages",
    "MobileGym": "evaluate on MobileGym",
    "console": "use agents in a page of the browser",
    "many hosts": "evaluate on many hosts",
    "Android": "drive Android emulators",
    "AndroidWorld": "evaluate on AndroidWorld",
    "vLLM rollouts": "sample training rollouts with vLLM",
}
COLOURS = {"ok": "green", "warn": "yellow", "missing": "red"}


def examine(deep: bool = False, workers: int = 1) -> list[Check]:
    """Every check, in the order of PURPOSES. deep: also import torch and android_env, and ask torch for its devices.
    workers: emulators side by side whose ports are looked at.

    Never raises: a probe that fails becomes a warning with its error.
    """
    found: list[Check] = []
    ports: Probe = ("Android", "emulator ports", partial(worlds.ports, workers))
    probes = (*machine.PROBES, *worlds.PROBES, ports, *((*machine.DEEP, *worlds.DEEP) if deep else ()))
    for purpose, name, probe in probes:
        try:
            found += probe()
        except Exception as error:
            detail = f"could not be checked: {type(error).__name__}: {error}"
            found.append(Check(purpose, name, "warn", detail, "check it by hand; the error says what stood in the way"))
    order = list(PURPOSES)
    return sorted(found, key=lambda check: order.index(check.purpose))


def page(checks: Sequence[Check], width: int = 80) -> Text:
    """The verdict, then every finding, for a terminal of `width` columns. Commands are never wrapped: they are to be pasted.

    What the machine said is shown as plain text, never as markup.
    """
    text = verdict(checks, width)
    for purpose, group in groupby(checks, key=lambda check: check.purpose):
        text.append(f"\n\n{purpose}", "bold")
        for (state, fix), alike in groupby(sorted(group, key=_severity), key=lambda check: (check.state, check.fix)):
            said = _joined(alike)
            text.append(f"\n  {state:<9}", COLOURS[state])
            text.append(textwrap.fill(said, width, initial_indent=" " * 11, subsequent_indent=" " * 11).lstrip())
            if fix and state == "warn":  # the verdict has those of what is missing
                text.append(f"\n           → {fix}", "cyan")
    return text


def verdict(checks: Sequence[Check], width: int = 80) -> Text:
    """What can be done now, what to install for the rest, and what deserves a look."""
    missing = {check.purpose for check in checks if check.state == "missing"}
    text = Text("You can:", "bold")
    for purpose, able in PURPOSES.items():
        if purpose not in missing:
            text.append(textwrap.fill(f"\n  {able}", width, subsequent_indent="    ", replace_whitespace=False))
    wanted: dict[tuple[str, ...], list[str]] = {}
    for purpose, able in PURPOSES.items():
        if purpose in missing:
            fixes = dict.fromkeys(c.fix for c in checks if c.purpose == purpose and c.state == "missing")
            wanted.setdefault(tuple(fixes), []).append(able)
    for commands, purposes in wanted.items():
        text.append("\n\n" + textwrap.fill(f"To {', to '.join(purposes)}:", width), "bold")
        text.append("".join(f"\n  {command}" for command in commands), "cyan")
    if doubtful := [f"{check.name} ({check.purpose})" for check in checks if check.state == "warn"]:
        text.append("\n\nWorth a look (below):", "bold")
        text.append("\n" + textwrap.fill(", ".join(doubtful), width, initial_indent="  ", subsequent_indent="  "))
    return text


def _severity(check: Check) -> int:
    return ("missing", "warn", "ok").index(check.state)


def _joined(alike: Iterable[Check]) -> str:
    """ "trl: not installed" and "peft: not installed" as "trl, peft: not installed"."""
    details: dict[str, list[str]] = {}
    for check in alike:
        details.setdefault(check.detail, []).append(check.name)
    return "; ".join(f"{', '.join(names)}: {detail}" for detail, names in details.items())
