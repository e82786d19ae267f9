"""Two machines on one: network namespaces joined by a cable, each with a name, an address and a hosts file of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("ip", "nsenter", "unshare", "mount")


def missing() -> str:
    """Why there can be no namespaces here; empty where there can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(lacking)}: apt-get install iproute2 util-linux"
    tried = subprocess.run(["unshare", "--net", "--mount", "--uts", "true"], capture_output=True, text=True)
    return f"namespaces are forbidden here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass
class Node:
    """A machine. `start` runs a program on it; what it prints goes to a file."""

    name: str
    address: str
    space: str
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: object, log: str, **env: object) -> subprocess.Popen[bytes]:
        enter = ["nsenter", f"--net=/var/run/netns/{self.space}", "unshare", "--uts", "--mount", "sh", "-c"]
        script = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
        place = [script, "sh", self.name, str(self.folder / "hosts"), *map(str, command)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with (self.folder / log).open("ab") as file:
            process = subprocess.Popen(
                [*enter, *place],
                cwd=ROOT,
                env={**_environment(), "PATH": path, **{key: str(value) for key, value in env.items()}},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def kill(self) -> None:
        """Pull the plug: all that runs here ends at once."""
        for process in self.started:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        inside = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True).stdout.split()
        for pid in inside:  # daemons leave their group
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.started.clear()

    def said(self, log: str) -> str:
        return (self.folder / log).read_text(errors="replace")[-4000:]


def _environment() -> dict[str, str]:
    own = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NNODES", "NODE_RANK")
    clean = {key: value for key, value in os.environ.items() if key not in own and not key.startswith("SLURM")}
    return clean | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "TOKENIZERS_PARALLELISM": "false",
    }


@contextmanager
def two_machines(folder: Path) -> Iterator[tuple[Node, Node]]:
    """Both are up inside the block; at its end whatever runs on them is killed."""
    number = os.getpid() % 10000
    nodes = tuple(Node(f"guide{i}", f"10.77.{number % 250}.{10 + i}", f"guiderail{number}-{i}", folder) for i in (1, 2))
    hosts = "".join(f"{node.address} {node.name}\n" for node in nodes)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    try:
        for node in nodes:
            _ip("netns", "add", node.space)
        ends = [f"gr{number}{side}" for side in "ab"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for node, end in zip(nodes, ends, strict=True):
            _ip("link", "set", end, "netns", node.space)
            _ip("-n", node.space, "address", "add", f"{node.address}/24", "dev", end)
            _ip("-n", node.space, "link", "set", end, "up")
            _ip("-n", node.space, "link", "set", "lo", "up")
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            node.kill()
            subprocess.run(["ip", "netns", "delete", node.space], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


def until(
    what: str, true: Callable[[], object], seconds: float, failed: Callable[[], str | None] = lambda: None
) -> None:
    """Wait for something; AssertionError after `seconds`, or as soon as `failed` says why it cannot come."""
    end = time.monotonic() + seconds
    while not true():
        reason = failed()
        assert reason is None, reason
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(2)
