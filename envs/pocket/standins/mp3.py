"""Title, artist and length of an mp3 file: ID3v2 tags (id3.org, 2.3 and 2.4) and the header of its first audio frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

RATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""Bit rates of MPEG-1 layer III in kbit/s."""
LOW_RATES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Of MPEG-2 and 2.5 layer III."""
SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""By the version bits of a frame's header."""


@dataclass(frozen=True, slots=True)
class Song:
    title: str
    artist: str
    milliseconds: int


@lru_cache(maxsize=256)
def read_song(data: bytes, name: str) -> Song:
    """name: the title of a file without one. A length that cannot be read is 0."""
    tags, start = _tags(data)
    return Song(tags.get("TIT2", name), tags.get("TPE1", ""), _length(data, start))


def _tags(data: bytes) -> tuple[dict[str, str], int]:
    """Text frames, and where the tags end. Sizes have seven bits per byte, those of frames only since version 2.4."""
    if data[:3] != b"ID3" or len(data) < 10:
        return {}, 0
    end = min(10 + _seven(data[6:10]), len(data))
    found: dict[str, str] = {}
    at = 10
    while at + 10 < end and data[at] != 0:
        size = _seven(data[at + 4 : at + 8]) if data[3] >= 4 else int.from_bytes(data[at + 4 : at + 8], "big")
        body = data[at + 10 : min(at + 10 + size, end)]
        if data[at : at + 1] == b"T" and body:
            encoding = {0: "latin-1", 1: "utf-16", 2: "utf-16-be"}.get(body[0], "utf-8")
            found[data[at : at + 4].decode("latin-1")] = body[1:].decode(encoding, "replace").strip("\0")
        at += 10 + size
    return found, end


def _seven(four: bytes) -> int:
    return (four[0] << 21) | (four[1] << 14) | (four[2] << 7) | four[3]


def _length(data: bytes, start: int) -> int:
    """From the number of frames where the file gives it (a Xing or Info header), else from its size and bit rate."""
    at = data.find(b"\xff", start, start + 4096)
    if at < 0 or at + 4 > len(data) or data[at + 1] & 0xE6 != 0xE2:
        return 0
    version = (data[at + 1] >> 3) & 3
    rate, sample = data[at + 2] >> 4, (data[at + 2] >> 2) & 3
    if version not in SAMPLE_RATES or sample == 3 or not 0 < rate < 15:
        return 0
    frequency, samples = SAMPLE_RATES[version][sample], 1152 if version == 3 else 576
    for word in (b"Xing", b"Info"):
        place = data.find(word, at, at + 64)
        if place > 0 and place + 12 <= len(data) and data[place + 7] & 1:
            frames = int.from_bytes(data[place + 8 : place + 12], "big")
            return round(1000 * frames * samples / frequency)
    kilobits = (RATES if version == 3 else LOW_RATES)[rate]
    return round(8 * (len(data) - at) / kilobits)
