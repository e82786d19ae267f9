"""A real SLURM over two nodes of tests/launch/machines.py: munged, slurmctld and slurmd from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.launch.machines import Node, until

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sacctmgr")

CONF = """\
ClusterName=guiderail
SlurmctldHost={first}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=60
NodeName={names} CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM here; empty where there can."""
    lacking = [name for name in DAEMONS[:-1] if shutil.which(name) is None]
    return f"needs {', '.join(lacking)}: apt-get install slurm-wlm munge" if lacking else ""


@dataclass
class Slurm:
    """Commands run on the first node."""

    nodes: tuple[Node, Node]
    folder: Path

    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: object, **more: object) -> str:
        """What a command prints; AssertionError where it fails."""
        log = f"{command[0]}.said"
        (self.nodes[0].folder / log).unlink(missing_ok=True)
        process = self.nodes[0].start(*command, log=log, **self.env(), **more)
        assert process.wait(60) == 0, self.nodes[0].said(log)
        return self.nodes[0].said(log).strip()

    def state(self, job: str) -> str:
        words = dict(word.split("=", 1) for word in self.run("scontrol", "show", "job", job).split() if "=" in word)
        return f"{words['JobState']} {words['Restarts']} {words['Reason']}"


@contextmanager
def slurm(nodes: tuple[Node, Node]) -> Iterator[Slurm]:
    """A cluster whose nodes are idle."""
    with tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as short:  # a socket's path has at most 108 characters
        try:
            yield _up(nodes, Path(short))
        finally:
            for node in nodes:
                node.kill()


def _up(nodes: tuple[Node, Node], folder: Path) -> Slurm:
    for name in ("state", *(f"spool-{node.name}" for node in nodes)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    names = ",".join(node.name for node in nodes)
    (folder / "slurm.conf").write_text(CONF.format(first=nodes[0].name, folder=folder, names=names))
    (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\nIgnoreSystemd=yes\n")
    made = Slurm(nodes, folder)
    places = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    places |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    options = [f"--{name}={path}" for name, path in places.items()]
    nodes[0].start("munged", "--foreground", "--force", *options, log="munged.out")
    until("munged", (folder / "munge.socket").exists, 20)
    nodes[0].start("slurmctld", "-D", log="slurmctld.out", **made.env())
    for node in nodes:
        node.start("slurmd", "-D", "-N", node.name, log=f"slurmd-{node.name}.out", **made.env())
    until("idle nodes", lambda: made.run("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"], 90)
    return made


def version() -> str:
    return subprocess.run(["slurmd", "-V"], capture_output=True, text=True).stdout.strip()
