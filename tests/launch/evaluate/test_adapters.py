"""guiderail evaluate --adapters: many adapters over one base that is loaded once, each scored as if alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

import torch
from peft import LoraConfig, get_peft_model

from guiderail.agent.errors import SetupError
from guiderail.agent.local import adapters as local
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.shipped import SHIPPED
from guiderail.envs.pocket.record import record
from guiderail.launch.agents import read_voice
from guiderail.launch.cli import app
from guiderail.launch.evaluate.adapters import adapter_folders, name_of
from tests.agent.served.transformers_server import Served, serving

BASE = SHIPPED["tiny-sft"]
KINDS: dict[str, dict[str, Any]] = {
    "checkpoint-2": {"r": 2, "exclude_modules": r".*\bvisual\b.*"},
    "checkpoint-10": {"r": 4},  # the tower too
    "other": {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "use_dora": True},
}


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, a run with two checkpoints whose last model is the last checkpoint's, and another adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    record(folder / "data", episodes=3, seed=5, split="test")
    for seed, (name, settings) in enumerate(KINDS.items()):
        adapter(folder / ("run" if "-" in name else "") / name, seed, **settings)
    shutil.copytree(folder / "run" / "checkpoint-10", folder / "run" / "model")
    return folder


def adapter(folder: Path, seed: int, base: Path = BASE, **settings: Any) -> Path:
    """An adapter that changes answers, with what a training writes beside it."""
    torch.manual_seed(seed)
    model = load_model(base, "cpu")
    wrapped = get_peft_model(model, LoraConfig(**{"target_modules": "all-linear", "lora_alpha": 8, **settings}))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.add_((0.3 if "lora_B" in name else 0.1) * torch.randn_like(weight))
    wrapped.save_pretrained(folder)
    load_encoder(base).save(folder)
    read_voice(base).save(folder)
    return folder


def lines(run: Path) -> list[str]:
    return sorted((run / "rollouts.jsonl").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sop", "offline"])
def test_the_same_scores_as_each_alone(world: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(local, "load_model", lambda *said: loaded.append(said[0]) or load_model(*said))
    words = ["evaluate", kind, world / "data", "--limit", 1 if kind == "offline" else 3, "--json"]
    many = ["--adapters", world / "other", "--adapters", world / "run"]
    rows = json.loads(call(*words, *many, "--out", tmp_path / "all"))["adapters"]
    assert [*rows] == ["other", "run-checkpoint-2", "run-checkpoint-10"]
    assert loaded == [str(BASE)]
    said = set()
    for name, folder in zip(rows, ("other", "run/checkpoint-2", "run/checkpoint-10"), strict=True):
        alone = json.loads(call(*words, "--model", world / folder, "--out", tmp_path / name))
        assert rows[name] == alone
        assert lines(tmp_path / "all" / name) == lines(tmp_path / name)
        one, other = (
            json.loads((tmp_path / place / "run.json").read_text())["legs"][0] for place in (name, f"all/{name}")
        )
        assert one["about"] == other["about"]
        said.add(str([[turn["text"] for turn in json.loads(line)["turns"]] for line in lines(tmp_path / name)]))
    assert len(said) == 3


@pytest.mark.slow
def test_a_stopped_run_goes_on(world: Path, tmp_path: Path) -> None:
    words = ["evaluate", "sop", world / "data", "--json", "--out", tmp_path / "all", "--adapters", world / "run"]
    rows = json.loads(call(*words))
    shutil.rmtree(tmp_path / "all" / "run-checkpoint-10")
    before = lines(tmp_path / "all" / "run-checkpoint-2")
    assert json.loads(call(*words, "--resume")) == rows
    assert lines(tmp_path / "all" / "run-checkpoint-2") == before
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "run-checkpoint-2 already holds a run" in str(result.exception)


def test_another_base_is_refused(world: Path, tmp_path: Path) -> None:
    strange = adapter(tmp_path / "strange", 1, SHIPPED["tiny-base"], r=2)
    words = ["evaluate", "sop", str(world / "data"), "--adapters", str(world / "run"), "--adapters", str(strange)]
    for more, where in (([], "that of the first adapter"), (["--model", "tiny-sft"], "--model")):
        result = CliRunner().invoke(app, [*words, *more])
        assert isinstance(result.exception, SetupError)
        assert f"adapter {strange} belongs to the base " in str(result.exception)
        assert f"tiny-base, {where} is " in str(result.exception)


def test_an_adapter_of_another_shape_is_refused(world: Path, tmp_path: Path) -> None:
    """Its base is not here, so that only the weights can tell."""
    strange = tmp_path / "strange"
    shutil.copytree(world / "run" / "checkpoint-2", strange)
    settings = json.loads((strange / "adapter_config.json").read_text())
    settings |= {"base_model_name_or_path": str(tmp_path / "gone"), "r": 3}
    (strange / "adapter_config.json").write_text(json.dumps(settings))
    words = ["evaluate", "sop", world / "data", "--adapters", world / "other", "--adapters", strange]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert f"adapter {strange} does not fit {BASE}" in str(result.exception)
    assert "size mismatch" in str(result.exception)
    assert "which is not here to be compared" in " ".join(result.output.split())


def test_which_adapters_a_folder_holds(world: Path, tmp_path: Path) -> None:
    assert [name_of(folder) for folder in adapter_folders([str(world / "run")])] == [
        "run-checkpoint-2",
        "run-checkpoint-10",
    ]
    later = shutil.copytree(world / "run", tmp_path / "run")
    (later / "model" / "adapter_model.safetensors").write_bytes(
        (later / "checkpoint-2" / "adapter_model.safetensors").read_bytes()
    )
    assert [name_of(folder) for folder in adapter_folders([str(later)])][2:] == ["run-model"]
    with pytest.raises(SetupError, match="names run-checkpoint-2 twice"):
        adapter_folders([str(later), str(world / "run")])
    with pytest.raises(SetupError, match="data holds no adapter, and no checkpoint that is one"):
        adapter_folders([str(world / "data")])
    with pytest.raises(SetupError, match="no adapter folder"):
        adapter_folders([str(tmp_path / "none")])
    result = CliRunner().invoke(app, ["evaluate", "sop", str(world / "data"), "--agent", "expert", "--adapters", "x"])
    assert "remove --agent" in str(result.exception)


# --------------------------------------------------------------------------------------------------------- vLLM server


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, str]]:
    for module in ("openai", "tenacity"):
        pytest.importorskip(module, reason="needs the extra served")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Served(BASE)
    with serving(server, "base") as url:
        yield server, url


@pytest.mark.slow
def test_a_server_takes_one_after_the_other(world: Path, tmp_path: Path, served: tuple[Served, str]) -> None:
    server, url = served
    words = ["evaluate", "sop", world / "data", "--limit", 2, "--json"]
    many = ["--adapters", world / "run", "--out", tmp_path / "all"]
    rows = json.loads(call(*words, "--server", url, "--served-model", "base", *many))["adapters"]
    assert [name.rpartition("-")[0] for name in server.loaded] == ["run-checkpoint-2", "run-checkpoint-10"]
    assert not server.adapters, "the server is left as it was"
    for name, row in rows.items():
        folder = world / "run" / name.removeprefix("run-")
        assert row == json.loads(call(*words, "--model", folder))
        assert json.loads((tmp_path / "all" / name / "run.json").read_text())["legs"][0]["about"]["model"] == str(
            folder
        )


def test_a_server_that_cannot_is_told_how_to_start(world: Path, served: tuple[Served, str]) -> None:
    server, url = served
    words = ["evaluate", "sop", str(world / "data"), "--server", url, "--served-model", "base"]

    def refused(folder: str) -> str:
        result = CliRunner().invoke(app, [*words, "--adapters", str(world / folder)])
        assert isinstance(result.exception, SetupError), result.output
        return str(result.exception)

    server.lora = {"enable_tower_connector_lora": False}
    assert "ignores an adapter's part in the vision tower" in refused("run/checkpoint-10")
    server.lora = None
    said = refused("run/checkpoint-2")
    assert "does not take the adapter" in said
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in said
    assert "--enable-lora --max-loras 1 --max-lora-rank 8" in said
    words[-1] = "another"
    assert "does not serve 'another'; it serves base" in refused("run/checkpoint-2")
