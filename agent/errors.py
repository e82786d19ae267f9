"""Errors, sorted by who must act.

GuiderailError
├── SetupError         the user: the message ends with what to run or change
│   └── PromptTooLong  where the policy's own words filled its prompt budget, a scored mistake instead
├── DataError          the data: the message starts with file:line
├── EnvCrashed         a machine part: retried, then the attempt is *unscored*, never a wrong answer
└── UnreadableAction   the policy: an ordinary, scored mistake
"""


class GuiderailError(Exception):
    """Base of every error raised on purpose."""


class SetupError(GuiderailError):
    """Something is missing or misconfigured; the message says what to do."""


class PromptTooLong(SetupError):
    """A prompt is over the policy's budget."""


class DataError(GuiderailError):
    """Recorded data broke a rule. `where` is "file:line" (plus step), the first thing in the message."""

    def __init__(self, where: str, message: str):
        super().__init__(f"{where}: {message}")
        self.where = where


class EnvCrashed(GuiderailError):
    """A device, browser or emulator failed. Says nothing about the agent."""


class UnreadableAction(GuiderailError):
    """The model's answer holds no action of the vocabulary. `thought` is what could be read before it."""

    def __init__(self, message: str, thought: str | None = None):
        super().__init__(message)
        self.thought = thought
