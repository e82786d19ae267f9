"""Models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

SHIPPED = {name: Path(__file__).parent / folder for name, folder in (("tiny-base", "base"), ("tiny-sft", "sft"))}


def shipped(name: str | Path) -> str:
    """The folder of a shipped model; any other name, path or hub id as it is. A folder of that name comes first."""
    return str(name if Path(name).exists() else SHIPPED.get(str(name), name))
