"""A model or an adapter is loaded whole or refused, with the name of every weight that does not fit."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from guiderail.agent.errors import SetupError
from guiderail.agent.local.loading import load_model, with_adapter
from guiderail.agent.local.policy import load_policy
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.arguments import make_training_args
from guiderail.rl.train.checkpoints import ExactCheckpoints
from guiderail.rl.train.model import trainable_model
from tests.agent.local.test_policy import TEXTS

SMALL = {"layers": 2, "vision_layers": 2, "width": 64, "vision_width": 64}
MLP = [f"model.language_model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)]
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("whole"), TEXTS, **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def adapter(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter")
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(load_model(whole), lora).save_pretrained(out, save_embedding_layers=False)
    return out


def changed(source: Path, out: Path, change: Callable[[Weights], object]) -> Path:
    """A copy of the folder with other weights."""
    shutil.copytree(source, out)
    (file,) = out.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return out


def drop(*names: str) -> Callable[[Weights], object]:
    return lambda tensors: [tensors.pop(name) for name in names]


@pytest.mark.parametrize("load", [load_model, load_policy], ids=["load_model", "load_policy"])
def test_missing_weights_are_named_and_refused(whole: Path, tmp_path: Path, load: Callable[[Path], Any]) -> None:
    norm = "model.visual.merger.norm.weight"
    cut = changed(whole, tmp_path / "cut", drop(*MLP, norm))
    named = r"layers\.\{0,1\}\.mlp\.up_proj\.weight, model\.visual\.merger\.norm\.weight"
    with pytest.raises(SetupError, match=rf"cut lacks weights, which would be random: model\.language_model\.{named}"):
        load(cut)


def test_trainers_and_checkpoints_refuse_missing_weights(whole: Path, tmp_path: Path) -> None:
    cut = changed(whole, tmp_path / "cut", drop(*MLP))
    with pytest.raises(SetupError, match="lacks weights"):
        trainable_model(cut, make_training_args({"max_steps": 1, "report_to": []}, tmp_path))
    holder = type("Holder", (ExactCheckpoints,), {"is_deepspeed_enabled": False, "model": load_model(whole)})()
    with pytest.raises(SetupError, match="lacks weights"):
        holder._load_from_checkpoint(str(cut))
    holder._load_from_checkpoint(str(whole))


def test_tied_weights_may_be_absent_and_others_not(whole: Path, tmp_path: Path) -> None:
    assert "lm_head.weight" not in load_file(whole / "model.safetensors")
    load_model(whole)
    untied = tmp_path / "untied"
    shutil.copytree(whole, untied)
    config = json.loads((untied / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (untied / "config.json").write_text(json.dumps(config))
    with pytest.raises(SetupError, match=r"would be random: lm_head\.weight;"):
        load_model(untied)


def test_weights_without_a_place_are_named(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = changed(whole, tmp_path / "more", lambda tensors: tensors.update({"value.weight": torch.ones(2)}))
    with caplog.at_level(logging.WARNING, "guiderail.agent.local.loading"):
        load_model(more)
    assert "no place for: value.weight" in caplog.text


def test_an_adapter_fits_or_is_refused(whole: Path, adapter: Path, tmp_path: Path) -> None:
    names = sorted(load_file(adapter / "adapter_model.safetensors"))
    base = load_model(whole)
    with_adapter(base, adapter, whole)
    cut = changed(adapter, tmp_path / "cut", drop(names[0]))
    lacks = r"cut does not fit .*it lacks base_model\.model\.model\.language_model\.layers\.\{0\}\.self_attn\.q_proj\.lora_A"
    with pytest.raises(SetupError, match=lacks):
        load_policy(whole, adapter=cut)
    elsewhere = changed(
        adapter,
        tmp_path / "elsewhere",
        lambda tensors: tensors.update({names[0].replace("layers.0", "layers.7"): tensors.pop(names[0])}),
    )
    with pytest.raises(SetupError, match=r"it lacks .*layers\.\{0\}.*there is no place for .*layers\.\{7\}"):
        load_policy(whole, adapter=elsewhere)
    with pytest.raises(SetupError, match="does not fit"):
        trainable_model(whole, make_training_args({"max_steps": 1, "report_to": []}, tmp_path), adapter=cut)
