"""Phones that many attempts share: each attempt borrows one and gives it back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from guiderail.envs.live.device import Device
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import Task


class PhoneHost(Protocol):
    """One phone and the connection to it. Tasks start on it one after the other, each on a fresh phone."""

    @property
    def phone(self) -> Phone: ...
    def start(self, task: Task) -> Device: ...
    def close(self) -> None: ...


class HostPool:
    """Hosts that are free. `make` is called only when none is. close() ends all. Several threads may share a pool."""

    def __init__(self, make: Callable[[], PhoneHost]):
        self._make = make
        self._lock = threading.Lock()
        self._free: list[PhoneHost] = []
        self._all: list[PhoneHost] = []

    def take(self) -> PhoneHost:
        with self._lock:
            if self._free:
                return self._free.pop()
        host = self._make()
        with self._lock:
            self._all.append(host)
        return host

    def give(self, host: PhoneHost) -> None:
        with self._lock:
            self._free.append(host)

    def close(self) -> None:
        for host in self._all:
            host.close()
