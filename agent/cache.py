"""A cache bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Values by key, up to `limit` bytes; the least recently used are dropped first. The newest is kept whatever its size.

    held: bytes in the cache. Not safe for use from several threads.
    """

    def __init__(self, limit: int):
        self.limit, self.held = limit, 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K) -> V | None:
        """The value, which then counts as just used; None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """size: in bytes. The key must be new."""
        self._values[key] = value, size
        self.held += size
        while self.held > self.limit and len(self._values) > 1:
            self.held -= self._values.popitem(last=False)[1][1]
