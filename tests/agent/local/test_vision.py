"""Vision features computed once: the same numbers as from pixels, and never stale, however the tower was changed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from guiderail.agent.errors import SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.features import FeatureFolder, Features
from guiderail.agent.local.policy import LocalPolicy, load_policy
from guiderail.agent.local.vision import VisionStore, fingerprint, plain_model
from guiderail.agent.types import Picture
from guiderail.rl.tiny.model import build_tiny
from tests.agent.local.test_policy import FAMILIES, TEXTS, prompt, screenshot

Change = Callable[[Any], None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {family: build_tiny(root / family, TEXTS, family) for family in FAMILIES}  # type: ignore[arg-type]


@pytest.fixture(params=FAMILIES)
def policy(request: pytest.FixtureRequest, folders: dict[str, Path]) -> LocalPolicy:
    return load_policy(folders[request.param])


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Picture]:
    """The pictures that went through a tower."""
    pictures: list[Picture] = []
    original = VisionStore._compute
    monkeypatch.setattr(
        VisionStore, "_compute", lambda self, model, picture: pictures.append(picture) or original(self, model, picture)
    )
    return pictures


def logits(model: Any, encoder: Encoder, vision: VisionStore, seeds: tuple[int, ...], screens: int = 2) -> torch.Tensor:
    rows = [encoder.prompt(prompt(encoder.vision, seed, screens=screens)) for seed in seeds]
    text = {k: v for k, v in encoder.batch(rows).items() if k not in ("pixel_values", "image_grid_thw")}
    out = model(**text, **vision.inputs(model, [picture for row in rows for picture in row.pictures])).logits
    assert isinstance(out, torch.Tensor)
    return out


def test_features_stand_in_for_pixels(policy: LocalPolicy, computed: list[Picture]) -> None:
    store, off = VisionStore(policy.encoder), VisionStore(policy.encoder, on=False)
    with torch.no_grad():
        for seeds, screens in (((1,), 1), ((1, 2, 1), 2)):
            expected = logits(policy.model, policy.encoder, off, seeds, screens)
            for _ in range(2):
                torch.testing.assert_close(
                    logits(policy.model, policy.encoder, store, seeds, screens), expected, atol=1e-5, rtol=1e-5
                )
    assert (off.hits, off.misses) == (0, 0)
    assert len(computed) == len(set(computed)) == store.misses == 4
    assert store.hits > 0
    assert store.inputs(policy.model, []) == {}


def test_the_patch_embedding_is_a_matrix_product(policy: LocalPolicy) -> None:
    """Without a convolution, the same features; and the model is as before."""
    picture, embed = policy.vision.picture(screenshot(1, 130, 75)), policy.model.model.visual.patch_embed
    patches, grid = policy.encoder.pixels(picture)
    calls: list[int] = []
    original = type(embed.proj).forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(embed.proj), "forward", lambda *args: calls.append(1) or original(*args))
        (ours,) = VisionStore(policy.encoder).outputs(policy.model, [picture]).pooler_output
        assert not calls
        with torch.no_grad():
            (theirs,) = policy.model.model.get_image_features(patches, grid[None], return_dict=True).pooler_output
        assert calls
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    # A layer that somebody listens to, as PEFT and DeepSpeed do, is left alone.
    heard: list[int] = []
    with embed.proj.register_forward_hook(lambda *_: heard.append(1)):
        VisionStore(policy.encoder).outputs(policy.model, [picture])
    assert heard
    # So is a forward that somebody else replaced, as accelerate's dispatch does: it is used, and still there after.
    replaced = embed.forward
    embed.forward = lambda patches: heard.append(2) or replaced(patches)
    VisionStore(policy.encoder).outputs(policy.model, [picture])
    assert heard[-1] == 2
    assert "forward" in embed.__dict__
    del embed.forward


def test_grid_needs_no_pixels(policy: LocalPolicy) -> None:
    picture = policy.vision.picture(screenshot(1, 130, 75))
    assert policy.encoder.grid(picture).tolist() == policy.encoder.pixels(picture)[1].tolist()


def test_training_takes_features_as_constants_only_while_the_tower_is_frozen(policy: LocalPolicy) -> None:
    model, encoder, store = policy.model, policy.encoder, VisionStore(policy.encoder)
    pictures = [encoder.vision.picture(screenshot(1))]
    assert "pixel_values" in store.inputs(model, pictures)
    with torch.no_grad():
        assert "mm_encoder_outputs" in store.inputs(model, pictures)
    model.model.visual.requires_grad_(False)
    assert "mm_encoder_outputs" in store.inputs(model, pictures)
    gradients = []
    for vision in (VisionStore(encoder, on=False), store):
        model.zero_grad()
        logits(model, encoder, vision, (1, 2)).logsumexp(-1).mean().backward()
        gradients.append([w.grad.clone() for w in model.parameters() if w.grad is not None])
    assert gradients[0]
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)


def test_a_tower_that_draws_dropout_is_given_pixels(policy: LocalPolicy) -> None:
    store, pictures = VisionStore(policy.encoder), [policy.vision.picture(screenshot(1))]
    tuned = get_peft_model(policy.model, LoraConfig(r=2, target_modules=r".*visual.*(qkv|proj)", lora_dropout=0.5))
    with torch.no_grad():
        assert "pixel_values" in store.inputs(tuned.train(), pictures)
        assert "mm_encoder_outputs" in store.inputs(tuned.eval(), pictures)


def _through_data(model: Any) -> None:
    weight = next(model.model.visual.parameters())
    version, place = weight._version, weight.data_ptr()
    weight.data[0] += 1.0
    assert (weight._version, weight.data_ptr()) == (version, place)


def _optimizer_step(model: Any) -> None:
    weights = list(model.model.visual.parameters())
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    torch.optim.AdamW(weights, lr=0.1).step()


def _load_state_dict(model: Any) -> None:
    model.load_state_dict({k: v * 1.5 if "visual" in k else v for k, v in model.state_dict().items()})


def _one_number(model: Any) -> None:
    with torch.no_grad():
        next(model.model.visual.merger.parameters()).view(-1)[3] *= 1.5


def _two_swapped(model: Any) -> None:
    with torch.no_grad():
        weight = model.model.visual.blocks[0].attn.proj.weight
        weight[0], weight[1] = weight[1].clone(), weight[0].clone()


@pytest.mark.parametrize("change", [_through_data, _optimizer_step, _load_state_dict, _one_number, _two_swapped])
def test_a_changed_tower_is_seen_at_once(policy: LocalPolicy, change: Change, tmp_path: Path) -> None:
    store = VisionStore(policy.encoder, folder=tmp_path)
    with torch.no_grad():
        before = logits(policy.model, policy.encoder, store, (1,))
        change(policy.model)
        after = logits(policy.model, policy.encoder, store, (1,))
        expected = logits(policy.model, policy.encoder, VisionStore(policy.encoder, on=False), (1,))
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)


def test_an_adapter_on_the_tower_counts_as_tower(policy: LocalPolicy) -> None:
    """Active, switched off, scaled, changed and merged; switched off it is the plain tower again."""
    store, off = VisionStore(policy.encoder), VisionStore(policy.encoder, on=False)
    config = LoraConfig(r=2, target_modules=r".*(visual.*(qkv|proj)|q_proj)", init_lora_weights=False)
    tuned = get_peft_model(policy.model, config).eval()
    tower = plain_model(tuned).model.visual

    def check() -> torch.Tensor:
        seen = logits(tuned, policy.encoder, store, (1,))
        torch.testing.assert_close(seen, logits(tuned, policy.encoder, off, (1,)), atol=1e-5, rtol=1e-5)
        return seen

    with torch.no_grad():
        states = [check()]
        with tuned.disable_adapter():
            states.append(check())
            misses = store.misses
            check()
            assert store.misses == misses
        layer = next(module for module in tower.modules() if hasattr(module, "merged_adapters"))
        layer.lora_A["default"].weight.data.mul_(3)
        states.append(check())
        layer.set_scale("default", 5.0)
        states.append(check())
        layer.merge()
        check()
    assert all(not torch.equal(a, b) for i, a in enumerate(states) for b in states[:i])


def test_memory_is_bounded(policy: LocalPolicy) -> None:
    pictures = [policy.vision.picture(screenshot(i)) for i in range(4)]
    one = VisionStore(policy.encoder)
    with torch.no_grad():
        one.inputs(policy.model, pictures[:1])
        store = VisionStore(policy.encoder, max_bytes=2 * one.held)
        features = store.inputs(policy.model, pictures)["mm_encoder_outputs"]["image"]
        assert len(features.pooler_output) == 4
        assert store.held == 2 * one.held
        store.inputs(policy.model, pictures[3:])
        assert (store.hits, store.misses) == (1, 4)
        store.inputs(policy.model, pictures[:1])
        assert (store.hits, store.misses) == (1, 5)


def test_processes_and_checkpoints_share_a_folder(
    folders: dict[str, Path], tmp_path: Path, computed: list[Picture]
) -> None:
    """Another process, another checkpoint with the same tower: read, not computed. Another tower: computed."""
    results = []
    for step in range(3):
        policy = load_policy(folders["qwen3_vl"])
        with torch.no_grad():
            policy.model.model.language_model.norm.weight += step
            if step == 2:
                policy.model.model.visual.merger.norm.weight[0] += 1
            store = VisionStore(policy.encoder, folder=tmp_path)
            results.append(store.inputs(policy.model, [policy.vision.picture(screenshot(1))])["mm_encoder_outputs"])
    assert len(computed) == 2
    first, second, third = (result["image"] for result in results)
    assert torch.equal(first.pooler_output[0], second.pooler_output[0])
    assert torch.equal(first.deepstack_features[0][0], second.deepstack_features[0][0])
    assert not torch.equal(first.pooler_output[0], third.pooler_output[0])


def test_folder_is_bounded_and_survives_broken_files(policy: LocalPolicy, tmp_path: Path) -> None:
    pictures = [policy.vision.picture(screenshot(i)) for i in range(6)]
    store = VisionStore(policy.encoder, folder=tmp_path)
    with torch.no_grad():
        expected = store.inputs(policy.model, pictures)["mm_encoder_outputs"]["image"].pooler_output
        files = list(tmp_path.iterdir())
        assert len(files) == 6
        files[0].write_bytes(b"cut off")
        files[1].unlink()
        again = VisionStore(policy.encoder, folder=tmp_path)
        got = again.inputs(policy.model, pictures)["mm_encoder_outputs"]["image"].pooler_output
        assert all(map(torch.equal, expected, got))
        assert (again.hits, again.misses) == (4, 2)
        size = max(file.stat().st_size for file in tmp_path.iterdir())
        small = VisionStore(policy.encoder, folder=tmp_path, folder_bytes=4 * size)
        small.inputs(policy.model, [policy.vision.picture(screenshot(9))])
    assert len(list(tmp_path.iterdir())) <= 4


def test_fingerprint_sees_every_place(policy: LocalPolicy) -> None:
    module = torch.nn.Linear(1 << 11, (1 << 10) + 3, bias=True)  # more than one piece
    known = fingerprint(module)
    assert fingerprint(module) == known
    with torch.no_grad():
        for place in (0, 12345, 1 << 20, module.weight.numel() - 1):
            old = module.weight.view(-1)[place].item()
            module.weight.view(-1)[place] = old + 1e-3
            assert fingerprint(module) != known
            module.weight.view(-1)[place] = old
    assert fingerprint(module) == known
    assert fingerprint(module.to(torch.bfloat16)) != known


@pytest.mark.parametrize("place", ["file", "file/inside", "x" * 300])
def test_a_features_folder_that_cannot_be_used_is_named_with_what_to_do(
    policy: LocalPolicy, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        SetupError, match=r"vision features cannot be kept in .*; give another folder as rollout\.features="
    ):
        VisionStore(policy.encoder, folder=tmp_path / place)


def test_a_features_folder_that_stops_working_and_files_that_hold_none(policy: LocalPolicy, tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path / "features", 1 << 30)
    save_file({"other": torch.zeros(1)}, folder.path / "strange.safetensors")
    assert folder.read("strange") is None
    (folder.path / "strange.safetensors").unlink()
    folder.path.rmdir()
    with pytest.raises(SetupError, match="vision features cannot be kept in"):
        folder.write("one", Features(torch.zeros(1, 1)))


def test_a_feature_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = FeatureFolder(tmp_path / "features", 1 << 30)

    def full(tensors: Any, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("guiderail.agent.local.features.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("one", Features(torch.zeros(1, 1)))
    assert list(folder.path.iterdir()) == []
