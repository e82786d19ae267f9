"""What a layer keeps is what autograd saves, at real widths; what is always there is divided as ZeRO divides it."""

import json

import pytest

from guiderail.launch.plan import memory
from guiderail.launch.plan.memory import Rows
from guiderail.launch.plan.shape import PUBLISHED, shape_of
from tests.launch.plan.settings import setting

TOKENS = 64
NAMES = ("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct")


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    """One decoder layer and one vision block of published width, in bfloat16."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    content = json.loads(json.dumps(PUBLISHED[request.param]))
    family = content.pop("model_type")
    content["text_config"] |= {"num_hidden_layers": 1, "vocab_size": 64, "bos_token_id": None, "eos_token_id": None}
    content["vision_config"]["depth"] = 1
    content["vision_config"].pop("fullatt_block_indexes", None)
    if family == "qwen3_vl":
        content["vision_config"]["deepstack_visual_indexes"] = [0]
    config = (transformers.Qwen3VLConfig if family == "qwen3_vl" else transformers.Qwen2_5_VLConfig)(**content)
    with torch.device("meta"):
        made = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    return shape_of(request.param), made.to_empty(device="cpu")


def saved(run, model):
    """Bytes that the backward of run() keeps, weights apart."""
    import torch

    held, weights = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(size for size, _ in held.values())


@pytest.mark.parametrize("lora", [False, True])
def test_a_layer_and_a_block_keep_what_autograd_saves(model, lora):
    import torch

    shape, made = model
    if lora:
        from peft import LoraConfig, get_peft_model

        made = get_peft_model(made, LoraConfig(r=16, target_modules="all-linear"))
    plain = made.get_base_model() if lora else made
    text, tower = plain.model.language_model, plain.model.visual
    states = torch.zeros(1, TOKENS, shape.hidden, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool)
    angles = (torch.zeros(1, TOKENS, shape.head_dim, dtype=torch.bfloat16),) * 2
    found = saved(lambda: text.layers[0](states, attention_mask=mask, position_embeddings=angles), plain)
    s = setting(shape, lora)
    assert memory.layer(shape, s, Rows(1, TOKENS, 1)) == pytest.approx(found, rel=0.02)
    patches = torch.zeros(TOKENS, shape.tower.hidden, dtype=torch.bfloat16, requires_grad=True)
    turns = (torch.zeros(TOKENS, shape.tower.hidden // shape.tower.heads),) * 2
    ends = torch.tensor([0, TOKENS])
    found = saved(lambda: tower.blocks[0](patches, cu_seqlens=ends, position_embeddings=turns), plain)
    assert memory.block(shape, s, TOKENS) == pytest.approx(found, rel=0.03)
    if lora:
        made.unload()


def test_zero_divides_what_it_says():
    shape = shape_of(NAMES[1])
    n = shape.parameters()
    none, two, three = (memory.static(shape, setting(shape, zero=stage, stored=2), 8) for stage in (None, 2, 3))
    assert none == {"weights": 2 * n, "reference": 0, "gradients": 2 * n, "optimizer": 4 * n}
    assert two == {"weights": 2 * n, "reference": 0, "gradients": n / 4, "optimizer": 12 * n / 8}
    assert three["weights"] == n / 4
    kl = memory.static(shape, setting(shape, zero=3, reference=True), 8)
    assert kl["reference"] == n / 4
    assert memory.gathered(shape, setting(shape, zero=3), 8)["ZeRO buffers"] == 2 * (1e9 + 5e8)


def test_lora_trains_little_and_needs_no_second_model():
    shape = shape_of(NAMES[0])
    s = setting(shape, lora=True, reference=True)
    held = memory.static(shape, s, 1)
    assert held["reference"] == 0
    assert held["gradients"] == 4 * s.adapters < 0.03 * held["weights"]


def test_checkpointing_trades_activations_for_one_layer():
    shape, rows = shape_of(NAMES[0]), Rows(1, 5000, 100, (10000,))
    with_it, without = (
        memory.update(shape, setting(shape, lora=True, checkpointing=on), rows, 1, True)["activations"]
        for on in (True, False)
    )
    assert 6 * with_it < without
