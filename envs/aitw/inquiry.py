"""Questions to a judge model: asked until an answer can be read, within a deadline, and what was read is kept.

What is kept is found again by the hash of everything it depends on, so a question is asked once.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.policy import Policy, Request, Sampling, completions
from guiderail.agent.types import Prompt

T = TypeVar("T")
SAMPLING = Sampling(temperature=0.0, max_new_tokens=1024)


class Inquiry:
    """policy: any vision-language model. folder: where answers are kept, one file each. tries: how often a question is asked
    while its answers cannot be read; each try has another seed. seconds: for all tries of one question together."""

    def __init__(self, policy: Policy, folder: Path, tries: int, seconds: float):
        self.policy, self.folder, self.tries, self.seconds = policy, folder, tries, seconds

    def ask(self, prompt: Prompt, read: Callable[[str], T | None], wanted: str) -> tuple[T, str]:
        """(what `read` made of an answer, the answer). wanted: for the message. Raises EnvCrashed when no answer could be
        read, because the agent has not failed then."""
        text, until = "", time.monotonic() + self.seconds
        for seed in range(self.tries):
            [answer] = completions(self.policy.complete([Request(prompt, seed, until)], SAMPLING))
            text = answer.text
            made = read(text)
            if made is not None:
                return made, text
        raise EnvCrashed(
            f"the judge {self.policy.name} gave no {wanted} in {self.tries} answers; the last: {text[:200]!r}"
        )

    def key(self, words: Sequence[Any]) -> str:
        """The hash of what is asked: `words` are JSON values. The model and its sampling count too."""
        whole = json.dumps([self.policy.name, asdict(SAMPLING), *words], ensure_ascii=True)
        return hashlib.sha256(whole.encode()).hexdigest()

    def kept(self, key: str) -> dict[str, Any] | None:
        """None also for a damaged file: the judge is then asked again."""
        try:
            row = json.loads((self.folder / f"{key}.json").read_text("utf-8"))
            return row if isinstance(row, dict) else None
        except (OSError, ValueError):
            return None

    def keep(self, key: str, row: dict[str, Any]) -> None:
        """Write a file that is complete or absent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{key}.{os.getpid()}.{time.monotonic_ns()}"
        partial.write_text(json.dumps(row, ensure_ascii=False, indent=1) + "\n", "utf-8")
        partial.replace(self.folder / f"{key}.json")


def spelled(prompt: Prompt) -> list[Any]:
    """A prompt as JSON values: its words, and of each picture the content's hash and its size."""
    return [
        [m.role, [p if isinstance(p, str) else [p.screenshot.digest, p.width, p.height] for p in m.parts]]
        for m in prompt.messages
    ]


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object in a model's answer, in order; those inside others are not looked for."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, at + 1
        if isinstance(value, dict):
            yield value
        at = text.find("{", end)
