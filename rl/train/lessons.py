"""Lessons: what a teacher says about a micro-batch, and their term of the loss (rl/train/divergence.py).

A teacher speaks before the update and without gradients. The student needs no pass of its own: the forward of the policy's loss
hands out the hidden states at the target tokens (rl/train/prefix.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.vision import plain_model
from guiderail.agent.policy import Policy
from guiderail.agent.types import Completion, Prompt
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.train.batch import EncodedSample, filler
from guiderail.rl.train.distributed import processes
from guiderail.rl.train.divergence import Lesson, Teacher, Told, most_likely
from guiderail.rl.train.prefix import Also, EncodedTurn, Layout, hidden_at, model_inputs
from guiderail.rl.train.spans import Spans


class Lessons:
    """Of one trainer. Every process makes the same passes, whatever it has to teach: under ZeRO-3 a missing one hangs the
    others."""

    def __init__(self, teacher: Teacher, trainer: Any):
        self.teacher, self.trainer = teacher, trainer
        self._lesson: Lesson | None = None
        self._student: Tensor | None = None

    def prompts(self, policy: Policy, samples: Sequence[StepSample], generation: int) -> dict[int, Prompt]:
        """The teacher's prompts, by id() of the sample."""
        found = zip(samples, self.teacher.prompts(policy, samples, generation), strict=True)
        return {id(sample): prompt for sample, prompt in found if prompt is not None}

    def metrics(self) -> dict[str, float]:
        """The teacher's counts as means over all processes."""
        counts = self.teacher.counts
        sums = self.trainer._over_processes([float(v) for pair in counts.values() for v in pair]).sum(0).tolist()
        return {name: sums[2 * i] / max(1.0, sums[2 * i + 1]) for i, name in enumerate(counts)}

    def record(self, batches: Sequence[Mapping[str, Any]], generation: int) -> None:
        """Hands the teacher's record what was said in a generation's micro-batches, on the first process."""
        teacher, encoder = self.teacher, self.trainer.encoder
        mine = [line for b in batches for line in lines(b["samples"], b["lesson"], generation, encoder, teacher)]
        everyone = processes().exchange(mine)
        if self.teacher.record is not None:
            for line in (one for share in everyone for one in share):
                self.teacher.record(line)

    def prepare(self, rows: Sequence[EncodedSample], prompts: Mapping[int, Prompt]) -> Lesson:
        """The lesson of a micro-batch with these rows. Rows without a prompt are not taught; where none is, the teacher looks
        at a filler, and the only place has weight 0."""
        encoder = self.trainer.encoder
        taught = [i for i, row in enumerate(rows) if row.sample is not None and id(row.sample) in prompts]
        if not taught:
            zero = torch.zeros(1, dtype=torch.long)
            return Lesson(zero, zero, torch.zeros(1), self.teacher.tell(self.trainer, [filler(encoder).turn]))
        turns = [EncodedTurn.of(encoder.prompt(prompts[id(rows[i].sample)]), rows[i].target) for i in taught]
        lengths = torch.tensor([len(rows[i].target) for i in taught])
        return Lesson(
            torch.tensor(taught).repeat_interleave(lengths),
            torch.cat([torch.arange(n) for n in lengths.tolist()]),
            torch.tensor([rows[i].weight for i in taught]).repeat_interleave(lengths),
            self.teacher.tell(self.trainer, turns),
        )

    def hear(self, batch: dict[str, Any]) -> None:
        """With the lesson of a micro-batch in it: counts the gap between student and teacher at the sampled tokens, and adds
        to their advantages where the teacher speaks that way. Then advantages are (rows, tokens)."""
        teacher, lesson = self.teacher, batch["lesson"].to(batch["completion_ids"].device)
        if not teacher.hears:
            return
        rows, columns = lesson.rows, lesson.columns
        said = batch["completion_ids"][rows, columns]
        logps = batch.get("old_per_token_logps", batch["rollout_logps"]).to(said.device)
        gap, counted, known, agrees = lesson.told.gaps(said, logps[rows, columns], lesson.weights > 0)
        self._count("teach/gap", gap[counted].sum().item(), known.sum().item())
        self._count("teach/agree", agrees.sum().item(), known.sum().item())
        if teacher.advantage:
            each = batch["advantages"][:, None].repeat(1, batch["completion_ids"].shape[1])
            each[rows, columns] -= (teacher.weight * gap).to(each.dtype)
            batch["advantages"] = each

    def _count(self, name: str, total: float, number: float) -> None:
        before = self.teacher.counts.get(name, (0.0, 0.0))
        self.teacher.counts[name] = (before[0] + total, before[1] + number)

    def begin(self, lesson: Lesson) -> None:
        """Before the forward of the policy's loss."""
        self._lesson = None if self.teacher.advantage else lesson

    def reader(self, plain: Any, layout: Layout) -> Also | None:
        """Reads the student's side inside that forward; None in other forwards, such as those of the reference."""
        lesson = self._lesson
        if lesson is None:
            return None

        def read(hidden: Tensor) -> None:
            places = layout.where[lesson.rows, lesson.columns]
            head = plain_model(plain).get_output_embeddings()
            self._student = lesson.told.student(hidden[places], head, self.trainer.temperature)

        return read

    def end(self, items: Tensor) -> Tensor:
        """After that forward: the term, normalised as TRL normalises the rest. items: of the window, as in the batch."""
        trainer, lesson, student = self.trainer, self._lesson, self._student
        if self.teacher.advantage:
            return items.new_zeros(())
        assert lesson is not None
        assert student is not None
        self._lesson = self._student = None
        apart = lesson.told.apart(student, self.teacher.beta)
        known = lesson.weights > 0
        sums = torch.stack([apart.detach()[known].sum(), known.sum().to(apart.dtype)])
        total, count = trainer.accelerator.reduce(sums, reduction="sum").tolist()
        trainer._metrics["train"]["teach/divergence"].append(total / max(1.0, count))
        share = trainer.current_gradient_accumulation_steps / trainer.args.steps_per_generation
        items = items.clamp(min=1.0) / trainer.accelerator.num_processes * share
        term: Tensor = self.teacher.weight * (lesson.weights * apart).sum() / items
        return term


def lines(
    samples: Sequence[StepSample | None], lesson: Lesson, generation: int, encoder: Encoder, teacher: Teacher
) -> Iterator[dict[str, Any]]:
    """One line per taught turn of a micro-batch. tokens: of each sampled token, or span of tokens (rl/train/spans.py), its text,
    its probability by the student that sampled it (at temperature 1) and by the teacher (at the run's; None: not among its k
    most likely), and the teacher's own choice with its probability. answer: the teacher's whole answer to the prompt, where it
    was asked."""

    @lru_cache
    def text(*tokens: int) -> str:
        return str(encoder.tokenizer.decode(list(tokens)))

    kept = lesson.weights > 0
    for row in sorted(set(lesson.rows[kept].tolist())):
        sample, places = samples[row], (lesson.rows == row).nonzero()[:, 0].tolist()
        assert sample is not None
        said = sample.completion
        if isinstance(lesson.told, Spans):
            tokens = _in_spans(lesson.told, places, said, text)
        else:
            assert isinstance(lesson.told, Told)
            tokens = _one_by_one(lesson.told, places, said, text)
        where = {"generation": generation, "unit": sample.unit, "sample": sample.sample, "index": sample.index}
        answer = teacher.answer(sample)
        yield where | {"token_ids": list(said.token_ids), "tokens": tokens} | ({"answer": answer} if answer else {})


def _one_by_one(told: Told, places: Sequence[int], said: Completion, text: Callable[..., str]) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = []
    for t, place in enumerate(places):
        tops, logps = told.tokens[place].tolist(), told.logps[place].tolist()
        of_teacher = dict(zip(tops, logps, strict=False)).get(said.token_ids[t])
        tokens.append(
            {
                "text": text(said.token_ids[t]),
                "student": math.exp(said.logprobs[t]) if t < len(said.logprobs) else None,
                "teacher": None if of_teacher is None else math.exp(of_teacher),
                "best": text(tops[0]),
                "best_p": math.exp(logps[0]),
            }
        )
    return tokens


def _in_spans(told: Spans, places: Sequence[int], said: Completion, text: Callable[..., str]) -> list[dict[str, Any]]:
    """One entry per span: the probability of all its tokens, and the teacher's choice where it begins."""
    members: dict[int, list[int]] = {}
    for t, place in enumerate(places):
        members.setdefault(int(told.of[place]), []).append(t)
    return [
        {
            "text": text(*(said.token_ids[t] for t in tokens)),
            "student": math.exp(math.fsum(said.logprobs[t] for t in tokens)) if said.logprobs else None,
            "teacher": math.exp(float(told.logps[span])),
            "best": told.best[span].text,
            "best_p": told.best[span].probability,
        }
        for span, tokens in members.items()
    ]


@torch.no_grad()
def told_by(
    model: Any, plain: Any, layout: Layout, vision: dict[str, Any], k: int, temperature: float, hears: bool = False
) -> Told:
    """The k most likely tokens at all target tokens of the layout's rows, one row after the other. model, plain, vision: as in
    `rl.train.prefix.token_logps`; any transformers model of the family will do. hears: tell about the targets as well."""
    found: list[Told] = []

    def read(hidden: Tensor) -> None:
        said = layout.labels if hears else None
        found.append(most_likely(hidden, plain_model(plain).get_output_embeddings(), k, temperature, said))

    training = model.training
    model.eval()
    try:
        with hidden_at(plain, layout.reads, read):
            model(**model_inputs(plain, layout), **vision, logits_to_keep=1, use_cache=False)
    finally:
        model.train(training)
    places = layout.where[layout.where >= 0]
    return Told(found[0].tokens[places], found[0].logps[places])
