"""python -m guiderail.launch.demo_scores FOLDER NAME MODEL TASKS: score one of the demo's agents.

`guiderail evaluate sop` and `guiderail evaluate pocket` in one process, because starting a process takes seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from guiderail.launch.cli import app


def commands(folder: Path, name: str, model: str, tasks: str) -> list[list[str]]:
    """Arguments of guiderail for both run folders, recordings and live tasks. Answers are sampled at temperature 1."""
    agent = ["--width", "64", "--temperature", "1", "--model", model]
    phones = ["--tasks", tasks, "--seed", "2"]
    return [
        ["evaluate", *where, *agent, "--out", str(folder / "scores" / name / kind)]
        for kind, where in (("sop", ["sop", str(folder / "test")]), ("live", ["pocket", *phones]))
    ]


def run(arguments: list[str]) -> None:
    """As `guiderail ARGUMENTS` does, and recorded in run folders as that command."""
    sys.argv = ["guiderail", *arguments]
    app(standalone_mode=False)


if __name__ == "__main__":
    for one in commands(Path(sys.argv[1]), *sys.argv[2:]):
        run(one)
