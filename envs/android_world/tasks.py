"""AndroidWorld's tasks as live tasks: in parallel and resumable, on emulators or pocket phones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.types import Action, Outcome
from guiderail.envs.android.emulator import EmulatorSpec, Lease, lease
from guiderail.envs.android_world import client
from guiderail.envs.android_world.client import Client
from guiderail.envs.android_world.device import AndroidWorldDevice
from guiderail.envs.android_world.expert import WAYS, WITHOUT, Expert

SETUP_SECONDS = 7200.0


@dataclass(frozen=True)
class AndroidWorldTasks:
    """`envs.live.attempts.World` over an AndroidWorld suite. python: the one of AndroidWorld's own environment. emulator
    None: on pocket phones.

    names None: on an emulator the whole family, on pocket phones the tasks they can hold. Listed names are NAME_INSTANCE,
    as in AndroidWorld's checkpoints. setup: install AndroidWorld's apps when a worker opens (downloads).
    """

    python: str
    names: tuple[str, ...] | None = None
    seed: int = 30
    combinations: int = 1
    family: Literal["android_world", "android", "information_retrieval"] = "android_world"
    emulator: EmulatorSpec | None = None
    settle: float | None = None
    setup: bool = False

    @cached_property
    def suite(self) -> dict[str, Any]:
        """What AndroidWorld is asked for, see `worker.AndroidWorld.suite`."""
        names = self.names or (tuple(WAYS) if self.emulator is None else None)
        asked = {"names": names and [*names], "seed": self.seed, "combinations": self.combinations}
        return asked | {"family": self.family}

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        names = client.tasks(self.python, **self.suite)
        return [(name, (f"task:{name.rpartition('_')[0]}",)) for name in names]

    def open(self, worker: int) -> AndroidWorldSession:
        held = lease(self.emulator, worker) if self.emulator else None
        session = AndroidWorldSession(self, held)
        if self.setup and held is not None:
            session.install_apps()
        return session


class AndroidWorldSession:
    """One worker's AndroidWorld process: started with the first task, and anew after something broke."""

    def __init__(self, world: AndroidWorldTasks, held: Lease | None = None):
        self.world, self.held = world, held
        self._client: Client | None = None
        self._open = False

    def install_apps(self) -> None:
        """AndroidWorld's own first-time setup. Raises SetupError when it does not succeed."""
        try:
            self.ready(setup=True)
        except EnvCrashed as crash:
            self.close()
            raise SetupError(f"--setup: {crash}; mend that, then run the same command again") from None

    def ready(self, setup: bool = False) -> Client:
        """A process whose environment is open, on the emulator's snapshot if one is named. Raises EnvCrashed."""
        if self._client is None or not self._client.alive:
            self.broken()
            self._client = Client(self.world.python)
            self._client.ask("suite", **self.world.suite)
        if self.held is None:
            if not self._open:
                self._client.ask("open", pocket=str(client.PACKAGE))
        elif self.held.reset() or not self._open:  # a loaded snapshot has lost AndroidWorld's connection
            self._client.ask(
                "open",
                SETUP_SECONDS if setup else client.SECONDS,
                console_port=self.held.console_port,
                grpc_port=self.held.grpc_port,
                adb_path=shutil.which(self.held.spec.adb) or self.held.spec.adb,
                emulator_setup=setup,
            )
        self._open = True
        return self._client

    def task(self, name: str) -> LiveAndroidWorldTask:
        return LiveAndroidWorldTask(name, self)

    def broken(self) -> None:
        """Give the process up; the next task gets a new one."""
        gone, self._client, self._open = self._client, None, False
        if gone is not None:
            gone.close()

    def close(self) -> None:
        self.broken()
        if self.held is not None:
            self.held.close()


class LiveAndroidWorldTask:
    """`envs.live.attempts.LiveTask`: an AndroidWorld task. Progress is AndroidWorld's own number (composite tasks give parts);
    success is all of it. Everything AndroidWorld raises counts as a crash of the machine, as it does there."""

    def __init__(self, name: str, session: AndroidWorldSession):
        self.id, self.goal, self.max_steps = name, "", 0
        self._session, self._name = session, name.rpartition("_")[0]
        self._params: Mapping[str, Any] = {}
        self._expert: Expert | None = None
        self._device: AndroidWorldDevice | None = None

    def start(self) -> AndroidWorldDevice:
        world = self._session.world
        try:
            process = self._session.ready()
            about = process.ask("start", task=self.id)[0]
        except EnvCrashed:
            self._session.broken()
            raise
        self.goal, self.max_steps, self._params = str(about["goal"]), int(about["max_steps"]), about["params"]
        self._device = AndroidWorldDevice(process, 0.0 if world.emulator is None else world.settle)
        return self._device

    def check(self) -> Outcome:
        if self._device is None:
            raise RuntimeError("the task has not been started")
        score = float(self._device.client.ask("check")[0]["score"])
        return Outcome(score >= 1.0, progress=score)

    def expert(self) -> tuple[str, Action]:
        """What to do next on a pocket phone. Raises SetupError elsewhere, and for tasks that have no way there."""
        if self._session.world.emulator is not None or self._device is None or self._name not in WAYS:
            why = WITHOUT.get(self._name, "experts operate pocket phones")
            raise SetupError(f"no expert for {self._name} here ({why}); on pocket phones there are: {', '.join(WAYS)}")
        self._expert = self._expert or Expert(self._name, self._params)
        return "", self._expert.act(self._device.elements())

    def close(self) -> None:
        self._expert = None
        device, self._device = self._device, None
        if device is None:
            return
        try:
            device.client.ask("stop")
        except EnvCrashed:
            self._session.broken()
