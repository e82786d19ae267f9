"""Where this installation came from: its version, its commit, its packages, and the command that adds an extra to it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

NAME = "guiderail"
PACKAGES = (NAME, "torch", "transformers", "trl", "peft", "deepspeed", "accelerate", "android-env", "pillow")


def clone(file: Path = Path(__file__)) -> Path | None:
    """The source folder that this code, the file agent/origin.py, runs from; None when it runs from an installed wheel."""
    root = file.resolve().parents[1]
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    return root if project.get("name") == NAME else None


def commit() -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the clone that this code runs from, or that pip installed.

    (None, None) where neither is known. An installation or a copy may lie inside another repository, whose commit says
    nothing about the code that runs.
    """
    root = clone()
    if root is None:
        known = _direct_url().get("vcs_info", {}).get("commit_id")
        return (known, False) if known else (None, None)
    try:
        top, head = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if not Path(top).samefile(root):
            return None, None
        return head, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None


def versions() -> dict[str, str | None]:
    """Python, platform and packages; None for a package that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def version() -> str:
    """The version, with the commit where it is known: "0.1.0, commit 0123abc, with local changes"."""
    root = clone()
    if root is None:
        number = metadata.version(NAME)
    else:
        number = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    known, changed = commit()
    return number + (f", commit {known[:7]}" if known else "") + (", with local changes" if changed else "")


def install(extra: str) -> str:
    """The shell command that adds an extra to this installation, from where it was installed (PEP 610)."""
    root = clone()
    if root is not None:
        place = "." if Path.cwd() == root else str(root)
        return f"pip install -e {_quoted(f'{place}[{extra}]')}"
    source = _direct_url()
    url = source.get("url")
    if url and "vcs_info" in source:
        url = f"{source['vcs_info']['vcs']}+{url}@{source['vcs_info']['commit_id']}"
    return f"pip install {_quoted(f'{NAME}[{extra}] @ {url}' if url else f'{NAME}[{extra}]')}"


def _direct_url() -> dict[str, Any]:
    """What pip recorded about the origin; empty for a package from an index."""
    try:
        text = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return {}
    return json.loads(text) if text else {}


def _quoted(text: str) -> str:
    """In double quotes where that is safe: they also work in Windows' shells."""
    return f'"{text}"' if not set(text) & set('"$`\\!') else shlex.quote(text)


def _git(root: Path, *words: str) -> str:
    """GIT_DIR and the like, as set in a hook, would point git at another repository."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
