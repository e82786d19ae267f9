"""Speed of live worlds on this machine.

python benchmarks/live.py miniwob     steps/s of two workers with screenshots, against the miniwob package's own
                                      environment doing the same clicks; rounds alternate, so both see the same load
python benchmarks/live.py attempts    attempts/minute of the experts with 1 and 2 workers, per world, all included:
                                      starting workers and browsers, checks, journal and images
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

PAGE, STEPS_PER_EPISODE, EPISODES, WORKERS, ROUNDS = "click-checkboxes", 10, 4, 2, 5


def points(seed: int) -> list[tuple[float, float]]:
    """Clicks above the Submit button, in page pixels."""
    rng = random.Random(seed)
    return [(rng.uniform(5, 155), rng.uniform(55, 100)) for _ in range(STEPS_PER_EPISODE)]


def ours(scale: int) -> Callable[[int], None]:
    from agent.types import Click
    from envs.miniwob.browser import Browser, BrowserDevice
    from envs.miniwob.page import fraction

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
    import os

    import gymnasium
    import miniwob
    import numpy as np
    from miniwob.action import ActionTypes

    from envs.miniwob.browser import find_browser

    os.environ["MINIWOB_CHROME_BINARY"], os.environ["MINIWOB_CHROMEDRIVER"] = find_browser()
    gymnasium.register_envs(miniwob)
    env: Any = gymnasium.make(f"miniwob/{PAGE}-v1", disable_env_checker=True).unwrapped
    env.instance.driver.execute_script("core.EPISODE_MAX_TIME = 3600000;")

    def episode(seed: int) -> None:
        env.reset(seed=seed)
        for x, y in points(seed):
            env.step(env.create_action(ActionTypes.CLICK_COORDS, coords=np.array([x, y], np.float32)))

    return episode


MAKERS: dict[str, Callable[[], Callable[[int], None]]] = {
    "package, 160x210": package,
    "ours, 160x210": lambda: ours(1),
    "ours, 320x420": lambda: ours(2),
    "ours, 640x840": lambda: ours(4),
}


def worker(name: str, number: int, barrier: Barrier) -> None:
    """One episode to warm up, then a block of episodes per round, begun and ended together with the other worker."""
    episode = MAKERS[name]()
    episode(0)
    for turn in range(ROUNDS):
        barrier.wait()
        for k in range(EPISODES):
            episode(1000 * number + 10 * turn + k)
        barrier.wait()


def steps_per_second() -> None:
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
    base = speeds["package, 160x210"]
    print(f"{WORKERS} workers, {PAGE}, a reset per {STEPS_PER_EPISODE} steps, {ROUNDS} alternating rounds, medians")
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, base, strict=True))
        print(f"{name:18} {statistics.median(found):6.1f} steps/s   {100 * ratio:4.0f} % of the package")


def attempts_per_minute() -> None:
    worlds = {"pocket": ["--tasks", "120"], "miniwob": ["--suite", "smoke", "--seeds", "8"]}
    for world, words in worlds.items():
        for workers in ("1", "2"):
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, "-m", "launch.cli", "evaluate", world, "--agent", "expert", *words]
                begin = time.perf_counter()
                made = subprocess.run(
                    [*command, "--workers", workers, "--out", f"{out}/run", "--json"], capture_output=True, text=True
                )
                took = time.perf_counter() - begin
            if made.returncode:
                sys.exit(made.stderr)
            result = json.loads(made.stdout)
            print(
                f"{world:8} {workers} worker(s): {60 * result['n'] / took:6.0f} attempts/minute, {result['n']} in {took:.0f} s"
            )


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        {"miniwob": steps_per_second, "attempts": attempts_per_minute}[sys.argv[1]]()
