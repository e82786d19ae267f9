"""Models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
SHIPPED = {"tiny-base": _HERE / "base", "tiny-sft": _HERE / "sft"}


def shipped(name: str | Path) -> str:
    """The folder of a shipped model; any other name, path or hub id as it is. A folder of that name comes first."""
    return str(name if Path(name).exists() else SHIPPED.get(str(name), name))
