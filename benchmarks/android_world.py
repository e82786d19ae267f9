"""AndroidWorld's tasks on Pocket, the simulated phone with stand-in apps. Needs AndroidWorld's Python, see docs/android-world.md.

    python benchmarks/android_world.py tasks [--seed N] [--page FILE]
    python benchmarks/android_world.py phones [--phones N] [--kill SECONDS]

tasks: start each of the 116 tasks, check it there, let the expert act and check again, with AndroidWorld's own suite, budgets
and checks. Prints counts per app. --page writes the table of tasks into a page, between its two marks.
phones: the experts on N phones at once, behind `guiderail evaluate`: steps per second, MiB per phone, and whether each task
was done once. --kill ends one AndroidWorld process, drawn at random, every so many seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import Terminate
from guiderail.envs.android_world.client import python_of
from guiderail.envs.android_world.expert import UNSEEN, WAYS, WITHOUT
from guiderail.envs.android_world.tasks import AndroidWorldTasks, LiveAndroidWorldTask

APPS = {
    "AudioRecorder": "audio recorder",
    "Browser": "Chrome",
    "Camera": "camera",
    "Clock": "clock",
    "Contacts": "contacts",
    "Expense": "Pro Expense",
    "Files": "files",
    "Markor": "Markor",
    "Notes": "Joplin",
    "OsmAnd": "OsmAnd",
    "Recipe": "Broccoli",
    "Retro": "Retro Music",
    "SaveCopy": "Simple Gallery Pro",
    "SimpleCalendar": "Simple Calendar Pro",
    "SimpleDraw": "Simple Draw Pro",
    "SimpleSms": "Simple SMS Messenger",
    "SportsTracker": "OpenTracks",
    "Tasks": "Tasks",
    "Vlc": "VLC",
}
"""Beginning of a task's name -> the app that it is about; all others are about the system's settings."""
MARKS = ("<!-- tasks -->\n", "<!-- end of tasks -->\n")


@dataclass(frozen=True, slots=True)
class Done:
    """One task: whether it started and was checked, whether its start was already solved, and the expert's attempt."""

    name: str
    started: bool
    begun: bool
    solved: bool
    steps: int
    budget: int
    why: str

    @property
    def app(self) -> str:
        return next((app for start, app in APPS.items() if self.name.startswith(start)), "system")


def attempted(task: LiveAndroidWorldTask, name: str) -> Done:
    started = begun = solved = False
    steps, why = 0, WITHOUT.get(name, UNSEEN.get(name, ""))
    try:
        device = task.start()
        begun, started = task.check().success, True
        device.screenshot()
        while name in WAYS and steps < task.max_steps:
            steps += 1
            action = task.expert()[1]
            if isinstance(action, Terminate):
                solved = action.status == "success" and task.check().success
                break
            device.act(action)
    except EnvCrashed as crash:
        why = why or str(crash)
    finally:
        task.close()
    return Done(name, started, begun, solved, steps, task.max_steps, why)


def every_task(seed: int) -> list[Done]:
    world = AndroidWorldTasks(python_of(None), (*WAYS, *WITHOUT), seed=seed)
    session = world.open(0)
    found = []
    for name, _ in world.listed():
        found.append(attempted(session.task(name), name.rpartition("_")[0]))
        print(f"{found[-1]}", file=sys.stderr)
    session.close()
    return sorted(found, key=lambda one: (one.app, one.name))


def counts(found: list[Done]) -> str:
    lines = ["| app | tasks | start and are checked | solved by the expert |", "|---|---|---|---|"]
    for app in [*sorted({one.app for one in found}), ""]:
        kept = [one for one in found if app in (one.app, "")]
        started, solved = sum(one.started for one in kept), sum(one.solved for one in kept)
        lines.append(f"| {app or '**all**'} | {len(kept)} | {started} | {solved} |")
    return "\n".join(lines)


def table(found: list[Done]) -> str:
    lines = ["| task | solved in steps, of | remark |", "|---|---|---|"]
    for one in found:
        steps = f"{one.steps}, {one.budget}" if one.solved else f"no, {one.budget}"
        remarks = [one.why, "begins solved" if one.begun else "", "" if one.started else "does not start"]
        lines.append(f"| {one.name} | {steps} | {'; '.join(part for part in remarks if part)} |")
    return "\n".join(lines)


def write_page(page: Path, found: list[Done], seed: int) -> None:
    before, _, rest = page.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    words = f"Made with `python benchmarks/android_world.py tasks --seed {seed} --page {page}`."
    page.write_text(f"{before}{MARKS[0]}{words}\n\n{counts(found)}\n\n{table(found)}\n{MARKS[1]}{after}", "utf-8")


# ------------------------------------------------------------------------------------------------------------- phones


def descendants(parent: int) -> list[int]:
    """Process ids below a process, as Linux lists them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            fields = entry.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = children.get(parent, [])
    return found + [below for one in found for below in descendants(one)]


def is_android_world(process: int) -> bool:
    with suppress(OSError):
        return b"android_world/worker.py" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def mebibytes(process: int) -> float:
    """Memory of a process; what it shares with others is divided among them."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def phones(number: int, kill: float, options: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "guiderail.launch.cli", "evaluate", "android-world", "--device", "pocket"]
    command += ["--agent", "expert", "--workers", str(number), "--retries", "5", "--json", *options]
    rng, killed, most, begin = random.Random(0), 0, 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/said", "w") as said:
        runner = subprocess.Popen([*command, "--out", f"{folder}/run"], stdout=subprocess.PIPE, stderr=said, text=True)
        next_kill = begin + 2 * kill
        while runner.poll() is None:
            time.sleep(0.5)
            worlds = [one for one in descendants(runner.pid) if is_android_world(one)]
            most = max(most, sum(map(mebibytes, descendants(runner.pid))))
            if kill and worlds and time.perf_counter() > next_kill:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(worlds), signal.SIGKILL)
                    killed += 1
                next_kill = time.perf_counter() + kill
        took = time.perf_counter() - begin
        if runner.returncode or runner.stdout is None:
            sys.exit(Path(f"{folder}/said").read_text()[-3000:])
        result = json.loads(runner.stdout.read().splitlines()[-1])
        rows = [json.loads(line) for line in Path(f"{folder}/run/rollouts.jsonl").read_text().splitlines()]
    times = Counter((row["unit"], row["sample"]) for row in rows)
    steps = sum(len(row["turns"]) for row in rows)
    return {
        "phones": number,
        "killed": killed,
        "tasks": len(times),
        "done_once": sum(count == 1 for count in times.values()),
        "success": result["success"],
        "unscored": [f"{one['unit']}: {one['reason']}" for one in result["unscored_attempts"]],
        "seconds": round(took, 1),
        "steps": steps,
        "steps_per_second": round(steps / took, 2),
        "mib_per_phone": round(most / number),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tasks", "phones"])
    parser.add_argument("--seed", type=int, default=30, help="AndroidWorld's own task_random_seed")
    parser.add_argument("--page", type=Path, help="page whose table is written anew")
    parser.add_argument("--phones", type=int, default=4)
    parser.add_argument("--kill", type=float, default=0.0, help="seconds between two killed processes; 0: none")
    parser.add_argument("--tasks", default="", help="task names with commas; default: all that have an expert")
    given = parser.parse_args()
    if given.what == "phones":
        options = ["--task-seed", str(given.seed), "--tasks", given.tasks]
        print(json.dumps(phones(given.phones, given.kill, options)))
        return
    found = every_task(given.seed)
    print(counts(found))
    if given.page:
        write_page(given.page, found, given.seed)


if __name__ == "__main__":
    main()
