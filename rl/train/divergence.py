"""A term of the loss that compares the student's token distributions with a teacher's.

At a place, a target token of a row, the vocabulary falls into k + 1 buckets: the teacher's k most likely tokens, and all
others as one. Over these, with T the teacher's and S the student's probabilities and M = beta T + (1 - beta) S,

    D = beta KL(T || M) + (1 - beta) KL(S || M)         generalised Jensen-Shannon (GKD, arXiv 2306.13649)

beta 0 is KL(T || S) and beta 1 is KL(S || T), the limits of D / (beta (1 - beta)). The loss of one optimizer step gains

    weight * sum_rows w_i sum_t D_it / items

with w_i and items of the policy's loss (rl/train/batch.py); rows that are not taught add nothing. A merged bucket never
makes D larger, so the term is a lower bound of the one over the whole vocabulary, exact where k covers it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from trl.trainer.utils import maybe_gather_lm_head_ctx

from guiderail.agent.policy import Policy
from guiderail.agent.types import Prompt
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.train.prefix import EncodedTurn

_AT_ONCE = 1 << 25  # logits that exist at once


@dataclass(frozen=True, eq=False)
class Told:
    """A teacher's distributions at n places. tokens: (n, k), the most likely tokens, best first. logps: (n, k + 1), their
    log-probabilities, and in the last column that of all other tokens together."""

    tokens: Tensor
    logps: Tensor

    def to(self, device: torch.device) -> Told:
        """A copy with its tensors on `device`."""
        return Told(self.tokens.to(device), self.logps.to(device))

    def gaps(self, said: Tensor, logps: Tensor, taught: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of n places: log S - log T of the sampled token, 0 where it is not known; where a gap is to be counted; where it is
        known; and where the teacher would have said the same. said, logps: (n,), the tokens and the student's log-probabilities,
        NaN where not known. taught: (n,)."""
        among = (self.tokens == said[:, None]) & taught[:, None]
        theirs = self.logps[:, :-1].masked_fill(~among, 0.0).sum(1)
        known = among.any(1) & ~logps.isnan()  # of recorded turns and fillers no student's is known
        return torch.where(known, logps - theirs, 0.0), known, known, among[:, 0] & known

    def student(self, hidden: Tensor, head: Any, temperature: float) -> Tensor:
        """The student's log-probabilities of the same tokens, with gradients. hidden: (n, width), of all places."""
        return buckets(hidden, head, self.tokens, temperature)

    def apart(self, student: Tensor, beta: float) -> Tensor:
        """The term at each place, (n,). student: from `student`."""
        return divergence(self.logps, student, beta)


class Says(Protocol):
    """What a teacher says about n places: `Told`, or `rl.train.spans.Spans` where its tokens are others than the student's."""

    def to(self, device: torch.device) -> Says: ...

    def gaps(self, said: Tensor, logps: Tensor, taught: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...

    def student(self, hidden: Tensor, head: Any, temperature: float) -> Tensor: ...

    def apart(self, student: Tensor, beta: float) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is taught in a micro-batch. rows, columns: (n,), the places: target token `columns` of row `rows`. weights: (n,),
    w_i of their rows; a place of weight 0 is there so that every process runs the same modules. told: at these places."""

    rows: Tensor
    columns: Tensor
    weights: Tensor
    told: Says

    def to(self, device: torch.device) -> Lesson:
        """A copy with its tensors on `device`."""
        return Lesson(self.rows.to(device), self.columns.to(device), self.weights.to(device), self.told.to(device))


class Teacher(ABC):
    """weight, beta: of the term, see above. hears: whether the sampled tokens are always among those it tells about. advantage:
    whether, instead of the term, each token's advantage gains weight (log T - log S) of the sampled token; for teachers that
    hear. counts: for the log, name -> (sum, number) over this process's samples of the last
    generation, the same names on every process. record: called on the first process with one line per taught turn of a
    generation (`rl.train.lessons.lines`), None for nowhere."""

    weight: float
    beta: float
    counts: dict[str, tuple[float, float]]
    record: Callable[[Mapping[str, Any]], None] | None = None
    hears: bool = False
    advantage: bool = False

    @abstractmethod
    def prompts(self, policy: Policy, samples: Sequence[StepSample], generation: int) -> list[Prompt | None]:
        """What the teacher sees in place of each sample's prompt; None where the sample is not taught. Called once per
        generation on every process, with the policy that sampled them."""

    def answer(self, sample: StepSample) -> str | None:
        """What the teacher itself would have answered there, where it was asked."""
        return None

    @abstractmethod
    def tell(self, trainer: Any, turns: Sequence[EncodedTurn]) -> Says:
        """Its distributions at all target tokens of these rows, one row after the other. Called without gradients, as often
        on every process, with at least one row. `trainer.tell` asks the weights that are trained."""


def divergence(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """D of each place, (n,). teacher, student: (n, buckets), log-probabilities that sum to one; gradients go to the student."""
    if beta == 0.0:
        return (teacher.exp() * (teacher - student)).sum(-1)
    if beta == 1.0:
        return (student.exp() * (student - teacher)).sum(-1)
    mixed = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * (teacher.exp() * (teacher - mixed)).sum(-1) + (1 - beta) * (student.exp() * (student - mixed)).sum(-1)


def buckets(hidden: Tensor, head: Any, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of these tokens and, last, of all others together: (n, k + 1), float32. hidden: (n, width). head: the
    linear layer behind it. tokens: (n, k), distinct in a row, fewer than the vocabulary.

    Logits exist for a few rows at a time, in the backward pass as well. Call it inside the model's forward: ZeRO-3 gathers
    the head there, on all processes together.
    """
    with _gathered(head.weight, head.bias):
        found: Tensor = _Buckets.apply(hidden, head.weight, head.bias, tokens, temperature)  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def most_likely(hidden: Tensor, head: Any, k: int, temperature: float, said: Tensor | None = None) -> Told:
    """The k most likely tokens at n places; fewer where the vocabulary has no more than k. hidden, head: as in `buckets`. said:
    (n,), tokens to tell about as well: where one is not among the k, it takes one more place, else the next most likely does."""
    with _gathered(head.weight, head.bias):
        k = min(k if said is None else k + 1, len(head.weight) - 1)
        tokens = [
            _logits(part, head.weight, head.bias, temperature).topk(k).indices for part in _parts(hidden, head.weight)
        ]
    chosen = torch.cat(tokens)
    if said is not None:
        absent = ~(chosen == said[:, None]).any(1)
        chosen[absent, -1] = said[absent]
    return Told(chosen, buckets(hidden, head, chosen, temperature))


def _gathered(weight: Tensor, bias: Tensor | None) -> AbstractContextManager[Any]:
    """A head that ZeRO-3 has spread, whole inside the `with`; any other as it is, such as that of a frozen teacher."""
    return maybe_gather_lm_head_ctx(weight, bias) if hasattr(weight, "ds_status") else nullcontext()


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """In the hidden states' precision, then float32, or float64 where they are. Autocast would not hold in the backward
    pass too."""
    with torch.autocast(hidden.device.type, enabled=False):
        logits = functional.linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))
    return (logits if logits.dtype == torch.float64 else logits.float()) / temperature


def _parts(rows: Tensor, weight: Tensor) -> list[Tensor]:
    """As many rows at once as may have their logits at once."""
    size = max(1, _AT_ONCE // len(weight))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class _Buckets(torch.autograd.Function):
    """With z the logits and r the other tokens: log p_i = z_i - lse(z) and log p_r = lse(z_r) - lse(z), so for incoming g

    dz = scatter(g) + g_r softmax(z_r) - (sum g + g_r) softmax(z)
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, tokens)
        ctx.temperature = temperature
        found = []
        for part, chosen in zip(_parts(hidden, weight), _parts(tokens, weight), strict=True):
            logits = _logits(part, weight, bias, temperature)
            total = logits.logsumexp(-1, keepdim=True)
            rest = logits.scatter(1, chosen, -math.inf).logsumexp(-1, keepdim=True)
            found.append(torch.cat([logits.gather(1, chosen), rest], dim=1) - total)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        hidden, weight, bias, tokens = ctx.saved_tensors
        into_hidden: list[Tensor] = []
        with _gathered(weight, bias), torch.autocast(hidden.device.type, enabled=False):
            into_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
            into_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
            for part, chosen, g in zip(*(_parts(rows, weight) for rows in (hidden, tokens, grad)), strict=True):
                logits = _logits(part, weight, bias, ctx.temperature)
                rest = logits.scatter(1, chosen, -math.inf).softmax(-1)
                into = g[:, -1:] * rest - g.sum(-1, keepdim=True) * logits.softmax(-1)
                into = (into.scatter_add(1, chosen, g[:, :-1]) / ctx.temperature).to(part.dtype)
                into_hidden.append(into @ weight.to(part.dtype))
                if into_weight is not None:
                    into_weight += (into.T @ part).to(weight.dtype)
                if into_bias is not None:
                    into_bias += into.sum(0).to(bias.dtype)
        return torch.cat(into_hidden), into_weight, into_bias, None, None
