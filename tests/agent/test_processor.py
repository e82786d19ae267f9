"""The resize rule is read as transformers reads it."""

import json

import pytest

from guiderail.agent.errors import SetupError
from guiderail.agent.processor import checkpoint_vision
from guiderail.agent.screen import Vision

QWEN25 = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12845056}
QWEN3 = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("preprocessor_config.json", QWEN25, Vision(28, 3136, 12845056)),
        ("preprocessor_config.json", QWEN3, Vision(32, 65536, 16777216)),
        ("preprocessor_config.json", {}, Vision(28, 3136, 1003520)),
        ("preprocessor_config.json", {**QWEN3, "max_pixels": 999}, Vision(32, 65536, 999)),
        ("processor_config.json", {"image_processor": QWEN3}, Vision(32, 65536, 16777216)),
    ],
)
def test_the_rule_is_that_of_transformers(tmp_path, name, content, expected):
    pytest.importorskip("torch")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    (tmp_path / name).write_text(json.dumps(content))
    found = checkpoint_vision(str(tmp_path))
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    assert found == expected
    assert found.factor == theirs.patch_size * theirs.merge_size
    assert (found.min_pixels, found.max_pixels) == (theirs.size["shortest_edge"], theirs.size["longest_edge"])


def test_a_shipped_model_by_name():
    assert checkpoint_vision("tiny-sft") == Vision(16, 1024, 1048576)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", "holds no JSON object"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (json.dumps({"patch_size": "14"}), "expected whole numbers above 0"),
        (json.dumps({"patch_size": 0}), "expected whole numbers above 0"),
        (json.dumps({"size": [1, 2]}), "expected whole numbers above 0"),
        (json.dumps({"max_pixels": True}), "expected whole numbers above 0"),
        (json.dumps({"max_pixels": 1e400}), "expected whole numbers above 0"),
    ],
)
def test_a_broken_file_is_a_setup_error(tmp_path, content, complaint):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(SetupError, match=complaint):
        checkpoint_vision(str(tmp_path))


def test_nothing_to_read(tmp_path, monkeypatch):
    with pytest.raises(SetupError, match="has no image processor"):
        checkpoint_vision(str(tmp_path))
    with pytest.raises(SetupError, match="no folder"):
        checkpoint_vision(str(tmp_path / "nowhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError, match="neither a folder nor reachable"):
        checkpoint_vision("nobody/no-such-model")
