"""Update speed of the tiny model through the trainer's own path: samples per second, collection excluded.

    python benchmarks/update.py [--json] [--samples 64] [--rows 16] [--updates 4] [--beta 0.0] [--lora]

Samples are invented once (random tokens on random screens) and handed to every generation, so the time is packing,
scoring, loss, backward and optimizer. The best of the updates counts: the first pays for decoding and allocation.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback

from agent.policy import Policy
from agent.tiny import build_tiny
from agent.types import Completion, Message, Prompt, Screenshot
from rl.engine import make_training_args
from rl.samples import StepSample
from rl.trainer import SemiOnlineTrainer

TEXT = 'Goal: open settings\n<think>tap it</think>\n<action>\n{"action": "click", "coordinate": [72, 133]}\n</action>'


class Given:
    """Hands out the same samples and notes when."""

    def __init__(self, count: int, prompt_words: int, tokens: int, screens: int):
        self.count, self.prompt_words, self.tokens, self.screens = count, prompt_words, tokens, screens
        self.samples: list[StepSample] = []
        self.started: list[float] = []

    def __call__(self, policy: Policy, generation: int) -> list[StepSample]:
        if not self.samples:
            rng = np.random.default_rng(0)
            shots = [_screenshot(rng) for _ in range(self.screens)]
            for i in range(self.count):
                picture = policy.vision.picture(shots[i % self.screens])
                prompt = Prompt((Message("user", ("Goal: " + "open settings " * self.prompt_words, picture)),))
                ids = tuple(int(t) for t in rng.integers(0, 1000, self.tokens))
                said = Completion("", ids, (-7.0,) * self.tokens)
                self.samples.append(StepSample(f"e{i}", 0, 0, prompt, said, 1, 1, 0, 0, (-1.0) ** i))
        self.started.append(time.perf_counter())
        return self.samples


class Ends(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.at.append(time.perf_counter())


def _screenshot(rng: np.random.Generator) -> Screenshot:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (288, 160, 3), dtype=np.uint8)).save(file, "PNG")
    return Screenshot(160, 288, data=file.getvalue())


def measure(samples: int, rows: int, updates: int, beta: float, lora: bool) -> dict[str, Any]:
    """Seconds and samples/s of the best update; one update is `samples` rows in micro-batches of `rows`."""
    from peft import LoraConfig

    accumulation = -(-samples // rows)
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny(Path(folder) / "model", [TEXT] * 50)
        training = {
            "max_steps": updates,
            "steps_per_generation": accumulation,
            "gradient_accumulation_steps": accumulation,
            "beta": beta,
            "report_to": [],
            "save_strategy": "no",
        }
        given, ends = Given(samples, 15, 30, 16), Ends()
        trainer = SemiOnlineTrainer(
            model,
            given,
            make_training_args(training, Path(folder) / "run"),
            lora=LoraConfig(r=8, target_modules="all-linear") if lora else None,
            max_rows=rows,
            callbacks=[ends],
        )
        trainer.train()
    seconds = [end - start for start, end in zip(given.started, ends.at, strict=True)]
    tokens = len(trainer.encoder.prompt(given.samples[0].prompt).ids) + 30
    return {
        "samples_per_second": samples / min(seconds),
        "seconds_per_update": min(seconds),
        "first_update_seconds": seconds[0],
        "tokens_per_sample": tokens,
        "samples": samples,
        "rows": rows,
        "beta": beta,
        "lora": lora,
        "threads": torch.get_num_threads(),
        "device": str(trainer.accelerator.device),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.samples, given.rows, given.updates, given.beta, given.lora)
    if given.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['samples_per_second']:.1f} samples/s ({result['seconds_per_update']:.2f} s per update of ", end=""
        )
        print(f"{given.samples} samples x {result['tokens_per_sample']} tokens, {result['threads']} thread(s))")


if __name__ == "__main__":
    main()
