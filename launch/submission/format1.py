"""Bundles of format 1 as format 2. An attempt was named by task and trial then, and said of itself whether it succeeded."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from guiderail.launch.submission import scores
from guiderail.launch.submission.facts import facts
from guiderail.launch.submission.schema import (
    FORMAT,
    MOST_ATTEMPTS,
    Attempt,
    Claim,
    Count,
    Declarations,
    Manifest,
    Outcome,
    Seed,
    Strict,
    Turn,
    validate,
)

FORMAT1 = "guiderail-submission/1"
_STEP = re.compile(r"(.+)/(0|[1-9][0-9]*)", re.DOTALL)


class Attempt1(Strict):
    task: str = Field(min_length=1, max_length=1000)
    trial: Count
    seed: Seed
    goal: str = ""
    ending: str = Field(max_length=100)
    success: bool | None
    reason: str = ""
    budget: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    group: str | None = None
    turns: list[Turn]


class Claim1(Strict):
    task: str
    trial: Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest1(Strict):
    format: Literal["guiderail-submission/1"]
    name: str = Field(min_length=1, max_length=200)
    kind: str = Field(min_length=1, max_length=50)
    tasks: list[str] = Field(max_length=MOST_ATTEMPTS)
    trials: int = Field(ge=1, le=MOST_ATTEMPTS)
    seed: Seed
    attempts: list[Claim1] = Field(max_length=MOST_ATTEMPTS)
    scores: dict[str, Any]
    rules: dict[str, Any] | None
    provenance: dict[str, Any]
    declarations: Declarations
    redactions: dict[str, int]


def manifest(content: Any) -> Manifest:
    """From the JSON of a manifest. Raises ValueError that says where and what."""
    old = validate(Manifest1, content)
    claims = [_key(old.kind, claim.task, claim.trial) | {"sha256": claim.sha256} for claim in old.attempts]
    same = {name: getattr(old, name) for name in Manifest.model_fields if name in Manifest1.model_fields}
    new = {"format": FORMAT, "samples": old.trials, "attempts": [validate(Claim, claim) for claim in claims]}
    return validate(Manifest, same | new)


def attempt(kind: str, content: Any) -> Attempt:
    """From the JSON of a line. Raises ValueError also where its flag is not what its turns and its ending say."""
    old = validate(Attempt1, content)
    live = kind not in scores.RECORDINGS
    outcome = Outcome(success=old.success) if live and old.success is not None else None
    same = {name: getattr(old, name) for name in Attempt.model_fields if name in Attempt1.model_fields}
    row = validate(Attempt, same | _key(kind, old.task, old.trial) | {"ended": old.ending, "outcome": outcome})
    if (old.success is None) != (old.ending == "crashed"):
        raise ValueError("success is null exactly when the ending is crashed")
    if not live and (found := scores.success(kind, facts(row))) != old.success:
        raise ValueError(f"success is {old.success}, its verdicts say {found}")
    return row


def _key(kind: str, task: str, trial: int) -> dict[str, Any]:
    """A single step was named EPISODE/STEP; of one that crashed only the episode was known."""
    step = _STEP.fullmatch(task) if kind == "offline" else None
    unit, start = (step[1], int(step[2])) if step else (task, None)
    return {"unit": unit, "start": start, "sample": trial}
