"""A cache holds what fits, drops what was used longest ago, and never drops the newest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.cache import ByteCache


@given(limit=st.integers(0, 20), uses=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=40))
def test_against_a_plain_list(limit: int, uses: list[tuple[int, int]]) -> None:
    cache: ByteCache[int, str] = ByteCache(limit)
    expected: list[tuple[int, int]] = []  # (key, size), least recently used first
    for key, size in uses:
        found = cache.get(key)
        known = [entry for entry in expected if entry[0] == key]
        assert found == (f"value {key}" if known else None)
        expected = [entry for entry in expected if entry[0] != key] + (known or [(key, size)])
        if not known:
            cache.put(key, f"value {key}", size)
            while sum(size for _, size in expected) > limit and len(expected) > 1:
                expected.pop(0)
        assert (len(cache), cache.held) == (len(expected), sum(size for _, size in expected))
