"""The scores of one of the demo's agents, in one process: starting one takes seconds.

python -m launch.demo_scores FOLDER NAME MODEL TASKS does what `guiderail evaluate sop` and `evaluate pocket` would do one
after the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launch.cli import app


def commands(folder: Path, name: str, model: str, tasks: str) -> list[list[str]]:
    """Arguments of guiderail, a list per run folder: recordings and live tasks, answers sampled at temperature 1."""
    agent = ["--width", "64", "--temperature", "1", "--model", model]
    phones = ["--tasks", tasks, "--seed", "2"]
    return [
        ["evaluate", *where, *agent, "--out", str(folder / "scores" / name / kind)]
        for kind, where in (("sop", ["sop", str(folder / "test")]), ("live", ["pocket", *phones]))
    ]


def run(arguments: list[str]) -> None:
    """As `guiderail ARGUMENTS` would; run folders record that command."""
    sys.argv = ["guiderail", *arguments]
    app(standalone_mode=False)


if __name__ == "__main__":
    for one in commands(Path(sys.argv[1]), *sys.argv[2:]):
        run(one)
