"""Secrets and the paths of somebody's machine, taken out of what is published."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:sk|rk|pk)-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bxox[abpr]-[A-Za-z0-9-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{30,}|\bglpat-[\w-]{16,}"
    r"|(?<=[Bb]earer )[\w.~+/=-]{12,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?<=--api-key )\S+|(?<=--token )\S{8,}"
    r"|(?i:(?<=api_key=)|(?<=password=)|(?<=token=)|(?<=secret=))[^\s&\"']+"
)
# A path keeps its last part, which says what it is; the device's own folders say nothing about a machine. Behind a colon it is
# a path too, but not where two slashes begin the host of a URL; after file: they begin a path of this machine.
_PATH = re.compile(
    r"((?i:file)://[\w.-]*|(?<![\w./~]))(?!/(?:sdcard|storage|system|data/(?:local|app|data))\b)"
    r"(?:~|/|[A-Za-z]:\\)(?:[\w.@ +-]+[/\\])+([\w.@+-]*)"
)


class Redactor:
    """Cleans JSON values and counts what it took out."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter({"secrets": 0, "paths": 0})

    def secrets(self, value: Any) -> Any:
        """For what a model or a person wrote: paths there belong to the device."""
        return self._each(value, self._secret)

    def everything(self, value: Any) -> Any:
        """For what this machine wrote: settings, commands, error messages."""
        return self._each(value, lambda text: self._path(self._secret(text)))

    def _each(self, value: Any, clean: Any) -> Any:
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, dict):
            return {clean(str(key)): self._each(item, clean) for key, item in value.items()}
        return [self._each(item, clean) for item in value] if isinstance(value, list | tuple) else value

    def _secret(self, text: str) -> str:
        text, count = _SECRETS.subn("[redacted]", text)
        self.counts["secrets"] += count
        return text

    def _path(self, text: str) -> str:
        text, count = _PATH.subn(r"\1.../\2", text)
        self.counts["paths"] += count
        return text
