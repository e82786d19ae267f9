"""The bundle as a file: one canonical zip for given contents, and a reader that refuses everything else.

Members are stored, sorted, dated 1980, without extras; names come from a closed list. So a path cannot escape, nothing can
expand, and two archives with the same contents are the same bytes. No member is ever written to disk.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.errors import DataError, SetupError

MANIFEST, ATTEMPTS, SUMS, SIGNATURE = "manifest.json", "attempts.jsonl", "SHA256SUMS", "SIGNATURE.json"
SCREENSHOT = re.compile(r"screenshots/([0-9a-f]{64})\.png")
MOST_MEMBERS, MOST_BYTES, MOST_PIXELS, MOST_SIDE = 65_000, 2**32 - 2**26, 40_000_000, 16_384
LIMITS = {MANIFEST: 2**26, ATTEMPTS: 2**31, SUMS: 2**24, SIGNATURE: 2**12}
_SCREENSHOT_LIMIT = 2**26
_DATE = 0x21  # 1980-01-01, the first day a zip can name
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")


class Refused(DataError):
    """This is not a bundle, or one that was tampered with. `where` names archive and member."""


def pieces(members: Mapping[str, bytes]) -> Iterator[bytes]:
    """The archive, in order: every part of its canonical form."""
    directory, offset = [], 0
    for name in sorted(members):
        data, path = members[name], name.encode("ascii")
        same = (20, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(path), 0)
        yield _LOCAL.pack(0x04034B50, *same) + path
        yield data
        unix_file = 0o100644 << 16
        directory.append(_CENTRAL.pack(0x02014B50, 0x0314, *same, 0, 0, 0, unix_file, offset) + path)
        offset += _LOCAL.size + len(path) + len(data)
    listing = b"".join(directory)
    yield listing
    yield _END.pack(0x06054B50, 0, 0, len(directory), len(directory), len(listing), offset, 0)


def write(path: Path, members: Mapping[str, bytes]) -> None:
    """Whole or not at all. Raises SetupError for more than a bundle may hold."""
    if len(members) > MOST_MEMBERS or sum(map(len, members.values())) > MOST_BYTES:
        raise SetupError(f"a bundle holds at most {MOST_MEMBERS} files and {MOST_BYTES} bytes; split the run")
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        for piece in pieces(members):
            file.write(piece)
    partial.replace(path)


def read(path: Path) -> dict[str, bytes]:
    """All members in memory. Raises Refused."""
    if not path.is_file():
        raise SetupError(f"no bundle at {path}; make one with: guiderail submit build RUN --out {path}")
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
            if len(listed) > MOST_MEMBERS:
                raise Refused(str(path), f"{len(listed)} members, at most {MOST_MEMBERS} are allowed")
            _check_list(path, listed, size)
            members = {info.filename: archive.read(info) for info in listed}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, struct.error) as error:
        raise Refused(str(path), f"not a sound archive: {error}") from None
    except (OSError, ValueError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise Refused(str(path), f"not a sound archive: {error}") from None
    _check_layout(path, members)
    return members


def _check_list(path: Path, listed: list[zipfile.ZipInfo], size: int) -> None:
    """Everything that can be told before a byte of a member is read."""
    seen: set[str] = set()
    for info in listed:
        where = f"{path}: member {info.filename[:200]!r}"
        limit = _SCREENSHOT_LIMIT if SCREENSHOT.fullmatch(info.filename) else LIMITS.get(info.filename)
        if info.orig_filename != info.filename or limit is None:
            raise Refused(where, "a bundle has no member of that name")
        if info.filename in seen:
            raise Refused(where, "named twice")
        seen.add(info.filename)
        if (info.external_attr >> 16) & 0o170000 != 0o100000:
            raise Refused(where, "not a plain file")
        if info.flag_bits or info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise Refused(where, "compressed or encrypted; members are stored as they are")
        if info.file_size > limit:
            raise Refused(where, f"{info.file_size} bytes, at most {limit} are allowed")
    if sum(info.file_size for info in listed) > size:
        raise Refused(str(path), "its members overlap")
    for name in (MANIFEST, ATTEMPTS, SUMS):
        if name not in seen:
            raise Refused(str(path), f"{name} is missing")


def _check_layout(path: Path, members: Mapping[str, bytes]) -> None:
    """Byte for byte the canonical archive of these members: nothing hides in comments, gaps or a prefix."""
    with path.open("rb") as file:
        for piece in pieces(members):
            start = file.tell()
            if file.read(len(piece)) != piece:
                raise Refused(f"{path}: byte {start}", "not the canonical layout of a bundle (extra or reordered data)")
        if file.read(1):
            raise Refused(f"{path}: byte {file.tell() - 1}", "data after the end of the archive")


# ---------------------------------------------------------------------------------------------------------------- sums


def sums(members: Mapping[str, bytes]) -> bytes:
    """SHA256SUMS of all members it covers."""
    covered = sorted(set(members) - {SUMS, SIGNATURE})
    return "".join(f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in covered).encode()


def root(members: Mapping[str, bytes]) -> str:
    return hashlib.sha256(members[SUMS]).hexdigest()


def wrong_sums(members: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """(member, what is wrong) wherever SHA256SUMS and the members disagree."""
    if members[SUMS] == sums(members):
        return []
    listed: dict[str, str] = {}
    for number, line in enumerate(members[SUMS].decode("utf-8", "replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if name in listed or not re.fullmatch("[0-9a-f]{64}", digest):
            return [(f"{SUMS}:{number}", "expected one line of SHA-256, two blanks and name per member")]
        listed[name] = digest
    found = dict(line.split("  ")[::-1] for line in sums(members).decode().splitlines())
    wrong = [
        (n, f"SHA-256 is {found[n]}, listed as {listed[n]}") for n in found if n in listed and found[n] != listed[n]
    ]
    wrong += [(name, "not listed in SHA256SUMS") for name in sorted(found.keys() - listed.keys())]
    wrong += [(name[:100], "listed in SHA256SUMS but missing") for name in sorted(listed.keys() - found.keys())]
    return wrong or [(SUMS, "not in the canonical order")]


def picture_problem(data: bytes) -> str | None:
    """What is wrong with a PNG, from its header alone; no pixel is decoded."""
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return "not a PNG"
    width, height = struct.unpack(">II", data[16:24])
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE and width * height <= MOST_PIXELS):
        return f"{width}x{height} pixels, at most {MOST_SIDE} a side and {MOST_PIXELS} in all are allowed"
    return None
