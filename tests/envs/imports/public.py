"""Writes files in the public schemas, byte by byte, from their specifications; shares no code with the readers."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

# CRC-32C bit by bit: polynomial 0x1EDC6F41 reflected.
_CRC = []
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = _value >> 1 ^ (0x82F63B78 if _value & 1 else 0)
    _CRC.append(_value)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(data: bytes, crc: Callable[[bytes], int] = crc32c) -> bytes:
    value = crc(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(payload: bytes, crc: Callable[[bytes], int] = crc32c) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload, crc)


def write_tfrecord(path: Path, payloads: Iterable[bytes], level: int = 1) -> Path:
    """A GZIP TFRecord file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"".join(record(payload) for payload in payloads), level))
    return path


# ------------------------------------------------------------------------------------------- tf.train.Example


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Sequence[Any], packed: bool = True) -> bytes:
    """tf.train.Feature: bytes_list 1, float_list 2, int64_list 3. `packed` False is what old writers produce."""
    if values and isinstance(values[0], bytes | str):
        return message(1, b"".join(message(1, v.encode() if isinstance(v, str) else v) for v in values))
    if values and isinstance(values[0], float):
        items = [struct.pack("<f", v) for v in values]
        return message(2, message(1, b"".join(items)) if packed else b"".join(varint(13) + v for v in items))
    items = [varint(v) for v in values]
    return message(3, message(1, b"".join(items)) if packed else b"".join(varint(8) + v for v in items))


def example(features: dict[str, Sequence[Any]], packed: bool = True) -> bytes:
    entries = (message(1, name.encode()) + message(2, feature(v, packed)) for name, v in features.items())
    return message(1, b"".join(message(1, entry) for entry in entries))


# ------------------------------------------------------------------------------------------------------ images


def png(width: int = 108, height: int = 240, text: str = "", noise: int | None = None) -> bytes:
    """A screen with words on it; noise: a seed for incompressible pixels."""
    image = Image.new("RGB", (width, height), "white")
    if noise is not None:
        pixels = np.random.default_rng(noise).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
    ImageDraw.Draw(image).text((4, 4), text, fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------- AndroidControl

Node = tuple[tuple[int, int, int, int], str]


def forest(*windows: tuple[int, Sequence[Node]], visible: bool = True) -> bytes:
    """An AndroidAccessibilityForest of (layer, nodes) windows; a node is (left, top, right, bottom) and its text."""
    from android_env.proto.a11y.android_accessibility_forest_pb2 import AndroidAccessibilityForest

    made = AndroidAccessibilityForest()
    for layer, nodes in windows:
        window = made.windows.add(layer=layer, window_type=1)
        for (left, top, right, bottom), text in nodes:
            node = window.tree.nodes.add(text=text, is_visible_to_user=visible)
            rect = node.bounds_in_screen
            rect.left, rect.top, rect.right, rect.bottom = left, top, right, bottom
    return bytes(made.SerializeToString())


ROW: Node = ((10, 40, 98, 80), "Row")
ICON: Node = ((20, 50, 40, 70), "Icon")
ROOT: Node = ((0, 0, 108, 240), "")

ALL_ACTIONS: tuple[dict[str, Any], ...] = (
    {"action_type": "open_app", "app_name": "Notes"},
    {"action_type": "click", "x": 30, "y": 60},
    {"action_type": "long_press", "x": 80, "y": 60},
    {"action_type": "scroll", "direction": "down"},
    {"action_type": "scroll", "direction": "up"},
    {"action_type": "scroll", "direction": "left"},
    {"action_type": "scroll", "direction": "right"},
    {"action_type": "input_text", "text": "Grüße"},
    {"action_type": "type", "x": 5, "y": 6, "text": "old"},
    {"action_type": "navigate_home"},
    {"action_type": "navigate_back"},
    {"action_type": "wait"},
)


def android_control(
    id_: int = 7,
    actions: Sequence[dict[str, Any]] = ALL_ACTIONS,
    goal: str = "Write a note",
    size: tuple[int, int] = (108, 240),
    shots: Sequence[bytes] | None = None,
    tree: bytes | None = None,
    without: Sequence[str] = (),
    packed: bool = True,
) -> bytes:
    """One record: T actions, T+1 screenshots and forests."""
    count = len(actions) + 1
    shots = shots if shots is not None else [png(*size, text=f"{id_} {i}") for i in range(count)]
    tree = tree if tree is not None else forest((0, [ROOT, ROW, ICON, ((50, 100, 70, 120), "notes")]))
    features: dict[str, Sequence[Any]] = {
        "episode_id": [id_],
        "goal": [goal],
        "screenshots": shots,
        "accessibility_trees": [tree] * count,
        "screenshot_widths": [size[0]] * count,
        "screenshot_heights": [size[1]] * count,
        "actions": [json.dumps(action) for action in actions],
        "step_instructions": [f"do {action['action_type']}" for action in actions],
    }
    if not actions:
        without = (*without, "actions", "step_instructions")  # an empty list feature is left out by the writers
    return example({name: v for name, v in features.items() if name not in without}, packed)


# --------------------------------------------------------------------------------------------------------- AITW


def aitw(
    episode: str = "e1",
    step: int = 0,
    length: int = 1,
    kind: int = 4,
    touch: tuple[float, float] = (0.25, 0.5),
    lift: tuple[float, float] = (0.25, 0.5),
    text: str = "",
    size: tuple[int, int] = (60, 120),
    boxes: Sequence[tuple[float, float, float, float]] = ((0.2, 0.4, 0.1, 0.2), (0.0, 0.0, 1.0, 1.0)),
    pixels: bytes | None = None,
    **changed: Sequence[Any],
) -> bytes:
    """One record = one step. touch, lift and boxes are y first; pixels raw (height, width, 3)."""
    width, height = size
    raw = np.full((height, width, 3), 200 + step, np.uint8)
    raw[-1, -1] = 0  # the payload ends in NUL bytes
    features: dict[str, Sequence[Any]] = {
        "episode_id": [episode],
        "step_id": [step],
        "episode_length": [length],
        "goal_info": ["look up the weather"],
        "android_api_level": [30],
        "current_activity": ["com.android.chrome"],
        "device_type": ["pixel_4"],
        "image/encoded": [raw.tobytes() if pixels is None else pixels],
        "image/height": [height],
        "image/width": [width],
        "image/channels": [3],
        "image/ui_annotations_positions": [float(v) for box in boxes for v in box],
        "image/ui_annotations_text": ["weather"] * len(boxes),
        "image/ui_annotations_ui_types": ["TEXT"] * len(boxes),
        "results/action_type": [kind],
        "results/type_action": [text],
        "results/yx_touch": [float(v) for v in touch],
        "results/yx_lift": [float(v) for v in lift],
    }
    return example({**features, **{name.replace("__", "/"): v for name, v in changed.items()}})
