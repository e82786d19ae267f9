"""The default patch, the budget, and all patches by name.

A patch is a pure function `repair(episode, turn) -> Repair | None` asked at each mismatch; None ends the rollout. The
paper's patch threshold epsilon is `budget(epsilon, patch)`: 0 stops at the first mismatch, k at the (k+1)-th, None never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import Registry, function_of
from guiderail.agent.types import Action, Episode, Patch, Repair, Turn
from guiderail.patch.off_policy import off_policy
from guiderail.patch.on_policy import on_policy
from guiderail.patch.person import Answered, person


def thought_free(thought: str | None = None) -> Patch:
    """The expert's action without a thought (UI-S1 section 3.2; the paper's final choice). thought None leaves the think
    block out; "" writes an empty one, as the released code does."""

    def repair(episode: Episode, turn: Turn) -> Repair:
        return Repair(episode.steps[turn.index].action, "thought-free", thought)

    return repair


def budget(limit: int | None, patch: Patch) -> Patch:
    """At most `limit` repairs per walk; None for no limit."""

    def repair(episode: Episode, turn: Turn) -> Repair | None:
        return patch(episode, turn) if limit is None or turn.repairs_before < limit else None

    return repair


# ----------------------------------------------------------------------------------------------------------- by name

Maker = Callable[[Callable[[str], str], Sequence[Answered] | None], Patch | None]
"""(the dialect's thought-writing prompt, a person's answers) -> a patch without budget; None for no
repairs."""


def _accept(name: str, found: object) -> Maker:
    """A user's patch needs nothing of what ours are made from; what it returns is checked at every repair."""
    patch = function_of(found, 2, "a function repair(episode, turn) -> Repair | None")

    def repair(episode: Episode, turn: Turn) -> Repair | None:
        made = patch(episode, turn)
        if made is None or (isinstance(made, Repair) and isinstance(made.action, Action)):
            return made
        where = f"{episode.source} step {turn.index}"
        raise SetupError(
            f"the patch {name} at {where}: got {str(made)[:80]!r}, expected a Repair with an action, or None"
        )

    return lambda integrate, answers: repair


def _person(answers: Sequence[Answered] | None) -> Patch:
    if answers is None:
        raise SetupError("the patch person needs a person's answers; give method.answers=RUN/review.jsonl")
    return person(answers)


PATCHES: Registry[Maker] = Registry(
    "patch",
    "guiderail.patches",
    {
        "none": lambda integrate, answers: None,
        "thought-free": lambda integrate, answers: thought_free(),
        "thought-free-released": lambda integrate, answers: thought_free(thought=""),
        "off-policy": lambda integrate, answers: off_policy(),
        "on-policy": lambda integrate, answers: on_policy(integrate),
        "person": lambda integrate, answers: _person(answers),
    },
    _accept,
)


def build(
    name: str,
    limit: int | None,
    integrate: Callable[[str], str],
    answers: Sequence[Answered] | None = None,
) -> Patch | None:
    """A patch by name with its budget. `integrate` is the dialect's thought-writing prompt (on-policy only);
    `answers` a person's, see `patch.person`. Raises SetupError."""
    chosen = PATCHES.find(name)(integrate, answers)
    return None if chosen is None or limit == 0 else budget(limit, chosen)
