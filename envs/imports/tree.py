"""Target boxes from recorded accessibility forests (AndroidControl), read with android_env's own protos."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.origin import install
from guiderail.envs.imports.draft import PixelBox, clipped, enclosing

_OVERLAY = 4  # AndroidAccessibilityWindowInfo.TYPE_ACCESSIBILITY_OVERLAY: drawn by the recorder, not part of any app


def parse_forest(data: bytes | memoryview, where: str) -> Any:
    """An AndroidAccessibilityForest message. Raises SetupError without android-env, DataError for other bytes."""
    try:
        from android_env.proto.a11y.android_accessibility_forest_pb2 import AndroidAccessibilityForest
    except ImportError:
        raise SetupError(
            "boxes come from accessibility trees, which android-env can read; import with --no-boxes, "
            f"or run: {install('data')}"
        ) from None
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    try:
        return AndroidAccessibilityForest.FromString(bytes(data))
    except decode_error as error:
        raise DataError(
            where, f"the accessibility tree of {len(data)} bytes is not an AndroidAccessibilityForest: {error}"
        ) from None


def boxes_at(forest: Any, point: tuple[float, float], screen: tuple[int, int]) -> list[PixelBox]:
    """Visible nodes that hold the point, smallest first, of the frontmost window that has a real target.

    A node behind the keyboard or a dialog may be smaller than the key that was pressed, so windows are tried from the front.
    A window that has only boxes of half the screen or more (a transparent cover) does not count. When no window has a
    smaller box, the nodes of all windows are taken together.
    """
    nodes: list[PixelBox] = []
    for layer in sorted({w.layer for w in forest.windows}, reverse=True):
        here = [_rect(node) for node in _visible(forest, layer)]
        nodes += here
        found = enclosing(here, point, screen)
        if found and 2 * (found[0][2] - found[0][0]) * (found[0][3] - found[0][1]) < screen[0] * screen[1]:
            return found
    return enclosing(nodes, point, screen)


def boxes_named(forest: Any, name: str, screen: tuple[int, int]) -> list[PixelBox]:
    """Visible nodes whose text or description is `name`, ignoring case: the icon of an app to open."""
    wanted = name.strip().casefold()
    found: dict[PixelBox, None] = {}
    for layer in sorted({w.layer for w in forest.windows}, reverse=True):
        for node in _visible(forest, layer):
            if wanted and wanted in (node.text.strip().casefold(), node.content_description.strip().casefold()):
                found |= dict.fromkeys(clipped([_rect(node)], screen))
    return list(found)


def _visible(forest: Any, layer: int) -> Iterator[Any]:
    for window in forest.windows:
        if window.layer == layer and window.window_type != _OVERLAY:
            yield from (node for node in window.tree.nodes if node.is_visible_to_user)


def _rect(node: Any) -> PixelBox:
    rect = node.bounds_in_screen
    return rect.left, rect.top, rect.right, rect.bottom
