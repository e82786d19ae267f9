"""One agent, one live task -> Attempt: scored, or unscored with its reason; never "0 because something crashed".

Like the walk over a recording, an attempt is a coroutine that yields prompts, so many live devices share one policy.
Tasks come from a World, a small picklable value; whoever runs them opens a Site of it, which owns the devices.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal, Protocol, runtime_checkable

from agent.dialogue import Dialogue
from agent.errors import EnvCrashed, UnreadableAction
from agent.types import Action, Completion, Prompt, Screenshot, Terminate, clean_turn
from envs.device import Device

Ending = Literal["finished", "gave_up", "out_of_steps", "crashed"]
ENDINGS: tuple[Ending, ...] = ("finished", "gave_up", "out_of_steps", "crashed")


class LiveTask(Protocol):
    """A goal on a device and a check on the device's own state.

    start() resets the device and returns it; success() reads the state and may be asked once the attempt is over; close()
    gives the device back, whatever happened, and may be called more than once. The first two raise EnvCrashed when the
    machine fails. Where the goal depends on the start it is "" before; the budget is asked for after the start.
    """

    @property
    def id(self) -> str: ...
    @property
    def goal(self) -> str: ...
    @property
    def max_steps(self) -> int: ...

    def start(self) -> Device: ...
    def success(self) -> bool: ...
    def close(self) -> None: ...


@runtime_checkable
class SelfEnding(Protocol):
    """A LiveTask that notices by itself that it is decided (MiniWoB++): no "terminate" is waited for then."""

    def over(self) -> bool: ...


@runtime_checkable
class Demonstrable(Protocol):
    """A LiveTask with a scripted expert that may see more than the screen."""

    def expert(self) -> tuple[str, Action]:
        """(thought, action) for the state the started task is in now. Raises EnvCrashed."""
        ...


class Site(Protocol):
    """One worker's devices. Not for several threads."""

    def task(self, name: str) -> LiveTask: ...
    def close(self) -> None: ...


class World(Protocol):
    """What there is to do, as a picklable value without devices."""

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        """(task name, names of the groups it also counts under), each task once, in a fixed order. The first name is that of
        the template it was drawn from, as "page:click-button"; `live_score` treats tasks of one template as draws from it."""
        ...

    def open(self, worker: int) -> Site:
        """worker: from 0, unlike any other that runs at the same time (for ports and the like)."""
        ...


@dataclass(frozen=True, slots=True)
class LiveTurn:
    """One step of an attempt. action None: the answer was unreadable for the reason in `note` and nothing was done."""

    index: int
    screenshot: Screenshot
    screen: tuple[int, int]
    completion: Completion
    thought: str | None
    action: Action | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """success is None exactly when ending is "crashed"; reason then names the failed part.

    As in AndroidWorld, reaching the goal counts only if the agent also says it is done (terminate with success), except
    for tasks that end by themselves.
    """

    task: str
    goal: str
    ending: Ending
    success: bool | None
    turns: tuple[LiveTurn, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds before a machine counts as broken. step: for one look, act or check. attempt: for all of it, the policy's
    thinking included."""

    step: float = 120.0
    attempt: float = 3600.0


def attempt(
    task: LiveTask, *, dialogue: Dialogue, patience: Patience | None = None
) -> Generator[Prompt, Completion, Attempt]:
    """Let a policy operate the task's device in its own history until it ends the task or runs out of steps."""
    turns: list[LiveTurn] = []
    patience = patience or Patience()
    deadline = time.monotonic() + patience.attempt

    def over(ending: Ending, success: bool | None, reason: str = "") -> Attempt:
        return Attempt(task.id, task.goal, ending, success, tuple(turns), reason)

    try:
        with within(patience.step, "starting the task"):
            device = task.start()
        for index in range(task.max_steps):
            if time.monotonic() > deadline:
                raise EnvCrashed(f"the attempt took longer than {patience.attempt:g} s")
            with within(patience.step, "taking a screenshot"):
                shots = [turn.screenshot for turn in turns] + [device.screenshot()]
            prompt = dialogue.prompt(task.goal, shots, [clean_turn(turn.completion.text) for turn in turns])
            turn = _hear(index, prompt, (yield prompt), dialogue)
            turns.append(turn)
            with within(patience.step, "acting"):
                if isinstance(turn.action, Terminate):
                    done = turn.action.status == "success"
                    return over("finished" if done else "gave_up", done and task.success())
                if turn.action is not None:
                    device.act(turn.action)
                if isinstance(task, SelfEnding) and task.over():
                    return over("finished", task.success())
        return over("out_of_steps", False)
    except EnvCrashed as crash:
        return over("crashed", None, str(crash))
    finally:
        task.close()


@contextmanager
def within(seconds: float, doing: str) -> Iterator[None]:
    """EnvCrashed when the block takes longer, by an alarm signal; only where signals can be had: in a main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise EnvCrashed(f"{doing} took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _hear(index: int, prompt: Prompt, completion: Completion, dialogue: Dialogue) -> LiveTurn:
    picture = prompt.screen
    size = (picture.width, picture.height)
    try:
        reply = dialogue.read(completion, picture)
    except UnreadableAction as error:
        return LiveTurn(index, picture.screenshot, size, completion, error.thought, None, str(error))
    return LiveTurn(index, picture.screenshot, size, completion, reply.thought, reply.action)
