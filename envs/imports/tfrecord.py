"""TFRecord files of tf.train.Example, read one record at a time, without TensorFlow.

A record is: length (u64 little endian), masked CRC-32C of those 8 bytes, payload, masked CRC-32C of the payload. The file
is GZIP or plain. Memory is one record, whatever the size of the file, and a compressed file may expand about MOST_RATIO times.
"""

from __future__ import annotations

import importlib
import os
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.origin import install

Values = list[memoryview] | list[int] | list[float]
Example = dict[str, Values]

_CHUNK = 1 << 18
_LARGEST = 1 << 29  # an episode of AndroidControl has up to 100 MB
MOST_RATIO, _FREE = 64, 1 << 26
"""A compressed file may expand by this factor beyond its first _FREE bytes; screenshots are PNG, or pixels with little in them."""
_MOST_VALUES = 1 << 18  # of all features of a record: each becomes a Python object


class TFRecords:
    """Iterate the payloads of one file, in order. `consumed` is the position in the file on disk, for progress bars.

    check: also verify the CRC of payloads; the CRC of lengths is always verified, because a wrong length would be an
    allocation of any size. Raises DataError "file:record" for a truncated file, broken compression or a wrong CRC.
    """

    def __init__(self, path: Path, check: bool = True):
        self.path = path
        self.consumed = 0
        self.number = 0
        self._check = check

    @property
    def where(self) -> str:
        """The record that was read last, counted from 1."""
        return f"{self.path}:{self.number}"

    def __iter__(self) -> Iterator[memoryview]:
        with self.path.open("rb") as file:
            stream = _Plain(file) if _is_plain(file) else _Gunzip(file)
            head = bytes(self._read(stream, 12, "a record"))
            while head:
                self.number += 1
                if len(head) < 12:
                    raise DataError(self.where, f"the file ends inside a record's head ({len(head)} of 12 bytes)")
                (length,) = struct.unpack_from("<Q", head)
                if unmask(head[8:12]) != crc32c(head[:8]):
                    raise DataError(self.where, "wrong CRC of the record's length: damaged file, download it again")
                if length > _LARGEST:
                    raise DataError(self.where, f"a record of {length} bytes, expected at most {_LARGEST}")
                # The next head is read with the payload, because every read of the stream copies what is left over.
                block = memoryview(self._read(stream, length + 16, f"a record of {length} bytes")).toreadonly()
                if len(block) < length + 4:
                    raise DataError(self.where, f"the file ends after {len(block)} of {length + 4} bytes of a record")
                payload, head = block[:length], bytes(block[length + 4 :])
                if self._check and unmask(block[length : length + 4]) != crc32c(payload):
                    raise DataError(self.where, "wrong CRC of the record: damaged file, download it again")
                self.consumed = file.tell()
                yield payload

    def _read(self, stream: _Gunzip | _Plain, size: int, what: str) -> bytes | bytearray:
        try:
            return stream.read(size)
        except EOFError:
            raise DataError(
                self._next(), f"the compressed file ends inside {what}: truncated, download it again"
            ) from None
        except zlib.error as error:
            raise DataError(self._next(), f"broken compression inside {what}: {error}") from None
        except OverflowError:
            raise DataError(
                self._next(), f"{what} expands more than {MOST_RATIO} times: not a file of screenshots"
            ) from None

    def _next(self) -> str:
        return f"{self.path}:{max(1, self.number)}"


def crc32c(data: bytes | memoryview) -> int:
    """The Castagnoli CRC. Raises SetupError without google-crc32c."""
    found, library = 0, _library()
    for start in range(0, len(data), _CHUNK):
        found = library.extend(found, bytes(data[start : start + _CHUNK]))
    return int(found)


@cache
def _library() -> Any:
    try:
        return importlib.import_module("google_crc32c")
    except ImportError:
        raise SetupError(
            f"TFRecord files have CRC-32C checksums, which need google-crc32c; run: {install('data')}"
        ) from None


def unmask(stored: bytes | memoryview) -> int:
    """The CRC from its stored form: rotated by 15 bits plus a constant, so that data that hold CRCs can be checked too."""
    rotated = (int.from_bytes(stored, "little") - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _is_plain(file: BinaryIO) -> bool:
    """A file that starts like GZIP is plain nevertheless when its first 12 bytes are a record's head."""
    head = file.read(12)
    file.seek(0)
    return head[:2] != b"\x1f\x8b" or (len(head) == 12 and unmask(head[8:]) == crc32c(head[:8]))


class _Plain:
    def __init__(self, file: BinaryIO):
        self._file, self._left = file, os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Gunzip:
    """GZIP without gzip.GzipFile, whose buffers make it 2.6 times slower. Several members in a row are one stream."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._inflate = zlib.decompressobj(31)
        self._raw = b""
        self._fresh = True
        self._made = 0

    def read(self, size: int) -> bytes | bytearray:
        """`size` bytes, fewer at the end. EOFError when the compressed data stop in the middle, OverflowError when they expand
        too far."""
        data = bytearray()
        missing = size
        while missing:
            if self._inflate.eof:
                self._raw, self._fresh, self._inflate = self._inflate.unused_data, True, zlib.decompressobj(31)
            raw = self._raw or self._file.read(_CHUNK)
            if self._fresh:
                raw = raw.lstrip(b"\0")  # padding after a member is allowed
            if not raw:
                if self._fresh and not self._file.peek(1):  # type: ignore[attr-defined]
                    break
                if not self._fresh:
                    raise EOFError
                continue
            self._fresh = False
            part = self._inflate.decompress(raw, min(missing, _CHUNK * 16))
            self._raw = self._inflate.unconsumed_tail
            missing -= len(part)
            self._made += len(part)
            if self._made > _FREE + MOST_RATIO * (self._file.tell() - len(self._raw)):
                raise OverflowError
            if not data and not missing:
                return part
            data += part
        return data


# ------------------------------------------------------------------------------------------------ tf.train.Example


def parse_example(payload: memoryview, where: str) -> Example:
    """The features of a serialized tf.train.Example by name; bytes as views into the payload, nothing stripped.

    A feature that is present but holds nothing is an empty list. Raises DataError when the bytes are not an Example.
    """
    try:
        found: Example = {}
        left = _MOST_VALUES
        for features in _fields(payload, 1):
            for entry in _fields(features, 1):
                name = b"".join(_fields(entry, 1)).decode()
                values = (value for feature in _fields(entry, 2) for value in _values(feature))
                found[name] = list(islice(values, left + 1))  # type: ignore[assignment]
                left -= 1 + len(found[name])
                if left < 0:
                    raise ValueError(f"more than {_MOST_VALUES} values")
        return found
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(where, f"the record is not a tf.train.Example ({error})") from None


def _values(feature: memoryview) -> Iterator[memoryview | int | float]:
    for value in _fields(feature, 1):
        yield from _fields(value, 1)
    for value in _fields(feature, 2):
        for wire, item in _wire(value):
            yield from (number for (number,) in struct.iter_unpack("<f", item)) if wire in (2, 5) else ()
    for value in _fields(feature, 3):
        for wire, item in _wire(value):
            yield from _integers(item) if wire in (0, 2) else ()


def _fields(message: memoryview, number: int) -> Iterator[memoryview]:
    """The length-delimited values of field `number`."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        start, position = _skip(message, position, tag & 7)
        if tag == number << 3 | 2:
            yield message[start:position]


def _wire(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(wire type, bytes) of each value of field 1: packed lists come as one value, unpacked ones as many."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        start, position = _skip(message, position, tag & 7)
        if tag >> 3 == 1:
            yield tag & 7, message[start:position]


def _skip(message: memoryview, position: int, wire: int) -> tuple[int, int]:
    """Where the value at `position` starts (after its length) and ends."""
    if wire == 2:
        size, position = _varint(message, position)
        end = position + size
    elif wire == 0:
        end = _varint(message, position)[1]
    elif wire in (1, 5):
        end = position + (8 if wire == 1 else 4)
    else:
        raise ValueError(f"wire type {wire}")
    if end > len(message):
        raise ValueError(f"a value of {end - position} bytes where {len(message) - position} are left")
    return position, end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number of more than 10 bytes")


def _integers(packed: memoryview) -> Iterator[int]:
    """int64: negative numbers are stored as their two's complement."""
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        value &= 0xFFFFFFFFFFFFFFFF
        yield value - (1 << 64) if value >> 63 else value


def floats(values: Values) -> np.ndarray:
    """float32 values as an array, shape (n,)."""
    return np.asarray(values, np.float32)
