"""Screenshots as data URLs, each encoded once."""

from __future__ import annotations

import base64
import io
import threading

from guiderail.agent.cache import ByteCache
from guiderail.agent.types import Picture


class PictureCache:
    """Data URLs of resized screenshots, each encoded once. Beyond `limit` bytes the least recently used are dropped."""

    def __init__(self, limit: int):
        self._urls: ByteCache[tuple[str, int, int], str] = ByteCache(limit)
        self._lock = threading.Lock()
        self._encoding = [threading.Lock() for _ in range(16)]

    def url(self, picture: Picture) -> str:
        """As `encode`. Safe to call from many threads."""
        key = (picture.screenshot.digest, picture.width, picture.height)
        with self._encoding[hash(key) % 16]:  # the same screen waits for one encoding, other screens go on
            with self._lock:
                url = self._urls.get(key)
            if url is None:
                url = encode(picture)
                with self._lock:
                    self._urls.put(key, url, len(url))
            return url


def encode(picture: Picture) -> str:
    """A data URL of the screenshot at the model's size. Resized here, so that prompt and model agree on what a coordinate
    means; on this size the resize of the same rule changes nothing. Lossless."""
    buffer = io.BytesIO()
    picture.image().save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
