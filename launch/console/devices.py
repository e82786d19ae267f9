"""What --device names: a task on a device, opened where it is used.

pocket                 a simulated phone: with a goal, a phone as it comes; without one, a task drawn from the seed
pocket:TEMPLATE        a task of this template, checked on the phone's state; pocket:TASK, by the name that runs give it
pocket-adb[:...]       the same behind the real adb client
miniwob:PAGE           a page of MiniWoB++ with its own goal, which decides by itself
mobilegym:SUITE.TASK   a task of MobileGym, from the checkout that GUIDERAIL_MOBILEGYM names; /N after it: its instance N
SERIAL or HOST:PORT    a phone or emulator that adb reaches, with a goal of your own
WORLD, WORLD:TASK      a world of your own: path/to/file.py:NAME, or one that is installed
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Outcome
from guiderail.envs.live.attempts import LiveTask
from guiderail.envs.live.device import Device
from guiderail.envs.live.worlds import WORLDS, NamedWorld
from guiderail.launch import parts
from guiderail.launch.evaluate.android import read_apps

if TYPE_CHECKING:
    from guiderail.envs.pocket.world import Connection

MAX_STEPS = 30
POCKETS = ("pocket", "pocket-phone", "pocket-adb")
_POCKET_TASK = re.compile(r"([a-z_]+)-(train|test|heldout)-(\d+)(?:-(free|phone))?-live")


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """device: see the head of this file. goal: "" takes the device's own. seed: which phone, task or page. apps: a JSON
    file for adb devices. settle: seconds their screen needs after an action."""

    device: str
    goal: str = ""
    seed: int = 0
    apps: Path | None = None
    settle: float = 1.0


@dataclass
class Place:
    """A task that can be started, and what closes its world. world: for the run's record, `rl.runs.record.About.world`.
    real: whether acts may reach people and money: `risky` asks before them. quick: the device says at once what is on its
    screen."""

    task: LiveTask
    world: Mapping[str, Any]
    close: Callable[[], None] = lambda: None
    real: bool = False
    quick: bool = False


@dataclass
class FreeGoal:
    """`envs.live.attempts.LiveTask` for a goal that nothing checks: only a person can say whether it was reached."""

    goal: str
    open: Callable[[], Device]
    max_steps: int = MAX_STEPS
    _device: Device | None = field(default=None, init=False)

    @property
    def id(self) -> str:
        return f"goal-{hashlib.sha256(self.goal.encode('utf-8', 'replace')).hexdigest()[:12]}"

    def start(self) -> Device:
        self._device = self.open()
        return self._device

    def check(self) -> Outcome:
        raise RuntimeError("nothing checks a goal of the user's own")

    def close(self) -> None:
        self._device = None


def open_place(spec: DeviceSpec) -> Place:
    """Raises SetupError for what cannot be had. May take seconds; the device itself is reached by `Place.task.start`."""
    name, _, rest = spec.device.partition(":")
    if name in POCKETS:
        return _pocket(spec, name, rest)
    if name == "miniwob":
        return _miniwob(spec, rest)
    if name == "mobilegym":
        return _mobilegym(spec, rest)
    head, _, last = spec.device.rpartition(":")
    for world, task in ((spec.device, ""), (head, last)):
        if world and _is_world(world):
            return _world(spec, world, task)
    return _adb(spec)


def _pocket(spec: DeviceSpec, kind: str, name: str) -> Place:
    parts.require("android_env", "android")
    from guiderail.envs.pocket.pool import HostPool
    from guiderail.envs.pocket.state import STYLES
    from guiderail.envs.pocket.tasks import SPLITS, draws, task
    from guiderail.envs.pocket.world import LivePocketTask, host

    connection: Connection = "adb" if kind == "pocket-adb" else "android_env"
    style, split, found = "phone" if kind == "pocket-phone" else "easy", "test", _POCKET_TASK.fullmatch(name)
    if spec.goal and name:
        raise SetupError(f"{spec.device} has its own goal; leave yours out, or give --device {kind}")
    if spec.goal:
        return free_phone(spec.goal, spec.seed, split, style, STYLES[style], connection)
    if found:
        name, split, seed, style = found[1], found[2], int(found[3]), found[4] or "easy"
    elif name:
        seed = 3 * spec.seed + SPLITS[split]
    else:
        ((name, seed),) = draws(1, spec.seed, split)
    pool = HostPool(partial(host, connection, STYLES[style]))
    live = LivePocketTask(task(name, seed, split, style, live=True), pool)
    return Place(
        live, _phone(connection, spec.seed, split, style, STYLES[style]), pool.close, quick=connection != "adb"
    )


def free_phone(
    goal: str, number: int, split: str, style: str, size: tuple[int, int], connection: Connection = "android_env"
) -> Place:
    """A phone of the split, undisturbed, with a goal that nothing checks."""
    from guiderail.envs.pocket.pool import HostPool
    from guiderail.envs.pocket.tasks import SPLITS, Task
    from guiderail.envs.pocket.templates import TEMPLATES
    from guiderail.envs.pocket.world import host

    pool = HostPool(partial(host, connection, size))
    template = next(one.name for one in TEMPLATES if one.held_out == (split == "heldout"))  # says which apps there are
    phone = Task(template, 3 * number + SPLITS[split], split, style)  # only its start is used
    free = FreeGoal(goal, lambda: pool.take().start(phone))
    return Place(free, _phone(connection, number, split, style, size), pool.close, quick=connection != "adb")


def _phone(connection: Connection, seed: int, split: str, style: str, size: tuple[int, int]) -> dict[str, Any]:
    """For the run's record."""
    return {
        "name": "pocket",
        "device": connection,
        "seed": seed,
        "split": split,
        "style": style,
        "size": list(size),
    }


def _miniwob(spec: DeviceSpec, page: str) -> Place:
    parts.require("miniwob", "web")
    from guiderail.envs.miniwob.tasks import WebTasks

    if not page:
        raise SetupError("--device miniwob: name a page, such as miniwob:click-button")
    if spec.goal:
        raise SetupError(f"{spec.device} has its own goal; leave yours out")
    page, _, seed = page.partition("/")
    world = WebTasks(page, 1, int(seed) if seed.isdigit() else spec.seed)
    ((name, _),) = world.listed()
    session = world.open(0)
    return Place(
        session.task(name), {"name": "miniwob", "suite": page, "scale": world.scale}, session.close, quick=True
    )


def _mobilegym(spec: DeviceSpec, task: str) -> Place:
    parts.require("selenium", "mobilegym")
    from guiderail.envs.mobilegym.bench import SPLITS
    from guiderail.envs.mobilegym.registered import Named

    if not task:
        raise SetupError("--device mobilegym: name a task, such as mobilegym:wechat.OpenNewFriends")
    if spec.goal:
        raise SetupError(f"{spec.device} has its own goal; leave yours out")
    name, _, draw = task.partition("/")
    seeds = 1 + int(draw) if draw.isdecimal() else 1
    split = next((one for one in SPLITS if name in Named().ids(one)), SPLITS[0])
    world = Named(split=split, names=(name,), seeds=seeds, seed=spec.seed)
    listed = [one for one, _ in world.listed()]
    if draw and task not in listed:
        raise SetupError(f"MobileGym has no instance {task}; the last one is {listed[-1]}")
    session = world.open(0)
    return Place(session.task(listed[-1]), {"name": "mobilegym", "split": split, "scale": world.scale}, session.close)


def _world(spec: DeviceSpec, name: str, task: str) -> Place:
    if spec.goal:
        raise SetupError(f"{spec.device} has its own goals; leave yours out")
    world = NamedWorld(name)
    listed = [one for one, _ in world.listed()]
    if task and task not in listed:
        raise SetupError(f"{name} has no task {task!r}; it has {', '.join(listed[:8])}")
    session = world.open(0)
    return Place(session.task(task or listed[spec.seed % len(listed)]), {"name": name}, session.close)


def _is_world(name: str) -> bool:
    try:
        WORLDS.check(name)
    except SetupError:
        return False
    return True


def _adb(spec: DeviceSpec) -> Place:
    from guiderail.envs.android.adb import Adb, AdbDevice

    if not spec.goal:
        raise SetupError(f'--device {spec.device} has no goal of its own; give one, such as "Turn on Wi-Fi"')
    adb = Adb(spec.device)
    apps = read_apps(spec.apps)
    task = FreeGoal(spec.goal, lambda: AdbDevice(adb, apps, spec.settle))
    return Place(task, {"name": "adb", "device": spec.device}, adb.disconnect, real=True)
