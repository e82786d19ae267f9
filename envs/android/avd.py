"""Copies of an AVD that share nothing with it, in folders that are removed at the latest when the next one is made.

A folder belongs to the process that holds the lock on its `.lock`. The lock ends with the process, also by SIGKILL; then
whoever makes the next copy ends the emulator that was left behind and deletes the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from guiderail.agent.errors import SetupError

PREFIX = "guiderail-avd-"
KILL_SECONDS = 10.0
TEXTS = ("*.ini", "*.txt", "*.conf")
_QCOW2 = b"QFI\xfb"
_NAMES = re.compile(rb"^(AvdId|avd\.name|avd\.id)(\s*=\s*).*$", re.MULTILINE)


@dataclass
class OwnedFolder:
    """A temporary folder for one AVD copy. `close` removes it."""

    path: Path
    _lock: IO[str]

    def started(self, pid: int) -> None:
        """Note the emulator that uses it."""
        (self.path / ".emulator").write_text(str(pid))

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def own_folder(parent: Path | None = None) -> OwnedFolder:
    """A new folder in `parent` (None: the system's temporary folder), after those of dead owners were removed there.

    Raises SetupError when there can be none.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent)
    while True:
        try:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = (path / ".lock").open("w")
        except OSError as error:
            raise SetupError(
                f"no folder for an AVD copy in {parent}: {error}; make room there, or set TMPDIR"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process took it for an abandoned one, and deletes it
            lock.close()
            continue
        return OwnedFolder(path, lock)


def sweep(parent: Path) -> None:
    """Remove the folders whose owner is dead, and end the emulators that still use them. Other users' are left alone."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / ".lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end_emulator(folder)
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, subprocess.SubprocessError):
            continue


def _end_emulator(folder: Path) -> None:
    """The process number may belong to another program by now, so the command line must name one of the folder's AVDs."""
    note = folder / ".emulator"
    pid = note.read_text() if note.is_file() else ""
    avds = {ini.stem for ini in folder.glob("*.ini")}
    if not pid.isdigit() or not _runs(pid, avds):
        return
    os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while not _ended(pid) and time.monotonic() < deadline:
        time.sleep(0.05)


def _runs(pid: str, avds: set[str]) -> bool:
    words = _ps(pid, "args=").split()
    return any(flag == "-avd" and name in avds for flag, name in pairwise(words))


def _ended(pid: str) -> bool:
    """Whether its ports are free. A dying process loses its command line before its ports; a zombie has lost both."""
    return _ps(pid, "stat=")[:1] in ("", "Z", "X")


def _ps(pid: str, what: str) -> str:
    """One column of `ps`, whole: without -ww it would be cut at $COLUMNS."""
    said = subprocess.run(["ps", "-ww", "-p", pid, "-o", what], capture_output=True, text=True, timeout=KILL_SECONDS)
    return said.stdout.strip()


def copy_avd(home: Path, avd: str, into: Path, name: str) -> None:
    """Copy HOME/AVD.avd and its AVD.ini as INTO/NAME, without the lock files of a running emulator.

    Paths into the original are rewritten in every text file, and in qcow2 disks, whose backing files become relative; links
    are followed. Raises SetupError when there is no such AVD, or no room for a copy.
    """
    ini = home / f"{avd}.ini"
    source = home / f"{avd}.avd"
    if ini.is_file():
        lines = dict(line.split("=", 1) for line in ini.read_text().splitlines() if "=" in line)
        source = Path(lines.get("path", str(source)))
    if Path(avd).name != avd or not source.is_dir():
        raise SetupError(f"no AVD {avd!r} in {home}; see `emulator -list-avds`, or make it with avdmanager")
    target = into / f"{name}.avd"
    try:
        shutil.copytree(source, target, ignore=_skipped, ignore_dangling_symlinks=True)
        olds = {str(source), str(source.resolve()), str(home / f"{avd}.avd"), str(home.resolve() / f"{avd}.avd")}
        for file in target.rglob("*"):
            if file.is_file() and any(file.match(pattern) for pattern in TEXTS):
                _rewrite(file, olds, target, name)
            elif file.is_file():
                _rebase(file, olds, target)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise SetupError(
            f"cannot copy the AVD {avd} to {into}: {str(error)[:300]}; make room there, or set TMPDIR"
        ) from None
    kept = [line for line in ini.read_text().splitlines() if not line.startswith("path")] if ini.is_file() else []
    (into / f"{name}.ini").write_text("\n".join([*kept, f"path={target}"]) + "\n")


def _skipped(folder: str, names: list[str]) -> set[str]:
    """Locks of a running emulator, and what is neither a file nor a folder (its sockets and pipes)."""
    locks = shutil.ignore_patterns("*.lock", "cache.img.qcow2.*")(folder, names)
    return locks | {name for name in names if _special(Path(folder, name))}


def _special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _rewrite(file: Path, olds: set[str], target: Path, name: str) -> None:
    """Keeps the file's time: snapshots remember it."""
    before, times = file.read_bytes(), file.stat()
    text = before
    for old in sorted(olds, key=len, reverse=True):
        text = re.sub(re.escape(old.encode()) + rb"(?=[/\s\"';,]|$)", lambda _: str(target).encode(), text)
    text = _NAMES.sub(lambda found: found[1] + found[2] + name.encode(), text)
    if text != before:
        file.write_bytes(text)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _rebase(file: Path, olds: set[str], target: Path) -> None:
    """Make the backing file of a qcow2 disk relative if it lies in the original. qemu looks relative names up beside the disk.

    Head of the format: magic, version (4 bytes), offset (8) and size (4) of the backing file's name, big-endian. A relative
    name is shorter than the absolute one, so it fits in its place.
    """
    with file.open("rb") as disk:
        head = disk.read(20)
        if len(head) < 20 or head[:4] != _QCOW2:
            return
        offset, size = struct.unpack(">8xQI", head)
        disk.seek(offset)
        backing = disk.read(size).decode("utf-8", "replace") if offset and size <= 1023 else ""
    old = next((old for old in olds if backing.startswith(f"{old}/")), None)
    if old is None:
        return
    times = file.stat()
    place = os.path.relpath(target / backing.removeprefix(f"{old}/"), file.parent).encode()
    if len(place) > size:
        raise OSError(f"the backing file {backing} of {file.name} has no relative name that fits")
    with file.open("r+b") as disk:
        disk.seek(16)
        disk.write(struct.pack(">I", len(place)))
        disk.seek(offset)
        disk.write(place.ljust(size, b"\0"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
