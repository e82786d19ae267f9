"""What others wrote, read within limits: files, pictures, and text that is shown on a terminal or a page."""

from __future__ import annotations

import io
import os
import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from guiderail.agent.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""Of pictures. Pillow would also start other programs (Ghostscript for EPS) and read formats that no screenshot has."""
MOST_PICTURE_BYTES, MOST_PIXELS = 2**26, 50_000_000


def read_file(
    path: Path, where: str, what: str = "screenshot", most: int = MOST_PICTURE_BYTES, hint: str = ""
) -> bytes:
    """The bytes of a regular file. where, what: for the message. hint: what the user can do. Raises DataError."""
    with open_file(path, where, what, most, hint) as file:
        return file.read(most + 1)


@contextmanager
def open_file(path: Path, where: str, what: str, most: int = MOST_PICTURE_BYTES, hint: str = "") -> Iterator[BinaryIO]:
    """A regular file, open. A pipe or a device, which might never end, is refused before it is opened. Raises DataError."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("not a regular file")
        if found.st_size > most:
            raise ValueError(f"{found.st_size} bytes, at most {most} are allowed")
        file = path.open("rb")
    except FileNotFoundError:
        raise DataError(where, f"{what} {_short(path)} is missing{hint}") from None
    except (OSError, ValueError) as error:  # ValueError also for a NUL in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DataError(where, f"{what} {_short(path)} cannot be read: {reason}{hint}") from None
    with file:
        yield file


def is_file(path: Path) -> bool:
    """As `Path.is_file`, and False for names that the system cannot have (too long, with a NUL)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def stays_in(folder: Path, path: Path) -> bool:
    """Whether `path` is inside `folder` once every link is followed. The links of a Hugging Face cache lead from a snapshot
    to the blobs of its own repository; these count as inside."""
    try:
        root = Path(os.path.realpath(folder))
        if "snapshots" in root.parts:
            repository = Path(*root.parts[: root.parts.index("snapshots")])
            root = repository if (repository / "blobs").is_dir() else root
        return Path(os.path.realpath(path)).is_relative_to(root)
    except (OSError, ValueError):
        return False


@contextmanager
def opened(
    source: bytes | BinaryIO, where: str, name: str, formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """A picture in one of the formats; what fails inside the block while it is decoded fails like the opening. name: for the
    message. Raises DataError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height}, at most {MOST_PIXELS} pixels are allowed")
            yield picture
    except UnidentifiedImageError:
        listed = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise DataError(where, f"{name} cannot be decoded: it is not a {listed} image") from None
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(where, f"{name} cannot be decoded: {error or type(error).__name__}") from None


_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow raises on pictures that are broken on purpose."""


def printable(text: str) -> str:
    """The text with every character that would steer a terminal or reorder what stands beside it as U+FFFD, one for one:
    control, format (bidirectional and zero-width) and private characters, halves of surrogate pairs. Line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(c) in _STEERING and c not in "\n\t" else c for c in text)


_STEERING = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 300 else f"{text[:200]}..."
