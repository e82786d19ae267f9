"""Sizes are those of the transformers classes, to the parameter."""

import json

import pytest

from guiderail.agent.errors import SetupError
from guiderail.launch.plan.shape import PUBLISHED, read_shape, shape_of


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-2B-Instruct"])
def test_parameters_are_those_of_the_class(name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    content = json.loads(json.dumps(PUBLISHED[name]))
    family = content.pop("model_type")
    config = (transformers.Qwen3VLConfig if family == "qwen3_vl" else transformers.Qwen2_5_VLConfig)(**content)
    config.text_config.tie_word_embeddings = content["tie_word_embeddings"]
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    shape = shape_of(name)
    assert shape.parameters() == sum(p.numel() for p in model.parameters())
    assert shape.parameters("vision") == sum(p.numel() for p in model.model.visual.parameters())


def test_published_sizes():
    billions = {
        name.split("/")[1].removesuffix("-Instruct"): round(shape_of(name).parameters() / 1e9, 2) for name in PUBLISHED
    }
    assert billions == {
        "Qwen2.5-VL-3B": 3.75,
        "Qwen2.5-VL-7B": 8.29,
        "Qwen2.5-VL-32B": 33.45,
        "Qwen2.5-VL-72B": 73.41,
        "Qwen3-VL-2B": 2.13,
        "Qwen3-VL-4B": 4.44,
        "Qwen3-VL-8B": 8.77,
        "Qwen3-VL-32B": 33.36,
    }
    assert shape_of("tiny-sft").parameters() == 1_679_904


def test_lora_wraps_the_layers_that_it_names():
    shape = shape_of("Qwen/Qwen3-VL-2B-Instruct")
    assert {one.name for one in shape.adapted(["q_proj", "v_proj"], False)} == {"q_proj", "v_proj"}
    assert {one.where for one in shape.adapted("all-linear", True)} == {"layer"}
    assert "lm_head" not in {one.name for one in shape.adapted("all-linear", False)}
    with pytest.raises(SetupError, match="names no linear layer"):
        shape.adapted(["Wqkv"], False)


def test_a_model_that_is_not_here_or_of_another_family(tmp_path):
    with pytest.raises(SetupError, match="hf download somebody/model"):
        shape_of("somebody/model")
    with pytest.raises(SetupError, match="is a llama model"):
        read_shape({"model_type": "llama"}, "x")
    with pytest.raises(SetupError, match="lacks sizes"):
        read_shape({"model_type": "qwen3_vl", "text_config": {}, "vision_config": {}}, "x")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SetupError, match="cannot be read"):
        shape_of(str(tmp_path))
