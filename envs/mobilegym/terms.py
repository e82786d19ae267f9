"""MobileGym's terms: asked about once, and remembered for this user."""

from __future__ import annotations

import json
import os
from pathlib import Path

from guiderail.agent.disk import write_whole
from guiderail.agent.errors import SetupError

OPTION = "--accept-mobilegym-terms"
TEXT = """\
MobileGym's code is under the Apache License 2.0. The content of its apps and its companion data are under CC BY-NC 4.0, for
non-commercial research only. Its disclaimer says that this content is no training corpus for the pre-training, fine-tuning or
instruction tuning of language models. Both are in your checkout: LICENSE-DATA and DISCLAIMER.md. Screenshots of a run show
this content: they stay on your machine, and bundles made of the run leave them out."""


def file() -> Path:
    """Where the answer is kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "guiderail" / "accepted.json"


def accepted() -> bool:
    try:
        return json.loads(file().read_text("utf-8")).get("mobilegym") is True
    except (OSError, ValueError, AttributeError):
        return False


def accept() -> None:
    """Remember it. Where that cannot be written, the question comes again."""
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        write_whole(file(), b'{"mobilegym": true}\n')
    except OSError:
        return


def require() -> None:
    """Raises SetupError unless the terms have been accepted."""
    if not accepted():
        raise SetupError(f"{TEXT}\nIf you accept these terms, run: guiderail evaluate mobilegym {OPTION} ...")
