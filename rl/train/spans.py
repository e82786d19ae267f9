"""A teacher whose tokens are not the student's: both are compared in spans, the shortest pieces of text that begin and end at a
token of each.

Student and teacher read the same text. A span begins where both have read the same so far. Of a span j of student tokens a and
teacher tokens b, with s and t the probabilities of one token after those before it,

    the advantage of each student token        sum_{a in j} log s(a) - sum_{b in j} log t(b), negated, times the weight
    the term of the loss                       sum_r | s_(r) - t_(r) |

where s_(1) >= s_(2) >= ... are all probabilities of the next token at the beginning of the span, whatever these tokens are
(universal logit distillation, arXiv 2402.12030). The sum of the log-probabilities inside a span is the logarithm of the span's own
probability in these tokens, so the first is the policy gradient of KL(student || teacher) over spans. Of the second, the k largest
of each side are compared one by one and all others as one: a lower bound, exact where k covers both vocabularies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guiderail.rl.train.divergence import Told, buckets, most_likely


@dataclass(frozen=True, eq=False)
class Best:
    """The teacher's most likely token where a span begins, and its probability."""

    text: str
    probability: float


@dataclass(frozen=True, eq=False)
class Spans:
    """What such a teacher says about n places, as `Told` says it about places of its own tokens.

    of: (n,), the span of each place, numbered from 0 in order. logps: (spans,), the teacher's log-probability of each. agrees:
    (spans,), whether every token of it is the teacher's most likely. largest: (spans, k + 1), the teacher's largest
    probabilities where the span begins, in falling order, and in the last column all others together. best: of each span.
    """

    of: Tensor
    logps: Tensor
    agrees: Tensor
    largest: Tensor
    best: tuple[Best, ...]

    def to(self, device: torch.device) -> Spans:
        """A copy with its tensors on `device`."""
        moved = [one.to(device) for one in (self.of, self.logps, self.agrees, self.largest)]
        return Spans(moved[0], moved[1], moved[2], moved[3], self.best)

    @property
    def begins(self) -> Tensor:
        """(n,), whether a span begins at the place."""
        return self.of.diff(prepend=self.of.new_full((1,), -1)) > 0

    def gaps(self, said: Tensor, logps: Tensor, taught: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `Told.gaps`. The gap of a place is that of its whole span."""
        known = self._every(taught & ~logps.isnan())
        mine = torch.zeros_like(self.logps, dtype=logps.dtype).index_add(0, self.of, logps.nan_to_num())
        gaps = torch.where(known, (mine - self.logps)[self.of], 0.0)
        return gaps, self.begins & known, known, self.agrees[self.of] & known

    def _every(self, places: Tensor) -> Tensor:
        """(n,), whether `places` holds at each place of a place's span."""
        wrong = torch.zeros_like(self.logps).index_add(0, self.of, (~places).to(self.logps.dtype))
        return wrong[self.of] == 0

    def student(self, hidden: Tensor, head: Any, temperature: float) -> Tensor:
        """The student's `largest`, with gradients, as logarithms. hidden: (n, width), of all places."""
        hidden = hidden[self.begins]
        tokens = most_likely(hidden.detach(), head, self.largest.shape[1] - 1, temperature).tokens
        return buckets(hidden, head, tokens, temperature)

    def apart(self, student: Tensor, beta: float) -> Tensor:
        """The term at each place, (n,): of a span where it begins, 0 inside. student: from `student`."""
        found = student.new_zeros(len(self.of))
        return found.masked_scatter(self.begins, sorted_distance(self.largest.to(student.dtype), student.exp()))


def sorted_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """sum_r |s_(r) - t_(r)| of each row, (n,). Rows are probabilities in falling order and, last, that of all others. The longer
    side's smallest ones are counted among the others."""
    k = min(teacher.shape[1], student.shape[1]) - 1
    one, two = (torch.cat([p[:, :k], p[:, k:].sum(1, keepdim=True)], 1) for p in (teacher, student))
    return (one - two).abs().sum(1)


def align(ours: Sequence[bytes], theirs: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """The span of each token of either side. Raises ValueError where their texts differ. A token without text belongs to the span
    that begins behind it, or to the last."""
    if b"".join(ours) != b"".join(theirs):
        raise ValueError("two different texts have no common spans")
    ends = [_ends(side) for side in (ours, theirs)]
    common = sorted(set(ends[0]) & set(ends[1]) - {0})
    place = {end: i for i, end in enumerate(common)}
    found: list[list[int]] = []
    for side, until in zip((ours, theirs), ends, strict=True):
        span, spans = 0, []
        for token, end in zip(side, until, strict=True):
            spans.append(min(span, max(0, len(common) - 1)))
            if token and end in place:
                span = place[end] + 1
        found.append(spans)
    return found[0], found[1]


def _ends(tokens: Sequence[bytes]) -> list[int]:
    ends, end = [], 0
    for token in tokens:
        end += len(token)
        ends.append(end)
    return ends


def told_in_spans(told: Told, said: Tensor, theirs: Tensor, ours: Tensor, texts: Sequence[str]) -> Spans:
    """From what the teacher says of m of its own tokens. told: with k + 1 tokens at each place, the sampled one always among them.
    said: (m,), the teacher's tokens. theirs, ours: (m,) and (n,), the span of each token of the teacher and of the student. texts:
    of the teacher's most likely token at each of the m places."""
    count = int(ours[-1]) + 1
    own = told.logps[:, :-1].masked_fill(told.tokens != said[:, None], 0.0).sum(1)
    wrong = torch.zeros(count, device=own.device).index_add(0, theirs, (told.tokens[:, 0] != said).float())
    begins = theirs.diff(prepend=theirs.new_full((1,), -1)) > 0
    probabilities = told.logps[begins].exp()
    # The last token may be a sampled one from further down: it counts among the others.
    largest = torch.cat([probabilities[:, :-2], probabilities[:, -2:].sum(1, keepdim=True)], 1)
    places = begins.nonzero()[:, 0].tolist()
    best = tuple(Best(texts[i], float(told.logps[i, 0].exp())) for i in places)
    return Spans(ours, own.new_zeros(count).index_add(0, theirs, own), wrong == 0, largest, best)
