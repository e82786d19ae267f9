"""Hostile values for hypothesis, and the two ways in which files are spoilt: as JSON, and byte by byte."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SHORT, LONG = 20, 600
"""Examples in CI, and behind `-m slow`."""

NASTY = (
    None, True, False, 0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", " ", "\0", "a\0b", "\ud800", "../../x",
    "/etc/passwd", "x" * 5000, "[/red]", "\x1b[2J", "\u202e", "<script>", [], {}, [[]], [None], {"": None}, {"action": None},
    [1], [1, 2], [1, 2, 3, 4], ["x"], [-1e300, 1e300], {"a": {"b": {"c": []}}},
)  # fmt: skip


def fuzz(count: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks, derandomize=count == SHORT)


def values() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.sampled_from(NASTY) | st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    )


@st.composite
def spoilt(draw: st.DrawFn, content: Any) -> Any:
    """The JSON value with one to three places changed, removed, or doubled."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from([*_places(content)] or [(None, None)]))
        if holder is None:
            return draw(values())
        what = draw(st.sampled_from(("change", "change", "change", "remove", "double")))
        if what == "change":
            holder[key] = copy.deepcopy(draw(values()))
        elif what == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[draw(st.text(max_size=10))] = copy.deepcopy(holder[key])
    return content


def _places(value: Any):
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some of them cut out, changed, or put in."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(made)))
        length = draw(st.integers(0, 12))
        made[start : start + length] = draw(st.binary(max_size=12))
    return bytes(made)


def line(content: Any) -> bytes:
    """As a file may hold it: halves of surrogate pairs escaped."""
    return json.dumps(content).encode() + b"\n"
