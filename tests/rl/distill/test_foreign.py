"""A teacher of another tokenizer: gradients against plain float64, and no difference where the tokenizers are equal."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from guiderail.agent.errors import SetupError
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.local.policy import load_policy
from guiderail.agent.types import Completion
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.distill.foreign import ForeignTeacher, check_bytes, token_bytes
from guiderail.rl.distill.teacher import ModelTeacher
from guiderail.rl.sections import Teacher
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.spans import align
from guiderail.rl.train.trainer import SemiOnlineTrainer
from tests.agent.local.test_policy import TEXTS, prompt
from tests.rl.distill.test_teacher import near, retold, student, sure
from tests.rl.train.test_divergence import one_update
from tests.rl.train.test_trainer import SMALL, FakeCollect, arguments, weights

__all__ = ["near", "student"]


def without_merges(folder: Path, out: Path, share: float = 0.5) -> Path:
    """The same weights, with a tokenizer that has lost the last of its merges."""
    shutil.copytree(folder, out)
    content = json.loads((out / "tokenizer.json").read_text())
    merges = content["model"]["merges"]
    content["model"]["merges"] = merges[: int(len(merges) * (1 - share))]
    (out / "tokenizer.json").write_text(json.dumps(content))
    return out


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a vocabulary of its own, larger and of other texts."""
    texts = [*TEXTS, "completely other words are in here, and they make other merges: tapping, waiting"]
    sizes: dict[str, Any] = SMALL | {"width": 96, "vocabulary": 1400}
    return sure(build_tiny(tmp_path_factory.mktemp("foreign"), texts, seed=3, **sizes))


def foreign_teacher(folder: Path, student: Path, **more: Any) -> ForeignTeacher:
    return ForeignTeacher(Teacher(path=str(folder), tokenizer="other", **more), load_encoder(student))


class Spoken(FakeCollect):
    """Turns in words of many bytes, cut as the student's tokenizer cuts them."""

    scale = 1.0

    def __call__(self, policy: Any, generation: int) -> list[StepSample]:
        made = super().__call__(policy, generation)
        return [retold(s, policy, f"<think>tap ß{s.index}: waiting</think> other words 😀") for s in made]


def reference(
    student: Path, folder: Path, samples: list[StepSample], given: Teacher
) -> tuple[torch.Tensor, float, float]:
    """(gradient, gap, agreement), row by row over whole vocabularies, in float64."""
    policy, other = load_policy(student), load_policy(folder)
    model, teacher = policy.model.double().train(), other.model.double()
    total = sum(len(s.completion.token_ids) for s in samples)
    gaps, agree = 0.0, 0

    def logps(of: Any, encoder: Any, s: StepSample, said: torch.Tensor) -> torch.Tensor:
        encoded = encoder.prompt(s.prompt)
        inputs = encoder.batch([type(encoded)(torch.cat([encoded.ids, said]), encoded.pictures)])
        inputs["pixel_values"] = inputs["pixel_values"].double()
        found: torch.Tensor = of(**inputs).logits[0, len(encoded.ids) - 1 : -1].log_softmax(-1)
        return found

    for s in samples:
        ours = torch.tensor(s.completion.token_ids)
        theirs = other.encoder.target(s.completion.text)
        mine = logps(model, policy.encoder, s, ours)
        with torch.no_grad():
            says = logps(teacher, other.encoder, s, theirs)
        spans = align(token_bytes(policy.encoder, ours.tolist()), token_bytes(other.encoder, theirs.tolist()))
        loss = mine.new_zeros(())
        for k in range(max(spans[0]) + 1):
            a, b = ([i for i, j in enumerate(side) if j == k] for side in spans)
            own = mine[a, ours[a]]
            gap = (own.detach().sum() - says[b, theirs[b]].sum()).item()
            gaps += gap
            agree += len(a) * bool((says[b].argmax(-1) == theirs[b]).all())
            if given.form == "advantage":
                loss = loss + given.weight * gap * own.sum()
            else:
                p, q = mine[a[0]].exp().sort(descending=True).values, says[b[0]].exp().sort(descending=True).values
                p, q = (torch.cat([x[: given.top], x[given.top :].sum().reshape(1)]) for x in (p, q))
                loss = loss + given.weight * (p - q).abs().sum()
        (loss / total).backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return grads, gaps / total, agree / total


WHERE = ("unit", "sample", "index")


def _place(sample: StepSample) -> list[Any]:
    return [getattr(sample, key) for key in WHERE]


@pytest.mark.parametrize("form", ["advantage", "divergence"])
def test_gradient(student: Path, foreign: Path, tmp_path: Path, form: Any) -> None:
    collect = Spoken(noisy=False)
    collect.scale = 0.0
    teacher = foreign_teacher(foreign, student, form=form, weight=0.7, top=5)
    lines: list[Any] = []
    teacher.record = lines.append
    trainer, gradient = one_update(student, tmp_path, collect, teacher)
    samples = [s for batch in trainer._buffered_inputs for s in batch["samples"] if s is not None]
    lengths = {len(s.completion.token_ids) - len(teacher.own.target(s.completion.text)) for s in samples}
    assert lengths != {0}, "both cut the text alike, and the test says nothing"
    expected, gap, agree = reference(student, foreign, samples, teacher.settings)
    assert (gradient - expected).norm() < 2e-5 * expected.norm()
    logged = trainer.state.log_history[0]
    assert logged["teach/gap"] == pytest.approx(gap, rel=1e-4)
    assert logged["teach/agree"] == pytest.approx(agree)
    assert logged["teach/heard"] == 1.0
    for line in lines:  # one entry per span, of one student token or more
        assert "".join(one["text"] for one in line["tokens"]).startswith("<think>tap ")
        assert math.prod(one["student"] for one in line["tokens"]) == pytest.approx(
            math.exp(sum(next(s for s in samples if _place(s) == [line[key] for key in WHERE]).completion.logprobs))
        )
    assert any(len(line["tokens"]) < len(line["token_ids"]) for line in lines)


def test_an_equal_tokenizer_makes_no_difference(student: Path, near: Path, tmp_path: Path) -> None:
    found = []
    for kind, name in ((ModelTeacher, "same"), (ForeignTeacher, "other")):
        lines: list[Any] = []
        given = Teacher(path=str(near), tokenizer=name, form="advantage", weight=0.7)  # type: ignore[arg-type]
        teacher = kind(given, load_encoder(student), record=lines.append)
        trainer, gradient = one_update(student, tmp_path / name, Spoken(noisy=False), teacher)
        logged = trainer.state.log_history[0]
        found.append((gradient, logged["teach/gap"], logged["teach/agree"], lines))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:3] == found[1][1:3]
    assert len(found[0][3]) == len(found[1][3]) > 1
    for mine, theirs in zip(found[0][3], found[1][3], strict=True):
        for one, two in zip(mine["tokens"], theirs["tokens"], strict=True):
            assert {k: v for k, v in one.items() if isinstance(v, str)} == {
                k: v for k, v in two.items() if isinstance(v, str)
            }
            assert [one[k] for k in ("student", "teacher", "best_p")] == pytest.approx(
                [two[k] for k in ("student", "teacher", "best_p")]
            )


def test_the_student_comes_nearer(student: Path, foreign: Path, tmp_path: Path) -> None:
    collect = Spoken(noisy=False)
    collect.scale = 0.0
    sizes = {"max_steps": 16, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    args = arguments(tmp_path, learning_rate=2e-4, beta=0.0, **sizes)
    trainer = SemiOnlineTrainer(student, collect, args, teacher=foreign_teacher(foreign, student, top=50))
    trainer.train()
    apart = [row["teach/divergence"] for row in trainer.state.log_history if "teach/divergence" in row]
    assert len(apart) == 16
    assert sum(apart[-3:]) < 0.85 * sum(apart[:3])


@pytest.mark.parametrize("form", ["advantage", "divergence"])
def test_two_updates_of_a_teacher_with_fewer_merges(student: Path, near: Path, tmp_path: Path, form: Any) -> None:
    """Whatever the student samples, tokens that are no text included; run twice to the same bits."""
    other = without_merges(near, tmp_path / "teacher")
    ends = []
    for name in ("a", "b"):
        sizes = {"max_steps": 2, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
        teacher = foreign_teacher(other, student, form=form, top=20)
        trainer = SemiOnlineTrainer(
            student, FakeCollect(), arguments(tmp_path / name, beta=0.0, **sizes), teacher=teacher
        )
        trainer.train()
        rows = [row for row in trainer.state.log_history if "teach/heard" in row]
        assert len(rows) == 2
        assert all(0 < row["teach/heard"] <= 1 for row in rows)
        ends.append(weights(trainer.model))
    start = weights(load_model(student))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert any(not torch.equal(ends[0][key], start[key]) for key in start)


def test_what_cannot_be_read_is_not_taught(student: Path, foreign: Path) -> None:
    own = load_policy(student)
    tokens = own.encoder.tokenizer
    byte = tokens.convert_tokens_to_ids(bytes_to_unicode()[0xFF])
    blank = StepSample("e", 0, 0, prompt(own.vision, 1), Completion(""), 0, 0, 0, 0, 0)
    good = retold(blank, own, "tap 1")
    said = good.completion.token_ids
    given = [said, said[:-1], (byte, *said), ()]
    samples = [StepSample("e", 0, 0, blank.prompt, Completion("", ids), 0, 0, 0, 0, 0) for ids in given]
    teacher = foreign_teacher(foreign, student)
    found = teacher.prompts(own, samples, 0)
    assert [one is not None for one in found] == [True, True, False, False]  # the second was cut before its end
    assert teacher.counts["teach/heard"] == (2, 4)


def test_what_a_foreign_teacher_needs(student: Path) -> None:
    with pytest.raises(ValueError, match=r"needs the teacher's weights: give teacher.path=FOLDER"):
        Teacher(server="http://x", model="m", tokenizer="other")
    encoder = load_encoder(student)
    check_bytes(encoder, "student")
    vocabulary = encoder.tokenizer.get_vocab() | {"▁words": 99999}
    encoder.tokenizer = type("Odd", (), {"get_vocab": lambda self: vocabulary, "added_tokens_decoder": {}})()
    with pytest.raises(SetupError, match=r"the teacher's tokenizer has the token .* not a string of bytes"):
        check_bytes(encoder, "teacher")
