"""Update speed of the tiny model: TRL's own step, then ours with one optimisation added after the other, on the same rows.

    python benchmarks/update.py [--json] [--rounds 3] [--model FOLDER --data FOLDER] [--beta 0.0] [--lora] [--train-vision]

The rows are one semi-online generation: groups of 8 rollouts, dialect `brief`, frozen vision tower. They come from a tiny model
after a short SFT on recorded Pocket episodes, or from --model on --data. Each variant runs the trainer's own loop over them:
batching, vision, forward, backward, clipping, optimizer. Collecting the rows is not measured. The variants take turns, and the
cheapest update of each counts, in CPU seconds of one thread. `identical` means that loss, gradient and the weights after two
updates differ from TRL's by less than 1e-5, as relative norms (the loss in absolute value).
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import TrainerCallback

from guiderail.agent.local.loading import load_encoder
from guiderail.agent.local.vision import plain_model
from guiderail.agent.policy import Policy
from guiderail.envs.pocket.record import record
from guiderail.launch.pretrain import build_tiny_for
from guiderail.launch.train import rl_trainer, run, set_up
from guiderail.rl.config import load_config
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.train.arguments import make_training_args
from guiderail.rl.train.batch import MicroBatches, micro_batches
from guiderail.rl.train.trainer import SemiOnlineTrainer

CONFIGS = Path(__file__).parents[1] / "launch" / "configs"
UPDATES, MICRO = 2, 4


@dataclass(frozen=True)
class Variant:
    name: str
    shuffled: bool = False
    targets: bool = False
    vision: bool = False
    prefix: bool = False


STEPS = (
    Variant("TRL's step: rows at random, padded, own pixels each", shuffled=True),
    Variant("+ rows of like length together"),
    Variant("+ logits of target tokens only", targets=True),
    Variant("+ vision once", targets=True, vision=True),
    Variant("+ shared prefixes", targets=True, vision=True, prefix=True),
)


class Clock(TrainerCallback):  # type: ignore[misc]
    """CPU seconds of each update and of its parts; also the gradient of the first update."""

    def __init__(self) -> None:
        self.parts: list[Counter[str]] = []
        self.gradient: list[Tensor] = []
        self.weights: list[list[Tensor]] = []
        self._stack, self._since = ["rest"], 0.0

    def start(self) -> None:
        self.parts.append(Counter())
        self._since = time.process_time()

    def on_pre_optimizer_step(self, *args: Any, model: Any, **kwargs: Any) -> None:
        if not self.gradient:
            self.gradient = [p.grad.clone() for p in model.parameters() if p.grad is not None]

    def on_step_end(self, *args: Any, model: Any, **kwargs: Any) -> None:
        self._turn()
        self.weights.append([p.detach().clone() for p in model.parameters() if p.requires_grad])

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        self._turn()
        self._stack.append(part)
        yield
        self._turn()
        self._stack.pop()

    def _turn(self) -> None:
        now = time.process_time()
        if self.parts:
            self.parts[-1][self._stack[-1]] += now - self._since  # type: ignore[assignment]
        self._since = now

    def watch(self, trainer: SemiOnlineTrainer) -> None:
        model = plain_model(trainer.model).model
        for owner, method, part in (
            (trainer, "_prepare_inputs", "dealing and padding"),
            (trainer, "compute_loss", "logits and loss"),
            (trainer.vision, "inputs", "vision"),
            (model.visual, "forward", "vision"),
            (model.language_model, "forward", "language model"),
            (trainer.accelerator, "backward", "backward"),
        ):
            setattr(owner, method, self._timed(getattr(owner, method), part))

    def _timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(part):
                return call(*args, **kwargs)

        return timed


def shuffled(samples: Any, encoder: Any, *, per_window: int, **choices: Any) -> MicroBatches:
    """Batches as TRL makes them: rows in random order, micro-batches of equal size."""
    packed = micro_batches(samples, encoder, per_window=per_window, **choices)
    rows = [row for micro in packed.batches for row in micro]
    random.Random(0).shuffle(rows)
    return MicroBatches([rows[i::per_window] for i in range(per_window)], packed.items)


def one_run(variant: Variant, base: str, samples: list[StepSample], choices: argparse.Namespace, out: Path) -> Any:
    training = {
        "max_steps": UPDATES,
        "steps_per_generation": MICRO,
        "gradient_accumulation_steps": MICRO,
        "beta": choices.beta,
        "learning_rate": 1e-4,
        "max_grad_norm": 1e9,
        "optim": "sgd",
        "report_to": [],
        "save_strategy": "no",
    }
    clock = Clock()

    def given(policy: Policy, generation: int) -> list[StepSample]:
        clock.start()
        return samples

    trainer = SemiOnlineTrainer(
        base,
        given,
        make_training_args(training, out),
        lora=LoraConfig(r=8, target_modules="all-linear") if choices.lora else None,
        freeze_vision=not choices.train_vision,
        max_rows=len(samples),
        share_prefix=variant.prefix,
        share_vision=variant.targets,
        callbacks=[clock],
    )
    trainer.vision.on = variant.vision
    clock.watch(trainer)
    with patch("guiderail.rl.train.trainer.micro_batches", shuffled if variant.shuffled else micro_batches):
        trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return clock, [row["loss"] for row in rows], rows[0]["update/forward_tokens"]


def measure(base: str, samples: list[StepSample], choices: argparse.Namespace) -> dict[str, Any]:
    best: dict[str, Counter[str]] = {}
    rows: dict[str, dict[str, Any]] = {}
    first: Any = None
    for _ in range(choices.rounds):
        for variant in STEPS:
            with tempfile.TemporaryDirectory() as out:
                clock, losses, forward = one_run(variant, base, samples, choices, Path(out))
            cheapest = min(clock.parts, key=lambda parts: parts.total())
            name = variant.name
            best[name] = min(best.get(name, cheapest), cheapest, key=lambda parts: parts.total())
            first = first or (losses[0], clock.gradient, clock.weights[1])
            rows[name] = {
                "variant": name,
                "tokens_forward": forward,
                "loss_difference": abs(losses[0] - first[0]),
                "gradient_difference": _apart(clock.gradient, first[1]),
                "weights_difference": _apart(clock.weights[1], first[2]),
            }
    stock = best[STEPS[0].name].total()
    for name, parts in best.items():
        rows[name] |= {
            "samples_per_second": len(samples) / parts.total(),
            "speedup": stock / parts.total(),
            "seconds": parts.total(),
            "parts": dict(parts.most_common()),
        }
    table = list(rows.values())
    return {
        "speedup": table[-1]["speedup"],
        "identical": all(
            row["gradient_difference"] < 1e-5 and row["weights_difference"] < 1e-5 and row["loss_difference"] < 1e-5
            for row in table
        ),
        "rows": table,
        "samples": len(samples),
        **_sizes(base, samples),
        "micro_batches": MICRO,
        "beta": choices.beta,
        "lora": choices.lora,
        "frozen_tower": not choices.train_vision,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {platform.system()}",
        "command": " ".join(["python", "benchmarks/update.py", *_without_folders(sys.argv[1:])]),
    }


def _sizes(base: str, samples: list[StepSample]) -> dict[str, float]:
    encoder = load_encoder(base)
    prompts = [encoder.prompt(sample.prompt) for sample in samples]
    images = sum(encoder.image_tokens(picture) for prompt in prompts for picture in prompt.pictures)
    said = sum(len(sample.completion.token_ids) for sample in samples)
    return {
        "tokens_per_sample": (sum(len(prompt.ids) for prompt in prompts) + said) / len(samples),
        "image_tokens_per_sample": images / len(samples),
        "target_tokens_per_sample": said / len(samples),
    }


def _without_folders(arguments: list[str]) -> list[str]:
    return [
        "FOLDER" if before in ("--model", "--data") else word
        for before, word in zip(["", *arguments], arguments, strict=False)
    ]


def _apart(a: list[Tensor], b: list[Tensor]) -> float:
    """|a - b| / |b| over all numbers."""
    apart = sum((x - y).double().square().sum() for x, y in zip(a, b, strict=True))
    return float((apart / sum(y.double().square().sum() for y in b)) ** 0.5)


def taught(root: Path) -> tuple[str, str]:
    """A tiny model after a few minutes of SFT, and its recordings."""
    record(root / "train", episodes=150, seed=0)
    build_tiny_for(str(root / "train"), root / "tiny", "qwen3_vl", 0, 1)
    settings = ["training.max_steps=250", "training.report_to=none", "training.save_strategy='no'"]
    places = [f"model.path={root / 'tiny'}", "model.freeze_vision=false", f"data.train={root / 'train'}"]
    run(load_config(CONFIGS / "tiny_sft.yaml", places + settings), root / "sft", False)
    return str(root / "sft" / "model"), str(root / "train")


def generation(model: str, data: str, groups: int, out: Path) -> list[StepSample]:
    """The samples of one generation, as semi-online RL collects them."""
    config = load_config(
        CONFIGS / "tiny_semi_online.yaml",
        [f"model.path={model}", f"data.train={data}", f"method.groups={groups}", "training.report_to=none"],
    )
    trainer = rl_trainer(set_up(config), None, out, None)
    with trainer.current_policy() as policy:
        samples: list[StepSample] = trainer.collect(policy, 0)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--train-vision", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--json", action="store_true")
    choices = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, data = (choices.model, choices.data) if choices.model else taught(Path(folder))
        samples = generation(model, data, choices.groups, Path(folder) / "rl")
        result = measure(model, samples, choices)
    if choices.json:
        print(json.dumps(result, indent=1))
        return
    for row in result["rows"]:
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in row["parts"].items())
        print(f"{row['variant']:52} {row['samples_per_second']:6.1f} samples/s  x{row['speedup']:.2f}  {parts}")
        print(f"{'':52} gradient apart {row['gradient_difference']:.1e}, {row['tokens_forward']} tokens forward")


if __name__ == "__main__":
    main()
