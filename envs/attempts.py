"""One agent, one live task -> Attempt: scored, or unscored with its reason; never "0 because something crashed".

Like the walk over a recording, an attempt is a coroutine that yields prompts, so many live devices share one policy.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.dialogue import Dialogue, transform
from agent.errors import EnvCrashed, UnreadableAction
from agent.types import Action, Completion, Prompt, Screenshot, Terminate, clean_turn
from envs.device import Device

Ending = Literal["finished", "gave_up", "out_of_steps", "crashed"]


class LiveTask(Protocol):
    """A goal on a device and a check on the device's own state.

    start() resets the device and returns it; success() reads the state and may be asked once the attempt is over; close()
    gives the device back, whatever happened. The first two raise EnvCrashed when the machine fails.
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

    As in AndroidWorld, reaching the goal counts only if the agent also says it is done (terminate with success).
    """

    task: str
    goal: str
    ending: Ending
    success: bool | None
    turns: tuple[LiveTurn, ...]
    reason: str = ""


def attempt(task: LiveTask, *, dialogue: Dialogue) -> Generator[Prompt, Completion, Attempt]:
    """Let a policy operate the task's device in its own history until it ends the task or runs out of steps."""
    turns: list[LiveTurn] = []

    def over(ending: Ending, success: bool | None, reason: str = "") -> Attempt:
        return Attempt(task.id, task.goal, ending, success, tuple(turns), reason)

    try:
        device = task.start()
        for index in range(task.max_steps):
            shots = [turn.screenshot for turn in turns] + [device.screenshot()]
            prompt = dialogue.prompt(task.goal, shots, [clean_turn(turn.completion.text) for turn in turns])
            turn = _hear(index, prompt, (yield prompt), dialogue)
            turns.append(turn)
            if isinstance(turn.action, Terminate):
                done = turn.action.status == "success"
                return over("finished" if done else "gave_up", done and task.success())
            if turn.action is not None:
                device.act(turn.action)
        return over("out_of_steps", False)
    except EnvCrashed as crash:
        return over("crashed", None, str(crash))
    finally:
        task.close()


def _hear(index: int, prompt: Prompt, completion: Completion, dialogue: Dialogue) -> LiveTurn:
    picture = prompt.screen
    size = (picture.width, picture.height)
    try:
        reply = dialogue.dialect.read(completion.text, transform(picture))
    except UnreadableAction as error:
        return LiveTurn(index, picture.screenshot, size, completion, error.thought, None, str(error))
    return LiveTurn(index, picture.screenshot, size, completion, reply.thought, reply.action)
