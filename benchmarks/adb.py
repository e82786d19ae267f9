"""Steps per second on Pocket, the simulated phone: in this process, through android_env, through the real adb client.

    python benchmarks/adb.py [SECONDS]

A step is a screenshot and a tap, at 160x288. Each way is measured for SECONDS (default 5).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from guiderail.agent.types import Click, Point
from guiderail.envs.live.device import Device
from guiderail.envs.pocket.adb_host import AdbHost
from guiderail.envs.pocket.env_host import EnvHost
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import task

TASK = task("toggle", 0)


def steps_per_second(device: Device, seconds: float) -> float:
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        device.screenshot()
        device.act(Click(Point(0.5, 0.2 + 0.1 * (steps % 6))))
        steps += 1
    return steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float, nargs="?", default=5.0)
    seconds = parser.parse_args().seconds
    through_env, through_adb = EnvHost(), AdbHost()
    ways: dict[str, Callable[[], Device]] = {
        "in this process": lambda: PhoneInHand(Phone(TASK.start())),
        "android_env": lambda: through_env.start(TASK),
        "adb client": lambda: through_adb.start(TASK),
    }
    for name, start in ways.items():
        print(f"{name:16s} {steps_per_second(start(), seconds):8.1f} steps/s")
    through_env.close()
    through_adb.close()


if __name__ == "__main__":
    main()
