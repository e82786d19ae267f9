"""Turns per second of live sampling: worlds in worker processes against worlds in the process of the policy.

    python -m benchmarks.fleet                       # 32 phones, 2 workers, tiny-sft on Pocket
    python -m benchmarks.fleet --phones 64 --think 0.05
    python -m benchmarks.fleet --soak 10000          # memory, processes and open files after every 1,000 attempts

Both sides attempt the same tasks with the same seeds, one after the other in each of several rounds, so a machine with other
work disturbs both. One thread per process. think: seconds that each action of a device takes besides its own work, as one of
an emulator does; a sleeping device needs no processor.

The soak needs no model: its policy touches the screen anywhere and says that it is done, after three turns on average.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.screen import Vision
from guiderail.agent.types import Action, Click, Completion, Point, Rollout, Screenshot, Terminate
from guiderail.envs.live.device import Device
from guiderail.envs.pocket.world import LivePocketTask, PocketSession, PocketTasks
from guiderail.rl.live.fleet import Fleet
from guiderail.rl.live.site import SiteSpec
from guiderail.rl.rollout.drive import drive
from guiderail.rl.rollout.live import live_units


class Slow:
    """A device whose actions take longer."""

    def __init__(self, device: Device, seconds: float):
        self.device, self.seconds = device, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.device, name)

    def screenshot(self) -> Screenshot:
        return self.device.screenshot()

    def act(self, action: Action) -> None:
        time.sleep(self.seconds)
        self.device.act(action)


class SlowSession(PocketSession):
    def task(self, name: str) -> LivePocketTask:
        task, seconds = super().task(name), self._world.think  # type: ignore[attr-defined]
        if seconds:
            start: Callable[[], Any] = task.start
            task.start = lambda: Slow(start(), seconds)  # type: ignore[method-assign,assignment]
        return task


@dataclass(frozen=True, slots=True)
class SlowTasks(PocketTasks):
    think: float = 0.0

    def open(self, worker: int) -> PocketSession:
        return SlowSession(self)


# ---------------------------------------------------------------------------------------------------------------- soak


class Toucher:
    """A policy without a model."""

    name = "toucher"
    vision = Vision(factor=32, min_pixels=32 * 32, max_pixels=10**7)

    def __init__(self) -> None:
        self.dialogue, self.turns = Dialogue(self.vision, BRIEF, 1), 0

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.turns += len(requests)
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        rng = random.Random(request.seed)
        done = rng.random() < 1 / 3
        action = Terminate("success") if done else Click(Point(rng.random(), rng.random()))
        return Completion(self.dialogue.say("", action, request.prompt.screen.screenshot), (1,), (-1.0,))


def soak(given: argparse.Namespace) -> None:
    """Prints a row of a table after every 1,000 attempts, whose results are then forgotten."""
    world, policy, rows = PocketTasks(1000, 7, "train", device=given.device), Toucher(), min(1000, given.soak)
    names = [name for name, _ in world.listed()]
    fleet = Fleet(SiteSpec(world, "brief", policy.vision, 1), given.workers, given.recycle)
    started = time.perf_counter()
    print(
        "| attempts | turns | crashed | supervisor MiB | workers MiB | processes | open files | workers replaced, recycled | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    try:
        for made in range(rows, given.soak + 1, rows):
            walks = [
                ((made, i, unit.key), unit.start(0)) for i, unit in enumerate(live_units(names[:rows], fleet.begin))
            ]
            crashed = sum(
                one.ended == "crashed" for one in fleet.drive(walks, policy, Sampling(1.0, 32), width=given.phones)
            )
            below = family(os.getpid())
            print(
                f"| {made:,} | {policy.turns:,} | {crashed} | {resident(os.getpid()):.0f} | {sum(map(resident, below)):.0f} | "
                f"{1 + len(below)} | {sum(map(open_files, [os.getpid(), *below]))} | {fleet.replaced}, {fleet.recycled} | "
                f"{time.perf_counter() - started:.0f} |",
                flush=True,
            )
    finally:
        fleet.close()
    print(f"processes left after the end: {len(family(os.getpid()))}")


def family(pid: int) -> list[int]:
    """All processes that descend from this one."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(below for child in found for below in family(child))]


def resident(pid: int) -> float:
    """MiB in memory; 0 for a process that has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def open_files(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


# ---------------------------------------------------------------------------------------------------------- throughput


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft")
    parser.add_argument("--phones", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--attempts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--think", type=float, default=0.0)
    parser.add_argument("--device", default="android_env")
    parser.add_argument("--soak", type=int, default=0, metavar="ATTEMPTS")
    parser.add_argument(
        "--recycle", type=int, default=None, help="in the soak: attempts after which a worker is replaced"
    )
    given = parser.parse_args()
    if given.soak:
        soak(given)
    else:
        throughput(given)


def throughput(given: argparse.Namespace) -> None:
    from guiderail.agent.local.policy import load_policy  # here: workers import this module, and need no torch

    world = SlowTasks(given.attempts, 7, "train", device=given.device, think=given.think)
    policy = load_policy(given.model)
    spec = SiteSpec(world, "brief", policy.vision, 1)
    names = [name for name, _ in world.listed()]
    sampling = Sampling(1.0, 32)
    site, fleet = spec.open(0), Fleet(spec, given.workers, first=1)

    def run(begin: Any, driver: Any, seed: int) -> tuple[float, list[Rollout]]:
        walks = [((seed, unit.key), unit.start(0)) for unit in live_units(names, begin)]
        started = time.perf_counter()
        made = driver(walks, policy, sampling, width=given.phones)
        return sum(len(one.turns) for one in made) / (time.perf_counter() - started), made

    ratios, waits = [], []
    try:
        run(fleet.begin, fleet.drive, 0)  # workers are up, screens are known
        run(site.begin, drive, 0)
        fleet.take_metrics()
        for seed in range(1, given.rounds + 1):
            there, fleet_made = run(fleet.begin, fleet.drive, seed)
            waits.append(fleet.take_metrics()["fleet/policy_waits"])
            here, here_made = run(site.begin, drive, seed)
            same = sum(
                [t.completion.text for t in a.turns] == [t.completion.text for t in b.turns]
                for a, b in zip(fleet_made, here_made, strict=True)
            )
            ratios.append(there / here)
            print(
                f"round {seed}: fleet {there:.1f} turns/s, in one process {here:.1f}, ratio {ratios[-1]:.2f}; "
                f"policy waits {100 * waits[-1]:.0f} %; {same} of {len(here_made)} attempts equal"
            )
    finally:
        fleet.close()
        site.session.close()
    print(f"median ratio {statistics.median(ratios):.2f} over {given.rounds} rounds, {given.phones} phones")


if __name__ == "__main__":
    main()
