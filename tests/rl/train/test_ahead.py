"""Sampling one generation ahead: which weights sampled what, what the loss is told, and how a run stops and goes on."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from guiderail.agent.errors import SetupError
from guiderail.agent.local.policy import load_policy
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.train.ahead import AheadTrainer, copy_weights, trained_copy
from guiderail.rl.train.checkpoints import last_checkpoint
from guiderail.rl.train.trainer import SemiOnlineTrainer
from tests.agent.local.test_policy import prompt
from tests.rl.train.test_trainer import LORA, arguments, folder, folders, weights  # noqa: F401 (fixtures)

TRAINING = {"max_steps": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 2, "learning_rate": 3e-3}


class Halved:
    """Four turns per generation. calls: (generation, thread, log-probabilities); taken: (generation, behind)."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, list[tuple[float, ...]]]] = []
        self.taken: list[tuple[int, int]] = []
        self.fails_at = -1

    def sample(self, policy: Policy, number: int) -> list[StepSample]:
        if number == self.fails_at:
            raise SetupError("the world is gone")
        requests = [Request(prompt(policy.vision, i, screens=1), seed=i) for i in range(4)]
        said = policy.complete(requests, Sampling(max_new_tokens=4))
        self.calls.append((number, threading.current_thread().name, [c.logprobs for c in said]))
        return [
            StepSample(f"e{i}", 0, i, r.prompt, c, 1, 1, 0, 0, (-1) ** i)
            for i, (r, c) in enumerate(zip(requests, said, strict=True))
        ]

    def take(self, made: list[StepSample], number: int, behind: int = 0) -> list[StepSample]:
        self.taken.append((number, behind))
        return [replace(sample, behind=behind) for sample in made]

    def __call__(self, policy: Policy, number: int) -> list[StepSample]:
        return self.take(self.sample(policy, number), number)

    def state_dict(self) -> dict[str, Any]:
        return {"taken": len(self.taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = [(-1, 0)] * state["taken"]


def sampled_by(path: Path) -> list[tuple[float, ...]]:
    """What the four turns' log-probabilities are under saved weights."""
    collect = Halved()
    collect.sample(load_policy(path), 0)
    return collect.calls[0][2]


def near(ours: list[tuple[float, ...]], theirs: list[tuple[float, ...]]) -> bool:
    return [len(one) for one in ours] == [len(one) for one in theirs] and all(
        torch.allclose(torch.tensor(a), torch.tensor(b), atol=1e-5) for a, b in zip(ours, theirs, strict=True)
    )


def test_a_generation_is_sampled_by_the_weights_from_before(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    collect = Halved()
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9}
    trainer = AheadTrainer(folder, collect, arguments(tmp_path, **TRAINING, **saving))
    trainer.train()
    assert [number for number, _, _ in collect.calls] == [0, 1, 2, 3]
    assert [thread for _, thread, _ in collect.calls] == ["MainThread", "ahead", "ahead", "ahead"]
    assert collect.taken == [(0, 0), (1, 1), (2, 1), (3, 1)]
    by = [sampled_by(folder), *(sampled_by(tmp_path / f"checkpoint-{update}") for update in (1, 2))]
    assert not near(by[0], by[1]), "the weights must move to be a test"
    for number, version in enumerate((0, 0, 1, 2)):
        assert near(collect.calls[number][2], by[version]), f"generation {number} by the weights of update {version}"
    log = [row for row in trainer.state.log_history if "update/behind" in row]
    assert [row["update/behind"] for row in log] == [0, 1, 1, 1]
    assert ["update/importance" in row for row in log] == [False, True, True, True]
    assert log[1]["update/importance"] != 1
    assert all(row["ahead/waited"] >= 0 for row in log)


def test_a_resumed_run_makes_the_generation_under_way_again(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    """The checkpoint knows nothing of what was being sampled, so it is sampled again, by the weights of the checkpoint."""
    saving = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}
    AheadTrainer(folder, Halved(), arguments(tmp_path, **{**TRAINING, "max_steps": 3}, **saving)).train()
    assert json.loads((tmp_path / "checkpoint-2" / "progress-0.json").read_text()) == {"taken": 2}
    collect = Halved()
    trainer = AheadTrainer(folder, collect, arguments(tmp_path, **TRAINING, **saving))
    trainer.train(tmp_path / "checkpoint-2")
    assert [(number, thread) for number, thread, _ in collect.calls] == [(2, "MainThread"), (3, "ahead")]
    assert collect.taken[-2:] == [(2, 0), (3, 1)]
    assert near(collect.calls[0][2], sampled_by(tmp_path / "checkpoint-2"))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


def test_what_fails_beside_the_training_ends_it(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    collect = Halved()
    collect.fails_at = 2
    with pytest.raises(SetupError, match="the world is gone"):
        AheadTrainer(folder, collect, arguments(tmp_path, **TRAINING)).train()
    assert collect.taken == [(0, 0), (1, 1)]


def test_a_failing_run_stops_what_is_under_way(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    """The sampler asks for ever; it is stopped when the training fails, which stays the error."""

    class Endless(Halved):
        def sample(self, policy: Policy, number: int) -> list[StepSample]:
            while number == 1:
                super().sample(policy, number)
            return super().sample(policy, number)

    class Fails(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise SetupError("the disk is full")

    trainer = AheadTrainer(folder, Endless(), arguments(tmp_path, **TRAINING), callbacks=[Fails()])
    with pytest.raises(SetupError, match="the disk is full"):
        trainer.train()
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_the_copy_has_what_is_trained_and_shares_the_rest(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    from peft import LoraConfig

    trainer = AheadTrainer(folder, Halved(), arguments(tmp_path, **TRAINING), lora=LoraConfig(**LORA))
    ours, theirs = (dict(model.named_parameters()) for model in (trainer.model, trainer._copy))
    assert ours.keys() == theirs.keys()
    trained = {name for name, one in ours.items() if one.requires_grad}
    assert trained
    for name, one in ours.items():
        assert (one is theirs[name]) == (name not in trained)
        assert not theirs[name].requires_grad or name not in trained
    before = weights(trainer._copy)
    with torch.no_grad():
        for name in trained:
            ours[name] += 1
    assert all(torch.equal(theirs[name], before[name]) for name in ours)
    copy_weights(trainer.model, trainer._copy)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert all(one.requires_grad for name, one in ours.items() if name in trained)


def test_a_copy_of_a_patched_model_does_not_call_the_original() -> None:
    """As TRL's fused head does: the new forward holds the old one, which is bound to the model."""

    class Double(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x

    model = Double()
    first = model.forward
    model.forward = lambda x: first(x)  # type: ignore[method-assign]
    copied = trained_copy(model)
    with torch.no_grad():
        model.weight += 5
    assert copied(torch.ones(1)).item() == 1


def test_zero_3_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    args = arguments(tmp_path, **TRAINING)

    class Zero3:
        def is_zero3(self) -> bool:
            return True

    args.hf_deepspeed_config = Zero3()
    with pytest.raises(SetupError, match=r"under ZeRO-3; set training.deepspeed to zero2.json, or online.ahead=0"):
        AheadTrainer(tmp_path / "no model", Halved(), args)


def test_off_is_the_plain_trainer() -> None:
    from guiderail.launch.train import _trainer
    from guiderail.rl.config import Config

    plain: dict[str, Any] = {"model": {"path": "x"}, "method": {"algorithm": "online"}, "world": {"workers": 1}}
    assert _trainer(Config.model_validate(plain)) is SemiOnlineTrainer
    assert _trainer(Config.model_validate(plain | {"online": {"ahead": 1}})) is AheadTrainer
