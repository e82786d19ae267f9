"""Pocket worlds over the adb wire: the real client, a daemon, a phone. The same tasks as `world`, another road."""

from __future__ import annotations

from envs.adb import Adb, AdbDevice
from envs.pocket.adbd import Adbd
from envs.pocket.live import WorldPool
from envs.pocket.phone import Phone
from envs.pocket.state import new_state
from envs.pocket.tasks import Task
from envs.pocket.tree import APP_TABLE


class AdbWorld:
    """One phone behind an adb daemon. adb: the client; server_port: of the adb server, which starts by itself."""

    def __init__(self, size: tuple[int, int] = (160, 288), adb: str = "adb", server_port: int | None = None):
        self.size = size
        self.daemon = Adbd(Phone(new_state(0), *size))
        self.adb = Adb(self.daemon.serial, adb, server_port)

    @property
    def phone(self) -> Phone:
        return self.daemon.phone

    def start(self, task: Task) -> AdbDevice:
        """Begin a task on a fresh phone. Raises EnvCrashed when adb fails; connects again if it was lost."""
        with self.daemon.lock:
            self.daemon.phone = Phone(task.start(), *self.size)
        return AdbDevice(self.adb, APP_TABLE)

    def close(self) -> None:
        self.adb.disconnect()
        self.daemon.close()


class AdbWorldPool(WorldPool):
    """As WorldPool, of AdbWorld."""

    def __init__(self, size: tuple[int, int] = (160, 288), adb: str = "adb", server_port: int | None = None):
        super().__init__(size, lambda: AdbWorld(size, adb, server_port))
