"""The bundle as a file: one canonical zip for given contents, and a reader that refuses everything else.

Members are stored, sorted, dated 1980, without extras; names come from a closed list. So a path cannot escape, nothing can
expand, and two archives with the same contents are the same bytes. No member is ever written to disk, and memory holds the text
members alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from guiderail.agent.disk import write_pieces
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.untrusted import is_file

MANIFEST, ATTEMPTS, SUMS, SIGNATURE = "manifest.json", "attempts.jsonl", "SHA256SUMS", "SIGNATURE.json"
SCREENSHOT = re.compile(r"screenshots/([0-9a-f]{64})\.png")
MOST_MEMBERS, MOST_BYTES, MOST_PIXELS, MOST_SIDE = 65_000, 2**32 - 2**26, 40_000_000, 16_384
LIMITS = {MANIFEST: 2**23, ATTEMPTS: 2**26, SUMS: 2**24, SIGNATURE: 2**12}
_LONGEST_NAME = len("screenshots/.png") + 64
_SCREENSHOT_LIMIT = 2**26
_DATE = 0x21  # 1980-01-01, the first day a zip can name
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_CENTRAL_MAGIC = 0x02014B50


class Refused(DataError):
    """This is not a bundle, or one that was tampered with. `where` names archive and member."""


def pieces(members: Mapping[str, bytes]) -> Iterator[bytes]:
    """The archive, in order: every part of its canonical form."""
    directory, offset = [], 0
    for name in sorted(members):
        local, central = _heads(name, members[name], offset)
        yield local
        yield members[name]
        directory.append(central)
        offset += len(local) + len(members[name])
    yield b"".join(directory)
    yield _end(directory, offset)


def _heads(name: str, data: bytes, offset: int) -> tuple[bytes, bytes]:
    """The member's local header and its entry in the central directory."""
    path = name.encode("ascii")
    same = (20, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(path), 0)
    central = _CENTRAL.pack(_CENTRAL_MAGIC, 0x0314, *same, 0, 0, 0, 0o100644 << 16, offset)
    return _LOCAL.pack(0x04034B50, *same) + path, central + path


def _end(directory: Sequence[bytes], offset: int) -> bytes:
    count, length = len(directory), sum(map(len, directory))
    return _END.pack(0x06054B50, 0, 0, count, count, length, offset, 0)


def write(path: Path, members: Mapping[str, bytes]) -> None:
    """Whole or not at all. Raises SetupError for more than a bundle may hold."""
    if len(members) > MOST_MEMBERS or sum(map(len, members.values())) > MOST_BYTES:
        raise SetupError(f"a bundle holds at most {MOST_MEMBERS} files and {MOST_BYTES} bytes; split the run")
    for name, limit in LIMITS.items():
        if len(members.get(name, b"")) > limit:
            raise SetupError(f"{name} has {len(members[name])} bytes, a bundle's has at most {limit}; split the run")
    write_pieces(path, pieces(members))


@dataclass(frozen=True)
class Contents:
    """What an archive holds. texts: the members that are not screenshots. digests: SHA-256 of every member that SHA256SUMS covers,
    by name, sorted. wrong: name -> what is wrong with a screenshot, for those that are not one."""

    texts: Mapping[str, bytes]
    digests: Mapping[str, str]
    wrong: Mapping[str, str]

    @property
    def root(self) -> str:
        return hashlib.sha256(self.texts[SUMS]).hexdigest()


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    size: int


def read(path: Path) -> Contents:
    """Read and check the form. A screenshot is looked at and let go, so memory does not grow with them. Raises Refused."""
    if not is_file(path):
        raise SetupError(f"no bundle at {path}; make one with: guiderail submit build RUN --out {path}")
    with path.open("rb") as file:
        listed, raw = _directory(path, file)
        _check_list(path, listed)
        return _walked(path, file, listed, raw)


def _directory(path: Path, file: BinaryIO) -> tuple[list[_Listed], bytes]:
    """The central directory: its entries, and its bytes with the record that ends the archive. That record says how many entries
    there are; it is read first, and a list that could not be a bundle's is never made."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    end = file.read()
    if len(end) < _END.size or end[:4] != b"PK\5\6":
        raise Refused(str(path), "not a zip archive, or one with data after the end of the archive")
    _, _, _, _, count, length, start, _ = _END.unpack(end)
    if count > MOST_MEMBERS or length > count * (_CENTRAL.size + _LONGEST_NAME):
        raise Refused(
            str(path), f"a list of {count} members and {length} bytes, at most {MOST_MEMBERS} members are allowed"
        )
    if start + length + _END.size != size:
        raise Refused(str(path), "not the canonical layout of a bundle (its list is not where it belongs)")
    file.seek(start)
    raw = file.read(length)
    return [*_entries(path, raw, count)], raw + end


def _entries(path: Path, raw: bytes, count: int) -> Iterator[_Listed]:
    """Each entry, checked as far as the list alone allows."""
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(raw):
            raise Refused(str(path), "its list is cut off")
        (magic, _, _, flags, how, _, _, _, packed, size, length, *_, mode, _) = _CENTRAL.unpack_from(raw, position)
        name = raw[position + _CENTRAL.size : position + _CENTRAL.size + length].decode("utf-8", "replace")
        position += _CENTRAL.size + length
        where = f"{path}: member {name[:200]!r}"
        limit = _SCREENSHOT_LIMIT if SCREENSHOT.fullmatch(name) else LIMITS.get(name)
        if magic != _CENTRAL_MAGIC or limit is None:
            raise Refused(where, "a bundle has no member of that name")
        if mode >> 16 & 0o170000 != 0o100000:
            raise Refused(where, "not a plain file")
        if flags or how or packed != size:
            raise Refused(where, "compressed or encrypted; members are stored as they are")
        if size > limit:
            raise Refused(where, f"{size} bytes, at most {limit} are allowed")
        yield _Listed(name, size)


def _check_list(path: Path, listed: Sequence[_Listed]) -> None:
    names = [one.name for one in listed]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise Refused(f"{path}: member {twice!r}", "named twice")
    for name in (MANIFEST, ATTEMPTS, SUMS):
        if name not in names:
            raise Refused(str(path), f"{name} is missing")
    if names != sorted(names):
        raise Refused(str(path), "not the canonical layout of a bundle (its members are not sorted)")


def _walked(path: Path, file: BinaryIO, listed: Sequence[_Listed], end: bytes) -> Contents:
    """Byte for byte the canonical archive of these members: nothing hides in comments, gaps or a prefix."""
    file.seek(0)
    texts: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    wrong: dict[str, str] = {}
    directory: list[bytes] = []
    for one in listed:
        start = file.tell()
        head, data = file.read(_LOCAL.size + len(one.name)), file.read(one.size)
        local, central = _heads(one.name, data, start)
        if head != local or len(data) != one.size:
            raise Refused(
                f"{path}: byte {start}",
                f"member {one.name!r} is not in the canonical layout of a bundle, or was changed",
            )
        directory.append(central)
        if one.name not in (SUMS, SIGNATURE):
            digests[one.name] = hashlib.sha256(data).hexdigest()
        if (match := SCREENSHOT.fullmatch(one.name)) is None:
            texts[one.name] = data
        elif digests[one.name] != match[1]:
            wrong[one.name] = "its bytes are not those its name stands for"
        elif (what := picture_problem(data)) is not None:
            wrong[one.name] = what
    if b"".join([*directory, _end(directory, file.tell())]) != end or file.read() != end:
        raise Refused(str(path), "not the canonical layout of a bundle (extra or reordered data)")
    return Contents(texts, digests, wrong)


# ---------------------------------------------------------------------------------------------------------------- sums


def sums(digests: Mapping[str, str]) -> bytes:
    """SHA256SUMS. digests: SHA-256 by member name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def digests(members: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of all members that SHA256SUMS covers."""
    return {name: hashlib.sha256(members[name]).hexdigest() for name in sorted(set(members) - {SUMS, SIGNATURE})}


def root(members: Mapping[str, bytes]) -> str:
    return hashlib.sha256(members[SUMS]).hexdigest()


def wrong_sums(found: Contents) -> Iterator[tuple[str, str]]:
    """(member, what is wrong) wherever SHA256SUMS and the members disagree."""
    text, here = found.texts[SUMS], found.digests
    if text == sums(here):
        return
    listed: dict[str, str] = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if name in listed or not re.fullmatch("[0-9a-f]{64}", digest):
            yield f"{SUMS}:{number}", "expected one line of SHA-256, two blanks and name per member"
            return
        listed[name] = digest
    if listed == here:
        yield SUMS, "not in the canonical order"
    for name in [*here, *(name for name in listed if name not in here)]:
        if name not in listed:
            yield name, "not listed in SHA256SUMS"
        elif name not in here:
            yield name[:100], "listed in SHA256SUMS but missing"
        elif here[name] != listed[name]:
            yield name, f"SHA-256 is {here[name]}, listed as {listed[name]}"


def picture_problem(data: bytes) -> str | None:
    """What is wrong with a PNG: its header, and that its parts are whole and in order. No pixel is decoded."""
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[8:16] != b"\0\0\0\rIHDR":
        return "not a PNG"
    width, height = struct.unpack(">II", data[16:24])
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE and width * height <= MOST_PIXELS):
        return f"{width}x{height} pixels, at most {MOST_SIDE} a side and {MOST_PIXELS} in all are allowed"
    kinds: list[bytes] = []
    position = 8
    while position + 12 <= len(data) and len(kinds) <= 32 + len(data) // 1024:
        (length,) = struct.unpack_from(">I", data, position)
        stop = position + 8 + length
        kinds.append(data[position + 4 : position + 8])
        if data[stop : stop + 4] != struct.pack(">I", zlib.crc32(data[position + 4 : stop])):
            return f"its part {len(kinds)} is damaged"
        position = stop + 4
        if kinds[-1] == b"IEND":
            break
    if position != len(data) or kinds[-1] != b"IEND" or b"IDAT" not in kinds:
        return "a PNG without pixels, or cut off, or with data after its end"
    return None
