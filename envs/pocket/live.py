"""Pocket tasks as live tasks: each attempt borrows a world from a pool, so many phones run side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from agent.types import Action
from envs.device import Device
from envs.pocket.phone import Phone
from envs.pocket.tasks import Task, draws, task, task_id
from envs.pocket.templates import TEMPLATES


class World(Protocol):
    """Where tasks are started one after the other: a phone and a road to it."""

    @property
    def phone(self) -> Phone: ...
    def start(self, task: Task) -> Device: ...
    def close(self) -> None: ...


class WorldPool:
    """Worlds that are free; a new one is made only when none is. close() ends them all. Several threads may share it."""

    def __init__(self, size: tuple[int, int] = (160, 288), make: Callable[[], World] | None = None):
        self.size = size
        self._make = make or partial(_world, "android_env", size)
        self._lock = threading.Lock()
        self._free: list[World] = []
        self._all: list[World] = []

    def take(self) -> World:
        with self._lock:
            if self._free:
                return self._free.pop()
        world = self._make()
        with self._lock:
            self._all.append(world)
        return world

    def give(self, world: World) -> None:
        with self._lock:
            self._free.append(world)

    def close(self) -> None:
        for world in self._all:
            world.close()


def _world(device: str, size: tuple[int, int]) -> World:
    """Imported when needed: one kind needs android_env, the other an adb client."""
    if device == "adb":
        from envs.pocket.wire import AdbWorld

        return AdbWorld(size)
    from envs.pocket.world import PocketWorld

    return PocketWorld(size)


class LivePocketTask:
    """`envs.attempts.LiveTask` over one Pocket task."""

    def __init__(self, task: Task, pool: WorldPool):
        self.task, self._pool = task, pool
        self._world: World | None = None
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
        self._world = self._pool.take()
        self._device = self._world.start(self.task)
        return self._device

    def success(self) -> bool:
        world, device = self._here()
        return self.task.success(world.phone, device.answers)

    def expert(self) -> tuple[str, Action]:
        """What the task's own expert would think and do now; it sees the phone's state, not the screen."""
        world, device = self._here()
        step = self.task.expert(world.phone, device.answers)
        self._thoughts += 1
        return self.task.say(step.thought, self._thoughts), step.action

    def close(self) -> None:
        if self._world is not None:
            self._pool.give(self._world)
        self._world = self._device = None

    def _here(self) -> tuple[World, Device]:
        if self._world is None or self._device is None:
            raise RuntimeError("the task has not been started")
        return self._world, self._device


@dataclass(frozen=True, slots=True)
class PocketTasks:
    """`envs.attempts.World`: n live tasks drawn from `seed`, with disturbed starts, pop-ups and any valid order.

    device: "android_env", or "adb" for the real adb client talking to the phone's own adb daemon.
    """

    n: int
    seed: int = 0
    split: str = "test"
    style: str = "easy"
    size: tuple[int, int] = (160, 288)
    device: Literal["android_env", "adb"] = "android_env"

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

    def open(self, worker: int) -> PocketSite:
        return PocketSite(self)


class PocketSite:
    """`envs.attempts.Site`: as many phones as are asked for at once."""

    def __init__(self, world: PocketTasks):
        self._world, self._drawn = world, world.drawn()
        self._pool = WorldPool(world.size, partial(_world, world.device, world.size))

    def task(self, name: str) -> LivePocketTask:
        template, seed = self._drawn[name]
        return LivePocketTask(task(template, seed, self._world.split, self._world.style, live=True), self._pool)

    def close(self) -> None:
        self._pool.close()
