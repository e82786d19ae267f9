"""One semi-online step of a randomly initialised Qwen2.5-VL with ZeRO-2 and LoRA: seconds, tokens per second, memory.

    torchrun --standalone --nproc_per_node 1 benchmarks/large.py --size 7b [--folder DIR] [--updates 3] [--json]

Random weights of the published sizes are first written to --folder (7b: 17 GB of disk, 14b: 30 GB). The recordings are Pocket
episodes at 540x960, the config is `launch/configs/qwen2_5_vl_7b.yaml` with another number of groups. A random model never
agrees with the expert and rarely ends its turn. So patches are unlimited and no group is dropped: every rollout then has all its
steps, and every answer is --tokens long. `--size tiny` runs anywhere. The first update is a warm-up; the others count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, TrainerCallback

from guiderail.envs.pocket.record import record
from guiderail.launch.pretrain import build_tiny_for
from guiderail.launch.train import rl_trainer, set_up
from guiderail.rl.config import load_config

LAUNCH = Path(__file__).parents[1] / "launch"
TEXT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
SIZES = {
    "tiny": (128, 2, 4, 2, 256),
    "3b": (2048, 36, 16, 2, 11008),
    "7b": (3584, 28, 28, 4, 18944),
    "14b": (5120, 48, 40, 8, 13824),  # no published Qwen2.5-VL; the language model of Qwen2.5-14B
    "32b": (5120, 64, 40, 8, 27648),
    "72b": (8192, 80, 64, 8, 29568),
}
VISION = {
    "hidden_size": 1280,
    "depth": 32,
    "num_heads": 16,
    "intermediate_size": 3420,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
VOCABULARY = 152064


class Clock(TrainerCallback):  # type: ignore[misc]
    """Wall seconds of each update, including its rollouts, and what the trainer logged about it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._since = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.rows.append({"seconds": now - self._since} | logs)
            self._since = now


def write_model(size: str, data: Path, out: Path) -> int:
    """Write a model folder like a downloaded one, in bfloat16. Returns its number of parameters."""
    build_tiny_for(str(data), out, "qwen2_5_vl", 0)
    values = dict(zip(TEXT, SIZES[size], strict=True))
    head, tied = values["hidden_size"] // values["num_attention_heads"], size in ("tiny", "3b")
    known = json.loads((out / "config.json").read_text())
    known["tie_word_embeddings"] = tied
    known["text_config"] |= values | {"vocab_size": VOCABULARY, "tie_word_embeddings": tied}
    known["text_config"]["layer_types"] = ["full_attention"] * values["num_hidden_layers"]
    known["text_config"]["rope_parameters"]["mrope_section"] = [head // 8, 3 * head // 16, 3 * head // 16]
    known["vision_config"] |= {"out_hidden_size": values["hidden_size"]} | ({} if size == "tiny" else VISION)
    config = Qwen2_5_VLConfig(**known)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.save_pretrained(out)
    return sum(p.numel() for p in model.parameters())


def measure(choices: argparse.Namespace, folder: Path) -> dict[str, Any]:
    data, model = folder / "data", folder / choices.size
    if int(os.environ.get("LOCAL_RANK", "0")) == 0 and not (model / "parameters").exists():
        if not data.exists():
            record(data, episodes=32, size=(540, 960))
        parameters = write_model(choices.size, data, model)
        (model / "parameters").write_text(str(parameters))
    while not (model / "parameters").exists():
        time.sleep(1)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    settings = {
        "model.path": model,
        "model.lora": "{r: 16, alpha: 32}",
        "model.max_new_tokens": choices.tokens,
        "data.train": data,
        "method.groups": choices.groups,
        "method.spread_of": "none",
        "method.patch_budget": "unlimited",
        "training.beta": 0.0,
        "training.deepspeed": LAUNCH / "deepspeed" / "zero2.json",
        "training.max_steps": choices.updates,
        "training.steps_per_generation": choices.micro,
        "training.gradient_accumulation_steps": choices.micro,
        "method.max_rows": choices.rows,
        "training.bf16": str(torch.cuda.is_available()).lower(),
        "training.report_to": "none",
        "training.save_strategy": "'no'",
    }
    config = load_config(
        LAUNCH / "configs" / "qwen2_5_vl_7b.yaml", [f"{key}={value}" for key, value in settings.items()]
    )
    trainer, clock = rl_trainer(set_up(config), None, folder / "run", None), Clock()
    trainer.add_callback(clock)
    trainer.train()
    counted = clock.rows[1:] or clock.rows
    mean = {key: sum(row[key] for row in counted) / len(counted) for key in counted[0]}
    rollouts = mean["rollout/turns"] / mean["rollout/turns_per_second"]
    cuda = torch.cuda.is_available()
    return {
        "size": choices.size,
        "parameters": int((model / "parameters").read_text()),
        "seconds_per_step": mean["seconds"],
        "rollout_seconds": rollouts,
        "sampled_turns": mean["rollout/turns"],
        "sampled_tokens_per_second": mean["update/tokens"] / rollouts,
        "update_seconds": mean["seconds"] - rollouts,
        "update_rows": mean["update/rows"],
        "update_tokens_per_second": mean["update/forward_tokens"] / (mean["seconds"] - rollouts),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else 1024 * getrusage(RUSAGE_SELF).ru_maxrss,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "device": torch.cuda.get_device_name() if cuda else f"CPU {platform.machine()}",
        "torch": torch.__version__,
        "arguments": {key: value for key, value in vars(choices).items() if key not in ("folder", "json")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--folder", type=Path, help="keeps data and weights for the next call")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, default=4, help="rows per micro-batch")
    parser.add_argument("--micro", type=int, default=8, help="micro-batches per update")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    choices = parser.parse_args()
    if choices.folder is None and os.environ.get("WORLD_SIZE", "1") != "1":
        parser.error("several processes need one --folder for data and weights")
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(choices, choices.folder or Path(scratch))
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(result, indent=2) if choices.json else "\n".join(f"{k:26} {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
