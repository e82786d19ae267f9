"""AndroidWorld's tasks as live tasks: for our runner, in parallel and resumable, on emulators or pocket phones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.errors import EnvCrashed, SetupError
from agent.types import Action
from envs.android_world import WorldDevice, emulator_env, machine, make_suite, module, pocket_env
from envs.emulator import EmulatorSpec, Lease, lease
from envs.pocket.aosp_expert import WAYS, Expert


@dataclass(frozen=True)
class AndroidWorldTasks:
    """`envs.attempts.World` over an AndroidWorld suite. emulator None: on pocket phones.

    names None: on an emulator the whole family, on pocket phones the tasks they can hold. Task names are NAME_INSTANCE as in AndroidWorld's checkpoints.
    """

    names: tuple[str, ...] | None = None
    seed: int = 30
    combinations: int = 1
    family: Literal["android_world", "android", "information_retrieval"] = "android_world"
    emulator: EmulatorSpec | None = None
    pause: float | None = None

    def suite(self) -> dict[str, Any]:
        """NAME_INSTANCE -> AndroidWorld's TaskEval."""
        names = self.names or (tuple(WAYS) if self.emulator is None else None)
        made = make_suite(names, seed=self.seed, combinations=self.combinations, family=self.family)
        return {f"{name}_{k}": one for name, instances in made.items() for k, one in enumerate(instances)}

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        return [(name, (f"task:{name.rpartition('_')[0]}",)) for name in self.suite()]

    def open(self, worker: int) -> WorldSite:
        return WorldSite(self, worker)


@dataclass
class WorldSite:
    """One worker's AndroidWorld: made when the first task starts, and anew after it broke."""

    world: AndroidWorldTasks
    worker: int = 0
    _env: Any = None
    _lease: Lease | None = None
    _suite: dict[str, Any] = field(default_factory=dict)

    def env(self) -> Any:
        if self._env is None:
            if self.world.emulator is None:
                self._env = pocket_env()
            else:
                self._lease = self._lease or lease(self.world.emulator, self.worker)
                self._lease.ensure()
                self._env = emulator_env(self._lease)
        return self._env

    def task(self, name: str) -> LiveWorldTask:
        self._suite = self._suite or self.world.suite()
        return LiveWorldTask(name, self._suite[name], self)

    def broken(self) -> None:
        """Give the environment up; the next task gets a new one."""
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def close(self) -> None:
        self.broken()
        if self._lease is not None:
            self._lease.close()


class LiveWorldTask:
    """`envs.attempts.LiveTask`: an AndroidWorld task. `score` is AndroidWorld's own number (composite tasks give parts);
    success is the whole of it. Everything AndroidWorld raises counts as a crash of the machine, as it does there."""

    def __init__(self, name: str, task: Any, site: WorldSite):
        self.id, self.goal = name, str(task.goal)
        self.max_steps = int(module("suite_utils")._allocate_step_budget(task.complexity))
        self.score: float | None = None
        self._task, self._site, self._name = task, site, name.rpartition("_")[0]
        self._expert: Expert | None = None
        self._device: WorldDevice | None = None

    def start(self) -> WorldDevice:
        env = self._site.env()
        pause = 0.0 if self._site.world.emulator is None else self._site.world.pause
        try:
            with machine(f"setting up {self.id}"), _own_random():
                self._task.initialized = False
                self._task.initialize_task(env)
                env.reset(go_home=self._task.start_on_home_screen)
        except EnvCrashed:
            self._site.broken()
            raise
        self._device = WorldDevice(env, pause)
        return self._device

    def success(self) -> bool:
        with machine(f"checking {self.id}"):
            self.score = float(self._task.is_successful(self._site.env()))
        return self.score >= 1.0

    def expert(self) -> tuple[str, Action]:
        """What to do next on a pocket phone. Raises SetupError elsewhere, and for tasks that have no way there."""
        if self._site.world.emulator is not None or self._device is None or self._name not in WAYS:
            raise SetupError(f"no expert for {self._name} here; on pocket phones there is one for: {', '.join(WAYS)}")
        self._expert = self._expert or Expert(self._name, self._task.params)
        return "", self._expert.act(self._device.elements())

    def close(self) -> None:
        self._expert = None
        if self._device is None:
            return
        self._device = None
        try:
            with machine(f"tearing down {self.id}"):
                self._task.tear_down(self._site.env())
        except EnvCrashed:
            self._site.broken()


@contextmanager
def _own_random() -> Iterator[None]:
    """AndroidWorld seeds Python's global generator; ours goes on as it was."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
