"""How a process of a distributed run ends: at once, after its last word."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress


def end_at_once(command: Callable[[], None]) -> None:
    """Run the command. A process that has process groups by then ends with the command's exit code, but without taking the
    interpreter apart; any other ends as usual.

    Threads of process groups (gloo's, and whatever ZeRO-3 hangs on parameters) outlive training, and some let go of a
    tensor only while the interpreter ends. They then ask for the GIL, are cancelled inside a destructor, and abort the
    process with its work done. What Python promises still comes first: threads are joined, functions of atexit run (ours is
    registered before all that the command imports, so it runs after theirs), and output is flushed.
    """
    code = 1

    def end() -> None:
        torch = sys.modules.get("torch")
        if torch is None or not torch.distributed.is_initialized():
            return
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # its reader has gone, or it is closed
                stream.flush()
        os._exit(code)

    atexit.register(end)
    try:
        command()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
