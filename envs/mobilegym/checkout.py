"""The user's copy of MobileGym: what is in it, and what of it is missing. Nothing of MobileGym comes with Guiderail."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from guiderail.agent.errors import SetupError

VARIABLE = "GUIDERAIL_MOBILEGYM"
GET = "git clone https://github.com/Purewhiter/mobilegym && cd mobilegym && npm install && npm run build"
FONTS = "sudo apt-get install fonts-noto-cjk fonts-noto-color-emoji"
EMPTY_BYTES = 24
"""A data file of at most this size holds an empty list or object: a stand-in for one that a copy lacks."""
LARGE = {  # the data files of several megabytes, which shallow or filtered copies lack, by the app that shows them
    "bilibili": ("Bilibili/data/videos.json", "Bilibili/data/authors.json"),
    "ebay": ("Ebay/data/products.json",),
    "map": ("Map/data/routes.json",),
    "railway12306": ("Railway12306/data/catalog/trainCatalog.json",),
    "redbook": ("RedBook/data/notes.json", "RedBook/data/users.json"),
    "reddit": ("Reddit/data/posts.json",),
    "x": ("X/data/posts.json", "X/data/users.json"),
}


@dataclass(frozen=True)
class Checkout:
    """folder: of a MobileGym repository whose pages have been built."""

    folder: Path

    @classmethod
    def at(cls, folder: str | Path | None) -> Checkout:
        """The checkout in that folder; None: in the one that GUIDERAIL_MOBILEGYM names. Raises SetupError for anything
        that cannot be used."""
        named = folder or os.environ.get(VARIABLE)
        if not named:
            raise SetupError(f"no MobileGym checkout; give --checkout DIR or set {VARIABLE}; get one with: {GET}")
        found = cls(Path(named).expanduser().resolve())
        if problem := found.problem:
            raise SetupError(problem)
        return found

    @property
    def pages(self) -> Path:
        return self.folder / "dist"

    @property
    def bench(self) -> Path:
        """Its benchmark, a Python package."""
        return self.folder / "bench_env"

    @property
    def data(self) -> Path | None:
        """The companion data (wallpapers, covers, map tiles); None where they are not there."""
        found = self.folder / "mobilegym-data"
        return found if found.is_dir() else None

    @property
    def problem(self) -> str:
        """What stands in the way, with the command that mends it; "" where nothing does."""
        if not (self.bench / "task").is_dir():
            return f"{self.folder} is not a MobileGym checkout: it has no bench_env/task; get one with: {GET}"
        if not (self.pages / "index.html").is_file():
            return f"{self.folder} has no built pages (dist/index.html); run: cd {self.folder} && npm install && npm run build"
        return ""

    @cached_property
    def without_data(self) -> frozenset[str]:
        """Apps whose large data files are empty or missing, by id. Their tasks cannot be set up as they are meant."""
        apps = self.folder / "apps"
        return frozenset(app for app, files in LARGE.items() if any(_empty(apps / file) for file in files))

    @property
    def commit(self) -> str | None:
        """Of the checkout, for the record; None where git does not know it."""
        command = ["git", "-C", str(self.folder), "rev-parse", "HEAD"]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None


def _empty(file: Path) -> bool:
    return file.parent.parent.is_dir() and (not file.is_file() or file.stat().st_size <= EMPTY_BYTES)


def has_cjk_fonts() -> bool | None:
    """Whether Chinese text can be drawn; None where nothing can tell."""
    program = shutil.which("fc-list")
    if program is None:
        return None
    try:
        done = subprocess.run([program, ":lang=zh"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return bool(done.stdout.strip())
