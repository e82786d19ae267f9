"""The scores of one of the demo's agents at one temperature, in one process: starting one takes seconds.

python -m launch.demo_scores FOLDER NAME MODEL TEMPERATURE does what `guiderail evaluate sop` and `evaluate pocket` would do
one after the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launch.cli import app

GREEDY, SAMPLED, CONTROL = 100, 700, 300
"""Live tasks: for the likeliest answers; for the policy that RL trains, whose success the demo is about; for that of the
control, the first of the same."""


def commands(folder: Path, name: str, model: str, temperature: str) -> list[list[str]]:
    """Arguments of guiderail, a list per run folder."""
    tasks = GREEDY if temperature == "0" else CONTROL if name == "more-sft" else SAMPLED
    phones = ["--tasks", str(tasks), "--seed", "1"]
    agent = ["--width", "64", "--temperature", temperature, "--model", model]
    return [
        ["evaluate", *where, *agent, "--out", str(folder / "scores" / name / f"{kind}-{temperature}")]
        for kind, where in (("sop", ["sop", str(folder / "test")]), ("live", ["pocket", *phones]))
    ]


if __name__ == "__main__":
    for arguments in commands(Path(sys.argv[1]), *sys.argv[2:]):
        app(arguments, standalone_mode=False)
