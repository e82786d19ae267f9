"""Tasks of one's own on an emulator or any device adb reaches: a file of goals, each checked by a command on the device.

One JSON object per line:

    {"id": "wifi", "goal": "Switch wifi on", "max_steps": 10, "setup": [["svc", "wifi", "disable"]],
     "check": ["settings", "get", "global", "wifi_on"], "expect": "1"}

setup: commands before the start. expect: a regular expression that must match the whole output of `check`, without the white
space around it. Commands are lists of arguments; no shell of this machine or the device reads their syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.errors import DataError
from envs.adb import Adb, AdbDevice
from envs.emulator import EmulatorSpec, lease

DEFAULT_STEPS = 20


@dataclass(frozen=True, slots=True)
class AndroidTask:
    """One line of a task file."""

    id: str
    goal: str
    check: tuple[str, ...]
    expect: str
    setup: tuple[tuple[str, ...], ...] = ()
    max_steps: int = DEFAULT_STEPS


def read_tasks(file: Path) -> dict[str, AndroidTask]:
    """Tasks by id. Raises DataError with file:line."""
    found: dict[str, AndroidTask] = {}
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}:1", f"no readable task file ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            task = _task(json.loads(line))
        except (ValueError, TypeError, KeyError, re.error) as error:
            raise DataError(where, f"no task: {error!r}; expected id, goal, check, expect (setup, max_steps)") from None
        if task.id in found:
            raise DataError(where, f"the id {task.id!r} is there twice")
        found[task.id] = task
    return found


def _task(row: Mapping[str, Any]) -> AndroidTask:
    unknown = set(row) - {"id", "goal", "check", "expect", "setup", "max_steps"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    steps = row.get("max_steps", DEFAULT_STEPS)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"max_steps {steps!r}")
    re.compile(row["expect"])
    setup = tuple(_words(command) for command in row.get("setup", []))
    return AndroidTask(_text(row["id"]), _text(row["goal"]), _words(row["check"]), _text(row["expect"]), setup, steps)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise TypeError(f"{value!r} is no list of arguments")
    return tuple(value)


class Held(Protocol):
    """A device as long as it is needed: `envs.emulator.Lease`, or Plugged."""

    def reset(self) -> None: ...
    def device(self) -> AdbDevice: ...
    def close(self) -> None: ...


@dataclass
class Plugged:
    """A device by its adb serial (or HOST:PORT). Nothing is reset but what a task's setup does."""

    adb: Adb
    apps: Mapping[str, str] = field(default_factory=dict)
    settle: float = 1.0

    def reset(self) -> None:
        """Raises EnvCrashed when it does not answer."""
        self.adb.connect()

    def device(self) -> AdbDevice:
        return AdbDevice(self.adb, self.apps, self.settle)

    def close(self) -> None:
        self.adb.disconnect()


@dataclass(frozen=True)
class AndroidTasks:
    """`envs.attempts.World` over a task file. serial: one device for all (one worker only); "" for emulators."""

    file: str
    emulator: EmulatorSpec
    serial: str = ""

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        return [(name, ()) for name in read_tasks(Path(self.file))]

    def open(self, worker: int) -> AndroidSite:
        spec = self.emulator
        if self.serial:
            held: Held = Plugged(Adb(self.serial, spec.adb, spec.adb_server_port), spec.apps, spec.settle)
        else:
            held = lease(spec, worker)
        return AndroidSite(read_tasks(Path(self.file)), held)


class AndroidSite:
    """One worker's device."""

    def __init__(self, tasks: Mapping[str, AndroidTask], held: Held):
        self._tasks, self.held = tasks, held

    def task(self, name: str) -> LiveAndroidTask:
        return LiveAndroidTask(self._tasks[name], self.held)

    def close(self) -> None:
        self.held.close()


class LiveAndroidTask:
    """`envs.attempts.LiveTask`: starts at the home screen, succeeds when the check's output is as expected."""

    def __init__(self, task: AndroidTask, held: Held):
        self.id, self.goal, self.max_steps = task.id, task.goal, task.max_steps
        self._task, self._held = task, held
        self._device: AdbDevice | None = None

    def start(self) -> AdbDevice:
        self._held.reset()
        device = self._held.device()
        for command in self._task.setup:
            device.shell(list(command))
        device.shell(["input", "keyevent", "KEYCODE_HOME"])
        self._device = device
        return device

    def success(self) -> bool:
        if self._device is None:
            raise RuntimeError("the task has not been started")
        return re.fullmatch(self._task.expect, self._device.shell(list(self._task.check)).strip()) is not None

    def close(self) -> None:
        """The device stays for the next task."""
        self._device = None
