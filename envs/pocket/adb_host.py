"""A pocket phone behind its own adb daemon: the real adb client operates it."""

from __future__ import annotations

from guiderail.envs.android.adb import Adb, AdbDevice
from guiderail.envs.pocket.adb.adbd import Adbd
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tasks import Task
from guiderail.envs.pocket.tree import APP_TABLE


class AdbHost:
    """`envs.pocket.pool.PhoneHost`. adb: the client. server_port: of the adb server, which starts by itself."""

    def __init__(self, size: tuple[int, int] = (160, 288), adb: str = "adb", server_port: int | None = None):
        self.size = size
        self.daemon = Adbd(Phone(new_state(0), *size))
        self.adb = Adb(self.daemon.serial, adb, server_port)

    @property
    def phone(self) -> Phone:
        return self.daemon.phone

    def start(self, task: Task) -> AdbDevice:
        """Begin a task on a fresh phone. Connects again if the connection was lost; raises EnvCrashed when adb fails."""
        with self.daemon.lock:
            self.daemon.phone = Phone(task.start(), *self.size)
        return AdbDevice(self.adb, APP_TABLE)

    def close(self) -> None:
        self.adb.disconnect()
        self.daemon.close()
