"""Patches are the image processor's numbers to the bit, decoded once, kept within a bound, and ready when they are asked for."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.local.pixels import Pixels
from guiderail.agent.screen import Vision
from guiderail.agent.types import Picture, Screenshot
from tests.agent.local.test_policy import screenshot

CPU = torch.device("cpu")
FAMILIES = {
    "qwen2_5_vl": (14, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "qwen3_vl": (16, [0.5] * 3, [0.5] * 3),
}


def processor(family: str) -> Qwen2VLImageProcessorPil:
    patch, mean, std = FAMILIES[family]
    return Qwen2VLImageProcessorPil(patch_size=patch, image_mean=mean, image_std=std)


def pictures(family: str, count: int, width: int = 90, height: int = 170) -> list[Picture]:
    vision = Vision(2 * FAMILIES[family][0], 1, 1 << 20)
    return [vision.picture(screenshot(seed, width, height)) for seed in range(count)]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_are_the_processors(family: str, threads: int) -> None:
    cut = processor(family)
    pixels, shown = Pixels(cut, 1 << 30, threads), pictures(family, 3)
    pixels.ahead(shown)
    for picture in shown:
        theirs = cut(images=[picture.image()], do_resize=False, return_tensors="pt")["pixel_values"]
        for _ in range(2):
            assert torch.equal(pixels.patches(picture, torch.float32, CPU), theirs)
            assert torch.equal(pixels.patches(picture, torch.bfloat16, CPU), theirs.to(torch.bfloat16))


def test_decoding_goes_on_beside_other_work_and_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = pictures("qwen3_vl", 3)
    decoded: list[str] = []
    done = threading.Event()
    original = Picture.image

    def image(self: Picture) -> object:
        made = original(self)
        decoded.append(threading.current_thread().name)
        if len(decoded) == 3:
            done.set()
        return made

    monkeypatch.setattr(Picture, "image", image)
    pixels = Pixels(processor("qwen3_vl"), 1 << 30, 2)
    pixels.ahead(shown)
    pixels.ahead(shown)
    assert done.wait(30)
    for picture in shown * 2:
        pixels.patches(picture, torch.float32, CPU)
    pixels.ahead(shown)
    assert len(decoded) == 3
    assert all(name.startswith("screenshots") for name in decoded)


def test_what_is_kept_and_what_is_on_its_way_have_a_bound() -> None:
    shown = pictures("qwen3_vl", 6)
    size = 3 * shown[0].width * shown[0].height
    pixels = Pixels(processor("qwen3_vl"), 2 * size, 1)
    pixels.ahead(shown)
    assert len(pixels._coming) == 2
    for picture in shown:
        pixels.patches(picture, torch.float32, CPU)
    assert len(pixels) == 2
    assert pixels._kept.held == 2 * size
    assert len(Pixels(processor("qwen3_vl"), 1, 0)) == 0


def test_a_broken_screenshot_is_named_to_whoever_asks_for_it() -> None:
    broken = Picture(Screenshot(64, 64, data=b"\x89PNG\r\n\x1a\nnothing", source="episodes.jsonl:3"), 64, 64)
    pixels = Pixels(processor("qwen3_vl"), 1 << 20, 1)
    pixels.ahead([broken])
    with pytest.raises(DataError, match=r"episodes\.jsonl:3"):
        pixels.patches(broken, torch.float32, CPU)
    pixels.ahead([broken])
    pixels._coming[("x", 1, 1)] = pixels._coming.pop(next(iter(pixels._coming)))
    threading.Event().wait(0.2)
    pixels.ahead([])  # a failure that nobody asked about is dropped
    with pytest.raises(DataError, match=r"episodes\.jsonl:3"):
        pixels.patches(broken, torch.float32, CPU)


def test_a_processor_that_cuts_otherwise_is_refused() -> None:
    class Other(Qwen2VLImageProcessorPil):  # type: ignore[misc]
        def patchify(self, image: np.ndarray, **kwargs: object) -> object:
            return super().patchify(image[:, ::-1], **kwargs)

    with pytest.raises(SetupError, match="does not cut pictures"):
        Pixels(Other(patch_size=16), 1, 0)
