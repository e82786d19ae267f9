from dataclasses import dataclass, field
from typing import Any


@dataclass
class JudgeInput:
    init_obs: Any
    last_obs: Any
    answer: str | None = None

    @property
    def apps(self):
        return self.last_obs.state["apps"]


@dataclass
class JudgeResult:
    success: bool = False
    clean: bool = True
    progress: float = 0.0
    issues: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    judge_error: str | None = None

    @property
    def passed(self):
        return self.success and self.clean
