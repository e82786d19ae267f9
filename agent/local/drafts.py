"""Drafts of answers: where they come from, and which rows try theirs.

A draft is what an answer may be, verified in one forward (`agent.local.decode`). Nothing here changes an answer; a draft that
is wrong costs the columns that it took.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from guiderail.agent.policy import Speculation
from guiderail.agent.types import Prompt

VISITS = 4
"""Earlier answers that are kept per step."""
STEPS = 8192
"""Steps whose answers are kept; those not visited for longest go first."""


class Gate(Protocol):
    """Decides which rows try their draft."""

    def begin_call(self, rows: int) -> None:
        """Decide for one call with so many rows."""

    def allows(self) -> bool:
        """Whether the next row of this call tries its draft."""

    def record(self, drafted: int, accepted: int) -> None:
        """Count the tokens of one draft."""

    def forward(self, columns: int, seconds: float) -> None:
        """A decode step: columns it computed, and its seconds, prompts not included."""

    def end_call(self, tokens: int, forwards: int, columns: int) -> None:
        """What the call came to: tokens of answers, and what it cost besides the prompts. Drafts are in the columns."""


@dataclass
class CountGate:
    """Decides by how many drafted tokens were accepted so far.

    Counts only, so that a repeated run decides the same again. A drafted token costs about as much as a sampled one without
    its share of a forward's fixed cost, hence `least`, the share of accepted tokens from which drafts pay. Until 32 tokens
    were drafted one row in 8 tries; where drafts do not pay, one row in 8 tries in one call out of 32, so that a policy
    that comes to agree is noticed and all other calls pay nothing.
    """

    least: float = 0.3
    drafted: float = 0.0
    accepted: float = 0.0
    calls: int = 0
    asked: int = 0
    one_in: int = 8

    def begin_call(self, rows: int = 0) -> None:
        """As `Gate.begin_call`, from what earlier calls recorded."""
        self.calls += 1
        known = self.drafted >= 32
        pays = known and self.accepted >= self.least * self.drafted
        self.one_in = 1 if pays else 8 if not known or self.calls % 32 == 0 else 0

    def allows(self) -> bool:
        """As `Gate.allows`."""
        self.asked += 1
        return self.one_in > 0 and (self.asked - 1) % self.one_in == 0

    def record(self, drafted: int, accepted: int) -> None:
        """As `Gate.record`; old counts fade."""
        self.drafted += drafted
        self.accepted += accepted
        if self.drafted > 4096:
            self.drafted, self.accepted = self.drafted / 2, self.accepted / 2

    def forward(self, columns: int, seconds: float) -> None:
        """Times do not count."""

    def end_call(self, tokens: int, forwards: int, columns: int) -> None:
        """Nor do costs."""


class StepTime:
    """Seconds of a decode step as a + b * columns: least squares over the steps so far, in which old ones fade.

    a: what a step costs whatever it computes. b: what a column adds. Neither is below 0.
    """

    def __init__(self, fade: float = 0.999):
        self.fade, self._sums, self.steps = fade, np.zeros(5), 0

    def record(self, columns: int, seconds: float) -> None:
        """Count one step."""
        c, s = float(columns), seconds
        self._sums = self._sums * self.fade + np.array([1.0, c, c * c, s, c * s])
        self.steps += 1

    def of(self, forwards: float, columns: float) -> float:
        """Seconds of so many steps with so many columns in all; 0 before the first step, as where every answer is one token."""
        if not self.steps:
            return 0.0
        n, c, cc, s, cs = self._sums
        spread = n * cc - c * c
        slope = max(0.0, float((n * cs - c * s) / spread)) if spread > 1e-9 * max(1.0, n * cc) else 0.0
        fixed = float(s - slope * c) / float(n)
        if fixed < 0:
            fixed, slope = 0.0, float(s / c)
        return fixed * forwards + slope * columns


@dataclass
class _Side:
    """Per token of an answer, over the calls of like size that drafted, or that did not: forwards and columns. Old calls
    fade."""

    calls: int = 0
    tokens: float = 0.0
    forwards: float = 0.0
    columns: float = 0.0

    def record(self, tokens: int, forwards: int, columns: int) -> None:
        self.calls += 1
        self.tokens, self.forwards, self.columns = (
            0.8 * old + new for old, new in ((self.tokens, tokens), (self.forwards, forwards), (self.columns, columns))
        )


@dataclass
class GoodputGate:
    """Drafts where that makes more tokens of answers per second at the present batch size (SmartSpec, arXiv 2406.14066).

    The time of a decode step is measured (`StepTime`), how many steps and columns a token costs is counted, with drafts and
    without, for batches of like size: of `rows` up to the next power of two. Each side is tried in `least` calls first, and the
    one that is slower in one call out of `again`. It decides by time, so a repeated run may decide otherwise, and round
    otherwise.
    """

    least: int = 2
    again: int = 32
    time: StepTime = field(default_factory=StepTime)
    _sides: dict[int, tuple[_Side, _Side]] = field(default_factory=dict)
    _calls: dict[int, int] = field(default_factory=dict)
    _size: int = 0
    _drafts: bool = False

    def begin_call(self, rows: int) -> None:
        """As `Gate.begin_call`."""
        self._size = max(1, rows - 1).bit_length()
        calls = self._calls[self._size] = self._calls.get(self._size, 0) + 1
        plain, drafted = self._sides.setdefault(self._size, (_Side(), _Side()))
        if min(plain.calls, drafted.calls) < self.least:
            self._drafts = drafted.calls <= plain.calls
            return
        faster = self.goodput(rows, drafts=True) >= self.goodput(rows, drafts=False)
        self._drafts = faster if calls % self.again else not faster

    def goodput(self, rows: int, drafts: bool) -> float:
        """Tokens of answers per second in batches of this size, as measured so far."""
        side = self._sides[max(1, rows - 1).bit_length()][drafts]
        return side.tokens / max(1e-12, self.time.of(side.forwards, side.columns))

    def allows(self) -> bool:
        """As `Gate.allows`."""
        return self._drafts

    def record(self, drafted: int, accepted: int) -> None:
        """What a draft was worth shows in the steps that it saved."""

    def forward(self, columns: int, seconds: float) -> None:
        """As `Gate.forward`."""
        self.time.record(columns, seconds)

    def end_call(self, tokens: int, forwards: int, columns: int) -> None:
        """As `Gate.end_call`."""
        self._sides[self._size][self._drafts].record(tokens, forwards, columns)


class Visits:
    """Answers at earlier visits of a step: the same goal at the same screen, whatever was said on the way there."""

    def __init__(self, visits: int = VISITS, steps: int = STEPS):
        self.visits, self.steps = visits, steps
        self._said: OrderedDict[Hashable, list[list[int]]] = OrderedDict()

    def answers(self, prompt: Prompt) -> list[list[int]]:
        """Token ids, without the end of turn, the latest first."""
        return self._said.get(_step(prompt), [])

    def remember(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        """Keep an answer. An equal one becomes the latest."""
        step, said = _step(prompt), [*tokens]
        known = [one for one in self._said.pop(step, []) if one != said]
        self._said[step] = [said, *known][: self.visits]
        if len(self._said) > self.steps:
            self._said.popitem(last=False)


def _step(prompt: Prompt) -> Hashable:
    goal = tuple(part for part in prompt.messages[0].parts if isinstance(part, str))
    pictures = prompt.pictures
    return goal, pictures[-1].screenshot.digest if pictures else prompt.messages[-1].parts


@dataclass
class Drafts:
    """Drafts as `rollout.speculation` says. Policies of later weights may share it: what was said and measured stays.

    visits: None where earlier answers make no drafts.
    """

    gate: Gate
    visits: Visits | None = None

    @staticmethod
    def of(speculation: Speculation) -> Drafts:
        """As the words of `agent.policy.Sharing`; "off" drafts nothing, since nobody asks it."""
        if speculation == "auto":
            return Drafts(GoodputGate(), Visits())
        return Drafts(CountGate(), Visits() if speculation == "suffix" else None)
