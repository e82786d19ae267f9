"""How a model family is spoken to: one file per family. `DIALECTS` is the only table of names."""

from agent.dialects.base import Dialect
from agent.dialects.qwen import BRIEF, GUIDERAIL

DIALECTS: dict[str, Dialect] = {d.name: d for d in (GUIDERAIL, BRIEF)}

__all__ = ["BRIEF", "DIALECTS", "GUIDERAIL", "Dialect"]
