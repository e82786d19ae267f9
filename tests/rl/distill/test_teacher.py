"""On-policy distillation: gradients against plain float64, the server's scores against the model's, schedule and share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guiderail.agent.errors import SetupError
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.local.policy import load_policy
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.types import Completion
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.distill.teacher import ModelTeacher, ServedTeacher, check_tokenizer
from guiderail.rl.rollout.generation import budget_at
from guiderail.rl.rollout.processes import Processes
from guiderail.rl.rollout.recorded import RECORDED, RecordedTurns
from guiderail.rl.sections import Method, Teacher
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.trainer import SemiOnlineTrainer
from tests.agent.local.test_policy import TEXTS, prompt
from tests.agent.served.transformers_server import Served, serving
from tests.rl.train.test_divergence import kl, one_update
from tests.rl.train.test_trainer import LORA, SMALL, FakeCollect, Groups, arguments, weights


def sure(folder: Path) -> Path:
    """A model that is sure of what it says: any two fresh ones are near to even, and so alike."""
    model = load_model(folder)
    norm = model.model.language_model.norm.weight.data
    norm.copy_(20 * torch.randn(norm.shape, generator=torch.Generator().manual_seed(0)))
    encoder = load_encoder(folder)
    model.save_pretrained(folder)
    encoder.save(folder)
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sure(build_tiny(tmp_path_factory.mktemp("student"), TEXTS, **SMALL))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider and deeper than the student, of the same tokenizer."""
    sizes: dict[str, Any] = SMALL | {"width": 96, "layers": 3}
    return sure(build_tiny(tmp_path_factory.mktemp("large"), TEXTS, seed=1, **sizes))


@pytest.fixture(scope="module")
def near(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student, a little moved: they often agree."""
    folder = tmp_path_factory.mktemp("near")
    model, made = load_model(student), torch.Generator().manual_seed(2)
    for weight in model.parameters():
        weight.data += 0.3 * weight.std() * torch.randn(weight.shape, generator=made)
    model.save_pretrained(folder)
    load_encoder(student).save(folder)
    return folder


def teacher_of(large: Path, student: Path, **more: Any) -> ModelTeacher:
    return ModelTeacher(Teacher(path=str(large), **more), load_encoder(student))


# ----------------------------------------------------------------------------------------------------------- gradients


def reference(
    student: Path, large: Path, samples: list[StepSample], given: Teacher, credit: bool
) -> tuple[torch.Tensor, float, float]:
    """(gradient, gap, agreement) row by row over the whole vocabulary's logits, in float64."""
    policy = load_policy(student)
    model, encoder = policy.model.double().train(), policy.encoder
    other = load_model(large, "cpu").double()
    tokens = sum(len(s.completion.token_ids) for s in samples)
    gaps, agree = 0.0, 0

    def logps(of: Any, s: StepSample) -> torch.Tensor:
        encoded, said = encoder.prompt(s.prompt), torch.tensor(s.completion.token_ids)
        inputs = encoder.batch([type(encoded)(torch.cat([encoded.ids, said]), encoded.pictures)])
        inputs["pixel_values"] = inputs["pixel_values"].double()
        found: torch.Tensor = of(**inputs).logits[0, len(encoded.ids) - 1 : -1].log_softmax(-1)
        return found

    for s in samples:
        said = torch.tensor(s.completion.token_ids)[:, None]
        mine = logps(model, s)
        with torch.no_grad():
            theirs = logps(other, s)
        gap = (mine.detach() - theirs).gather(1, said)
        gaps += gap.sum().item()
        agree += int((theirs.argmax(-1, keepdim=True) == said).sum())
        advantage = torch.full_like(gap, s.advantage if credit else 0.0)
        if given.form == "advantage":
            advantage -= given.weight * gap
        loss = -(advantage * mine.gather(1, said)).sum()
        if given.form == "divergence":
            best = theirs.topk(given.top + 1).indices
            absent = ~(best == said).any(1)
            best[absent, -1] = said[absent, 0]
            t, p = (
                torch.cat([x, 1 - x.sum(-1, keepdim=True)], 1)
                for x in (theirs.gather(1, best).exp(), mine.gather(1, best).exp())
            )
            m = given.beta * t + (1 - given.beta) * p
            loss = loss + given.weight * (given.beta * kl(t, m) + (1 - given.beta) * kl(p, m)).sum()
        (loss / tokens).backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return grads, gaps / tokens, agree / tokens


@pytest.mark.parametrize(("form", "credit"), [("advantage", True), ("advantage", False), ("divergence", False)])
@pytest.mark.parametrize("sharing", [True, False], ids=["shared", "apart"])
def test_gradient(student: Path, near: Path, tmp_path: Path, form: Any, credit: bool, sharing: bool) -> None:
    collect, teacher = Groups(noisy=False), teacher_of(near, student, form=form, weight=0.7, top=5)

    def scaled(policy: Any, generation: int) -> list[StepSample]:
        made = collect(policy, generation)
        return made if credit else [dataclasses.replace(s, advantage=0.0) for s in made]

    choices = {"share_prefix": sharing, "share_vision": sharing}
    trainer, gradient = one_update(student, tmp_path, scaled, teacher, **choices)
    samples = [s for batch in trainer._buffered_inputs for s in batch["samples"] if s is not None]
    assert len(samples) == 12
    expected, gap, agree = reference(student, near, samples, teacher.settings, credit)
    assert (gradient - expected).norm() < 2e-5 * expected.norm()
    logged = trainer.state.log_history[0]
    assert logged["teach/gap"] == pytest.approx(gap, rel=1e-4)
    assert logged["teach/agree"] == pytest.approx(agree)
    assert 0 < agree < 1, "the test says nothing about agreement"
    assert gap > 0.1, "student and teacher are alike, and the test says nothing"


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_the_student_comes_nearer(student: Path, large: Path, tmp_path: Path, lora: Any) -> None:
    from peft import LoraConfig

    collect = FakeCollect(noisy=False)
    collect.scale = 0.0
    sizes = {"max_steps": 12, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    args = arguments(tmp_path, learning_rate=1e-2, beta=0.0, **sizes)
    adapter = LoraConfig(**lora) if lora else None
    teacher = teacher_of(large, student, top=50, beta=0.0)
    trainer = SemiOnlineTrainer(student, collect, args, teacher=teacher, lora=adapter)
    trainer.train()
    gaps = [row["teach/gap"] for row in trainer.state.log_history if "teach/gap" in row]
    assert len(gaps) == 12
    assert sum(gaps[-3:]) < 0.8 * sum(gaps[:3])
    assert not any(p.requires_grad for p in teacher.model.parameters())


@pytest.mark.parametrize("form", ["advantage", "divergence"])
def test_resume_is_exact(student: Path, large: Path, tmp_path: Path, form: Any) -> None:
    sizes = {"max_steps": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 2}
    args = arguments(tmp_path, **sizes, save_strategy="steps", save_steps=2)
    whole = SemiOnlineTrainer(student, FakeCollect(), args, teacher=teacher_of(large, student, form=form))
    whole.train()
    after = weights(whole.model)
    again = SemiOnlineTrainer(student, FakeCollect(), args, teacher=teacher_of(large, student, form=form))
    again.train(tmp_path / "checkpoint-2")
    for name, p in weights(again.model).items():
        assert torch.equal(p, after[name]), name


# -------------------------------------------------------------------------------------------------------------- server


class Readable(FakeCollect):
    """Turns in the tokens that a tokenizer makes of their text, with the student's own log-probabilities."""

    def __call__(self, policy: Any, generation: int) -> list[StepSample]:
        return [retold(s, policy, f"tap {s.index}") for s in super().__call__(policy, generation)]


def retold(sample: StepSample, policy: Any, text: str) -> StepSample:
    encoded, said = policy.encoder.prompt(sample.prompt), policy.encoder.target(text)
    inputs = policy.encoder.batch([type(encoded)(torch.cat([encoded.ids, said]), encoded.pictures)])
    with torch.no_grad():
        logps = policy.model(**inputs).logits[0, len(encoded.ids) - 1 : -1].log_softmax(-1).gather(1, said[:, None])
    return dataclasses.replace(sample, completion=Completion(text, tuple(said.tolist()), tuple(logps[:, 0].tolist())))


@pytest.mark.parametrize("form", ["advantage", "divergence"])
def test_a_server_teaches_as_the_model_does(student: Path, large: Path, tmp_path: Path, form: Any) -> None:
    given = {"form": form, "weight": 0.7, "top": 6}
    _, expected = one_update(student, tmp_path / "a", Readable(noisy=False), teacher_of(large, student, **given))
    with serving(Served(large), "large") as address:
        encoder = load_encoder(student)
        policy = ServedPolicy(address, "large", encoder.vision)
        settings = Teacher(server=address, model="large", **given | {"top": given["top"] + 1})  # type: ignore[arg-type]
        teacher = ServedTeacher(settings, policy, encoder)
        trainer, found = one_update(student, tmp_path / "b", Readable(noisy=False), teacher)
    heard = trainer.state.log_history[0]["teach/heard"]
    assert heard == 1.0
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_turns_that_a_server_cuts_otherwise_are_not_taught(student: Path, large: Path) -> None:
    encoder, own = load_encoder(student), load_policy(student)
    blank = StepSample("e", 0, 0, prompt(own.vision, 1), Completion(""), 0, 0, 0, 0, 0)
    good = retold(blank, own, "tap 1")
    ids = encoder.tokenizer.encode("ta", add_special_tokens=False)
    odd = dataclasses.replace(good.completion, token_ids=(*ids, *good.completion.token_ids))
    samples = [good, dataclasses.replace(good, completion=odd)]
    with serving(Served(large), "large") as address:
        teacher = ServedTeacher(
            Teacher(server=address, model="large"), ServedPolicy(address, "large", encoder.vision), encoder
        )
        found = teacher.prompts(own, samples, 0)
    assert [one is not None for one in found] == [True, False]
    assert teacher.counts["teach/heard"] == (1, 2)


# -------------------------------------------------------------------------------------------- tokenizer, share, budget


def test_another_tokenizer_is_refused(student: Path, tmp_path: Path) -> None:
    other = build_tiny(tmp_path, ["completely other words are in here"], **SMALL)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match=r"another tokenizer than the student: \d+ entries differ, first '.*' = \d+"):
        check_tokenizer(load_encoder(student), load_encoder(other), str(other))


def test_other_merges_are_refused(student: Path) -> None:
    one, two = load_encoder(student), load_encoder(student)
    check_tokenizer(one, two, "teacher")
    import json

    from tokenizers import Tokenizer

    content = json.loads(two.tokenizer.backend_tokenizer.to_str())
    content["model"]["merges"] = content["model"]["merges"][::-1]
    changed = SimpleNamespace(
        tokenizer=SimpleNamespace(
            get_vocab=two.tokenizer.get_vocab, backend_tokenizer=Tokenizer.from_str(json.dumps(content))
        ),
        special_ids=two.special_ids,
        vision=two.vision,
    )
    with pytest.raises(SetupError, match="cuts text in other places"):
        check_tokenizer(one, changed, "teacher")  # type: ignore[arg-type]


def test_recorded_turns_are_the_share_and_the_same_again() -> None:
    steps = [(f"e{i}", None, i) for i in range(50)]
    made = [StepSample("x", 0, 0, None, None, 0, 0, 0, 0, 0)] * 12  # type: ignore[arg-type]
    draws = [
        RecordedTurns(steps, lambda e, t: (None, "", [t]), 0.25, 7, Processes(rank, 2, list))(made, generation)  # type: ignore[arg-type, return-value]
        for rank, generation in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert [len(one) for one in draws] == [4] * 4
    ids = [[s.completion.token_ids for s in one] for one in draws]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2] != ids[3] != ids[0]
    assert {(s.sample, s.advantage) for s in draws[0]} == {(RECORDED, 0.0)}


def test_a_falling_budget() -> None:
    falling = Method(patch_budget="falling")
    assert [budget_at(falling, 9, done / 4) for done in range(5)] == [8, 6, 4, 2, 0]
    assert budget_at(Method(patch_budget="unlimited"), 9, 0.5) is None
    assert budget_at(Method(), 9, 0.5) == 1
