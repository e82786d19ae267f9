"""What a screenshot of 1092x2408 pixels costs before the vision tower sees it: the image processor's way, then ours.

    python benchmarks/pictures.py [--screens DIR] [--count 16] [--json]

CPU seconds per screenshot, and bytes that are kept of it. --screens: a folder with images; without it the simulated phone's. Ours
decodes and arranges bytes once, in threads where there are cores to spare (`decode`), and makes bfloat16 numbers of them whenever they
are asked for (`numbers`). Theirs decodes and makes float32 numbers once, and casts them whenever they are asked for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from guiderail.agent.local.pixels import Pixels
from guiderail.agent.screen import Vision
from guiderail.agent.types import Picture, Screenshot
from guiderail.envs.pocket.record import record

SIZE = (1092, 2408)
FAMILIES = {"qwen2_5_vl": 14, "qwen3_vl": 16}
CPU = torch.device("cpu")


def pictures(folder: Path, count: int, factor: int) -> list[Picture]:
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".png", ".jpg"))[:count]
    vision = Vision(factor, 4 * factor**2, 1 << 24)
    return [vision.picture(Screenshot(*SIZE, file)) for file in files]


def measure(folder: Path, count: int, patch: int) -> dict[str, Any]:
    cut, shown = Qwen2VLImageProcessorPil(patch_size=patch), pictures(folder, count, 2 * patch)
    ours = Pixels(cut, 1 << 34, 0)

    def theirs(picture: Picture) -> Any:
        return cut(images=[picture.image()], do_resize=False, return_tensors="pt")["pixel_values"]

    kept = theirs(shown[0])
    return {
        "size": [shown[0].width, shown[0].height],
        "theirs: decode": _each(shown, theirs),
        "theirs: numbers": _each(shown, lambda _: kept.to(torch.bfloat16)),
        "theirs: bytes": kept.nbytes,
        "ours: decode": _each(shown, ours._arranged),
        "ours: numbers": _each(shown, lambda p: ours.patches(p, torch.bfloat16, CPU)),  # decoded in the first round
        "ours: bytes": ours._arranged(shown[0]).nbytes,
    }


def _each(shown: list[Picture], work: Callable[[Picture], Any]) -> float:
    """Mean CPU seconds in a second round."""
    for picture in shown:
        work(picture)
    started = time.process_time()
    for picture in shown:
        work(picture)
    return (time.process_time() - started) / len(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screens", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    choices = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if choices.screens is None:
            record(Path(scratch), episodes=6, size=SIZE)
        folder = choices.screens or Path(scratch)
        found = {family: measure(folder, choices.count, patch) for family, patch in FAMILIES.items()}
    if choices.json:
        print(json.dumps(found, indent=1))
        return
    for family, row in found.items():
        print(family, *(f"{k} {v if isinstance(v, list | int) else round(v, 4)}" for k, v in row.items()), sep="\n  ")


if __name__ == "__main__":
    main()
