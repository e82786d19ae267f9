"""How fast a pocket phone is behind the real AndroidEnv, on one core: `python benchmarks/pocket.py [--json]`.

A tap is two env steps (touch, lift), each with a pixel observation; every tap changes the screen, so every tap redraws.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from agent.types import Terminate
from envs.pocket.draw import draw
from envs.pocket.record import record
from envs.pocket.tasks import tasks
from envs.pocket.words import TOGGLES
from envs.pocket.world import PocketWorld

SIZES = ((160, 288), (540, 960))


def taps_per_second(size: tuple[int, int], taps: int) -> float:
    """Switch visible toggles in turn; each flips its picture."""
    with PocketWorld(size) as world:
        world.start(tasks(1)[0])
        world.phone.open("Settings")
        world.phone.state.dialog = None
        targets = [i for i in world.phone.scene().placed if i.cell.kind == "toggle" and i.cell.text in TOGGLES]
        pairs = []
        for item in targets:
            left, top, right, bottom = item.box
            place = np.array([(left + right) / 2 / size[0], (top + bottom) / 2 / size[1]], np.float32)
            pairs.append([{"action_type": np.array(kind, np.int32), "touch_position": place} for kind in (0, 1)])
        world.phone.state.popups = {}
        frames = 0
        before = world.env.step(pairs[0][1]).observation["pixels"]
        start = time.perf_counter()
        for k in range(taps):
            world.env.step(pairs[k % len(pairs)][0])
            after = world.env.step(pairs[k % len(pairs)][1]).observation["pixels"]
            frames += not np.array_equal(before, after)
            before = after
        seconds = time.perf_counter() - start
    if frames != taps:
        raise RuntimeError(f"only {frames} of {taps} taps changed the screen: this measures nothing")
    return taps / seconds


def episodes(size: tuple[int, int], count: int) -> dict[str, float]:
    """Experts on live tasks through AndroidDevice, every step observed as pixels."""
    steps, reset = 0, 0.0
    with PocketWorld(size) as world:
        drawn = tasks(count)
        start = time.perf_counter()
        for task in drawn:
            t = time.perf_counter()
            device = world.start(task)
            reset += time.perf_counter() - t
            for _ in range(task.max_steps):
                device.pixels()
                action = task.expert(world.phone, device.answers).action
                if isinstance(action, Terminate):
                    break
                device.act(action)
                steps += 1
        seconds = time.perf_counter() - start
    return {"actions_per_s": steps / seconds, "reset_ms": reset / count * 1000}


def frames_per_second(size: tuple[int, int], count: int) -> float:
    """Drawing alone, phones that were never drawn before included."""
    from envs.pocket.phone import Phone

    scenes = [Phone(task.start(), *size).scene() for task in tasks(count, seed=9, style="free")]
    start = time.perf_counter()
    for scene in scenes:
        draw(scene)
    return count / (time.perf_counter() - start)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    result: dict[str, object] = {}
    for size in SIZES:
        name = f"{size[0]}x{size[1]}"
        result[name] = {
            "taps_per_s": round(taps_per_second(size, 2000 if size[0] < 300 else 600)),
            "cold_frames_per_s": round(frames_per_second(size, 50)),
            **{key: round(value, 1) for key, value in episodes(size, 60).items()},
        }
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        counts = record(Path(folder) / "data", 300)
        result["record"] = {
            "episodes_per_s": round(300 / (time.perf_counter() - start), 1),
            "screens": counts["screens"],
        }
    sys.stdout.write(json.dumps(result, indent=None if "--json" in sys.argv else 2) + "\n")


if __name__ == "__main__":
    main()
