"""One agent at one live task gives a Rollout: with the outcome of a check, or unscored with the reason. A crash is never a 0.

Like the walk along a recording, an attempt is a coroutine that yields prompts, so many live devices share one policy.
Tasks come from a World, a small picklable value. Whoever runs them opens a Session of it, which owns the devices.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Protocol, runtime_checkable

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, SetupError, UnreadableAction
from guiderail.agent.scripted import answer
from guiderail.agent.types import (
    Action,
    Completion,
    Ended,
    Outcome,
    Prompt,
    Rollout,
    Screenshot,
    Step,
    Terminate,
    Turn,
)
from guiderail.envs.live.device import Device


class LiveTask(Protocol):
    """A goal on a device and a check of the device's own state.

    start() resets the device and returns it. check() reads the state and says what was reached; it is called at the end of
    the attempt. Both raise EnvCrashed when the machine fails. close() gives the device back, whatever happened, and may be
    called more than once. `goal` and `max_steps` are read after the start; before it, a goal that depends on the start is "".
    """

    @property
    def id(self) -> str: ...
    @property
    def goal(self) -> str: ...
    @property
    def max_steps(self) -> int: ...

    def start(self) -> Device: ...
    def check(self) -> Outcome: ...
    def close(self) -> None: ...


@runtime_checkable
class SelfEnding(Protocol):
    """A LiveTask that knows by itself when it is decided (MiniWoB++). The attempt then ends without a "terminate"."""

    def over(self) -> bool: ...


@runtime_checkable
class Measured(Protocol):
    """A LiveTask that tells progress and side effects of an attempt that made no claim, too (MobileGym)."""

    def measure(self) -> Outcome:
        """As check(), at the end of an attempt that gave up or ran out of steps; its `success` is not looked at."""
        ...


@runtime_checkable
class Demonstrable(Protocol):
    """A LiveTask with a scripted expert that may see more than the screen."""

    def expert(self) -> tuple[str, Action]:
        """(thought, action) for the state the started task is in now. Raises EnvCrashed."""
        ...


@runtime_checkable
class Restorable(Protocol):
    """A LiveTask whose state can be kept and begun from again, on any device of its world."""

    def keep(self) -> object:
        """A token for the present state of the started task. It pickles and stays valid after close(). Raises EnvCrashed."""
        ...

    def start_from(self, token: object) -> Device:
        """As start(), but in that state. Raises EnvCrashed."""
        ...


@runtime_checkable
class Keyed(Protocol):
    """A LiveTask that can name its state exactly: equal keys mean that nothing which matters differs."""

    def state_key(self) -> str: ...


@runtime_checkable
class Teaching(Protocol):
    """A LiveTask that knows in every state what its expert would do, as a step that answers are judged against."""

    def expert_step(self, screenshot: Screenshot) -> Step:
        """Raises EnvCrashed."""
        ...


class Session(Protocol):
    """A world opened by one worker: it owns the worker's devices. Not for several threads."""

    def task(self, name: str) -> LiveTask: ...
    def close(self) -> None: ...


class World(Protocol):
    """A list of tasks, as a picklable value without devices."""

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        """(task name, groups that it counts under), each task once, in a fixed order. The first group is the template that
        the task was drawn from, such as "page:click-button"; `rl.live.score` treats tasks of one template as draws from it.
        """
        ...

    def open(self, worker: int) -> Session:
        """worker: number from 0, different for all that run at the same time (it decides about ports and the like)."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds before a machine counts as broken. step: for one screenshot or action. attempt: for the whole attempt, the
    policy's time included. start: for the start of a task; check: for a look at the state; None: as long as a step."""

    step: float = 120.0
    attempt: float = 3600.0
    start: float | None = None
    check: float | None = None

    @property
    def longest(self) -> float:
        """For any single call of a machine."""
        return max(self.step, self.start or 0.0, self.check or 0.0)


Look = Callable[[LiveTask, Device, Turn], Turn]
"""Called with every turn before its action is done; returns it with what the world knows about it."""


@dataclass(frozen=True, slots=True)
class Middle:
    """The middle of an attempt: the turns so far, and the task's token for the state after them (`Restorable`)."""

    turns: tuple[Turn, ...]
    token: object


def attempt(
    task: LiveTask,
    *,
    dialogue: Dialogue,
    patience: Patience | None = None,
    sample: int = 0,
    look: Look | None = None,
    begin: Middle | None = None,
    most: int | None = None,
) -> Generator[Prompt, Completion, Rollout]:
    """Let a policy operate the task's device in its own history until it ends the task or runs out of steps.

    As in AndroidWorld, reaching the goal counts only if the agent also says that it is done (terminate with success),
    except for tasks that end by themselves. begin: go on from there; the rollout holds the new turns alone. most: new turns
    after which it ends without a check, as a rollout along a recording does; the steps of the task may end it before.
    """
    turns: list[Turn] = [] if begin is None else [*begin.turns]
    first = len(turns)
    patience = patience or Patience()
    deadline = time.monotonic() + patience.attempt

    def over(ended: Ended, outcome: Outcome | None, reason: str = "") -> Rollout:
        return Rollout(task.id, sample, tuple(turns[first:]), ended, outcome, task.goal, reason, first)

    try:
        with within(patience.start or patience.step, "starting the task"):
            device = task.start() if begin is None else _restored(task, begin)
        for index in range(first, task.max_steps):
            if most is not None and index - first == most:
                return over("finished" if turns[-1].exact else "mismatch", None)
            if time.monotonic() > deadline:
                raise EnvCrashed(f"the attempt took longer than {patience.attempt:g} s")
            with within(patience.step, "taking a screenshot"):
                screenshot = device.screenshot()
            prompt = next_prompt(dialogue, task.goal, turns, screenshot)
            turn = read_turn(index, prompt, (yield prompt), dialogue)
            if look is not None:
                with within(patience.step, "looking at the state"):
                    turn = look(task, device, turn)
            turns.append(turn)
            with within(patience.step, "acting"):
                _act(device, turn.action)
            with within(patience.check or patience.step, "checking"):
                end = _end(task, turn.action)
            if end is not None:
                return over(*end)
        with within(patience.check or patience.step, "checking"):
            return over("out_of_steps", failed(task))
    except EnvCrashed as crash:
        return over("crashed", None, str(crash))
    finally:
        task.close()


def _restored(task: LiveTask, begin: Middle) -> Device:
    if not isinstance(task, Restorable):
        raise SetupError(f"{task.id} cannot begin in the middle: its world restores no states; remove online.fork")
    return task.start_from(begin.token)


def perform(task: LiveTask, device: Device, action: Action | None) -> tuple[Ended, Outcome] | None:
    """Do one action. Returns how the attempt ended and its outcome; None while it goes on. action None: nothing is done."""
    _act(device, action)
    return _end(task, action)


def _act(device: Device, action: Action | None) -> None:
    if action is not None and not isinstance(action, Terminate):
        device.act(action)


def _end(task: LiveTask, action: Action | None) -> tuple[Ended, Outcome] | None:
    if isinstance(action, Terminate):
        return ("gave_up", failed(task)) if action.status == "failure" else ("finished", task.check())
    return ("finished", task.check()) if isinstance(task, SelfEnding) and task.over() else None


def failed(task: LiveTask) -> Outcome:
    """Of an attempt that did not claim success: a failure, whatever the state says."""
    return replace(task.measure(), success=False) if isinstance(task, Measured) else Outcome(False)


def by_expert(
    task: LiveTask,
    *,
    dialogue: Dialogue,
    patience: Patience | None = None,
    sample: int = 0,
    alive: Callable[[], None] = lambda: None,
) -> Rollout:
    """An attempt by the task's own expert. alive: called before each turn. Raises SetupError where there is no expert."""
    if not isinstance(task, Demonstrable):
        raise SetupError(f"{task.id} has no expert; give --model, --server or --agent random")

    def say(prompt: Prompt) -> str:
        alive()
        return dialogue.say(*task.expert(), prompt.screen.screenshot)

    return answer(attempt(task, dialogue=dialogue, patience=patience, sample=sample), say)


@contextmanager
def within(seconds: float, doing: str) -> Iterator[None]:
    """EnvCrashed when the block takes longer. Uses an alarm signal, and so does nothing outside the main thread."""
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


def next_prompt(dialogue: Dialogue, goal: str, turns: Sequence[Turn], screenshot: Screenshot) -> Prompt:
    """The prompt of a live turn: every turn before it as its own `history_text`, whoever made it."""
    shots = [*(turn.screen.screenshot for turn in turns), screenshot]
    return dialogue.prompt(goal, shots, [turn.history_text() for turn in turns])


def read_turn(index: int, prompt: Prompt, completion: Completion, dialogue: Dialogue) -> Turn:
    """An answer as a turn. One that cannot be read has no action, and its note says why."""
    try:
        reply = dialogue.read(completion, prompt.screen)
    except UnreadableAction as error:
        return Turn(index, prompt, completion, error.thought, None, note=str(error))
    return Turn(index, prompt, completion, reply.thought, reply.action)
