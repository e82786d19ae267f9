"""Two processes, ZeRO, killed runs. Each case is a run of this file as a program under torchrun.

A DeepSpeed build that was killed leaves a lock behind on which every later run waits for ever, so the extensions live
in a folder of their own and are built once, before the first case.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[3]
ZERO = {stage: ROOT / "launch" / "deepspeed" / f"zero{stage}.json" for stage in (1, 2, 3)}
TARGETS = ["q_proj", "v_proj"]


def program(spec: dict[str, Any]) -> None:
    """One training run as `spec` says; rank 0 writes the log history and the final policy folder."""
    from peft import LoraConfig

    from guiderail.agent.local.loading import load_encoder
    from guiderail.rl.distill.foreign import ForeignTeacher
    from guiderail.rl.distill.teacher import ModelTeacher
    from guiderail.rl.sections import Teacher
    from guiderail.rl.train.arguments import make_sft_args, make_training_args
    from guiderail.rl.train.checkpoints import last_checkpoint
    from guiderail.rl.train.distributed import wait_for_the_others
    from guiderail.rl.train.sft import ExpertTurnTrainer
    from guiderail.rl.train.trainer import SemiOnlineTrainer
    from tests.rl.train.test_divergence import Hints
    from tests.rl.train.test_sft import examples
    from tests.rl.train.test_trainer import FakeCollect, Groups, Looks

    out, deepspeed = Path(spec["out"]), spec.get("deepspeed")
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=TARGETS) if spec.get("lora") else None
    trainer: Any
    if spec.get("sft"):
        args: Any = make_sft_args(spec["training"], out, deepspeed)
        trainer = ExpertTurnTrainer(spec["model"], examples(load_encoder(spec["model"])), args, lora=lora)
    else:
        args = make_training_args(spec["training"], out, deepspeed)

        class Slow(FakeCollect):
            def __call__(self, policy: Any, generation: int) -> Any:
                if generation == spec.get("sleep_at"):
                    (out / "sleeping").touch()
                    time.sleep(600)
                return super().__call__(policy, generation)

        collect = Slow(
            args.process_index,
            args.world_size,
            spec.get("count", 5),
            noisy=args.world_size == 1 and not spec.get("quiet"),
        )
        if spec.get("looks"):
            collect = Looks(args.process_index, args.world_size)
        if spec.get("groups"):
            collect = Groups(args.process_index, args.world_size)
        choices = spec.get("choices", {}) | ({"teacher": Hints()} if spec.get("taught") else {})
        if "teacher" in spec:
            kind = ForeignTeacher if spec["teacher"]["tokenizer"] == "other" else ModelTeacher
            choices["teacher"] = kind(Teacher(**spec["teacher"]), load_encoder(spec["model"]))
        trainer = SemiOnlineTrainer(spec["model"], collect, args, lora=lora, processes=spec.get("processes"), **choices)
    resume = spec.get("resume")
    trainer.train(last_checkpoint(out) if resume == "last" else resume)
    trainer.save_policy(out / "model")
    if trainer.accelerator.is_main_process:
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))
    wait_for_the_others()


def command(spec: dict[str, Any], processes: int, tmp_path: Path) -> list[str]:
    file = tmp_path / f"spec-{Path(spec['out']).name}-{bool(spec.get('resume'))}.json"
    file.write_text(json.dumps(spec, default=str))
    module = ["-m", "tests.rl.train.test_distributed", str(file)]
    if processes == 1:
        return [sys.executable, *module]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--standalone"]
    return [*launcher, *module]


def environment(extensions: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
    fixed = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(extensions)}
    return {**clean, **fixed, "DS_ACCELERATOR": "cpu", "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}"}


def run(spec: dict[str, Any], processes: int, tmp_path: Path, extensions: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        command(spec, processes, tmp_path),
        cwd=ROOT,
        env=environment(extensions),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    log: list[dict[str, Any]] = json.loads((Path(spec["out"]) / "log.json").read_text())
    return [row for row in log if "loss" in row]


def final(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    name = "adapter_model.safetensors" if (out / "model" / "adapter_config.json").exists() else "model.safetensors"
    tensors: dict[str, torch.Tensor] = load_file(out / "model" / name)
    return tensors


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from guiderail.rl.tiny.model import build_tiny
    from tests.agent.local.test_policy import TEXTS
    from tests.rl.train.test_trainer import SMALL

    return build_tiny(tmp_path_factory.mktemp("tiny"), TEXTS, **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def extensions() -> Path:
    """Kept between sessions (the build takes a minute); a lock left by a killed build is removed first."""
    folder = Path(os.environ.get("GUIDERAIL_TORCH_EXTENSIONS", Path.home() / ".cache" / "guiderail-torch-extensions"))
    folder.mkdir(parents=True, exist_ok=True)
    for lock in folder.rglob("lock"):
        lock.unlink()
    return folder


def training(**more: Any) -> dict[str, Any]:
    known = {"learning_rate": 1e-3, "max_steps": 4, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    return {**known, "beta": 0.1, "report_to": [], "save_strategy": "no", **more}


SGD = {"optim": "sgd", "learning_rate": 1e-2, "max_grad_norm": 1e9, "weight_decay": 0.0}
"""Steps in proportion to gradients; Adam makes a whole one of the rounding of a gradient of next to nothing."""


def one_update(**more: Any) -> dict[str, Any]:
    return training(**SGD, max_steps=1, steps_per_generation=2, gradient_accumulation_steps=2, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss_type", "count", "attention"),
    [("dapo", 5, "auto"), ("dapo", 5, "varlen"), ("dapo", 1, "auto"), ("grpo", 5, "auto"), ("grpo", 1, "auto")],
)
def test_first_update_is_the_same_on_one_and_two_processes(
    model: Path, tmp_path: Path, extensions: Path, loss_type: str, count: int, attention: str
) -> None:
    """Processes with as many samples as the other, and with none."""
    logs = []
    for processes in (1, 2):
        spec = {
            "model": model,
            "out": tmp_path / str(processes),
            "count": count,
            "training": one_update(loss_type=loss_type),
            "choices": {"attention": attention},
        }
        logs.append(run(spec | {"quiet": True}, processes, tmp_path, extensions)[0])
    one, two = final(tmp_path / "1"), final(tmp_path / "2")
    assert logs[0]["update/samples"] == logs[1]["update/samples"] == count
    assert logs[0]["grad_norm"] == pytest.approx(logs[1]["grad_norm"], rel=1e-4)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_equals_plain(
    model: Path, tmp_path: Path, extensions: Path, stage: int, processes: int, lora: bool
) -> None:
    """Losses of ZeRO against plain training (DDP for two), then interrupted against straight, then the saved folder."""
    from guiderail.agent.local.policy import load_policy
    from guiderail.agent.policy import Request, Sampling
    from tests.agent.local.test_policy import prompt

    common = {"model": model, "lora": lora}
    steady = {"adam_epsilon": 1e-5}  # else Adam makes a whole step of the rounding of a gradient of next to nothing
    plain = run(common | {"out": tmp_path / "plain", "training": training(**steady)}, processes, tmp_path, extensions)
    saving = training(save_strategy="steps", save_steps=2, **steady)
    spec = common | {"out": tmp_path / "zero", "training": saving, "deepspeed": ZERO[stage]}
    zero = run(spec, processes, tmp_path, extensions)
    for a, b in zip(plain, zero, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-4)
        assert a["kl"] == pytest.approx(b["kl"], abs=2e-4)
    weights = final(tmp_path / "zero")
    for name, tensor in final(tmp_path / "plain").items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-4, rtol=1e-3)
    resumed = run(spec | {"resume": str(tmp_path / "zero" / "checkpoint-2")}, processes, tmp_path, extensions)
    assert [row["loss"] for row in resumed] == [row["loss"] for row in zero]
    for name, tensor in final(tmp_path / "zero").items():
        assert torch.equal(tensor, weights[name]), name
    policy = load_policy(tmp_path / "zero" / "model")
    assert policy.complete([Request(prompt(policy.vision, 1))], Sampling(max_new_tokens=2))[0].token_ids


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "lora"), [(2, False), (3, False), (3, True)])
def test_sharing_changes_nothing_on_two_processes(
    model: Path, tmp_path: Path, extensions: Path, stage: int, lora: bool
) -> None:
    """Two of three groups on one process, one on the other: prefix trees, with and without a mask, and features against
    TRL's own forward."""
    sizes = {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "num_iterations": 2, "max_steps": 2}
    logs = []
    variants = {"TRL": (False, "sdpa"), "sdpa": (True, "sdpa"), "varlen": (True, "varlen")}
    for name, (share, attention) in variants.items():
        spec = {"model": model, "out": tmp_path / name, "lora": lora, "groups": True, "deepspeed": ZERO[stage]}
        spec["choices"] = {"share_prefix": share, "share_vision": share, "freeze_vision": True, "attention": attention}
        logs.append(run(spec | {"training": training(**SGD, **sizes)}, 2, tmp_path, extensions))
    for a, *others in zip(*logs, strict=True):
        for b in others:
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    expected = final(tmp_path / "TRL")
    for variant in ("sdpa", "varlen"):
        weights = final(tmp_path / variant)
        for name, tensor in expected.items():
            torch.testing.assert_close(tensor, weights[name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("count", [0, 1], ids=["three groups", "one rank empty"])
def test_lessons_on_two_processes_and_under_zero3(
    model: Path, tmp_path: Path, extensions: Path, count: int, lora: bool
) -> None:
    """One update with a teacher: one process against two, plain against ZeRO-3, prefixes shared or not."""
    cases = {"one": (1, None, True), "two": (2, None, True), "zero": (2, ZERO[3], True), "apart": (2, ZERO[3], False)}
    logs: dict[str, dict[str, Any]] = {}
    for name, (processes, deepspeed, share) in cases.items():
        spec = {"model": model, "out": tmp_path / name, "lora": lora, "taught": True, "quiet": True}
        spec |= {"groups": True} if not count else {"count": count}
        spec |= {"deepspeed": deepspeed, "training": one_update(), "choices": {"share_prefix": share}}
        logs[name] = run(spec, processes, tmp_path, extensions)[0]
    weights = final(tmp_path / "one")
    assert logs["one"]["teach/divergence"] > 0
    for name in ("two", "zero", "apart"):
        assert logs[name]["grad_norm"] == pytest.approx(logs["one"]["grad_norm"], rel=1e-4)
        assert logs[name]["fake/taught"] == 0.5
        for key, tensor in final(tmp_path / name).items():
            torch.testing.assert_close(tensor, weights[key], atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["advantage", "divergence"])
@pytest.mark.parametrize(("lora", "tokenizer"), [(False, "same"), (True, "same"), (False, "other")])
def test_a_larger_teacher_on_two_processes_and_under_zero3(
    model: Path, tmp_path: Path, extensions: Path, lora: bool, form: str, tokenizer: str
) -> None:
    """One update with another model as teacher, one process against two, plain against ZeRO-3, prefixes shared or not; and
    under ZeRO-3 a run that goes on from a checkpoint ends as the straight one."""
    from guiderail.rl.tiny.model import build_tiny
    from tests.agent.local.test_policy import TEXTS
    from tests.rl.train.test_trainer import SMALL

    sizes: dict[str, Any] = SMALL | {"width": 96, "layers": 3}
    texts = TEXTS if tokenizer == "same" else ["completely other words are in here"]
    path = build_tiny(tmp_path / "teacher", texts, seed=1, **sizes)
    teacher = {"path": str(path), "tokenizer": tokenizer, "form": form, "weight": 5.0}
    cases = {"one": (1, None, True), "two": (2, None, True), "zero": (2, ZERO[3], True), "apart": (2, ZERO[3], False)}
    logs: dict[str, dict[str, Any]] = {}
    for name, (processes, deepspeed, share) in cases.items():
        spec = {"model": model, "out": tmp_path / name, "lora": lora, "teacher": teacher, "groups": True}
        spec |= {"deepspeed": deepspeed, "training": one_update(), "choices": {"share_prefix": share}, "quiet": True}
        logs[name] = run(spec, processes, tmp_path, extensions)[0]
    weights = final(tmp_path / "one")
    for name in ("two", "zero", "apart"):
        assert logs[name]["teach/gap"] == pytest.approx(logs["one"]["teach/gap"], abs=1e-4)
        assert logs[name]["grad_norm"] == pytest.approx(logs["one"]["grad_norm"], rel=1e-3)
        for key, tensor in final(tmp_path / name).items():
            torch.testing.assert_close(tensor, weights[key], atol=1e-5, rtol=1e-3)
    if lora or form == "advantage":
        return
    spec |= {"out": tmp_path / "long", "training": training(save_strategy="steps", save_steps=2)}
    run(spec, 2, tmp_path, extensions)
    straight = final(tmp_path / "long")
    run(spec | {"resume": str(tmp_path / "long" / "checkpoint-2")}, 2, tmp_path, extensions)
    for key, tensor in final(tmp_path / "long").items():
        assert torch.equal(tensor, straight[key]), key


@pytest.mark.slow
def test_a_trained_tower_looks_once_per_generation_under_zero3(model: Path, tmp_path: Path, extensions: Path) -> None:
    """Weights do not move while rollouts are sampled, so features are stored; each process looks at other screens, and none waits for
    another. The losses are those of an update without the store."""
    logs = {}
    for share in (True, False):
        spec = {"model": model, "out": tmp_path / str(share), "looks": True, "deepspeed": ZERO[3]}
        spec |= {"training": training(), "choices": {"share_vision": share}}
        logs[share] = run(spec, 2, tmp_path, extensions)
    looked = [row for row in logs[True] if "fake/calls" in row]
    assert len(looked) > 1
    computed = {row["fake/computed"] for row in looked}
    assert len(computed) == 1, "moved weights look anew in each generation"
    assert min(computed) > 1
    assert {row["fake/again"] for row in looked} == {0}
    assert [row["loss"] for row in logs[True]] == pytest.approx([row["loss"] for row in logs[False]], abs=1e-5)


@pytest.mark.slow
def test_zero3_saves_standard_names(tmp_path: Path, extensions: Path) -> None:
    """Loading under ZeRO-3 remembers renamings it did not need; saved weights must not get them applied backwards."""
    from safetensors.torch import load_file

    from guiderail.rl.tiny.model import build_tiny
    from tests.agent.local.test_policy import TEXTS
    from tests.rl.train.test_trainer import SMALL

    base = build_tiny(tmp_path / "base", TEXTS, "qwen2_5_vl", **SMALL)  # type: ignore[arg-type]
    spec = {"model": base, "out": tmp_path / "run", "training": training(max_steps=2), "deepspeed": ZERO[3]}
    run(spec, 1, tmp_path, extensions)
    assert set(final(tmp_path / "run")) == set(load_file(base / "model.safetensors"))


@pytest.mark.slow
def test_killed_and_resumed(model: Path, tmp_path: Path, extensions: Path) -> None:
    """SIGKILL in the middle of the third generation; the resumed run ends with the bytes of the straight one."""
    saving = training(save_strategy="steps", save_steps=2, max_steps=6)
    run({"model": model, "out": tmp_path / "straight", "training": saving}, 1, tmp_path, extensions)
    spec = {"model": model, "out": tmp_path / "cut", "training": saving}
    process = subprocess.Popen(
        command(spec | {"sleep_at": 2}, 1, tmp_path),
        cwd=ROOT,
        env=environment(extensions),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "cut" / "sleeping").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.kill()
    process.wait()
    run(spec | {"resume": "last"}, 1, tmp_path, extensions)
    cut = final(tmp_path / "cut")
    for name, tensor in final(tmp_path / "straight").items():
        assert torch.equal(tensor, cut[name]), name


@pytest.mark.slow
def test_stage_one_on_two_processes(model: Path, tmp_path: Path, extensions: Path) -> None:
    """Six examples in one step, dealt to one or two processes: the same update."""
    plain = {"optim": "sgd", "learning_rate": 1e-2, "max_grad_norm": 1e9, "max_steps": 1, "report_to": []}
    plain |= {"save_strategy": "no", "lr_scheduler_type": "constant"}
    for processes, rows in ((1, 6), (2, 3)):
        spec = {"sft": True, "model": model, "out": tmp_path / str(processes)}
        spec["training"] = plain | {"per_device_train_batch_size": rows}
        run(spec, processes, tmp_path, extensions)
    one, two = final(tmp_path / "1"), final(tmp_path / "2")
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_lost_processes_are_noticed(model: Path, tmp_path: Path, extensions: Path) -> None:
    spec = {"model": model, "out": tmp_path / "run", "training": training(), "processes": 2}
    done = subprocess.run(
        command(spec, 1, tmp_path), cwd=ROOT, env=environment(extensions), capture_output=True, text=True, timeout=200
    )
    assert done.returncode != 0
    assert "1 process(es) run, 2 were asked for" in done.stderr


@pytest.mark.slow
def test_no_exchange_buffer_of_deepspeed_stays_in_memory(
    model: Path, tmp_path: Path, extensions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed makes them where its own launcher says how many processes this machine runs."""
    monkeypatch.setenv("LOCAL_SIZE", "2")
    before = {*Path("/dev/shm").glob("deepspeed_*")}
    spec = {"model": model, "out": tmp_path / "run", "training": one_update(), "deepspeed": ZERO[3]}
    run(spec, 2, tmp_path, extensions)
    assert {*Path("/dev/shm").glob("deepspeed_*")} <= before


if __name__ == "__main__":
    from guiderail.rl.runs.ending import end_at_once

    end_at_once(lambda: program(json.loads(Path(sys.argv[1]).read_text())))
