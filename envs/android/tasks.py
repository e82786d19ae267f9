"""Own tasks on an emulator or any device that adb reaches: a file of goals, each checked by a command on the device.

One JSON object per line:

    {"id": "wifi", "goal": "Switch wifi on", "max_steps": 10, "setup": [["svc", "wifi", "disable"]],
     "check": ["settings", "get", "global", "wifi_on"], "expect": "1"}

setup: commands before the start. expect: a regular expression that must match the whole output of `check`, without the white
space around it. Commands are lists of arguments; neither a shell of this machine nor one of the device interprets them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from guiderail.agent.errors import DataError
from guiderail.agent.types import Outcome
from guiderail.envs.android.adb import Adb, AdbDevice
from guiderail.envs.android.emulator import EmulatorSpec, lease

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
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}:1", f"not a readable task file ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            task = _task(json.loads(line))
        except (ValueError, TypeError, KeyError, re.error) as error:
            raise DataError(
                where, f"not a task: {error!r}; expected id, goal, check, expect (setup, max_steps)"
            ) from None
        if task.id in found:
            raise DataError(where, f"the id {task.id!r} occurs twice")
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
        raise TypeError(f"{value!r} is not a text")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise TypeError(f"{value!r} is not a list of arguments")
    return tuple(value)


class DeviceLease(Protocol):
    """A device for as long as it is needed: `envs.android.emulator.Lease`, or Plugged."""

    def reset(self) -> bool: ...
    def device(self) -> AdbDevice: ...
    def close(self) -> None: ...


@dataclass
class Plugged:
    """A device by its adb serial (or HOST:PORT). Between tasks only the setup of the next task changes it."""

    adb: Adb
    apps: Mapping[str, str] = field(default_factory=dict)
    settle: float = 1.0

    def reset(self) -> bool:
        """Raises EnvCrashed when it does not answer."""
        self.adb.connect()
        return False

    def device(self) -> AdbDevice:
        return AdbDevice(self.adb, self.apps, self.settle)

    def close(self) -> None:
        self.adb.disconnect()


@dataclass(frozen=True)
class AndroidTasks:
    """`envs.live.attempts.World` over a task file. serial: one device for all tasks (one worker only); "" means emulators."""

    file: str
    emulator: EmulatorSpec
    serial: str = ""

    def listed(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        return [(name, ()) for name in read_tasks(Path(self.file))]

    def open(self, worker: int) -> AndroidSession:
        spec = self.emulator
        if self.serial:
            held: DeviceLease = Plugged(Adb(self.serial, spec.adb, spec.adb_server_port), spec.apps, spec.settle)
        else:
            held = lease(spec, worker)
        return AndroidSession(read_tasks(Path(self.file)), held)


class AndroidSession:
    """One worker's device."""

    def __init__(self, tasks: Mapping[str, AndroidTask], held: DeviceLease):
        self._tasks, self.held = tasks, held

    def task(self, name: str) -> LiveAndroidTask:
        return LiveAndroidTask(self._tasks[name], self.held)

    def close(self) -> None:
        self.held.close()


class LiveAndroidTask:
    """`envs.live.attempts.LiveTask`: starts at the home screen, succeeds when the check's output is as expected."""

    def __init__(self, task: AndroidTask, held: DeviceLease):
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

    def check(self) -> Outcome:
        if self._device is None:
            raise RuntimeError("the task has not been started")
        said = self._device.shell(list(self._task.check)).strip()
        return Outcome(re.fullmatch(self._task.expect, said) is not None)

    def close(self) -> None:
        """The device stays for the next task."""
        self._device = None
