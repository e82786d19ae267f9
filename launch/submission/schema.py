"""What a manifest and an attempt look like, format 2. Unknown keys, wrong types, NaN and repeated keys are errors with their
place. A line has the names of a run folder's (rl/runs/rows.py).
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guiderail.agent.types import By, Ended

_HEX = r"^[0-9a-f]{64}$"
FORMAT: Final = "guiderail-submission/2"
Made = TypeVar("Made", bound=BaseModel)


MOST_ATTEMPTS, MOST_TURNS = 20_000, 100_000
MOST_VALUES, MOST_DEPTH = 500_000, 40
"""Of one JSON text: values in all, and how deep they are nested."""
MOST_ROW_VALUES = 5_000_000
"""Of all attempts together."""
_BIG = 2**53
Count = Annotated[int, Field(ge=0, lt=_BIG)]
Seed = Annotated[int, Field(gt=-_BIG, lt=_BIG)]
LIVE = ("pocket", "miniwob", "mobilegym", "android", "android-world", "aitw", "world", "run")
KINDS = ("sop", "offline", "screenspot", *LIVE)
Kind = Literal[
    "sop", "offline", "screenspot", "pocket", "miniwob", "mobilegym", "android", "android-world", "aitw", "world", "run"
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Verdict(Strict):
    readable: bool
    type_ok: bool
    exact: bool
    why: str
    judgeable: bool = True
    thought: float | None = None


class Turn(Strict):
    """One answer. screenshot: its SHA-256, where the run kept it. verdict: recordings only; action None: unreadable. by: who
    made it; an attempt in which a person took part is not scored."""

    index: Count
    screenshot: str | None = Field(default=None, pattern=_HEX)
    screen: list[Annotated[int, Field(ge=1, lt=2**31)]] = Field(min_length=2, max_length=2)
    text: str
    thought: str | None
    action: dict[str, Any] | None
    note: str = ""
    finish: Literal["stop", "length", "budget"] | None = None
    tokens: Count | None = None
    verdict: Verdict | None = None
    by: By = "agent"


class Outcome(Strict):
    """What a check of the end found: `agent.types.Outcome`."""

    success: bool
    progress: float | None = Field(default=None, ge=0, le=1)
    side_effects: list[str] | None = None
    reason: str = ""
    checked_by: Literal["state", "judge", "person"] = "state"


class Key(Strict):
    """Which attempt: of what, and which of its samples, from 0. start: the step, of a single step of a recording."""

    unit: str = Field(min_length=1, max_length=1000)
    start: Count | None = None
    sample: Count

    @property
    def task(self) -> str:
        """What the manifest declares: a unit, or UNIT/STEP."""
        return self.unit if self.start is None else f"{self.unit}/{self.start}"

    @property
    def words(self) -> str:
        return f"{self.task[:80]!r} sample {self.sample}"

    def same(self, other: Key) -> bool:
        return (self.unit, self.start, self.sample) == (other.unit, other.start, other.sample)


class Attempt(Key):
    """One attempt at one task. outcome: of a live attempt, None exactly after a crash, of which reason then names the part
    that failed, or where nobody checked a single use (kind run). Along a recording the verdicts say what was reached, and
    outcome is None. steps: length of the recording. seed: of the run. budget: most turns the task allows. group: what it
    also counts under; of a live task its template."""

    ended: Ended
    goal: str = ""
    outcome: Outcome | None = None
    reason: str = ""
    steps: int | None = Field(default=None, ge=1, lt=_BIG)
    seed: Seed
    budget: int | None = Field(default=None, ge=1, lt=_BIG)
    group: str | None = Field(default=None, max_length=200)
    turns: list[Turn]


class Claim(Key):
    """sha256: of the attempt's line, so that an edited line is named."""

    sha256: str = Field(pattern=_HEX)

    @classmethod
    def of(cls, row: Key, sha256: str) -> Self:
        return cls(unit=row.unit, start=row.start, sample=row.sample, sha256=sha256)


class Declarations(Strict):
    """Said by the submitter; None: not said. best_of: how many attempts stand behind each counted one."""

    human_help: bool | None = None
    trained_on_test: bool | None = None
    best_of: int = Field(default=1, ge=1, lt=_BIG)
    link: str = ""
    notes: str = ""


class Manifest(Strict):
    """kind: sop, offline, screenspot, or a live world; "world" is one of the submitter's own, "run" a single use. tasks: declared (`Key.task`), whether attempted or not.
    samples: attempts per task."""

    format: Literal["guiderail-submission/2"]
    name: str = Field(min_length=1, max_length=200)
    kind: Kind
    tasks: list[str] = Field(max_length=MOST_ATTEMPTS)
    samples: int = Field(ge=1, le=MOST_ATTEMPTS)
    seed: Seed
    attempts: list[Claim] = Field(max_length=MOST_ATTEMPTS)
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
    return validate(kind, load(text))


def load(text: bytes) -> Any:
    """JSON without NaN, repeated keys and numbers that no float can hold, of at most MOST_VALUES values, nested at most
    MOST_DEPTH deep. Raises ValueError."""
    if values_in(text) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES} values")
    try:
        content = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_sensible,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(content)
    return content


def values_in(text: bytes) -> int:
    """At most so many values: every one but the first stands behind a comma or an opening bracket."""
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MOST_DEPTH):
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        if not (level := [item for values in inner for item in values if isinstance(item, dict | list)]):
            return
    raise ValueError(f"nested more than {MOST_DEPTH} deep")


def validate(kind: type[Made], content: Any) -> Made:
    """Raises ValueError that says where and what."""
    try:
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


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _sensible(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"{text[:40]} is too large a number")
    return int(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
