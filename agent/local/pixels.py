"""Screenshots as patches: decoded ahead in threads, kept as bytes, normalised on the model's device in its own type.

One byte per colour is kept, 8 MB of a 1088x2400 screenshot. Normalised, in float32 and doubled for the two frames that the
models expect, it takes 63 MB. The image processor treats every colour by itself, so a table of what it makes of the 256
values of each channel gives its numbers exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guiderail.agent.cache import ByteCache
from guiderail.agent.errors import SetupError
from guiderail.agent.types import Picture

Key = tuple[str, int, int]


class Pixels:
    """Patches of screenshots, by content and size.

    max_bytes: bound of what is kept, the least recently used go first; as much again may be on its way. threads: decode what
    `ahead` names; with 0 nothing is decoded before it is asked for. Raises SetupError for an image processor of another kind.
    """

    def __init__(self, image_processor: Any, max_bytes: int, threads: int):
        self._patch, self._merge = int(image_processor.patch_size), int(image_processor.merge_size)
        self._frames = int(image_processor.temporal_patch_size)
        self._kept: ByteCache[Key, Tensor] = ByteCache(max_bytes)
        self._coming: dict[Key, Future[Tensor]] = {}
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._table = self._what_becomes_of_colours(image_processor)

    def __len__(self) -> int:
        """Screenshots kept."""
        return len(self._kept)

    def ahead(self, pictures: Iterable[Picture]) -> None:
        """Begin to decode what is neither kept nor on its way, as long as there is room."""
        if not self._threads:
            return
        self._pool = self._pool or ThreadPoolExecutor(self._threads, "screenshots")
        for key in [key for key, future in self._coming.items() if future.done()]:
            future = self._coming.pop(key)
            if future.exception() is None:  # else whoever asks for it is told
                self._keep(key, future.result())
        room = self._kept.limit - sum(3 * key[1] * key[2] for key in self._coming)
        for picture in pictures:
            key, room = _key(picture), room - 3 * picture.width * picture.height
            if room < 0:
                return
            if key not in self._coming and self._kept.get(key) is None:
                self._coming[key] = self._pool.submit(self._arranged, picture)

    def patches(self, picture: Picture, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(patches, channels * frames * patch^2), in the image processor's order. Raises as `Picture.image` does."""
        key = _key(picture)
        if (kept := self._kept.get(key)) is None:
            future = self._coming.pop(key, None)
            kept = self._keep(key, self._arranged(picture) if future is None else future.result())
        table = self._table.to(device, dtype)
        colours = kept.to(device)
        made = [table[channel][colours[:, channel].int()] for channel in range(3)]
        return torch.stack(made, 1)[:, :, None].expand(-1, -1, self._frames, -1).reshape(len(colours), -1)

    def _keep(self, key: Key, patches: Tensor) -> Tensor:
        self._kept.put(key, patches, patches.nbytes)
        return patches

    def _arranged(self, picture: Picture) -> Tensor:
        """(patches, channels, patch^2), uint8. In a thread: it touches nothing of this object that changes."""
        return self._in_patches(np.asarray(picture.image()))

    def _in_patches(self, image: np.ndarray[Any, Any]) -> Tensor:
        """image: (height, width, channels). The merger's neighbours follow one another."""
        rows, columns = (side // self._patch for side in image.shape[:2])
        m, p = self._merge, self._patch
        parts = image.reshape(rows // m, m, p, columns // m, m, p, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        return torch.from_numpy(np.ascontiguousarray(parts).reshape(rows * columns, 3, p * p))

    def _what_becomes_of_colours(self, image_processor: Any) -> Tensor:
        """(channels, 256), float32: the processor's numbers, read off a picture that shows all values in no order."""
        side = max(16, 2 * self._patch * self._merge)
        values, random = np.resize(np.arange(256, dtype=np.uint8), side**2), np.random.default_rng(0)
        picture = np.stack([random.permutation(values).reshape(side, side) for _ in range(3)], -1)
        theirs = image_processor(images=[picture], do_resize=False, return_tensors="pt")["pixel_values"]
        ours = self._in_patches(picture)
        if theirs.shape == (len(ours), 3 * self._frames * self._patch**2):
            shown = theirs.reshape(len(ours), 3, self._frames, -1)
            table = torch.empty(3, 256)
            for channel in range(3):
                table[channel][ours[:, channel].int()] = shown[:, channel, 0]
            again = torch.stack([table[channel][ours[:, channel].int()] for channel in range(3)], 1)
            if torch.equal(again[:, :, None].expand_as(shown), shown):
                return table
        raise SetupError(
            f"{type(image_processor).__name__} does not cut pictures as Qwen2.5-VL and Qwen3-VL do; use the image "
            "processor of such a checkpoint"
        )


def _key(picture: Picture) -> Key:
    return picture.screenshot.digest, picture.width, picture.height
