"""A phone's storage: folders and files in memory, with the several names that Android gives to the shared storage."""

from __future__ import annotations

import fnmatch
import posixpath
from dataclasses import dataclass, field

SHARED = "/storage/emulated/0"
PUBLIC = "Alarms Android Audiobooks DCIM Documents Download Movies Music Notifications Pictures Podcasts Recordings Ringtones"
LIMIT = 64 * 2**20
"""Most bytes that a phone stores. Beyond that it answers like a full phone."""


class FileError(Exception):
    """The message of a command about a path."""


@dataclass
class Files:
    """Paths are absolute; `content` holds (bytes, time of change in seconds since 1970) by path. limit: most bytes that are stored."""

    content: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/data/data", "/data/local/tmp", SHARED})
    limit: int = LIMIT

    def __post_init__(self) -> None:
        self.folders |= {f"{SHARED}/{name}" for name in PUBLIC.split()}

    def __getitem__(self, path: str) -> bytes:
        """Content of a file. Raises FileError."""
        entry = self.content.get(real(path))
        if entry is None:
            raise FileError(f"{path}: {'Is a directory' if self.is_folder(path) else 'No such file or directory'}")
        return entry[0]

    def get(self, path: str) -> bytes:
        """Content of a file; empty where there is none."""
        return self.content.get(real(path), (b"", 0.0))[0]

    def __contains__(self, path: str) -> bool:
        return real(path) in self.content

    def is_folder(self, path: str) -> bool:
        inside = real(path).rstrip("/") + "/"
        return inside == "/" or any(f + "/" == inside or f.startswith(inside) for f in self.folders)

    def changed(self, path: str) -> float:
        return self.content[real(path)][1]

    def write(self, path: str, data: bytes, now: float) -> None:
        """Make or replace a file; its folder must exist and be writable. Raises FileError."""
        place = real(path)
        if self.is_folder(place):
            raise FileError(f"{path}: Is a directory")
        if not place.startswith(("/data/", f"{SHARED}/")):
            raise FileError(f"{path}: Read-only file system")
        if not self.is_folder(posixpath.dirname(place)):
            raise FileError(f"{path}: No such file or directory")
        if sum(len(old) for old, _ in self.content.values()) + len(data) > self.limit:
            raise FileError(f"{path}: No space left on device")
        self.content[place] = data, now

    def make_folder(self, path: str) -> None:
        """Make a folder and its parents. Raises FileError where a file is in the way."""
        place = real(path)
        if place in self.content:
            raise FileError(f"{path}: File exists")
        if not place.startswith(("/data/", f"{SHARED}/")) and not self.is_folder(place):
            raise FileError(f"{path}: Read-only file system")
        self.folders.add(place)

    def names(self, folder: str) -> list[str]:
        """What a folder holds, in order."""
        inside = real(folder).rstrip("/") + "/"
        return sorted({p[len(inside) :].split("/")[0] for p in [*self.content, *self.folders] if p.startswith(inside)})

    def under(self, path: str) -> list[str]:
        """The path itself and everything below it, as real paths."""
        place = real(path).rstrip("/") or "/"
        inside = place.rstrip("/") + "/"
        return [place, *sorted(p for p in {*self.content, *self.folders} if p.startswith(inside))]

    def remove(self, path: str, recursive: bool = False) -> None:
        """Raises FileError for what does not exist, and for folders unless recursive."""
        place = real(path)
        if self.is_folder(place) and not recursive:
            raise FileError(f"{path}: Is a directory")
        if place not in self.content and not self.is_folder(place):
            raise FileError(f"{path}: No such file or directory")
        parent = posixpath.dirname(place)
        for one in self.under(place):
            self.content.pop(one, None)
            self.folders.discard(one)
        if parent.startswith(("/data", SHARED)):
            self.folders.add(parent)

    def copy(self, source: str, target: str, now: float) -> None:
        """A file, or a folder with all in it; into `target` if that is a folder. Raises FileError."""
        if self.is_folder(target) and not real(source).endswith("/."):
            target = posixpath.join(target, posixpath.basename(real(source)))
        start = real(source)
        if start in self.content:
            self.write(target, self[start], now)
            return
        if not self.is_folder(start):
            raise FileError(f"{source}: No such file or directory")
        if (real(target) + "/").startswith(start + "/"):
            raise FileError(f"{source}: cannot copy a directory into itself")
        for one in self.under(start):
            place = real(target) + one[len(start) :]
            if one in self.content:
                self.write(place, self[one], now)
            else:
                self.make_folder(place)

    def move(self, source: str, target: str, now: float) -> None:
        """Raises FileError. A folder cannot go into itself."""
        if self.is_folder(target):
            target = posixpath.join(target, posixpath.basename(real(source)))
        if real(source) == real(target):
            return
        self.copy(source, target, now)
        self.remove(source, recursive=True)

    def match(self, pattern: str) -> list[str]:
        """The existing paths that a pattern matches (* in the last part only); the pattern itself when there are none."""
        folder, last = posixpath.split(pattern)
        if "*" not in last or not self.is_folder(folder or "/"):
            return [pattern]
        found = [n for n in self.names(folder or "/") if fnmatch.fnmatchcase(n, last) and not n.startswith(".")]
        return [posixpath.join(folder, n) for n in found] or [pattern]


def real(path: str) -> str:
    """The absolute path, without dots, with /sdcard replaced by the folder that it links to."""
    place = posixpath.normpath("/" + path)
    place = "/" + place.lstrip("/")
    for short in ("/sdcard", "/mnt/sdcard", "/storage/self/primary", "/data/media/0"):
        if place == short or place.startswith(short + "/"):
            return SHARED + place[len(short) :]
    return place
