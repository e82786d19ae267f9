"""Models and samples of published width for benchmarks/plan.py: random weights, few layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def made_up(setup: Any, case: Any) -> list[Any]:
    """`rows` different answers to the same step of each of two episodes: two micro-batches."""
    from guiderail.agent.types import Completion
    from guiderail.envs.recordings.replay import expert_turn
    from guiderail.rl.credit.samples import StepSample

    episodes = [e for e in setup.data.episodes if len(e.steps) > case.step][:2]
    samples = []
    for episode in episodes:
        for row in range(case.rows):
            past = [replace_thought(step, f"Attempt {row}.") for step in episode.steps]
            prompt, text = expert_turn(_with_steps(episode, past), case.step, setup.dialogue)
            ids = tuple(setup.encoder.target(text).tolist())
            completion = Completion(text, ids, (-1.0,) * len(ids))
            advantage = 1.0 if row % 2 else -1.0
            samples.append(StepSample(episode.id, row, case.step, prompt, completion, 0, 0, 0, 0, advantage))
    return samples


def replace_thought(step: Any, thought: str) -> Any:
    from dataclasses import replace

    return replace(step, thought=f"{thought} {step.thought or ''}")


def _with_steps(episode: Any, steps: Any) -> Any:
    from dataclasses import replace

    return replace(episode, steps=tuple(steps))


def write_model(case: Any, data: Path, out: Path) -> None:
    """A folder as downloaded: published widths and vocabulary, few layers, random bfloat16 weights, a small tokenizer."""
    import torch
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen3VLConfig

    from guiderail.launch.plan.shape import PUBLISHED
    from guiderail.launch.pretrain import build_tiny_for

    published = json.loads(json.dumps(PUBLISHED[case.model]))
    family = published.pop("model_type")
    build_tiny_for(str(data), out, family, 0, 2)
    known = json.loads((out / "config.json").read_text())
    text, tower = published["text_config"], published["vision_config"]
    text["num_hidden_layers"], tower["depth"] = case.layers, case.depth
    if "whole vocabulary" not in case.name:
        text["vocab_size"] = 1 << 14
    if "deepstack_visual_indexes" in tower:
        tower["deepstack_visual_indexes"] = [0]
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    known["text_config"] |= text | {
        "layer_types": ["full_attention"] * case.layers,
        "tie_word_embeddings": published["tie_word_embeddings"],
        "head_dim": head,
    }
    known["text_config"]["rope_parameters"]["mrope_section"] = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    known["vision_config"] |= tower
    known["tie_word_embeddings"] = published["tie_word_embeddings"]
    config = {"qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}[family](**known)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.to_empty(device="cpu")
    model.tie_weights()
    noise = torch.randn(1 << 20) * 0.02
    with torch.no_grad():
        for parameter in model.parameters():
            flat = parameter.view(-1)
            flat.copy_(noise.repeat(-(-len(flat) // len(noise)))[: len(flat)])
            if parameter.dim() == 1:
                parameter.fill_(1.0)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.save_pretrained(out)
