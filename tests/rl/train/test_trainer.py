"""Training on fake samples: TRL's loss with our weights is the formula, resume is exact, nothing fails silently."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import Trainer, TrainerCallback, TrainingArguments
from trl import GRPOConfig, GRPOTrainer, SFTConfig
from trl.trainer.utils import add_fused_lm_head

import guiderail.rl.keys.training as keys
from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.local.loading import load_model
from guiderail.agent.local.policy import load_policy
from guiderail.agent.local.vision import plain_model
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.rl.config import RL_DEFAULTS, updates_of
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.rollout.generation import over_processes, step_of
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.arguments import in_updates, make_training_args
from guiderail.rl.train.callbacks import StopAfterTurns, StopAfterVisits
from guiderail.rl.train.checkpoints import last_checkpoint, mean_loss
from guiderail.rl.train.distributed import check_launch
from guiderail.rl.train.model import trainable_model
from guiderail.rl.train.trainer import SemiOnlineTrainer
from tests.agent.local.test_policy import TEXTS, prompt

SMALL = {"layers": 2, "vision_layers": 2, "width": 64, "vision_width": 64}
LORA = {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


class FakeCollect:
    """Samples of a real policy with invented credit. Uses global RNG streams and a counter, as careless users do."""

    def __init__(self, rank: int = 0, world: int = 1, count: int = 5, noisy: bool = True):
        self.rank, self.world, self.count, self.noisy, self.calls = rank, world, count, noisy, 0
        self.metrics: dict[str, float] = {}
        self.scale = 1.0

    def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
        self.calls += 1
        noise = torch.rand(1).item() + random.random() + np.random.rand() if self.noisy else 1.0
        self.metrics = {"fake/calls": float(self.calls), "fake/noise": noise}
        requests = [
            Request(prompt(policy.vision, i % 3, screens=1 + i % 2), seed=1000 * generation + i)
            for i in range(self.count)
        ]
        said = policy.complete(requests, Sampling(max_new_tokens=4 + generation % 2))
        return [
            StepSample(f"e{i}", 0, i, r.prompt, c, 1, 1, 0, 0, self.scale * noise * (-1) ** i * (1 + i / 2))
            for i, (r, c) in enumerate(zip(requests, said, strict=True))
        ][self.rank :: self.world]

    def state_dict(self) -> dict[str, int]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


class Looks(FakeCollect):
    """Counts the pictures that the tower sees, also in a second pass over the same prompts. The first process has one more."""

    def __init__(self, rank: int, world: int):
        super().__init__(rank, world, noisy=False)

    def __call__(self, policy: Any, generation: int) -> list[StepSample]:
        store = policy.store
        before = store.misses
        if self.rank == 0:
            policy.complete([Request(prompt(policy.vision, 7), seed=0)], Sampling(max_new_tokens=2))
        samples = super().__call__(policy, generation)
        seen = store.misses
        super().__call__(policy, generation)
        self.calls -= 1
        self.metrics["fake/calls"] = float(self.calls)
        self.metrics |= {"fake/computed": float(seen - before), "fake/again": float(store.misses - seen)}
        return samples


class Groups(FakeCollect):
    """Groups of four that look at the same screens and partly say the same; the group stays on one process."""

    def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
        requests = [
            Request(prompt(policy.vision, i // 4, screens=1 + i // 4 % 2), seed=1000 * generation + i // 2)
            for i in range(12)
        ]
        said = policy.complete(requests, Sampling(max_new_tokens=5))
        samples = [
            StepSample(f"e{i // 4}", i, 0, r.prompt, c, 1, 1, 0, 0, (-1) ** i * (1 + i / 2))
            for i, (r, c) in enumerate(zip(requests, said, strict=True))
        ]
        return [samples[i] for i in over_processes([step_of(s) for s in samples], self.world)[self.rank]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {f: build_tiny(root / f, TEXTS, f, **SMALL) for f in ("qwen3_vl", "qwen2_5_vl")}  # type: ignore[arg-type]


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["qwen3_vl"]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)


def arguments(out: Path, **training: Any) -> Any:
    known = {"learning_rate": 1e-3, "max_steps": 4, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    return make_training_args({**known, "save_strategy": "no", "report_to": [], **training}, out)


def trained(folder: Path, out: Path, collect: Any = None, resume: Path | None = None, **training: Any) -> Any:
    known = ("lora", "adapter", "freeze_vision", "max_rows", "share_prefix", "share_vision", "callbacks")
    choices = {k: training.pop(k) for k in known if k in training}
    if choices.get("lora") is not None:
        choices["lora"] = LoraConfig(**choices["lora"])
    trainer = SemiOnlineTrainer(folder, collect or FakeCollect(), arguments(out, **training), **choices)
    trainer.train(resume)
    return trainer


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# ---------------------------------------------------------------------------------------------------------- contract


def test_private_members_of_trl() -> None:
    """What rl/train/trainer.py and rl/train/checkpoints.py override or touch. If this fails, TRL or transformers moved: read those
    two files against the new source before changing anything here."""
    overridden = {
        GRPOTrainer: {
            "_prepare_inputs": ["generation_batch"],
            "_get_per_token_logps_and_entropies": ["model", "input_ids", "attention_mask", "logits_to_keep"],
            "compute_loss": ["model", "inputs", "return_outputs", "num_items_in_batch"],
            "_save_checkpoint": ["model", "trial"],
        },
        Trainer: {
            "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
            "_save": ["output_dir", "state_dict"],
            "_clip_grad_norm": ["model"],
            "save_model": ["output_dir"],
            "train": ["resume_from_checkpoint"],
        },
    }
    for owner, methods in overridden.items():
        for name, parameters in methods.items():
            names = list(inspect.signature(getattr(owner, name)).parameters)[1:]
            assert names[: len(parameters)] == parameters, f"{owner.__name__}.{name}{names}"
    source = inspect.getsource(GRPOTrainer)
    for attribute in ("_step", "_buffered_inputs", "_metrics", "ref_model", "loss_type", "beta", "temperature"):
        assert f"self.{attribute} = " in source, attribute
    loss = inspect.getsource(GRPOTrainer._compute_loss)
    for key in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch"):
        assert f'inputs["{key}"]' in loss, key
    for key in ("old_per_token_logps", "pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids"):
        assert f'inputs.get("{key}")' in loss, key
    assert 'completion_mask * inputs["tool_mask"]' in loss
    assert GRPOTrainer.loss_is_scaled_for_ga is True
    assert 'self._metrics["train"]' in inspect.getsource(GRPOTrainer.training_step)
    head = inspect.getsource(add_fused_lm_head)
    for part in ("shift_labels is None", "backbone_outputs.last_hidden_state", 'backbone_attr = "base_model"'):
        assert part in head, f"rl/train/prefix.py hooks into the fused head's backbone: {part}"


# -------------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
@pytest.mark.parametrize(("windows", "max_rows"), [(1, 64), (2, 64), (1, 1)])
def test_first_update_is_the_formula(folder: Path, tmp_path: Path, loss_type: str, windows: int, max_rows: int) -> None:
    """With ratio 1, the gradient is -sum_i w_i A_i sum_t grad log p / items; plain SGD shows it in the weights."""
    after: dict[str, torch.Tensor] = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 1:
                after.update(weights(model))

    training = {"optim": "sgd", "learning_rate": 1e-2, "max_grad_norm": 1e9, "weight_decay": 0.0, "beta": 0.0}
    sizes = {"max_steps": windows, "steps_per_generation": 4 * windows, "gradient_accumulation_steps": 4}
    args = arguments(tmp_path, loss_type=loss_type, **sizes, **training)
    trainer = SemiOnlineTrainer(folder, FakeCollect(count=4), args, max_rows=max_rows, callbacks=[Watch()])
    trainer.train()
    recorded = [s for batch in trainer._buffered_inputs[:4] for s in batch["samples"] if s is not None]
    assert len(recorded) == 4 // windows

    policy = load_policy(folder)
    before = weights(policy.model)
    tokens = sum(len(s.completion.token_ids) for s in recorded)
    policy.model.train()
    for s in recorded:
        encoded, said = policy.encoder.prompt(s.prompt), torch.tensor(s.completion.token_ids)
        inputs = policy.encoder.batch([type(encoded)(torch.cat([encoded.ids, said]), encoded.pictures)])
        logits = policy.model(**inputs).logits[0, len(encoded.ids) - 1 : -1]
        logps = logits.log_softmax(-1).gather(1, said[:, None])
        scale = 1 / tokens if loss_type == "dapo" else 1 / len(said) / len(recorded)
        (-s.advantage * scale * logps.sum()).backward()
    for name, p in policy.model.named_parameters():
        torch.testing.assert_close(after[name], before[name] - 1e-2 * p.grad, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("corrected", [False, True], ids=["k3", "k3 times ratio"])
def test_kl_in_a_second_window_is_the_formula(folder: Path, tmp_path: Path, corrected: bool) -> None:
    """Paper eq. 13 in float64: -min(r A, clip(r) A) + beta k3, k3 = e^d - d - 1 with d = log p_ref - log p, averaged over
    the window's tokens. In the second window r and d are not trivial. By default k3 is plain."""
    moved: list[dict[str, torch.Tensor]] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            moved.append(weights(model))

    beta, rate = 2.0, 0.05
    training = {"optim": "sgd", "learning_rate": rate, "max_grad_norm": 1e9, "weight_decay": 0.0, "beta": beta}
    sizes = {"max_steps": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    named = {"use_bias_correction_kl": True} if corrected else {}
    args = arguments(tmp_path, **sizes, **training, **named)
    trainer = SemiOnlineTrainer(folder, FakeCollect(count=6, noisy=False), args, callbacks=[Watch()])
    trainer.train()
    second = [s for batch in trainer._buffered_inputs[2:] for s in batch["samples"] if s is not None]
    assert len(second) == 3

    policy = load_policy(folder)
    model = policy.model.double().train()

    def logps(sample: StepSample) -> torch.Tensor:
        encoded, said = policy.encoder.prompt(sample.prompt), torch.tensor(sample.completion.token_ids)
        inputs = policy.encoder.batch([type(encoded)(torch.cat([encoded.ids, said]), encoded.pictures)])
        inputs["pixel_values"] = inputs["pixel_values"].double()
        logits = model(**inputs).logits[0, len(encoded.ids) - 1 : -1]
        return logits.log_softmax(-1).gather(1, said[:, None])[:, 0]

    with torch.no_grad():
        old = [logps(s) for s in second]  # the reference is the same model
    model.load_state_dict({name: w.double() for name, w in moved[0].items()}, strict=False)

    def gradient(times_ratio: bool) -> torch.Tensor:
        model.zero_grad()
        tokens = sum(map(len, old))
        for sample, before in zip(second, old, strict=True):
            now = logps(sample)
            ratio, apart = (now - before).exp(), before - now
            k3 = (apart.exp() - apart - 1) * (ratio if times_ratio else 1.0)
            gain = torch.min(ratio * sample.advantage, ratio.clamp(0.8, 1.2) * sample.advantage)
            ((beta * k3 - gain).sum() / tokens).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    names = [name for name, _ in model.named_parameters()]
    step = torch.cat([(moved[0][name].double() - moved[1][name].double()).flatten() for name in names]) / rate
    right, wrong = gradient(corrected), gradient(not corrected)
    scale = right.abs().max()
    assert (step - right).abs().max() < 2e-4 * scale
    assert (wrong - right).abs().max() > 1e-2 * scale


def test_fillers_have_no_gradient_at_all(folder: Path, tmp_path: Path) -> None:
    class Nothing(FakeCollect):
        def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
            return []

    trainer = SemiOnlineTrainer(folder, Nothing(), arguments(tmp_path, beta=0.1))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 2
    inputs = trainer._prepare_inputs(None)
    trainer.compute_loss(trainer.model, inputs).backward()
    grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert grads
    assert all(torch.count_nonzero(g) == 0 for g in grads)


def test_a_filler_beside_samples_changes_nothing(folder: Path, tmp_path: Path) -> None:
    from guiderail.rl.train.batch import collate, micro_batches, with_pixels

    trainer = SemiOnlineTrainer(folder, FakeCollect(), arguments(tmp_path, beta=0.0))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 2
    with trainer.current_policy() as policy:
        samples = FakeCollect()(policy, 0)
    packed = micro_batches(samples, trainer.encoder, windows=1, per_window=1, max_rows=9, by_tokens=True, seed=(0,))
    grads = []
    for count in (5, 8):
        batch = collate(packed.batches[0], count, trainer.encoder)
        batch["num_items_in_batch"] = torch.tensor(20.0)
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, with_pixels(batch, trainer.encoder, torch.device("cpu"))).backward()
        grads.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-4)


# ----------------------------------------------------------------------------------------------------------- training


def test_log_and_pixels_on_demand(folder: Path, tmp_path: Path) -> None:
    collect = FakeCollect()
    trainer = trained(folder, tmp_path, collect, report_to=["tensorboard"], max_steps=4)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row.get("fake/calls") for row in rows] == [1.0, None, 2.0, None]
    assert rows[0]["update/samples"] == 5
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[1]["kl"] > 0
    assert 0 <= rows[2]["logprob_gap/mean"] <= rows[2]["logprob_gap/max"] < 1e-4
    assert list(tmp_path.rglob("events.out.tfevents*"))
    assert all("pixel_values" not in batch for batch in trainer._buffered_inputs)


def test_gap_is_seen(folder: Path, tmp_path: Path) -> None:
    class Liar(FakeCollect):
        def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
            honest = super().__call__(policy, generation)
            lies = [tuple(p - 0.5 for p in s.completion.logprobs) for s in honest]
            return [
                dataclasses.replace(s, completion=dataclasses.replace(s.completion, logprobs=lie))
                for s, lie in zip(honest, lies, strict=True)
            ]

    trainer = trained(folder, tmp_path, Liar(), max_steps=2)
    assert trainer.state.log_history[0]["logprob_gap/mean"] == pytest.approx(0.5, abs=1e-3)


def test_frozen_vision(folder: Path, tmp_path: Path) -> None:
    before = weights(load_model(folder))
    trainer = trained(folder, tmp_path, freeze_vision=True, max_steps=2)
    changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert not [n for n in changed if "visual" in n]


def test_frozen_vision_keeps_lora_out_of_it(folder: Path, tmp_path: Path) -> None:
    lora = LoraConfig(r=2, target_modules="all-linear")
    args = arguments(tmp_path)
    trainer = SemiOnlineTrainer(folder, FakeCollect(), args, lora=lora, freeze_vision=True)
    names = [n for n, p in trainer.model.named_parameters() if p.requires_grad]
    assert names
    assert not [n for n in names if "visual" in n]


def test_frozen_vision_freezes_the_tower_of_an_adapter_that_goes_on(folder: Path, tmp_path: Path) -> None:
    lora = LoraConfig(r=2, target_modules="all-linear")
    SemiOnlineTrainer(folder, FakeCollect(), arguments(tmp_path), lora=lora).save_policy(tmp_path / "adapter")
    model = trainable_model(folder, arguments(tmp_path), adapter=tmp_path / "adapter", freeze_vision=True)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names
    assert not [n for n in names if "visual" in n]


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_final_folder_is_the_trained_policy(folder: Path, tmp_path: Path, lora: dict[str, Any] | None) -> None:
    trainer = trained(folder, tmp_path, lora=lora, max_steps=2)
    trainer.save_policy(tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.bin"))
    loaded = load_policy(tmp_path / "model")
    inputs = loaded.encoder.batch([loaded.encoder.prompt(prompt(loaded.vision, 1))])
    trainer.model.eval()
    with torch.no_grad():
        expected = plain_model(trainer.model)(**inputs).logits
        assert torch.equal(loaded.model(**inputs).logits, expected)
        assert not torch.equal(load_model(folder)(**inputs).logits, expected)


def test_going_on_with_an_adapter(folder: Path, tmp_path: Path) -> None:
    """The reference is the adapter one started from, not the bare model."""
    first = trained(folder, tmp_path / "a", lora=LORA, max_steps=2)
    first.save_policy(tmp_path / "adapter")
    second = trained(folder, tmp_path / "b", adapter=tmp_path / "adapter", save_strategy="steps", save_steps=2)
    logs = [row["kl"] for row in second.state.log_history if "kl" in row]
    assert logs[0] == pytest.approx(0, abs=1e-6)
    assert logs[-1] > 0
    resumed = trained(folder, tmp_path / "b", adapter=tmp_path / "adapter", resume=tmp_path / "b/checkpoint-2")
    for name, p in weights(second.model).items():
        assert torch.equal(p, resumed.model.get_parameter(name)), name
    second.save_policy(tmp_path / "model")
    assert load_policy(tmp_path / "model").complete(
        [Request(prompt(second.encoder.vision, 1))], Sampling(max_new_tokens=2)
    )


# ----------------------------------------------------------------------------------------------- cheaper, and the same

TRICKS = [
    {"share_prefix": a, "share_vision": b} for a, b in ((False, False), (True, True), (True, False), (False, True))
]


@pytest.mark.parametrize(
    ("family", "lora", "frozen"),
    [("qwen3_vl", None, True), ("qwen2_5_vl", None, False), ("qwen3_vl", LORA, False), ("qwen2_5_vl", LORA, True)],
)
def test_tricks_change_nothing(
    folders: dict[str, Path], tmp_path: Path, family: str, lora: dict[str, Any] | None, frozen: bool
) -> None:
    """Old-policy, reference and update passes of two updates on one generation, against TRL's own forward."""
    found: list[tuple[Any, torch.Tensor, torch.Tensor]] = []
    for sharing in TRICKS:
        grads: list[torch.Tensor] = []

        class Watch(TrainerCallback):
            def on_pre_optimizer_step(self, *args: Any, model: Any, grads: Any = grads, **kwargs: Any) -> None:
                grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))

        sizes = {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "num_iterations": 2, "max_steps": 2}
        training = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 1e9, "weight_decay": 0.0, "beta": 0.1}
        trainer = trained(
            folders[family],
            tmp_path,
            Groups(),
            lora=lora,
            freeze_vision=frozen,
            callbacks=[Watch()],
            **training,
            **sizes,
            **sharing,
        )
        logs = [row for row in trainer.state.log_history if "loss" in row]
        after = torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])
        found.append((logs, torch.cat(grads), after))
        layouts = [batch["layout"] for batch in trainer._buffered_inputs]
        if sharing["share_prefix"]:
            rows = sum(int(b["prompt_mask"].sum() + b["completion_mask"].sum()) for b in trainer._buffered_inputs)
            assert sum(layout.ids.numel() for layout in layouts) < rows / 2
        if frozen and sharing["share_vision"]:
            distinct = {p for layout in layouts for p in layout.pictures}
            assert trainer.vision.misses == len({p.screenshot.digest for p in distinct})
    # kl and entropy are logged as means of micro-batch means, which depend on how rows were dealt.
    logs, gradient, after = found[0]
    assert [row["kl"] > 0 for row in logs] == [False, True]
    for other, its_gradient, its_after in found[1:]:
        assert (its_gradient - gradient).norm() / gradient.norm() < 1e-5
        assert (its_after - after).norm() / after.norm() < 1e-5
        for a, b in zip(logs, other, strict=True):
            assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("beta", "iterations", "passes"), [(0.0, 1, 1), (0.1, 1, 2), (0.0, 2, 2), (0.1, 2, 3)])
def test_only_the_passes_that_are_needed(
    folder: Path, tmp_path: Path, beta: float, iterations: int, passes: int
) -> None:
    """On-policy, the old log-probabilities are the update's own; without a KL term nobody asks for the reference."""
    calls = []

    class Counting(SemiOnlineTrainer):
        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    sizes = {"steps_per_generation": 1, "gradient_accumulation_steps": 1, "max_steps": iterations}
    Counting(folder, FakeCollect(), arguments(tmp_path, beta=beta, num_iterations=iterations, **sizes)).train()
    assert len(calls) == passes


def test_later_iterations_use_the_log_probabilities_of_the_first(folder: Path, tmp_path: Path) -> None:
    """The same weights, up to rounding, as with a pass of its own for the old log-probabilities, which TRL makes."""

    class Asking(SemiOnlineTrainer):
        def _score(self, batch: dict[str, Any]) -> None:
            self.windows = 2
            super()._score(batch)
            self.windows = 1

    sizes = {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "num_iterations": 3, "max_steps": 6}
    after = []
    for kind in (SemiOnlineTrainer, Asking):
        trainer = kind(
            folder, Groups(), arguments(tmp_path, learning_rate=0.05, optim="sgd", max_grad_norm=1e9, **sizes)
        )
        trainer.train()
        after.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        ratios = [row["clip_ratio/region_mean"] for row in trainer.state.log_history if "clip_ratio/region_mean" in row]
    assert max(ratios) > 0  # later iterations do leave the old policy
    assert (after[0] - after[1]).norm() / after[0].norm() < 1e-6


def test_a_changed_tower_is_seen_at_once(folder: Path, tmp_path: Path) -> None:
    """In rollout, reference and update: features are filed under what the tower is, and writes through .data count."""
    trainer = SemiOnlineTrainer(folder, Groups(), arguments(tmp_path, beta=0.1), freeze_vision=True)

    def numbers() -> tuple[Any, torch.Tensor, torch.Tensor]:
        with trainer.current_policy() as policy:
            said = Groups()(policy, 0)
        batch = trainer._next_generation()[0]
        trainer.current_gradient_accumulation_steps = 2
        trainer.compute_loss(trainer.model, batch)
        return [s.completion.logprobs for s in said], batch["ref_per_token_logps"], trainer._fresh_logps

    trainer.model.train()
    first = numbers()
    for model in (trainer.model, trainer.ref_model):
        next(model.model.visual.parameters()).data.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    second = numbers()
    assert first[0] != second[0]
    assert first[1].shape != second[1].shape or not torch.allclose(first[1], second[1], atol=1e-3)
    trainer.vision.on = False
    third = numbers()
    assert torch.allclose(second[1], third[1], atol=1e-5)
    assert torch.allclose(second[2], third[2], atol=1e-5)


def test_attention_without_4d_masks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("guiderail.rl.train.trainer.takes_trees", lambda model: False)
    trainer = SemiOnlineTrainer(folder, Groups(), arguments(tmp_path))
    assert [r.getMessage() for r in caplog.records if "4-D" in r.getMessage()] == [
        "update.share_prefix is off: this attention takes no 4-D mask; use sdpa to share prompts"
    ]
    assert all(batch["layout"].mask().ndim == 2 for batch in trainer._next_generation())


def test_a_buffered_generation_is_ids(folder: Path, tmp_path: Path) -> None:
    """Neither pixels, nor features, nor masks of tokens by tokens wait for their turn; pictures are references."""
    trainer = SemiOnlineTrainer(folder, Groups(), arguments(tmp_path, beta=0.0), freeze_vision=True)
    for batch in trainer._next_generation():
        layout = batch["layout"]
        tensors = [t for t in (*batch.values(), *vars(layout).values()) if isinstance(t, torch.Tensor)]
        padded = batch["prompt_ids"].numel() + batch["completion_ids"].numel()
        assert max(t.numel() for t in tensors) <= max(padded, 3 * layout.ids.numel())


@pytest.mark.slow
def test_memory_stays_where_it_is(folder: Path, tmp_path: Path) -> None:
    """Resident memory over 50 updates, each on other screens, with caches that are full after two."""
    resident: list[int] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE"))

    class Moving(Groups):
        def __call__(self, policy: Any, generation: int) -> list[StepSample]:
            self.calls += 1
            policy.encoder.pixel_bytes = policy.store.max_bytes = 1 << 20
            shown = [prompt(policy.vision, 3 * self.calls + i // 4, screens=2) for i in range(12)]
            said = policy.complete([Request(p, seed=i) for i, p in enumerate(shown)], Sampling(max_new_tokens=5))
            return [
                StepSample(f"e{i // 4}", i, 0, p, c, 1, 1, 0, 0, (-1) ** i)
                for i, (p, c) in enumerate(zip(shown, said, strict=True))
            ]

    sizes = {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "max_steps": 50}
    trained(folder, tmp_path, Moving(), freeze_vision=True, callbacks=[Watch()], **sizes)
    early, late = min(resident[10:15]), min(resident[45:50])
    assert late - early < 8e6


# ------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_resume_is_exact(folders: dict[str, Path], tmp_path: Path, family: str, lora: dict[str, Any] | None) -> None:
    """Global RNG streams, the collector's own state, optimizer, weights and reference all come back."""
    saving = {"save_strategy": "steps", "save_steps": 1, "lora": lora, "beta": 0.1, "max_steps": 6}
    straight = trained(folders[family], tmp_path, **saving, save_total_limit=9)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    collect = FakeCollect()
    resumed = trained(folders[family], tmp_path, collect, resume=tmp_path / "checkpoint-2", **saving)
    assert collect.calls == 3
    for name, p in weights(straight.model).items():
        assert torch.equal(p, resumed.model.get_parameter(name)), name
    for a, b in zip(straight.state.log_history[2:6], resumed.state.log_history[2:6], strict=True):
        for key in ("loss", "grad_norm", "kl", "entropy"):
            assert a[key] == b[key]
    whole, leg = (run.state.log_history[-1]["train_loss"] for run in (straight, resumed))
    assert mean_loss(resumed.state.log_history, 2, 6, leg) == pytest.approx(whole, abs=1e-7)
    assert straight.state.log_history[2]["fake/noise"] == resumed.state.log_history[2]["fake/noise"]


def test_only_complete_checkpoints_count(folder: Path, tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    trained(folder, tmp_path, save_strategy="steps", save_steps=2)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    (tmp_path / "checkpoint-4" / "complete.json").unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    with pytest.raises(SetupError, match=r"checkpoint-4 is incomplete"):
        trained(folder, tmp_path, resume=tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-2" / "complete.json").write_text(json.dumps({"processes": 2}))
    with pytest.raises(SetupError, match=r"was written by 2 process\(es\), this run has 1; resume on 2"):
        trained(folder, tmp_path, resume=tmp_path / "checkpoint-2")


# -------------------------------------------------------------------------------------------------------------- guards


def test_nan_stops_with_the_samples(folder: Path, tmp_path: Path) -> None:
    collect = FakeCollect()

    class Poison(FakeCollect):
        def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
            self.scale = float("nan") if generation == 1 else 1.0
            return super().__call__(policy, generation)

    assert trained(folder, tmp_path / "sound", collect).state.global_step == 4
    with pytest.raises(GuiderailError, match=r"loss is nan, update 2, generation 1; .*nonfinite-0\.json"):
        trained(folder, tmp_path / "run", Poison())
    report = json.loads((tmp_path / "run" / "nonfinite-0.json").read_text())
    assert report["generation"] == 1
    assert set(report["samples"]) <= {f"e{i}/0/{i}" for i in range(5)}
    assert report["samples"]


def test_nan_gradient_stops(folder: Path, tmp_path: Path) -> None:
    trainer = SemiOnlineTrainer(folder, FakeCollect(), arguments(tmp_path))
    next(trainer.model.parameters()).register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(GuiderailError, match="gradient norm is nan, update 0, generation 0"):
        trainer.train()


@pytest.mark.parametrize(
    ("training", "complaint"),
    [
        ({"learning_rat": 1}, r"unknown key training\.learning_rat, did you mean 'learning_rate'"),
        ({"top_p": 0.9}, r"top_p truncates"),
        ({"top_k": 5}, r"top_k truncates"),
        ({"min_p": 0.1}, r"min_p truncates"),
        ({"repetition_penalty": 1.1}, r"repetition_penalty truncates"),
        ({"loss_type": "bnpo"}, r"use dapo"),
        ({"num_generations": 8}, r"num_generations is set by the trainer"),
        ({"max_steps": 3}, r"multiple of 2 updates"),
        ({"max_steps": -1}, r"multiple of 2 updates"),
        ({"steps_per_generation": 3}, r"must not span generations"),
        ({"learning_rate": "fast"}, r"expected a number"),
        ({"generation_batch_size": 3}, r"training\.generation_batch_size is set by the trainer itself"),
        ({"epsilon": 0.2, "lr_scheduler_type": "up"}, r"lr_scheduler_type is .up., expected one of constant"),
        ({"loss_type": "cispo"}, r"cispo needs training\.epsilon_high"),
        ({"mask_truncated_completions": True}, r"mask_truncated_completions has no effect"),
        ({"vllm_importance_sampling_mode": "token_mask"}, r"vllm_importance_sampling_mode has no effect"),
    ],
)
def test_arguments_that_would_go_wrong(tmp_path: Path, training: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint):
        arguments(tmp_path, **training)


def test_argument_defaults(tmp_path: Path) -> None:
    args = make_training_args(
        {"max_steps": 6, "learning_rate": "2e-6", "save_steps": 5, "logging_strategy": False}, tmp_path
    )
    assert args.logging_strategy == "no"
    assert (args.loss_type, args.beta, args.epsilon, args.temperature) == ("dapo", 1e-4, 0.2, 1.0)
    assert args.learning_rate == 2e-6
    rounded = arguments(tmp_path, save_strategy="steps", save_steps=3)
    assert rounded.save_steps == 4
    assert arguments(tmp_path, save_strategy="steps", save_steps=0.1, max_steps=40).save_steps == 4
    assert arguments(tmp_path, save_strategy="steps", save_steps=0.1, max_steps=10).save_steps == 2


def test_every_field_of_trl_is_stated_or_known_not_to_touch_the_loss(tmp_path: Path) -> None:
    """TRL adds fields and moves defaults between releases; each must be looked at before it can change a number."""
    other = {
        *("steps_per_generation", "top_p", "top_k", "min_p", "repetition_penalty"),  # refused or ours
        *("log_completions", "log_multimodal", "log_unique_prompts", "num_completions_to_print"),
        "log_completions_hub_repo",
    }
    own = {f.name for f in dataclasses.fields(GRPOConfig)} - {f.name for f in dataclasses.fields(TrainingArguments)}
    stated = RL_DEFAULTS.keys() | keys.LOSS.keys() | keys.RL_OWNED.keys()
    unused = {name for name in own if name in keys._NO_EFFECT}
    unused |= {name for name in own if name.startswith(keys._NO_EFFECT_FAMILIES)}
    assert own - stated - unused - other == set(), (
        "new fields of TRL: state them or say that they do not touch the loss"
    )
    assert unused >= keys._NO_EFFECT
    assert not unused & stated
    assert {
        "use_bias_correction_kl",
        "beta",
        "epsilon",
        "delta",
        "loss_type",
        "importance_sampling_level",
    } <= stated & own
    args = arguments(tmp_path)
    assert args.use_bias_correction_kl is False
    assert arguments(tmp_path, use_bias_correction_kl=True).use_bias_correction_kl is True
    sources = inspect.getsource(GRPOTrainer._compute_loss) + inspect.getsource(GRPOTrainer.training_step)
    read = set(re.findall(r"self\.args\.(\w+)", sources)) & own
    assert read - {"steps_per_generation"} <= stated | unused
    sft = {f.name for f in dataclasses.fields(SFTConfig)} - {f.name for f in dataclasses.fields(TrainingArguments)}
    text = {
        *("chat_template_path", "dataset_text_field", "dataset_num_proc", "eos_token", "truncation_mode"),
        *("packing_strategy", "padding_free", "pad_to_multiple_of", "eval_packing", "pad_token"),
        *("activation_offloading", "shuffle_dataset", "model_init_kwargs", "trust_remote_code"),
    }
    assert sft - keys.SFT_DEFAULTS.keys() - keys.SFT_OWNED.keys() == text


def test_updates_of_a_config_are_those_of_the_trainer(tmp_path: Path) -> None:
    """`explain` and `replay` count updates from the config alone, the trainer from TRL's arguments."""
    for training in (
        {},
        {"steps_per_generation": 12},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 8},
        {"gradient_accumulation_steps": 3, "num_iterations": 2},
    ):
        args = make_training_args({"max_steps": 24, **training}, tmp_path)
        assert updates_of(vars(args)) == updates_of(RL_DEFAULTS | training)
        assert args.steps_per_generation == updates_of(vars(args)).micro * updates_of(vars(args)).windows
    assert updates_of(RL_DEFAULTS | {"steps_per_generation": 12, "num_iterations": 2}).per_generation == 6


def test_epochs_become_updates() -> None:
    """10 units, 4 groups a generation: two passes are 20 visits, at most 5 generations of 3 updates each."""
    training = {"num_train_epochs": 2, "steps_per_generation": 12}
    assert in_updates(training, 10, 4, 1) == ({"steps_per_generation": 12, "max_steps": 15}, 20)
    assert in_updates(training | {"max_steps": 7}, 10, 4, 1) == ({"steps_per_generation": 12, "max_steps": 7}, None)
    assert in_updates({"num_train_epochs": 0.5}, 10, 4, 1) == ({"max_steps": 2}, 5)
    # 6 units, 32 groups: a generation visits 6 a try.
    assert in_updates({"num_train_epochs": 5}, 6, 32, 1) == ({"max_steps": 5}, 30)
    assert in_updates({"num_train_epochs": 5}, 6, 32, 2) == ({"max_steps": 3}, 30)


class Visiting(FakeCollect):
    """Counts visits: of each six that a generation makes, two are of groups that are dropped."""

    cursor = 0

    def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
        self.cursor += 6
        return super().__call__(policy, generation)


def test_passes_are_counted_in_visits_and_end_with_a_whole_generation(folder: Path, tmp_path: Path) -> None:
    """Two passes over 10 units, 4 groups a generation: 5 generations if every group were kept, 4 if each visits 6."""
    training = {"num_train_epochs": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    training, visits = in_updates(training, 10, 4, 2)
    assert (training["max_steps"], visits) == (10, 20)
    collect = Visiting()
    saving = {"save_strategy": "steps", "save_steps": 100, "callbacks": [StopAfterVisits(collect, 20, 2)]}
    trainer = trained(folder, tmp_path, collect, **training, **saving)
    assert (trainer.state.global_step, collect.cursor) == (8, 24)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-8", "as at any other end, there is a checkpoint"


def test_what_is_resumed_where_the_run_ended_makes_no_update(folder: Path, tmp_path: Path) -> None:
    """The run may have been stopped between its last checkpoint and its end, or be asked again to go on."""

    class Turning(Visiting):
        sampled_turns = 0

        def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
            self.sampled_turns += 6
            return super().__call__(policy, generation)

        def state_dict(self) -> dict[str, int]:
            return {"calls": self.calls, "cursor": self.cursor, "turns": self.sampled_turns}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.calls, self.cursor, self.sampled_turns = state["calls"], state["cursor"], state["turns"]

    def run(out: Path, stop: type[Any], limits: tuple[int, ...], checkpoint: Path | None = None) -> Any:
        collect = Turning()
        ending = {"callbacks": [stop(collect, *limits)], "save_strategy": "steps", "save_steps": 2}
        steps = {"max_steps": 10, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
        return trained(folder, out, collect, checkpoint, **steps, **ending)

    first = run(tmp_path / "visits", StopAfterVisits, (12, 2))
    assert (first.state.global_step, first.progress.calls) == (4, 2)
    again = run(tmp_path / "visits", StopAfterVisits, (12, 2), tmp_path / "visits" / "checkpoint-4")
    assert (again.state.global_step, again.progress.calls) == (4, 2)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    for turns, updates, sampled in ((12, 4, 12), (13, 5, 18)):
        again = run(tmp_path / str(turns), StopAfterTurns, (turns,), tmp_path / "visits" / "checkpoint-4")
        assert (again.state.global_step, again.progress.sampled_turns) == (updates, sampled)


def test_launch_checks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = arguments(tmp_path)
    with pytest.raises(SetupError, match=r"1 process\(es\) run, 2 were asked for; start with `torchrun"):
        SemiOnlineTrainer(folder, FakeCollect(), args, processes=2)
    trainer = SemiOnlineTrainer(folder, FakeCollect(), args)
    monkeypatch.setattr(args, "deepspeed", "zero2.json")
    with pytest.raises(SetupError, match=r"DeepSpeed is off, but the run asks for zero2\.json"):
        check_launch(trainer.accelerator, args, None)
    with pytest.raises(SetupError, match="no DeepSpeed config"):
        make_training_args({"max_steps": 2}, tmp_path, deepspeed=tmp_path / "nowhere.json")


def test_adapter_and_lora_exclude_each_other(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="give one of them"):
        trainable_model(folder, arguments(tmp_path), adapter=folder, lora=LoraConfig(**LORA))
    with pytest.raises(SetupError, match="does not fit"):
        trainable_model(folder, arguments(tmp_path), adapter=folder)
