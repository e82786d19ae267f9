"""Stage one: the loss sees the target turn alone, learns it, resumes exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder
from guiderail.agent.local.policy import load_policy
from guiderail.agent.policy import GREEDY, Request
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.arguments import make_sft_args
from guiderail.rl.train.sft import Example, ExpertTurnTrainer, collate_turns
from tests.agent.local.test_policy import TEXTS, prompt

SMALL = {"layers": 2, "vision_layers": 2, "width": 64, "vision_width": 64}
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"), TEXTS, **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load_encoder(folder)


def examples(encoder: Encoder, count: int = 6) -> list[Example]:
    said = ["<think>tap it</think>", "[72, 133]", "<|im_end|> typed, not meant"]
    return [
        (prompt(encoder.vision, i % 3, screens=1 + i % 2, goal=f"Goal: {i}"), said[i % 3] * (1 + i // 3))
        for i in range(count)
    ]


def trained(folder: Path, out: Path, resume: Path | None = None, **training: Any) -> Any:
    lora, choices = training.pop("lora", None), training.pop("choices", {})
    known = {"learning_rate": 3e-3, "max_steps": 4, "per_device_train_batch_size": 3, "report_to": []}
    args = make_sft_args({**known, "save_strategy": "no", **training}, out)
    encoder = load_encoder(folder)
    trainer = ExpertTurnTrainer(folder, examples(encoder), args, lora=LoraConfig(**lora) if lora else None, **choices)
    trainer.train(resume)
    return trainer


def test_labels_cover_the_target_and_its_end(encoder: Encoder) -> None:
    rows = examples(encoder)
    batch = collate_turns(rows, encoder)
    for labels, ids, (_, text) in zip(batch["labels"], batch["input_ids"], rows, strict=True):
        target = labels[labels != -100].tolist()
        assert target[-1] == encoder.end_of_turn
        assert target.count(encoder.end_of_turn) == 1
        assert encoder.tokenizer.decode(target[:-1]) == text
        assert ids[-len(target) :].tolist() == target
    assert batch["image_grid_thw"].shape[0] == sum(len(p.pictures) for p, _ in rows)


def test_what_is_taught_is_said(folder: Path, tmp_path: Path) -> None:
    fast = {"max_steps": 60, "learning_rate": 5e-3, "lr_scheduler_type": "constant"}
    trainer = trained(folder, tmp_path, per_device_train_batch_size=6, **fast)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 0.1 < 3 < losses[0]
    trainer.save_policy(tmp_path / "model")
    policy = load_policy(tmp_path / "model")
    taught = examples(policy.encoder)
    said = policy.complete([Request(p) for p, _ in taught], GREEDY)
    assert [c.text for c in said] == [text for _, text in taught]
    assert all(c.finish == "stop" for c in said)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_features_once_change_nothing(folder: Path, tmp_path: Path, frozen: bool, lora: dict[str, Any] | None) -> None:
    """Three updates over two epochs, against TRL's own forward with pixels."""
    runs = []
    plain = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 1e9, "lr_scheduler_type": "constant"}
    for share in (False, True):
        choices = {"freeze_vision": frozen, "share_vision": share}
        one = trained(folder, tmp_path / str(share), lora=lora, choices=choices, max_steps=3, **plain)
        after = torch.cat([p.detach().flatten() for p in one.model.parameters() if p.requires_grad])
        runs.append(([row for row in one.state.log_history if "loss" in row], after))
        shown = {p.screenshot.digest for prompt, _ in one.examples for p in prompt.pictures}
        assert one.vision.misses == (len(shown) if share and (frozen or lora) else 0)
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-5)
    assert (runs[1][1] - runs[0][1]).norm() / runs[0][1].norm() < 1e-6


def test_loss_is_the_mean_over_tokens_of_a_step(folder: Path, tmp_path: Path) -> None:
    """However rows are dealt into micro-batches; turns differ in length here."""
    norms = []
    for rows, accumulation in ((6, 1), (1, 6), (2, 3)):
        run = trained(
            folder,
            tmp_path / str(rows),
            max_steps=1,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=accumulation,
        )
        first = run.state.log_history[0]
        norms.append((first["loss"], first["grad_norm"]))
    for loss, norm in norms[1:]:
        assert loss == pytest.approx(norms[0][0], rel=1e-5)
        assert norm == pytest.approx(norms[0][1], rel=1e-4)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_resume_is_exact(folder: Path, tmp_path: Path, lora: dict[str, Any] | None) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 5, "save_total_limit": 9, "lora": lora}
    straight = trained(folder, tmp_path, **saving)
    resumed = trained(folder, tmp_path, resume=tmp_path / "checkpoint-3", **saving)
    for name, p in straight.model.named_parameters():
        assert torch.equal(p, resumed.model.get_parameter(name)), name
    assert straight.state.log_history[4]["loss"] == resumed.state.log_history[4]["loss"]


def test_nan_stops_with_the_examples(folder: Path, tmp_path: Path) -> None:
    args = make_sft_args({"max_steps": 2, "per_device_train_batch_size": 2, "report_to": []}, tmp_path)
    trainer = ExpertTurnTrainer(folder, examples(load_encoder(folder)), args)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(GuiderailError, match="loss is nan, update 0"):
        trainer.train()
    assert len(json.loads((tmp_path / "nonfinite-0.json").read_text())["examples"]) == 2


def test_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"training\.max_step, did you mean 'max_steps'"):
        make_sft_args({"max_step": 2}, tmp_path)
