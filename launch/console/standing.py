"""What is known of an attended attempt: everything that a page, a terminal or a recorder shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from guiderail.agent.types import Ended, Outcome, Rollout, Screenshot, Turn
from guiderail.envs.live.attempts import Patience
from guiderail.envs.live.device import Element
from guiderail.launch.console.actors import Actor
from guiderail.launch.console.devices import Place
from guiderail.launch.console.likely import Likely

Phase = Literal["opening", "ready", "thinking", "acting", "asking", "over"]
"""opening: device and agent are made ready. ready: nothing happens until a command. thinking, acting: the agent answers,
the device acts. asking: the agent's action waits for a yes or no. over: the attempt has ended; it can still be undone."""


@dataclass(frozen=True, slots=True)
class Options:
    """max_steps: None is the task's own; it stops the agent, not the person. confirm: ask before an agent's act that leaves
    the device or costs money; None: on real phones. likely: further answers that are drawn at each of the agent's steps, of a
    policy in this process, to say what else it might have done. elements: keep what was visible at each step, with boxes, also
    where a device takes long to say so."""

    max_steps: int | None = None
    confirm: bool | None = None
    likely: int = 0
    elements: bool = False
    patience: Patience = field(default_factory=Patience)


class Standing:
    """Attributes change only with `lock` held, so whoever reads several of them takes it.

    running: the agent goes on by itself. turns: the joint history. seen[k]: what was visible at step k, where it is known.
    likely[k]: what else the agent might have done there. proposal: an answer of the agent that is not done yet. screen: the
    present one. question: what to ask before the proposal is done. outcome: of a check, or what the person says. note: why a
    command could not be done. since: when `phase` began, of `time.monotonic`. revision: counts changes.
    """

    def __init__(self, options: Options, changed: Callable[[], None]):
        self.options = options
        self.place: Place | None = None
        self.actor: Actor | None = None
        self.phase: Phase = "opening"
        self.since = time.monotonic()
        self.running = False
        self.turns: list[Turn] = []
        self.seen: dict[int, tuple[Element, ...]] = {}
        self.likely: dict[int, list[Likely]] = {}
        self.proposal: Turn | None = None
        self.screen: Screenshot | None = None
        self.question = ""
        self.ended: Ended | None = None
        self.outcome: Outcome | None = None
        self.reason = ""
        self.note = ""
        self.can_undo = False
        self.revision = 0
        self.lock = threading.RLock()
        self._changed = changed

    @property
    def goal(self) -> str:
        return self.place.task.goal if self.place else ""

    @property
    def max_steps(self) -> int:
        return self.options.max_steps or (self.place.task.max_steps if self.place else 0)

    @property
    def undoable(self) -> bool:
        """Whether the last turn can be taken back now."""
        return self.can_undo and bool(self.turns) and self.ended not in ("crashed", "stopped")

    @property
    def confirms(self) -> bool:
        asked = self.options.confirm
        return asked if asked is not None else self.place is not None and self.place.real

    def rollout(self) -> Rollout:
        """The attempt as far as it has come; one under way counts as stopped."""
        with self.lock:
            unit, ended = (self.place.task.id if self.place else "not-started"), self.ended or "stopped"
            return Rollout(unit, 0, tuple(self.turns), ended, self.outcome, self.goal, self.reason)

    def _set(self, **values: object) -> None:
        """Change attributes and say so. Once the attempt has ended, its phase stays over."""
        with self.lock:
            if "phase" in values:
                if self.ended is not None:
                    values["phase"] = "over"
                self.since = time.monotonic()
            for name, value in values.items():
                setattr(self, name, value)
            self.revision += 1
        self._changed()

    def _end(self, ended: Ended, outcome: Outcome | None, reason: str = "") -> None:
        """The first end counts."""
        with self.lock:
            if self.ended is not None:
                return
            self.ended = ended
            self._set(phase="over", running=False, proposal=None, question="", outcome=outcome, reason=reason)
