"""Pocket as a live world. Each attempt borrows a phone from a pool, so many phones run side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Action, Answer, Box, Outcome, Screenshot, Step, TargetBox
from guiderail.envs.live.device import Device
from guiderail.envs.pocket.files import Files
from guiderail.envs.pocket.pool import HostPool, PhoneHost
from guiderail.envs.pocket.state import State, size_of_style
from guiderail.envs.pocket.tasks import Task, draws, task, task_id
from guiderail.envs.pocket.templates import TEMPLATES

Connection = Literal["android_env", "adb", "hand"]


def host(connection: Connection, size: tuple[int, int]) -> PhoneHost:
    """A phone behind this connection. Imported when needed: one needs android_env, the other an adb client."""
    if connection == "adb":
        from guiderail.envs.pocket.adb_host import AdbHost

        return AdbHost(size)
    if connection == "hand":
        from guiderail.envs.pocket.hand_host import HandHost

        return HandHost(size)
    from guiderail.envs.pocket.env_host import EnvHost

    return EnvHost(size)


class LivePocketTask:
    """`envs.live.attempts.LiveTask` over one Pocket task."""

    def __init__(self, task: Task, pool: HostPool):
        self.task, self._pool = task, pool
        self._host: PhoneHost | None = None
        self._device: Device | None = None
        self._thoughts = 0

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def goal(self) -> str:
        return self.task.goal

    @property
    def max_steps(self) -> int:
        return self.task.max_steps

    def start(self) -> Device:
        self._host = self._pool.take()
        self._device = self._host.start(self.task)
        return self._device

    def check(self) -> Outcome:
        host, device = self._started()
        return Outcome(self.task.success(host.phone, device.answers))

    def expert(self) -> tuple[str, Action]:
        """What the task's own expert thinks and does now. It sees the phone's state, not the screen."""
        host, device = self._started()
        step = self.task.expert(host.phone, device.answers)
        self._thoughts += 1
        return self.task.say(step.thought, self._thoughts), step.action

    def expert_step(self, screenshot: Screenshot) -> Step:
        """The expert's move as a step with the box of its target, and what a careful person would think."""
        host, device = self._started()
        step = self.task.expert(host.phone, device.answers)
        if step.target is None:
            return Step(screenshot, step.action, thought=step.thought)
        left, top, right, bottom = step.target.box
        wide, high = host.phone.width, host.phone.height
        box = Box(left / wide, top / high, right / wide, bottom / high)
        return Step(screenshot, step.action, (TargetBox(box, "bbox"),), thought=step.thought)

    def state_key(self) -> str:
        """Of everything that pages show, in its order, and checks read, and of how far off pop-ups are. Two ways to one state may
        differ in the clock and in the number of inputs."""
        host, device = self._started()
        state = host.phone.state
        content = asdict(replace(state, clock=0.0, inputs=0, files=Files(), aosp=None))
        del content["files"]
        if content["dialog"] and content["dialog"]["until"]:
            content["dialog"]["until"] = round(content["dialog"]["until"] - state.clock, 6)
        content["popups"] = {k - state.inputs: text for k, text in state.popups.items() if k > state.inputs}
        told = json.dumps([content, device.answers])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def keep(self) -> object:
        host, device = self._started()
        return host.phone.snapshot(), device.answers

    def start_from(self, token: object) -> Device:
        match token:
            case (State() as state, tuple(answers)):
                device = self.start()
                self._started()[0].phone.restore(state)
                for text in answers:
                    device.act(Answer(text))
                return device
        raise TypeError("this token was not made by a Pocket task")

    def close(self) -> None:
        if self._host is not None:
            self._pool.give(self._host)
        self._host = self._device = None

    def _started(self) -> tuple[PhoneHost, Device]:
        if self._host is None or self._device is None:
            raise RuntimeError("the task has not been started")
        return self._host, self._device


@dataclass(frozen=True, slots=True)
class PocketTasks:
    """`envs.live.attempts.World`: n live tasks drawn from `seed`, with disturbed starts and pop-ups; any valid order counts.

    size: (width, height) in pixels; None for the style's own. device: "android_env", "adb" for the real adb client and the
    phone's own adb daemon, or "hand" for neither: the fastest.
    """

    n: int
    seed: int = 0
    split: str = "test"
    style: str = "easy"
    size: tuple[int, int] | None = None
    device: Connection = "android_env"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SetupError(f"{self.n} tasks: expected 1 or more")

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        memory = {template.name: template.memory for template in TEMPLATES}
        return [
            (name, (f"template:{template}", "memory" if memory[template] else "no memory"))
            for name, (template, _) in self.drawn().items()
        ]

    def drawn(self) -> dict[str, tuple[str, int]]:
        """Task name -> (template, phone seed)."""
        drawn = draws(self.n, self.seed, self.split)
        return {task_id(template, seed, self.split, self.style, True): (template, seed) for template, seed in drawn}

    def open(self, worker: int) -> PocketSession:
        return PocketSession(self)


class PocketSession:
    """`envs.live.attempts.Session`: as many phones as attempts are under way."""

    def __init__(self, world: PocketTasks):
        self._world, self._drawn = world, world.drawn()
        self._pool = HostPool(partial(host, world.device, world.size or size_of_style(world.style)))

    def task(self, name: str) -> LivePocketTask:
        template, seed = self._drawn[name]
        return LivePocketTask(task(template, seed, self._world.split, self._world.style, live=True), self._pool)

    def close(self) -> None:
        self._pool.close()
