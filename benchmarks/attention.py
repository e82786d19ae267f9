"""Updates under a dense mask beside updates without one: seconds and extra peak memory, side by side in one run.

    python -m benchmarks.attention [--json] [--tokens 2k 8k] [--rounds 2] [--width 256 --layers 4] [--way varlen]
    python -m benchmarks.attention --model Qwen/Qwen3-VL-8B-Instruct --device cuda --dtype bfloat16 [--layers 4]

An update here is forward and backward through the whole language model and the head of target tokens, as the trainer runs them for
one micro-batch of made-up rows (8 per step, text only): what a frozen tower leaves. Both sides lay out the same rows, each by its
own rule. They take turns; the cheapest round of each counts. Seconds are CPU seconds of one thread on a CPU, wall seconds on a
GPU. Attention alone is timed in the same way, at one layer. Memory is the peak of all tensors above what was there before: on a
CPU as benchmarks/allocations.py sees them, on a GPU as torch reports it. `apart` is the relative distance of the gradients.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen3VLConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl.trainer.utils import add_fused_lm_head

from benchmarks.allocations import Allocations
from guiderail.agent.local.attention import Maskless, attend, use_attention
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder
from guiderail.agent.local.prefix import pairs_per_token
from guiderail.launch.plan.shape import PUBLISHED
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.prefix import EncodedTurn, Layout, lay_out, token_logps

TREES = {  # name -> trees, rows of each, tokens that they share, tokens of their own
    "2k": (1, 8, 1400, 80),
    "8k": (1, 8, 5600, 300),
    "20k": (2, 8, 7600, 300),
    "20k in 16 trees": (16, 8, 700, 70),
}
FAMILIES = {"qwen3_vl": Qwen3VLConfig, "qwen2_5_vl": Qwen2_5_VLConfig}


def made_up(trees: int, rows: int, lead: int, own: int, vocabulary: int, special: Sequence[int]) -> list[EncodedTurn]:
    """Rows of random tokens, none of them special, whose last 40 are their target."""
    random = torch.Generator().manual_seed(0)

    def ids(count: int) -> Tensor:
        drawn = torch.randint(10, vocabulary, (count,), generator=random)
        return drawn.masked_fill(torch.isin(drawn, torch.tensor(special)), 10)

    made = []
    for _ in range(trees):
        shared = ids(lead)
        made += [EncodedTurn(torch.cat([shared, ids(own)]), (), lead + own - 40) for _ in range(rows)]
    return made


def random_model(choices: argparse.Namespace, encoder: Encoder) -> Any:
    """Published widths, or small ones, with random weights."""
    if choices.model:
        known = json.loads(json.dumps(PUBLISHED[choices.model]))
        text = known["text_config"]
        text["num_hidden_layers"] = choices.layers or text["num_hidden_layers"]
    else:
        text = {
            "hidden_size": choices.width,
            "num_hidden_layers": choices.layers or 4,
            "num_attention_heads": choices.width // 32,
            "num_key_value_heads": choices.width // 128,
            "head_dim": 64,
            "intermediate_size": 3 * choices.width,
            "vocab_size": 1 << 14,
        }
        known = {"model_type": "qwen3_vl", "text_config": text, "vision_config": {"out_hidden_size": choices.width}}
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    sections = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": sections}
    vision = known["vision_config"]
    vision |= {"depth": 1} | ({"deepstack_visual_indexes": [0]} if known["model_type"] == "qwen3_vl" else {})
    config = FAMILIES[known.pop("model_type")](**known)
    dtype = getattr(torch, choices.dtype)
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    with torch.device(choices.device):
        model = AutoModelForImageTextToText.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.model.visual.requires_grad_(False)
    model.train()
    model.config.use_cache = False
    if choices.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    add_fused_lm_head(model)
    return model


class Side:
    """One way to attend. update, attention: least seconds seen."""

    def __init__(self, model: Any, turns: list[EncodedTurn], encoder: Encoder, maskless: Maskless | None):
        device = model.device
        self.model, self.maskless = model, maskless
        self.layout: Layout = lay_out(turns, encoder, rope, pairs_per_token(model.config), maskless).to(device)
        self.update = self.attention = float("inf")
        self.memory, self.gradient = 0, torch.zeros(0)
        text, (sequences, columns) = model.config.get_text_config(), self.layout.ids.shape
        self.layer = model.model.language_model.layers[0].self_attn
        heads = (text.num_attention_heads, text.num_key_value_heads, text.num_key_value_heads)
        width = self.layer.head_dim
        self.states = [
            torch.randn(sequences, columns, n, width, device=device, dtype=model.dtype).transpose(1, 2).requires_grad_()
            for n in heads
        ]

    def step(self) -> Tensor:
        """Forward and backward of the micro-batch; gradients stay until the next. Returns the log-probabilities."""
        self.model.zero_grad()
        logps, _ = token_logps(self.model, self.model, self.layout, {})
        (logps * torch.linspace(-1, 2, len(logps), device=logps.device)[:, None]).sum().backward()
        return logps.detach()

    def attend(self) -> None:
        """Forward and backward of one layer's attention; the mask, which all layers share, is made for each."""
        if self.layout.plan is not None:
            out, _ = attend(self.layer, *self.states, None, tree=self.layout.plan, scaling=0.1)
        else:
            out, _ = sdpa_attention_forward(self.layer, *self.states, self.layout.mask(), scaling=0.1)
        torch.autograd.grad(out, self.states, torch.ones_like(out))

    def measure(self) -> None:
        self.update = min(self.update, seconds(self.step, self.model.device))
        self.gradient = torch.cat([p.grad.flatten().float() for p in self.model.parameters() if p.grad is not None])
        self.attention = min(self.attention, seconds(self.attend, self.model.device))

    def measure_memory(self) -> None:
        self.model.zero_grad()
        if self.model.device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.step()
            self.memory = torch.cuda.max_memory_allocated() - before
            return
        with Allocations() as seen:
            seen.see([*self.model.parameters(), *self.model.buffers()])
            before = seen.live
            self.step()
            self.memory = seen.peak - before
        self.model.zero_grad()


def seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    call()
    return time.process_time() - start


def rope(ids: Tensor, **others: Any) -> Any:
    """Positions of text."""
    return torch.arange(ids.shape[1]).expand(3, len(ids), -1), None


def compare(name: str, model: Any, encoder: Encoder, choices: argparse.Namespace) -> dict[str, Any]:
    turns = made_up(*TREES[name], model.config.get_text_config().vocab_size, encoder.special_ids)
    maskless = use_attention(model, choices.way, model.device)
    sides = {"dense": Side(model, turns, encoder, None), "maskless": Side(model, turns, encoder, maskless)}
    for _ in range(choices.rounds):
        for side in sides.values():
            side.measure()
    dense, ours = sides.values()
    apart = float((dense.gradient - ours.gradient).norm() / dense.gradient.norm())
    for side in sides.values():
        side.measure_memory()
    layers = model.config.get_text_config().num_hidden_layers
    return {
        "tokens": name,
        **{f"{key}_columns": list(side.layout.ids.shape) for key, side in sides.items()},
        **{f"{key}_seconds": side.update for key, side in sides.items()},
        "gain": dense.update / ours.update,
        **{f"{key}_attention_seconds": side.attention for key, side in sides.items()},
        "attention_gain": dense.attention / ours.attention,
        "attention_share_of_dense": layers * dense.attention / dense.update,
        **{f"{key}_extra_bytes": side.memory for key, side in sides.items()},
        "apart": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", choices=TREES, default=["2k", "8k"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=256, help="hidden size of a small model")
    parser.add_argument("--model", choices=PUBLISHED, help="published widths instead")
    parser.add_argument("--layers", type=int, help="of the language model; default 4, or all of --model")
    parser.add_argument("--way", choices=("varlen", "flex"), default="varlen")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--json", action="store_true")
    choices = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        encoder = load_encoder(build_tiny(Path(folder), ["tap the button"], width=32, layers=1, vision_layers=1))
    model = random_model(choices, encoder)
    rows = []
    for name in choices.tokens:
        rows.append(compare(name, model, encoder, choices))
        if not choices.json:
            print(
                "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()),
                flush=True,
            )
    if choices.json:
        device = torch.cuda.get_device_name() if choices.device == "cuda" else "CPU, one thread"
        print(
            json.dumps(
                {"rows": rows, "arguments": vars(choices), "device": device, "torch": torch.__version__}, indent=1
            )
        )


if __name__ == "__main__":
    main()
