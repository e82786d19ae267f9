"""A student's shape, and first weights that are the teacher's."""

import pytest
import torch

from guiderail.agent.errors import SetupError
from guiderail.agent.local.loading import load_model
from guiderail.rl.distill.student import Energy, Shape, even_layers, kept_channels, sliced, student_shape
from guiderail.rl.tiny.model import build_tiny

IDS = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def teacher(request, tmp_path_factory):
    folder = build_tiny(tmp_path_factory.mktemp(request.param), ["words of a screen"], request.param)
    model = load_model(folder, "cpu", "float32")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight += 0.3 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(1))
    return model


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_the_rule(teacher):
    config = teacher.config
    assert student_shape(config) == Shape(2, 128, 4, 4, 384)
    assert student_shape(config, width=64) == Shape(4, 64, 2, 2, 192)
    assert student_shape(config, layers=3, width=64, intermediate=100) == Shape(3, 64, 2, 2, 100)


@pytest.mark.parametrize("wrong", [{"layers": 5}, {"width": 200}, {"heads": 5}, {"intermediate": 400}])
def test_no_student_is_larger_than_its_teacher(teacher, wrong):
    with pytest.raises(SetupError, match=r"expected \d+ to \d+"):
        student_shape(teacher.config, **wrong)


def test_a_width_of_heads_where_the_family_asks_for_it(teacher):
    if teacher.config.model_type == "qwen3_vl":
        assert student_shape(teacher.config, width=72, heads=3).width == 72
    else:
        with pytest.raises(SetupError, match="give --width 96"):
            student_shape(teacher.config, width=72, heads=3)


@pytest.mark.parametrize(("of", "kv", "heads", "expected"), [(28, 4, 12, 2), (16, 8, 8, 4), (4, 4, 2, 2), (8, 1, 4, 1)])
def test_grouped_heads_keep_at_most_the_teachers_ratio(teacher, of, kv, heads, expected):
    config = teacher.config.__class__.from_dict(teacher.config.to_dict())
    text = config.get_text_config()
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = of, kv, 8
    assert student_shape(config, heads=heads).kv_heads == expected


def test_heads_that_cannot_share_keys_and_values_are_refused(teacher):
    """The 7B shape: 28 heads on 4 key-value heads of 8, so at most 7 on each."""
    config = teacher.config.__class__.from_dict(teacher.config.to_dict())
    text = config.get_text_config()
    text.num_attention_heads, text.num_key_value_heads, text.hidden_size = 28, 4, 28 * 8
    own = hasattr(text, "head_dim")
    if own:
        text.head_dim = 8
    for heads in (23, 26):
        with pytest.raises(SetupError, match="at most 7 to each") as refused:
            student_shape(config, width=heads * 8)
        key, possible = str(refused.value).rsplit("give ", 1)[1].split(" as one of ")
        assert key == ("--heads" if own else "--width")
        for one in map(int, possible.split(", ")):
            given = {"heads": one} if own else {"width": one}
            made = student_shape(config, **given)
            assert made.heads // made.kv_heads <= 7
            assert made.heads % made.kv_heads == 0
        assert len(possible.split(", ")) == 19


def test_layers_at_even_distances():
    assert even_layers(4, 4) == [0, 1, 2, 3]
    assert even_layers(28, 4) == [0, 9, 18, 27]
    assert even_layers(5, 1) == [4]


def test_the_same_shape_is_the_same_model(teacher):
    same = sliced(teacher, student_shape(teacher.config, layers=4), torch.eye(128, dtype=torch.float64))
    assert torch.equal(logits(same), logits(teacher))


def test_only_what_carries_nothing_is_cut(teacher, tmp_path):
    """A teacher that lives in half of its width, in a rotated basis, with equal norms, dead heads and dead channels, loses
    nothing when it is sliced."""
    teacher.save_pretrained(tmp_path)
    large = load_model(tmp_path, "cpu", "float32").double()
    inside = torch.linalg.qr(torch.randn(128, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    keep = inside @ inside.T
    text = large.model.language_model
    with torch.no_grad():
        text.embed_tokens.weight.copy_(
            1000 * text.embed_tokens.weight @ keep
        )  # the norms' epsilon is nothing beside it
        text.norm.weight.fill_(1.3)
        for layer in text.layers:
            layer.self_attn.o_proj.weight.copy_(keep @ layer.self_attn.o_proj.weight)
            layer.self_attn.o_proj.weight[:, 32:96] = 0
            layer.mlp.down_proj.weight.copy_(keep @ layer.mlp.down_proj.weight)
            layer.mlp.down_proj.weight[:, 100:292] = 0
    with Energy(large) as energy:
        before = logits(large)
    assert energy.moment.shape == (128, 128)
    small = sliced(large, student_shape(large.config, width=64), energy.directions(64))
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in large.parameters())
    torch.testing.assert_close(logits(small), before, rtol=1e-4, atol=1e-3)  # norms are float32 in any model


def test_the_largest_channels_stay(teacher):
    mlp = teacher.model.language_model.layers[0].mlp
    kept = kept_channels(mlp, 192)
    size = mlp.gate_proj.weight.norm(dim=1) * mlp.up_proj.weight.norm(dim=1) * mlp.down_proj.weight.norm(dim=0)
    rest = torch.ones(384, dtype=torch.bool)
    rest[kept] = False
    assert size[kept].min() >= size[rest].max()
    assert kept.tolist() == sorted(kept.tolist())
