"""Speed of live worlds on this machine.

    python benchmarks/live.py [attempts | steps] [--out FILE]

attempts: attempts per minute of the scripted experts in each world, with 1 and 2 workers. The time includes starting workers
and browsers, checks, the journal and images. Worlds that are not installed are left out.
steps: steps per second of two workers on MiniWoB++ with screenshots, compared with the miniwob package's own environment
making the same clicks. Rounds alternate, so both see the same load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from guiderail.envs.android_world.client import PYTHON

WORLDS = {
    "pocket": ["pocket", "--tasks", "1200"],
    "pocket through the adb client": ["pocket", "--device", "adb", "--tasks", "160"],
    "MiniWoB++ (smoke)": ["miniwob", "--suite", "smoke", "--seeds", "10"],
    "AndroidWorld on pocket": ["android-world", "--device", "pocket", "--combinations", "2"],
}
NEEDS = {"miniwob": "miniwob", "pocket": "android_env"}

PAGE, STEPS_PER_EPISODE, EPISODES, WORKERS, ROUNDS = "click-checkboxes", 10, 4, 2, 5


def attempts_per_minute() -> list[dict[str, Any]]:
    rows = []
    for world, words in WORLDS.items():
        if words[0] == "android-world":
            missing = "" if os.environ.get(PYTHON) else f"{PYTHON} is not set"
        else:
            missing = "" if find_spec(NEEDS[words[0]]) else f"{NEEDS[words[0]]} is not installed"
        if missing:
            print(f"{world}: {missing}")
            continue
        for workers in (1, 2):
            result, took = evaluated([*words, "--workers", str(workers)])
            row = {
                "world": world,
                "workers": workers,
                "attempts": result["n"],
                "unscored": result["unscored"],
                "success": result["success"],
                "seconds": round(took, 1),
                "attempts_per_minute": round(60 * result["n"] / took),
            }
            rows.append(row)
            print(
                f"{world:30} {workers} worker(s): {row['attempts_per_minute']:5d} attempts/minute, "
                f"{row['attempts']} in {took:.1f} s, success {row['success']}"
            )
    return rows


def evaluated(words: list[str]) -> tuple[dict[str, Any], float]:
    """Run `guiderail evaluate` with these words; its JSON result and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "guiderail.launch.cli", "evaluate", *words, "--agent", "expert", "--json"]
        begin = time.perf_counter()
        made = subprocess.run([*command, "--out", f"{folder}/run"], capture_output=True, text=True)
        took = time.perf_counter() - begin
    if made.returncode:
        sys.exit(made.stderr)
    return json.loads(made.stdout), took


def points(seed: int) -> list[tuple[float, float]]:
    """Clicks above the Submit button, in page pixels."""
    rng = random.Random(seed)
    return [(rng.uniform(5, 155), rng.uniform(55, 100)) for _ in range(STEPS_PER_EPISODE)]


def ours(scale: int) -> Callable[[int], None]:
    from guiderail.agent.types import Click
    from guiderail.envs.miniwob.browser import Browser, BrowserDevice
    from guiderail.envs.miniwob.page import fraction

    browser = Browser(scale)

    def episode(seed: int) -> None:
        device = BrowserDevice(browser, PAGE, seed)
        device.screenshot()
        for x, y in points(seed):
            device.act(Click(fraction(x, y)))
            browser.standing()
            device.screenshot()

    return episode


def package() -> Callable[[int], None]:
    import gymnasium
    import miniwob
    import numpy as np
    from miniwob.action import ActionTypes

    from guiderail.envs.live.chromium import find_browser

    os.environ["MINIWOB_CHROME_BINARY"], os.environ["MINIWOB_CHROMEDRIVER"] = find_browser()
    gymnasium.register_envs(miniwob)
    env: Any = gymnasium.make(f"miniwob/{PAGE}-v1", disable_env_checker=True).unwrapped
    env.instance.driver.execute_script("core.EPISODE_MAX_TIME = 3600000;")

    def episode(seed: int) -> None:
        env.reset(seed=seed)
        for x, y in points(seed):
            env.step(env.create_action(ActionTypes.CLICK_COORDS, coords=np.array([x, y], np.float32)))

    return episode


BASE = "package, 160x210"
MAKERS: dict[str, Callable[[], Callable[[int], None]]] = {
    BASE: package,
    "ours, 160x210": lambda: ours(1),
    "ours, 320x420": lambda: ours(2),
    "ours, 640x840": lambda: ours(4),
}


def worker(name: str, number: int, barrier: Barrier) -> None:
    """One episode as a warm-up, then a block of episodes per round. Workers begin and end each round together."""
    episode = MAKERS[name]()
    episode(0)
    for turn in range(ROUNDS):
        barrier.wait()
        for k in range(EPISODES):
            episode(1000 * number + 10 * turn + k)
        barrier.wait()


def steps_per_second() -> list[dict[str, Any]]:
    context = get_context("spawn")
    crews = {}
    for name in MAKERS:
        barrier = context.Barrier(WORKERS + 1)
        crews[name] = (barrier, [context.Process(target=worker, args=(name, n, barrier)) for n in range(WORKERS)])
        for process in crews[name][1]:
            process.start()
    speeds: dict[str, list[float]] = {name: [] for name in MAKERS}
    for _ in range(ROUNDS):
        for name, (barrier, _) in crews.items():
            barrier.wait(120)
            begin = time.perf_counter()
            barrier.wait(600)
            speeds[name].append(WORKERS * EPISODES * STEPS_PER_EPISODE / (time.perf_counter() - begin))
    for _, processes in crews.values():
        for process in processes:
            process.join()
    rows = []
    print(f"{WORKERS} workers, {PAGE}, a reset per {STEPS_PER_EPISODE} steps, {ROUNDS} alternating rounds, medians")
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, speeds[BASE], strict=True))
        speed = statistics.median(found)
        rows.append({"environment": name, "steps_per_second": round(speed, 1), "of_package": round(ratio, 3)})
        print(f"{name:18} {speed:6.1f} steps/s   {100 * ratio:4.0f} % of the package")
    return rows


PARTS = {"attempts": attempts_per_minute, "steps": steps_per_second}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=[*PARTS, "both"], default="both")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    machine = f"{os.cpu_count()} x {platform.machine()}, Python {platform.python_version()}"
    command = f"python benchmarks/live.py {options.part}"
    made = {
        "machine": machine,
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "load_before": os.getloadavg()[0],
    }
    made |= {name: PARTS[name]() for name in PARTS if options.part in (name, "both")}
    if options.out is not None:
        options.out.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
