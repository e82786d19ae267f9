"""guiderail commands as processes that can be killed or run out of disk, and start without importing torch each time."""

import multiprocessing
import os
import resource
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["guiderail.launch.cli", "guiderail.launch.train", __name__])


def start(words: Sequence[object], said: Path, disk: int | None = None) -> BaseProcess:
    """Start `guiderail WORDS`. said: file for what it prints. disk: no file can grow beyond so many bytes."""
    process = CONTEXT.Process(target=_run, args=([str(word) for word in words], str(said), disk))
    process.start()
    return process


def _run(words: list[str], said: str, disk: int | None) -> None:
    from guiderail.launch.cli import main

    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    if disk is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
    sys.argv = ["guiderail", *words]
    main()


def finish(process: BaseProcess, said: Path, code: int = 0) -> str:
    """Wait for the end; returns what it printed."""
    process.join(600)
    text = said.read_text()
    assert process.exitcode == code, text
    assert "Traceback" not in text
    return text
