"""A pocket phone in this process, with neither android_env nor adb in between."""

from __future__ import annotations

from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.tasks import Task


class HandHost:
    """`envs.pocket.pool.PhoneHost`."""

    def __init__(self, size: tuple[int, int] = (160, 288)):
        self.size = size
        self.phone = Phone(new_state(0), *size)

    def start(self, task: Task) -> PhoneInHand:
        self.phone = Phone(task.start(), *self.size)
        return PhoneInHand(self.phone)

    def close(self) -> None:
        pass
