"""Model folders as downloaded, of published width and vocabulary: random weights, few layers, a small tokenizer."""

from __future__ import annotations

import json
from pathlib import Path


def write_model(
    name: str, data: Path, out: Path, layers: int | None = None, depth: int | None = None, vocabulary: int | None = None
) -> int:
    """name: of launch/plan/models.json. data: recordings, from whose words the tokenizer is made. layers, depth: of the language
    model and the tower; None for all, as with vocabulary. Weights are bfloat16, 2 bytes of disk each. Returns their number."""
    import torch
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen3VLConfig

    from guiderail.launch.plan.shape import PUBLISHED
    from guiderail.launch.pretrain import build_tiny_for

    published = json.loads(json.dumps(PUBLISHED[name]))
    family = published.pop("model_type")
    build_tiny_for(str(data), out, family, 0, 2)
    known = json.loads((out / "config.json").read_text())
    text, tower, tied = published["text_config"], published["vision_config"], published["tie_word_embeddings"]
    text["num_hidden_layers"] = layers = layers or text["num_hidden_layers"]
    text["vocab_size"] = vocabulary or text["vocab_size"]
    tower["depth"] = depth = depth or tower["depth"]
    if "deepstack_visual_indexes" in tower:
        tower["deepstack_visual_indexes"] = [i for i in tower["deepstack_visual_indexes"] if i < depth] or [0]
    if "fullatt_block_indexes" in tower and depth > 1:
        tower["fullatt_block_indexes"] = [i for i in tower["fullatt_block_indexes"] if i < depth] or [depth - 1]
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    known["text_config"] |= text | {
        "layer_types": ["full_attention"] * layers,
        "tie_word_embeddings": tied,
        "head_dim": head,
        "max_position_embeddings": 1 << 15,
    }
    known["text_config"]["rope_parameters"]["mrope_section"] = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    known["vision_config"] |= tower
    known["tie_word_embeddings"] = tied
    config = {"qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}[family](**known)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    model.tie_weights()
    noise = (torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02).to(torch.bfloat16)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            flat = parameter.view(-1)
            for part in flat.split(len(noise)):
                part.copy_(noise[: len(part)])
            if parameter.dim() == 1:
                parameter.fill_(1.0 if key.endswith("weight") else 0.0)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.save_pretrained(out)
    return sum(parameter.numel() for parameter in model.parameters())
