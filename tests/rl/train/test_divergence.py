"""Learning from a teacher: the divergence, the buckets, and the gradient of the whole term against plain float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.local.policy import load_policy
from guiderail.agent.policy import Policy
from guiderail.agent.types import Message, Prompt
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.divergence import Teacher, Told, buckets, divergence, most_likely
from guiderail.rl.train.prefix import EncodedTurn
from guiderail.rl.train.trainer import SemiOnlineTrainer
from tests.agent.local.test_policy import TEXTS
from tests.rl.train.test_trainer import LORA, SMALL, FakeCollect, Groups, arguments, weights

SGD = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 1e9, "weight_decay": 0.0, "beta": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is sure of what it says: a fresh one is near to even, and any two of its distributions are alike."""
    made = build_tiny(tmp_path_factory.mktemp("sure"), TEXTS, "qwen3_vl", **SMALL)  # type: ignore[arg-type]
    model = load_model(made)
    norm = model.model.language_model.norm.weight.data
    norm.copy_(20 * torch.randn(norm.shape, generator=torch.Generator().manual_seed(0)))
    model.save_pretrained(made)
    load_encoder(made).save(made)
    return made


# ------------------------------------------------------------------------------------------------------ plain functions


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p / q).log()).sum(-1)


@pytest.mark.parametrize("beta", [0.0, 0.2, 0.5, 1.0])
def test_divergence_is_the_definition(beta: float) -> None:
    torch.manual_seed(0)
    teacher, student = (torch.randn(5, 7, dtype=torch.float64).softmax(-1) for _ in range(2))
    mixed = beta * teacher + (1 - beta) * student
    expected = {0.0: kl(teacher, student), 1.0: kl(student, teacher)}.get(
        beta, beta * kl(teacher, mixed) + (1 - beta) * kl(student, mixed)
    )
    torch.testing.assert_close(divergence(teacher.log(), student.log(), beta), expected)
    torch.testing.assert_close(divergence(teacher.log(), teacher.log(), beta), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize(("near", "limit"), [(1e-6, 0.0), (1 - 1e-6, 1.0)])
def test_both_kl_are_its_limits(near: float, limit: float) -> None:
    torch.manual_seed(0)
    teacher, student = (torch.randn(5, 7, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    scaled = divergence(teacher, student, near) / (near * (1 - near))
    torch.testing.assert_close(scaled, divergence(teacher, student, limit), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_buckets_and_their_gradient(monkeypatch: pytest.MonkeyPatch, bias: bool, temperature: float) -> None:
    """In pieces of two rows, against autograd of the plain formula."""
    monkeypatch.setattr("guiderail.rl.train.divergence._AT_ONCE", 22)
    torch.manual_seed(0)
    head = nn.Linear(4, 11, bias=bias).double()
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    told = most_likely(hidden, head, 3, temperature)
    logps = (head(hidden) / temperature).log_softmax(-1)
    assert torch.equal(told.tokens, logps.topk(3).indices)
    top = logps.gather(1, told.tokens)
    plain = torch.cat([top, torch.log1p(-top.exp().sum(-1, keepdim=True))], dim=1)
    torch.testing.assert_close(told.logps, plain.detach())
    chosen = torch.stack([torch.randperm(11)[:3] for _ in range(5)])
    picked = logps.gather(1, chosen)
    plain = torch.cat([picked, torch.log1p(-picked.exp().sum(-1, keepdim=True))], dim=1)
    wanted = torch.randn(5, 4, dtype=torch.float64)
    sources = [hidden, *head.parameters()]
    expected = torch.autograd.grad((plain * wanted).sum(), sources)
    found = torch.autograd.grad((buckets(hidden, head, chosen, temperature) * wanted).sum(), sources)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_more_tokens_than_the_vocabulary_has() -> None:
    head = nn.Linear(4, 6).double()
    told = most_likely(torch.randn(2, 4, dtype=torch.float64), head, 100, 1.0)
    assert told.tokens.shape == (2, 5)
    torch.testing.assert_close(told.logps.exp().sum(-1), torch.ones(2, dtype=torch.float64))


def test_a_merged_bucket_never_makes_it_larger() -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(4, 30).double(), 3 * torch.randn(6, 4, dtype=torch.float64)
    other = 3 * torch.randn(6, 4, dtype=torch.float64)
    found = []
    for k in (1, 5, 29):
        told = most_likely(hidden, head, k, 1.0)
        found.append(divergence(told.logps, buckets(other, head, told.tokens, 1.0), 0.5))
    assert (found[0] <= found[1] + 1e-12).all()
    assert (found[1] <= found[2] + 1e-12).all()
    whole = divergence(head(hidden).log_softmax(-1), head(other).log_softmax(-1), 0.5)
    torch.testing.assert_close(found[2], whole)


# ------------------------------------------------------------------------------------------------------- in the trainer


class Hints(Teacher):
    """Teaches samples of even index. The teacher is the policy itself, which also reads a hint. As hindsight does."""

    def __init__(self, weight: float = 0.7, beta: float = 0.5, top: int = 4, every: int = 2):
        self.weight, self.beta, self.top, self.every, self.calls = weight, beta, top, every, 0
        self.counts = {"fake/taught": (3.0, 6.0)}
        self.lines: list[Any] = []
        self.record = self.lines.append

    def prompts(self, policy: Policy, samples: Sequence[StepSample], generation: int) -> list[Prompt | None]:
        return [hint(s.prompt) if (s.index + s.sample) % self.every == 0 else None for s in samples]

    def tell(self, trainer: Any, turns: Sequence[EncodedTurn]) -> Told:
        self.calls += 1
        told: Told = trainer.tell(turns, self.top)
        return told


def hint(prompt: Prompt) -> Prompt:
    return Prompt((*prompt.messages, Message("user", ("tap here", prompt.screen))))


def one_update(folder: Path, out: Path, collect: Any, teacher: Any, **choices: Any) -> tuple[Any, torch.Tensor]:
    """(the trainer after one update of plain SGD, its gradient)."""
    grads: list[torch.Tensor] = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, model: Any, **kwargs: Any) -> None:
            grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))

    training = {k: choices.pop(k) for k in ("loss_type", "temperature") if k in choices}
    sizes = {"max_steps": 1, "steps_per_generation": 2, "gradient_accumulation_steps": 2}
    args = arguments(out, **SGD, **sizes, **training)
    trainer = SemiOnlineTrainer(folder, collect, args, teacher=teacher, callbacks=[Watch()], **choices)
    trainer.train()
    return trainer, grads[0]


def reference(folder: Path, samples: list[StepSample], teacher: Hints, loss_type: str, credit: bool) -> torch.Tensor:
    """The gradient of credit and lesson together, row by row over the whole vocabulary's logits, in float64."""
    policy = load_policy(folder)
    model, encoder = policy.model.double().train(), policy.encoder
    tokens = sum(len(s.completion.token_ids) for s in samples)

    def logps(prompt: Prompt, said: torch.Tensor) -> torch.Tensor:
        encoded = encoder.prompt(prompt)
        inputs = encoder.batch([type(encoded)(torch.cat([encoded.ids, said]), encoded.pictures)])
        inputs["pixel_values"] = inputs["pixel_values"].double()
        found: torch.Tensor = model(**inputs).logits[0, len(encoded.ids) - 1 : -1].log_softmax(-1)
        return found

    for s in samples:
        said = torch.tensor(s.completion.token_ids)
        scale = 1 / tokens if loss_type == "dapo" else 1 / len(said) / len(samples)
        student = logps(s.prompt, said)
        loss = -s.advantage * student.gather(1, said[:, None]).sum() if credit else 0 * student.sum()
        if teacher.weight and (s.index + s.sample) % teacher.every == 0:
            with torch.no_grad():
                t, best = logps(hint(s.prompt), said).topk(teacher.top)
                t = torch.cat([t.exp(), 1 - t.exp().sum(-1, keepdim=True)], dim=1)
            p = student.gather(1, best).exp()
            p = torch.cat([p, 1 - p.sum(-1, keepdim=True)], dim=1)
            m = teacher.beta * t + (1 - teacher.beta) * p
            loss = loss + teacher.weight * (teacher.beta * kl(t, m) + (1 - teacher.beta) * kl(p, m)).sum()
        (scale * loss).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
@pytest.mark.parametrize("credit", [True, False], ids=["mixed", "alone"])
@pytest.mark.parametrize("sharing", [True, False], ids=["shared", "apart"])
def test_gradient_of_credit_and_lesson(
    folder: Path, tmp_path: Path, loss_type: str, credit: bool, sharing: bool
) -> None:
    collect, teacher = Groups(noisy=False), Hints()

    def scaled(policy: Policy, generation: int) -> list[StepSample]:
        made = collect(policy, generation)
        return made if credit else [dataclasses.replace(s, advantage=0.0) for s in made]

    choices = {"share_prefix": sharing, "share_vision": sharing}
    trainer, gradient = one_update(folder, tmp_path, scaled, teacher, loss_type=loss_type, **choices)
    samples = [s for batch in trainer._buffered_inputs for s in batch["samples"] if s is not None]
    assert len(samples) == 12
    expected = reference(folder, samples, teacher, loss_type, credit)
    assert (gradient - expected).norm() < 2e-5 * expected.norm()
    without = reference(folder, samples, Hints(weight=0.0), loss_type, credit)
    assert (without - expected).norm() > 1e-2 * expected.norm()
    logged = trainer.state.log_history[0]
    assert logged["teach/divergence"] > 0
    assert logged["fake/taught"] == 0.5


def test_off_is_the_same_bits_and_no_pass(folder: Path, tmp_path: Path) -> None:
    off = Hints(weight=0.0)
    plain, one = one_update(folder, tmp_path / "a", FakeCollect(noisy=False), None)
    switched, other = one_update(folder, tmp_path / "b", FakeCollect(noisy=False), off)
    assert torch.equal(one, other)
    assert off.calls == 0
    assert plain.state.log_history[0].keys() == switched.state.log_history[0].keys()


def test_nothing_to_teach_is_no_gradient_at_all(folder: Path, tmp_path: Path) -> None:
    """The pass is made all the same, since other processes may have something to teach."""
    teacher = Hints(every=1000)
    collect = FakeCollect(noisy=False)
    collect.scale = 0.0
    collect.rank, collect.world = 1, 1  # leaves sample 0, which would be taught, to somebody else
    _, gradient = one_update(folder, tmp_path, collect, teacher)
    assert teacher.calls == 2
    assert torch.count_nonzero(gradient) == 0


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_lesson_is_learned(folder: Path, tmp_path: Path, lora: Any) -> None:
    """With nothing else in the loss, the student comes nearer to what its teacher said before the updates."""
    from peft import LoraConfig

    collect, teacher = FakeCollect(noisy=False), Hints(weight=10.0, top=50)
    collect.scale = 0.0
    sizes = {"max_steps": 8, "steps_per_generation": 2, "gradient_accumulation_steps": 2, "num_iterations": 8}
    args = arguments(tmp_path, learning_rate=1e-4 if lora is None else 1e-3, beta=0.0, **sizes)
    adapter = LoraConfig(**lora) if lora else None
    trainer = SemiOnlineTrainer(folder, collect, args, teacher=teacher, lora=adapter)
    trainer.train()
    apart = [row["teach/divergence"] for row in trainer.state.log_history if "teach/divergence" in row]
    assert len(apart) == 8
    assert apart[-1] < 0.9 * apart[0]
    assert all(map(math.isfinite, apart))


def test_resume_with_a_teacher_is_exact(folder: Path, tmp_path: Path) -> None:
    sizes = {"max_steps": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 2}
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole = SemiOnlineTrainer(folder, FakeCollect(), arguments(tmp_path, **sizes, **saving), teacher=Hints())
    whole.train()
    after = weights(whole.model)
    again = SemiOnlineTrainer(folder, FakeCollect(), arguments(tmp_path, **sizes, **saving), teacher=Hints())
    again.train(tmp_path / "checkpoint-2")
    for name, p in weights(again.model).items():
        assert torch.equal(p, after[name]), name
