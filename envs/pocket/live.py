"""Pocket tasks as live tasks: each attempt borrows a world from a pool, so many phones run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.types import Action
from envs.device import Device
from envs.pocket.tasks import Task, draws, task, task_id
from envs.pocket.templates import TEMPLATES
from envs.pocket.world import PocketWorld


class WorldPool:
    """Worlds that are free; a new one is made only when none is. close() ends them all."""

    def __init__(self, size: tuple[int, int] = (160, 288)):
        self.size = size
        self._free: list[PocketWorld] = []
        self._all: list[PocketWorld] = []

    def take(self) -> PocketWorld:
        if not self._free:
            self._all.append(PocketWorld(self.size))
            self._free.append(self._all[-1])
        return self._free.pop()

    def give(self, world: PocketWorld) -> None:
        self._free.append(world)

    def close(self) -> None:
        for world in self._all:
            world.close()


class LivePocketTask:
    """`envs.attempts.LiveTask` over one Pocket task."""

    def __init__(self, task: Task, pool: WorldPool):
        self.task, self._pool = task, pool
        self._world: PocketWorld | None = None
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

    def _here(self) -> tuple[PocketWorld, Device]:
        if self._world is None or self._device is None:
            raise RuntimeError("the task has not been started")
        return self._world, self._device


@dataclass(frozen=True, slots=True)
class PocketTasks:
    """`envs.attempts.World`: n live tasks drawn from `seed`, with disturbed starts, pop-ups and any valid order."""

    n: int
    seed: int = 0
    split: str = "test"
    style: str = "easy"
    size: tuple[int, int] = (160, 288)

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
        self._world, self._drawn, self._pool = world, world.drawn(), WorldPool(world.size)

    def task(self, name: str) -> LivePocketTask:
        template, seed = self._drawn[name]
        return LivePocketTask(task(template, seed, self._world.split, self._world.style, live=True), self._pool)

    def close(self) -> None:
        self._pool.close()
