"""How fast Pocket, the simulated phone, is behind the real AndroidEnv, on one core.

    python benchmarks/pocket.py [--json]

A tap is two environment steps (touch, lift), each with a pixel observation. Every tap changes the screen, so every tap draws
it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from guiderail.agent.types import Terminate
from guiderail.envs.pocket.draw import draw
from guiderail.envs.pocket.env_host import EnvHost
from guiderail.envs.pocket.record import record
from guiderail.envs.pocket.tasks import tasks
from guiderail.envs.pocket.words import TOGGLES

SIZES = ((160, 288), (540, 960))
STYLES = ("easy", "phone")
"""What is compared: taps on the same switches, at the second size."""


def taps_per_second(size: tuple[int, int], taps: int, style: str = "easy") -> float:
    """Tap the visible switches in turn; each tap changes the picture."""
    with EnvHost(size) as world:
        world.start(tasks(1, style=style)[0])
        world.phone.open("Settings")
        world.phone.state.dialog = None
        shown = [i for i in world.phone.scene().placed if not i.sliver]
        targets = [i for i in shown if i.cell.kind == "toggle" and i.cell.text in TOGGLES]
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
    """Experts on live tasks through AndroidDevice; every step is observed as pixels."""
    steps, reset = 0, 0.0
    with EnvHost(size) as world:
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
    """Drawing alone, of phones that were never drawn before."""
    from guiderail.envs.pocket.phone import Phone

    scenes = [Phone(task.start(), *size).scene() for task in tasks(count, seed=9, style="free")]
    start = time.perf_counter()
    for scene in scenes:
        draw(scene)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line")
    choices = parser.parse_args()
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
    rounds = [{style: taps_per_second(SIZES[1], 400, style) for style in STYLES} for _ in range(4)]
    best = {style: max(one[style] for one in rounds) for style in STYLES}
    result["styles"] = {
        **{f"{style}_taps_per_s": round(taps) for style, taps in best.items()},
        "phone_over_easy": round(best["phone"] / best["easy"], 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        counts = record(Path(folder) / "data", 300)
        result["record"] = {
            "episodes_per_s": round(300 / (time.perf_counter() - start), 1),
            "screens": counts["screens"],
        }
    sys.stdout.write(json.dumps(result, indent=None if choices.json else 2) + "\n")


if __name__ == "__main__":
    main()
