"""Groups between training processes, without the bytes of their screenshots.

Every screenshot is in the run's images folder before its group is sent, and a path stands for it. So what is exchanged does not
grow with the size of screens. On a host that does not share the folder, the files that are missing there are sent once.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guiderail.agent.types import Screenshot
from guiderail.rl.live.journal import keep_images


class ByReference:
    """An exchange of `rl.rollout.processes.Processes` over another. folder: of the images, HASH.png. All processes get the same
    values, their own included, with screenshots that are read from the folder when they are needed."""

    def __init__(self, exchange: Callable[[Any], list[Any]], folder: Path):
        self.exchange, self.folder = exchange, folder

    def __call__(self, item: Any) -> list[Any]:
        told = io.BytesIO()
        pickler = _Pickler(told)
        pickler.dump(item)
        keep_images(self.folder, pickler.images)
        known: dict[str, Screenshot] = {}
        values = [_Unpickler(io.BytesIO(text), self.folder, known).load() for text in self.exchange(told.getvalue())]
        self._fetch([digest for digest, shot in known.items() if not _path(shot).exists()], pickler.images)
        return values

    def _fetch(self, missing: list[str], images: dict[str, bytes]) -> None:
        wanted = {digest for one in self.exchange(missing) for digest in one}
        if wanted:
            sent = self.exchange({digest: images[digest] for digest in wanted & images.keys()})
            keep_images(self.folder, {digest: one[digest] for one in sent for digest in one if digest in missing})


def _path(shot: Screenshot) -> Path:
    assert shot.path is not None
    return shot.path


class _Pickler(pickle.Pickler):
    """images: what the references stand for."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.images: dict[str, bytes] = {}

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Screenshot) or value.data is None:
            return None
        self.images[value.digest] = value.data
        return value.digest, value.width, value.height


class _Unpickler(pickle.Unpickler):
    """known: equal screenshots become one object."""

    def __init__(self, file: io.BytesIO, folder: Path, known: dict[str, Screenshot]):
        super().__init__(file)
        self._folder, self._known = folder, known

    def persistent_load(self, name: Any) -> Screenshot:
        digest, width, height = name
        if digest not in self._known:
            self._known[digest] = Screenshot(width, height, self._folder / f"{digest}.png")
        return self._known[digest]
