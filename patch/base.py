"""The signature of a patch, the budget, and the table of names.

A patch is a pure function `repair(episode, turn) -> Repair | None` asked at each mismatch; None ends the walk. The
paper's patch threshold epsilon is `budget(epsilon, patch)`: 0 stops at the first mismatch, k at the (k+1)-th, None never.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.errors import SetupError
from agent.types import Episode, Patch, Repair, Turn
from patch.off_policy import off_policy
from patch.on_policy import on_policy
from patch.thought_free import thought_free

PATCHES = ("none", "thought-free", "thought-free-released", "off-policy", "on-policy")


def budget(limit: int | None, patch: Patch) -> Patch:
    """At most `limit` repairs per walk; None for no limit."""

    def repair(episode: Episode, turn: Turn) -> Repair | None:
        return patch(episode, turn) if limit is None or turn.repairs_before < limit else None

    return repair


def build(
    name: str,
    limit: int | None,
    integrate: Callable[[str], str],
    thoughts: Mapping[tuple[str, int], str] | None = None,
) -> Patch | None:
    """A patch by name with its budget. `integrate` is the dialect's thought-writing prompt (on-policy only); `thoughts`
    a thought store for off-policy, see `patch.off_policy`."""
    match name:
        case "none":
            return None
        case "thought-free":
            chosen = thought_free()
        case "thought-free-released":
            chosen = thought_free(thought="")
        case "off-policy":
            chosen = off_policy(thoughts)
        case "on-policy":
            chosen = on_policy(integrate)
        case _:
            raise SetupError(f"method.patch is {name!r}, expected one of {', '.join(PATCHES)}")
    return None if limit == 0 else budget(limit, chosen)
