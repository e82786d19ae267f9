"""Which tasks a live run was about, from how its record describes the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS = ("tasks", "seeds", "combinations", "limit")
"""How many of the same tasks were taken, where it is a number: a task keeps its name and its start."""
MACHINE = ("serial", "emulator")
JUDGE = ("model", "mode")
"""What decides of a judge; its server and its folder do not."""


def tasks_of(world: Mapping[str, Any]) -> dict[str, Any]:
    """What of a world's description changes its tasks or what counts as success: not how many were taken, nor the machine.
    Pocket is the same phone behind each `device`; AndroidWorld is not."""
    found = {
        name: value
        for name, value in world.items()
        if name not in MACHINE and not (name in COUNTS and isinstance(value, int))
    }
    if found.get("name") == "pocket":
        found.pop("device", None)
    if isinstance(judge := found.get("judge"), Mapping):
        found["judge"] = {name: judge.get(name) for name in JUDGE}
    return found
