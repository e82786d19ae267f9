"""Errors, sorted by who must act.

GuiderailError
├── SetupError         the user: the message ends with what to run or change
│   └── PromptTooLong  the user; a scored mistake of the policy where its own turns made the prompt too long
├── DataError          the data: the message starts with file:line
├── EnvCrashed         the machine: retried, then the attempt is *unscored*, never a wrong answer
└── UnreadableAction   the policy: an ordinary, scored mistake
"""

from __future__ import annotations

from typing import Any, TypeAlias


class GuiderailError(Exception):
    """Base of every error raised on purpose."""


class SetupError(GuiderailError):
    """Something is missing or misconfigured; the message says what to do."""


class PromptTooLong(SetupError):
    """A prompt is longer than the policy's `max_prompt_tokens`. tokens: how long it is."""

    def __init__(self, message: str, tokens: int):
        super().__init__(message)
        self.tokens = tokens


class DataError(GuiderailError):
    """Recorded data break a rule. where: "file:line" (and step), with which the message starts."""

    def __init__(self, where: str, message: str):
        super().__init__(f"{where}: {message}")
        self.where = where


class EnvCrashed(GuiderailError):
    """A device, browser, emulator or server failed. It says nothing about the agent."""


Raw: TypeAlias = tuple[str, Any]
"""A turn as it was written, and the `ScreenTransform` of its coordinates. A bare tuple, since one is made of every turn."""


class UnreadableAction(GuiderailError):
    """The model's answer holds no action of the vocabulary. thought: the thought that could be read, None for none. raw: see
    `agent.codec.Reply`."""

    def __init__(self, message: str, thought: str | None = None, raw: Raw | None = None):
        super().__init__(message)
        self.thought = thought
        self.raw = raw
