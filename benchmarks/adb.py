"""Steps per second on a pocket phone: in this process, through android_env, through the real adb client.

    python benchmarks/adb.py [seconds per road]

A step is a screenshot and a tap, at 160x288.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from agent.types import Click, Point
from envs.device import Device
from envs.pocket.hands import PhoneInHand
from envs.pocket.phone import Phone
from envs.pocket.tasks import task
from envs.pocket.wire import AdbWorld
from envs.pocket.world import PocketWorld

TASK = task("toggle", 0)


def steps_per_second(device: Device, seconds: float) -> float:
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        device.screenshot()
        device.act(Click(Point(0.5, 0.2 + 0.1 * (steps % 6))))
        steps += 1
    return steps / (time.perf_counter() - started)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    through_env, through_adb = PocketWorld(), AdbWorld()
    roads: dict[str, Callable[[], Device]] = {
        "in this process": lambda: PhoneInHand(Phone(TASK.start())),
        "android_env": lambda: through_env.start(TASK),
        "adb client": lambda: through_adb.start(TASK),
    }
    for name, start in roads.items():
        print(f"{name:16s} {steps_per_second(start(), seconds):8.1f} steps/s")
    through_env.close()
    through_adb.close()


if __name__ == "__main__":
    main()
