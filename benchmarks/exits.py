"""How often a finished training with several processes exits badly. Each run is a real `guiderail train` of two processes
with ZeRO-3: both are forked from one that has imported everything, and end as the command ends.

    python benchmarks/exits.py --runs 50
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from guiderail.rl.runs.ending import end_at_once

RANKS = (0, 1)
DEADLINE = 300.0
"""Seconds for one run."""
SMALL = [
    *("method.groups=2", "method.rollouts=2", "method.eta=0", "method.spread_of=none", "method.tries=1"),
    *("training.max_steps=1", "training.steps_per_generation=1", "training.gradient_accumulation_steps=1"),
    *("model.max_new_tokens=4", "training.save_strategy=no", "training.deepspeed=zero3.json"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    runs = parser.parse_args().runs
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started, ends, failed = time.monotonic(), Counter[str](), []
    out = Path(tempfile.mkdtemp())  # not for a `with` or `finally`, which the children go through as well
    record = [sys.executable, "-m", "guiderail.launch.cli", "record", "pocket", "--episodes", "4"]
    subprocess.run([*record, "--out", str(out / "data")], check=True, capture_output=True, timeout=DEADLINE)
    import guiderail.launch.train  # noqa: F401

    for number in range(runs):
        codes = _run(out, number)
        trained = (out / f"run-{number}" / "metrics.json").is_file()
        ends[f"{'trained' if trained else 'not trained'}, exit codes {codes}"] += 1
        if codes != (0, 0) or not trained:
            failed.append(number)
            print((out / f"log-{number}").read_text()[-3000:], file=sys.stderr)
        print(f"{number + 1} runs, {len(failed)} bad, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    shutil.rmtree(out)
    for end, count in ends.items():
        print(f"{count} x {end}")
    print(f"{len(failed)} of {runs} runs ended badly, {time.monotonic() - started:.0f} s")
    sys.exit(bool(failed))


def _run(out: Path, number: int) -> tuple[int, ...]:
    """The exit codes of the processes; a negative one is a signal."""
    sys.stdout.flush()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_forked(rank, port, out, number) for rank in RANKS]
    return tuple(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _forked(rank: int, port: int, out: Path, number: int) -> int:
    """Returns in the parent only; the child goes up through `end_at_once` to the end of this program."""
    child = os.fork()
    if child:
        return child
    import signal

    signal.alarm(int(DEADLINE))
    log = os.open(out / f"log-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(RANKS))}
    os.environ |= {"LOCAL_WORLD_SIZE": str(len(RANKS)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    folder = f"{out}/run-{number}"
    sys.argv = ["guiderail", "train", "tiny_semi_online", f"data.train={out}/data", *SMALL, "--out", folder]
    from guiderail.launch.cli import app

    app()
    raise AssertionError("a command ends with SystemExit")


if __name__ == "__main__":
    end_at_once(main)
