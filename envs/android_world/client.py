"""Our side of AndroidWorld's process: starts `worker` under AndroidWorld's own Python, asks it, and ends it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import guiderail
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.envs.android_world import worker
from guiderail.envs.android_world.worker import Message

PYTHON = "GUIDERAIL_ANDROID_WORLD_PYTHON"
"""Environment variable that names AndroidWorld's Python."""
INSTALL = (
    "git clone https://github.com/google-research/android_world && python3.11 -m venv android-world-env "
    "&& android-world-env/bin/pip install -r android_world/requirements.txt 'setuptools>=75,<81' "
    "&& android-world-env/bin/pip install --no-build-isolation ./android_world "
    f"&& export {PYTHON}=$PWD/android-world-env/bin/python"
)
"""AndroidWorld's documented steps in an environment of its own, except that pip runs its setup.py: run by itself, it needs a
setuptools with pkg_resources and then makes an egg whose files AndroidWorld cannot open."""
PACKAGE = Path(guiderail.__file__).parent
SECONDS = 600.0


def python_of(given: str | None) -> str:
    """AndroidWorld's Python: `given`, else as the environment variable names it. Raises SetupError."""
    python = given or os.environ.get(PYTHON, "")
    if not python:
        raise SetupError(
            f"AndroidWorld runs in a Python environment of its own; name its Python with --android-world-python or {PYTHON}. "
            f"To make one: {INSTALL}"
        )
    if not os.access(python, os.X_OK) or Path(python).is_dir():
        raise SetupError(f"AndroidWorld's Python {python!r} is not a program; to make one: {INSTALL}")
    return python


class Client:
    """One AndroidWorld process. Not for several threads. Any failure of the process or the socket ends it.

    It has a folder for temporary files of its own: AndroidWorld makes files there under names that others of it make too.

    Raises SetupError when it does not start or cannot import AndroidWorld.
    """

    def __init__(self, python: str):
        self._said: deque[str] = deque(maxlen=20)
        self._wire, theirs = socket.socketpair()
        self._scratch = tempfile.mkdtemp(prefix=worker.SCRATCH)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        clean["TMPDIR"] = self._scratch
        command = [python, "-P", str(Path(worker.__file__).resolve()), str(theirs.fileno()), str(os.getpid())]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    env=clean,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                self._wire.close()
                shutil.rmtree(self._scratch, ignore_errors=True)
                raise SetupError(f"cannot run {python}: {error}; to make AndroidWorld's Python: {INSTALL}") from None
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def _listen(self, lines: IO[bytes]) -> None:
        """Keep the last lines that the process printed; they say why it ended."""
        for line in iter(lambda: lines.readline(4096), b""):
            if text := line.decode("utf-8", "replace").strip():
                self._said.append(text)

    @property
    def alive(self) -> bool:
        """Asked without reaping it, so that `close` can still end its group."""
        if self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def ask(self, op: str, seconds: float = SECONDS, **given: Any) -> tuple[Message, bytes]:
        """One operation of `worker.AndroidWorld`, within `seconds`. Raises EnvCrashed, and SetupError where the user must act."""
        deadline = time.monotonic() + seconds
        try:
            self._wire.settimeout(seconds)
            worker.send(self._wire, {"op": op, **given})
            answer, blob = worker.receive(self._wire, deadline)
        except TimeoutError:
            self.close()
            raise EnvCrashed(f"AndroidWorld: {op} took longer than {seconds:g} s") from None
        except ValueError as error:
            self.close()
            raise EnvCrashed(f"AndroidWorld: {op}: {error}") from None
        except (OSError, EOFError) as error:
            self.close()
            why = self._said[-1][:300] if self._said else str(error) or type(error).__name__
            raise EnvCrashed(f"AndroidWorld's process ended during {op}: {why}") from None
        except BaseException:  # an alarm: the answer that is still to come would be taken for that of the next question
            self.close()
            raise
        if "refused" in answer:
            raise SetupError(_refusal(str(answer["refused"])))
        if "error" in answer:
            raise EnvCrashed(f"AndroidWorld: {op}: {answer['error']}")
        return answer, blob

    def close(self) -> None:
        """End the process and all that it started. May be called more than once."""
        self._wire.close()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _refusal(text: str) -> str:
    return (
        text if text.startswith("AndroidWorld has no task") else f"AndroidWorld cannot be used ({text}); run: {INSTALL}"
    )


def tasks(python: str, **asked: Any) -> list[str]:
    """NAME_INSTANCE of each task of a suite, from a process of its own. Raises SetupError."""
    client = Client(python)
    try:
        return [str(name) for name in client.ask("suite", 120.0, **asked)[0]["tasks"]]
    except EnvCrashed as crash:
        raise SetupError(f"{python} cannot list AndroidWorld's tasks ({crash}); run: {INSTALL}") from None
    finally:
        client.close()
