"""What a line of rollouts.jsonl must hold for readers to rely on it (rl/runs/rows.py says what it means). A run folder may come
from somebody else.
"""

from __future__ import annotations

from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic needs it before Python 3.12
)

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from guiderail.agent.types import By, Ended

_CLOSED = ConfigDict(extra="forbid", strict=True)
_OPEN = ConfigDict(extra="allow", strict=True)
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Side = Annotated[int, Field(ge=1, lt=2**31)]


@with_config(_CLOSED)
class _Verdict(TypedDict):
    readable: bool
    type_ok: bool
    exact: bool
    why: str
    judgeable: NotRequired[bool]
    thought: NotRequired[float | None]


@with_config(_CLOSED)
class _Repair(TypedDict):
    strategy: str
    text: str


@with_config(_CLOSED)
class _Outcome(TypedDict):
    success: bool
    progress: NotRequired[float | None]
    side_effects: NotRequired[list[str] | None]
    reason: NotRequired[str]
    checked_by: NotRequired[Literal["state", "judge", "person"]]


@with_config(_OPEN)
class _Turn(TypedDict):
    index: _Count
    text: str
    screen: Annotated[list[_Side], Field(min_length=2, max_length=2)]
    thought: str | None
    action: dict[str, Any] | None
    finish: NotRequired[Literal["stop", "length", "budget"]]
    tokens: NotRequired[_Count]
    verdict: NotRequired[_Verdict]
    repair: NotRequired[_Repair]
    screenshot: NotRequired[str]
    note: NotRequired[str]
    by: NotRequired[By]
    target: NotRequired[Annotated[list[float], Field(min_length=4, max_length=4)]]
    reward: NotRequired[float]
    prompt: NotRequired[str]
    token_ids: NotRequired[list[int]]


@with_config(_OPEN)
class _Row(TypedDict):
    unit: str
    sample: _Count
    ended: Ended
    turns: list[_Turn]
    start: NotRequired[_Count]
    steps: NotRequired[Annotated[int, Field(ge=1, lt=2**53)]]
    goal: NotRequired[str]
    reason: NotRequired[str]
    outcome: NotRequired[_Outcome | None]
    template: NotRequired[str | None]
    generation: NotRequired[_Count]
    visit: NotRequired[_Count]
    signal: NotRequired[str]


_ROW = TypeAdapter(_Row)


def check(row: object) -> None:
    """Raises ValueError that says where and what."""
    try:
        _ROW.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "line"
        raise ValueError(f"{place}: {first['msg']}, got {repr(first['input'])[:80]}") from None
