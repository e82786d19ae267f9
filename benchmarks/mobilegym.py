"""MobileGym's phones on this machine: steps per second and memory of several at once, or memory over many resets of one.

    python benchmarks/mobilegym.py steps CHECKOUT [--phones 4] [--scale 1] [--episodes 6] [--theirs] [--json]
    python benchmarks/mobilegym.py resets CHECKOUT [--resets 1000] [--every 50] [--json]

steps: each phone is a process with a Chromium of its own, as a worker of `guiderail evaluate` has one. An episode is the setup
of a task and 10 taps, each with a screenshot before it. A tap is over when the screen stands still. Memory: proportional set size
(PSS) of processes and browsers. --theirs: then the same episodes in MobileGym's own environment, one process and browser per
phone, without its pause after each action. It needs Playwright and a browser that Playwright finds.
resets: PSS of process and browser after every 50 resets, each also written to stderr as it is read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from guiderail.agent.types import Click, Point
from guiderail.envs.mobilegym.site import COOKIE, Site
from guiderail.envs.mobilegym.tasks import MobileGym

TASK, STEPS = "wechat.SetSignature", 10


def pss(pid: int) -> float:
    """MiB of a process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = {pid}
    while more := {p for p, parent in parents.items() if parent in found} - found:
        found |= more
    total = 0
    for one in found:
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def phone(checkout: str, scale: int, episodes: int, barrier: Barrier, out: Any) -> None:
    session = MobileGym(checkout, "train", (TASK,), scale=scale).open(0)
    task = session.task(f"{TASK}/0")
    task.start()
    barrier.wait()
    setups, began = [], time.perf_counter()
    for episode in range(episodes):
        start = time.perf_counter()
        device = task.start()
        setups.append(time.perf_counter() - start)
        for step in range(STEPS):
            device.screenshot()
            device.act(Click(Point(0.1 + 0.2 * ((episode + step) % 5), 0.12 + 0.07 * step)))
    out.put((time.perf_counter() - began, setups, pss(os.getpid())))
    barrier.wait()  # nobody's memory is released before everybody's has been read
    session.close()


def their_phone(checkout: str, scale: int, episodes: int, barrier: Barrier, out: Any) -> None:
    asyncio.run(_their_phone(checkout, scale, episodes, barrier, out))


async def _their_phone(checkout: str, scale: int, episodes: int, barrier: Barrier, out: Any) -> None:
    sys.path.insert(0, checkout)
    logging.disable(logging.CRITICAL)
    from bench_env.env.base import Action, ActionType
    from bench_env.env.mobile_gym import MobileGymEnv
    from bench_env.task.registry import TaskRegistry

    site = Site(Path(checkout) / "dist", None)
    size = {"device_scale_factor": scale, "physical_size": (360 * scale, 800 * scale), "viewport_size": (360, 800)}
    env = MobileGymEnv(url=site.url, headless=True, delay_after_action=0.0, verbose=False, **size)
    await env.start()
    await env._context.add_cookies([{"name": COOKIE, "value": site.token, "url": site.url}])
    env._fresh = False
    await TaskRegistry().create_task(TASK, _seed=0).setup(env)
    barrier.wait()
    setups, began = [], time.perf_counter()
    for episode in range(episodes):
        start = time.perf_counter()
        await TaskRegistry().create_task(TASK, _seed=0).setup(env)
        setups.append(time.perf_counter() - start)
        for step in range(STEPS):
            point = [100 + 200 * ((episode + step) % 5), 120 + 70 * step]
            await env.step(Action(action_type=ActionType.CLICK, data={"point": point}))
    out.put((time.perf_counter() - began, setups, pss(os.getpid())))
    barrier.wait()
    await env.close()


def steps(whose: Callable[..., None], checkout: str, phones: int, scale: int, episodes: int) -> dict[str, Any]:
    context = get_context("spawn")
    barrier, out = context.Barrier(phones), context.Queue()
    running = [context.Process(target=whose, args=(checkout, scale, episodes, barrier, out)) for _ in range(phones)]
    for one in running:
        one.start()
    made = [out.get(timeout=1800) for _ in running]
    for one in running:
        one.join()
    return {
        "whose": "ours" if whose is phone else "MobileGym's",
        "phones": phones,
        "scale": scale,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[2], 1),
        "steps_per_second": round(phones * episodes * STEPS / max(seconds for seconds, _, _ in made), 2),
        "setup_seconds_median": round(statistics.median(s for _, setups, _ in made for s in setups), 2),
        "mib_per_phone": round(statistics.mean(mib for _, _, mib in made)),
    }


def resets(checkout: str, count: int, every: int) -> dict[str, Any]:
    session = MobileGym(checkout, "train", (TASK,), scale=1).open(0)
    task, seen, began = session.task(f"{TASK}/0"), [], time.perf_counter()
    for done in range(1, count + 1):
        task.start()
        if done % every == 0:
            seen.append(round(pss(os.getpid())))
            print(f"{done} resets, {time.perf_counter() - began:.0f} s: {seen[-1]} MiB", file=sys.stderr, flush=True)
    session.close()
    return {
        "resets": count,
        "every": every,
        "mib": seen,
        "seconds_each": round((time.perf_counter() - began) / count, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "resets"))
    parser.add_argument("checkout")
    parser.add_argument("--phones", type=int, default=4)
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=6)
    parser.add_argument("--resets", type=int, default=1000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--theirs", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.what == "steps":
        sides = [phone, their_phone] if given.theirs else [phone]
        made = [steps(side, given.checkout, given.phones, given.scale, given.episodes) for side in sides]
    else:
        made = [resets(given.checkout, given.resets, given.every)]
    for one in made:
        print(json.dumps(one) if given.json else "\n".join(f"{name:22} {value}" for name, value in one.items()))


if __name__ == "__main__":
    main()
