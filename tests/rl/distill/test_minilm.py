"""MiniLM as a training: it learns, it resumes exactly, and it leaves alone what its loss does not reach."""

from pathlib import Path

import pytest
import torch

from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.rl.distill.minilm import RelationTrainer, make_start
from guiderail.rl.distill.student import student_shape
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.arguments import make_plain_args
from tests.agent.local.test_policy import TEXTS
from tests.rl.train.test_sft import examples

SMALL = {"layers": 3, "vision_layers": 2, "width": 128, "vision_width": 64}


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("teacher"), TEXTS, request.param, **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def start(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "start"
    model, encoder = load_model(teacher, "cpu", "float32"), load_encoder(teacher)
    make_start(model, student_shape(model.config, layers=2, width=64), encoder, examples(encoder, 4), folder)
    return folder


def trained(teacher: Path, start: Path, out: Path, resume: Path | None = None) -> RelationTrainer:
    training = {"max_steps": 6, "learning_rate": 5e-3, "per_device_train_batch_size": 3, "report_to": []}
    args = make_plain_args(training | {"save_steps": 3, "lr_scheduler_type": "constant"}, out)
    encoder = load_encoder(teacher)
    trainer = RelationTrainer(teacher, start, examples(encoder), args, encoder=encoder, heads=2)
    trainer.train(resume)
    return trainer


def test_it_learns_and_resumes_exactly(teacher: Path, start: Path, tmp_path: Path) -> None:
    whole = trained(teacher, start, tmp_path)
    losses = [row["loss"] for row in whole.state.log_history if "loss" in row]
    assert losses[-1] < 0.9 * losses[0]
    parts = [
        row["relation/value_value"] + row["relation/query_query"] + row["relation/key_key"]
        for row in whole.state.log_history
        if "loss" in row
    ]
    assert parts == pytest.approx(losses, rel=1e-3)
    after = {name: p.clone() for name, p in whole.model.named_parameters()}
    again = trained(teacher, start, tmp_path, tmp_path / "checkpoint-3")
    for name, p in again.model.named_parameters():
        assert torch.equal(p, after[name]), name
    before = dict(load_model(start, "cpu", "float32").named_parameters())
    moved = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert {
        name for name in moved if "visual" in name or "layers.1.mlp" in name or "layers.1.self_attn.o" in name
    } == set()
    assert {"model.language_model.embed_tokens.weight", "model.language_model.layers.0.mlp.up_proj.weight"} <= moved
