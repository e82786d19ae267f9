"""A pocket phone behind a real AndroidEnv."""

from __future__ import annotations

from types import TracebackType

from guiderail.envs.android.device import AndroidDevice
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.simulator import PocketSimulator, build_env
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tasks import Task
from guiderail.envs.pocket.tree import APP_TABLE


class EnvHost:
    """`envs.pocket.pool.PhoneHost`: one AndroidEnv for any number of tasks, one after the other. Not for several threads.

    size: (width, height) in pixels.
    """

    def __init__(self, size: tuple[int, int] = (160, 288)):
        self.size = size
        self._simulator = PocketSimulator(Phone(new_state(0), *size))
        self.env = build_env(self._simulator)

    @property
    def phone(self) -> Phone:
        """The phone of the task in progress; `task.success(host.phone, device.answers)` scores it."""
        return self._simulator.phone

    def start(self, task: Task) -> AndroidDevice:
        """Begin a task on a fresh phone. The device of the previous task must not be used any more."""
        self._simulator.phone = Phone(task.start(), *self.size)
        return AndroidDevice(self.env, APP_TABLE, sleep=self._simulator.elapse, close_env=False)

    def close(self) -> None:
        self.env.close()

    def __enter__(self) -> EnvHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
