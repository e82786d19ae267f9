"""Screenshots for the pages: each image once, named by the hash of its bytes, no wider than needed."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from guiderail.agent.errors import DataError
from guiderail.agent.untrusted import opened, read_file


@dataclass
class Images:
    """add(path) copies a screenshot to out/images and returns its file name there; None when it cannot be read.

    width: wider images are scaled down to it and stored as JPEG; other PNGs and JPEGs are copied as they are. missing: the
    files that could not be read.
    """

    out: Path
    width: int = 480
    missing: set[Path] = field(default_factory=set)
    _known: dict[Path, str | None] = field(default_factory=dict)

    def add(self, path: Path | None) -> str | None:
        if path is None:
            return None
        if self._known.get(path) is None:
            self._known[path] = self._store(path)
        if self._known[path] is None:
            self.missing.add(path)
        return self._known[path]

    def _store(self, path: Path) -> str | None:
        try:
            raw = read_file(path, str(path))
            with opened(raw, str(path), str(path), ("PNG", "JPEG")) as image:
                small = image.width <= self.width
                kind = "png" if small and image.format == "PNG" else "jpg"
                digest = hashlib.sha256(raw).hexdigest()[:32]
                name = f"{digest}.{kind}" if small else f"{digest}-{self.width}.{kind}"
                content = raw if small else self._scaled(image)
        except DataError:
            return None
        target = self.out / "images" / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return name

    def _scaled(self, image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        height = max(1, round(image.height * self.width / image.width))
        image.convert("RGB").resize((self.width, height), Image.Resampling.BOX).save(buffer, "JPEG", quality=82)
        return buffer.getvalue()
