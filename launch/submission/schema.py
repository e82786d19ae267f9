"""What a manifest and an attempt look like. Unknown keys, wrong types, NaN and repeated keys are errors with their place."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_HEX = r"^[0-9a-f]{64}$"
Made = TypeVar("Made", bound=BaseModel)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Verdict(Strict):
    readable: bool
    type_ok: bool
    exact: bool
    why: str
    judgeable: bool = True


class Turn(Strict):
    """One answer. screenshot: its SHA-256, where the run kept it. verdict: recordings only; action None: unreadable."""

    index: int = Field(ge=0)
    screenshot: str | None = Field(default=None, pattern=_HEX)
    screen: list[int] = Field(min_length=2, max_length=2)
    text: str
    thought: str | None
    action: dict[str, Any] | None
    note: str = ""
    tokens: int | None = Field(default=None, ge=0)
    verdict: Verdict | None = None


class Attempt(Strict):
    """One attempt at one task. success None: unscored, a machine failed; reason then says which. budget: most turns the
    task allows. seed: of the run. steps: length of the recording. group: what it also counts under; of a
    live task its template."""

    task: str = Field(min_length=1, max_length=1000)
    trial: int = Field(ge=0)
    seed: int
    goal: str = ""
    ending: str = Field(max_length=100)
    success: bool | None
    reason: str = ""
    budget: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    group: str | None = None
    turns: list[Turn]


class Claim(Strict):
    """sha256: of the attempt's line, so that an edited line is named."""

    task: str
    trial: int
    sha256: str = Field(pattern=_HEX)


class Declarations(Strict):
    """Said by the submitter; None: not said. best_of: how many attempts stand behind each counted one."""

    human_help: bool | None = None
    trained_on_test: bool | None = None
    best_of: int = Field(default=1, ge=1)
    link: str = ""
    notes: str = ""


class Manifest(Strict):
    """kind: sop, offline, screenspot, or the name of a live world. tasks: declared, whether attempted or not."""

    format: Literal["guiderail-submission/1"]
    name: str = Field(min_length=1, max_length=200)
    kind: str = Field(min_length=1, max_length=50)
    tasks: list[str]
    trials: int = Field(ge=1)
    seed: int
    attempts: list[Claim]
    scores: dict[str, Any]
    rules: dict[str, Any] | None
    provenance: dict[str, Any]
    declarations: Declarations
    redactions: dict[str, int]


def canonical(value: Any) -> str:
    """One line of JSON; the same value, the same bytes."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))


def parse(kind: type[Made], text: bytes) -> Made:
    """Raises ValueError that says where and what."""
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}, got {str(first['input'])[:80]!r}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
