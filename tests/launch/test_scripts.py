"""The start scripts, each run with fakes on PATH that say how they were called."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = ("train_single.sh", "train_multi_node.sh", "train_slurm.sh")
NODE = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
JOB = {"SLURM_JOB_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456"}
GIVEN = ["my config.yaml", "training.deepspeed=launch/deepspeed/zero2.json", "goal=a  b $HOME *"]
LAUNCHER = ["-m", "guiderail.launch.torchrun"]
TRAIN = ["-m", "guiderail.launch.cli", "train", *GIVEN]
SAYS = 'for a in "$@"; do printf "%s\\n" "$a"; done; echo "OMP=$OMP_NUM_THREADS"'

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Machine:
    """A PATH with fakes in front; `run` gives the arguments that python (or srun) got, one per line."""

    def __init__(self, folder: Path):
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.cwd = folder
        self.fake("python", SAYS)
        self.fake("nvidia-smi", "exit 1")
        self.fake("getent", '[[ "$*" == "ahosts nowhere"* ]] && exit 2; exit 0')

    def fake(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str, seconds: float = 20, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(LAUNCH / script), *arguments],
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": "/nowhere", **env},
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def said(self, script: str, **env: str) -> list[str]:
        done = self.run(script, *GIVEN, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_single_machine(machine: Machine) -> None:
    assert machine.said("train_single.sh") == [
        *LAUNCHER,
        "--standalone",
        "--nproc_per_node=1",
        *TRAIN,
        "OMP=1",
    ]
    assert machine.said("train_single.sh", NPROC="3", OMP_NUM_THREADS="4") == [
        *LAUNCHER,
        "--standalone",
        "--nproc_per_node=3",
        *TRAIN,
        "OMP=4",
    ]


@pytest.mark.parametrize(("script", "env"), [("train_single.sh", {}), ("train_multi_node.sh", NODE)])
def test_all_visible_gpus_are_used(machine: Machine, script: str, env: dict[str, str]) -> None:
    machine.fake("nvidia-smi", 'echo "GPU 0: H200"')
    assert "--nproc_per_node=gpu" in machine.said(script, **env)
    assert "--nproc_per_node=gpu" in machine.said(script, CUDA_VISIBLE_DEVICES="0,1", **env)
    assert "--nproc_per_node=1" in machine.said(script, CUDA_VISIBLE_DEVICES="", **env)
    assert "--nproc_per_node=2" in machine.said(script, NPROC="2", **env)


def test_several_machines(machine: Machine) -> None:
    expected = [
        *LAUNCHER,
        "--nnodes=2",
        "--nproc_per_node=1",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=10.0.0.1:29500",
        "--rdzv_id=guiderail",
        "--rdzv_conf=is_host=false,read_timeout=50",
        *TRAIN,
        "OMP=1",
    ]
    assert machine.said("train_multi_node.sh", **NODE) == expected
    first = machine.said("train_multi_node.sh", **NODE | {"NODE_RANK": "0", "MASTER_PORT": "4000", "RUN_ID": "r7"})
    assert first[5:8] == ["--rdzv_endpoint=10.0.0.1:4000", "--rdzv_id=r7", "--rdzv_conf=is_host=true,read_timeout=50"]


@pytest.mark.parametrize("name", NODE)
def test_several_machines_need_to_know_each_other(machine: Machine, name: str) -> None:
    done = machine.run("train_multi_node.sh", *GIVEN, **{k: v for k, v in NODE.items() if k != name})
    assert done.returncode != 0
    assert f"set {name} to" in done.stderr
    assert done.stdout == ""


def slurm(machine: Machine) -> None:
    machine.fake("srun", f'echo "cpus=${{SRUN_CPUS_PER_TASK:-}}"; {SAYS}')
    machine.fake("scontrol", '[[ "$*" == "show hostnames gpu[07-08]" ]] && printf "gpu07\\ngpu08\\n"')


def test_slurm(machine: Machine) -> None:
    slurm(machine)
    assert machine.said("train_slurm.sh", **JOB, SLURM_GPUS_ON_NODE="8", SLURM_CPUS_PER_TASK="64") == [
        "cpus=64",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        "python",
        *LAUNCHER,
        "--nnodes=2",
        "--nproc_per_node=8",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=gpu07:23456",
        "--rdzv_id=123456",
        "--rdzv_conf=read_timeout=50",
        *TRAIN,
        "OMP=1",
    ]
    on_cpu = machine.said("train_slurm.sh", **JOB, MASTER_PORT="4000")
    assert on_cpu[0] == "cpus="
    assert {"--nproc_per_node=1", "--rdzv_endpoint=gpu07:4000"} <= set(on_cpu)


def test_slurm_outside_a_job_or_without_nodes(machine: Machine) -> None:
    slurm(machine)
    outside = machine.run("train_slurm.sh", *GIVEN)
    assert (outside.returncode != 0, "start it with sbatch" in outside.stderr) == (True, True)
    unknown = machine.run("train_slurm.sh", *GIVEN, **JOB | {"SLURM_JOB_NODELIST": "cpu1"})
    assert (unknown.returncode != 0, "lists no node for cpu1" in unknown.stderr) == (True, True)
    assert outside.stdout + unknown.stdout == ""


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_a_name_that_nobody_knows_ends_the_start(machine: Machine, script: str) -> None:
    slurm(machine)
    machine.fake("scontrol", "echo nowhere1")
    done = machine.run(script, *GIVEN, **NODE | JOB | {"MASTER_ADDR": "nowhere1", "NAME_SECONDS": "1"})
    assert (done.returncode, "the name nowhere1 is not known on" in done.stderr) == (2, True)
    assert done.stdout == ""


@contextmanager
def silent() -> Iterator[int]:
    """A port that answers no packet: its queue of callers is full."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        callers = [socket.socket() for _ in range(8)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(door.getsockname())
        yield door.getsockname()[1]
        for caller in callers:
            caller.close()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS[1:])
@pytest.mark.parametrize("packets", ["dropped", "refused"])
def test_a_first_machine_that_does_not_answer_ends_the_start(machine: Machine, script: str, packets: str) -> None:
    pytest.importorskip("torch")
    slurm(machine)
    machine.fake("python", f'PYTHONPATH={LAUNCH.parent} exec {sys.executable} "$@"')
    machine.fake("scontrol", "printf '127.0.0.1\\nother\\n'")
    machine.fake("srun", 'while [[ "$1" != python ]]; do shift; done; exec "$@"')
    if script == "train_slurm.sh":  # the fake cannot run it on another node, whose name would not match
        machine.fake(
            "python",
            f'PYTHONPATH={LAUNCH.parent} exec {sys.executable} "${{@/read_timeout=/is_host=false,read_timeout=}}"',
        )
    with silent() as port:
        closed = str(port) if packets == "dropped" else "9"
        env = NODE | JOB | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": closed, "REACH_SECONDS": "4"}
        started = time.monotonic()
        done = machine.run(script, *GIVEN, seconds=300, **env)
    assert time.monotonic() - started >= 3
    assert done.returncode == 2, done.stderr
    assert f"cannot reach the first machine at 127.0.0.1:{closed}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_requeued_job_goes_on(machine: Machine) -> None:
    slurm(machine)
    assert "--resume" not in machine.said("train_slurm.sh", **JOB, SLURM_RESTART_COUNT="0")
    assert machine.said("train_slurm.sh", **JOB, SLURM_RESTART_COUNT="1")[-2] == "--resume"


def test_slurm_directives_stand_before_the_first_command() -> None:
    lines = (LAUNCH / "train_slurm.sh").read_text().splitlines()
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [index for index, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert len(directives) >= 4
    assert max(directives) < first_command  # sbatch reads none after it


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_failure_of_the_launcher_is_the_scripts_failure(machine: Machine, script: str) -> None:
    slurm(machine)
    for name in ("python", "srun"):
        machine.fake(name, "exit 7")
    assert machine.run(script, *GIVEN, **NODE, **JOB).returncode == 7


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage(machine: Machine, script: str) -> None:
    helped, empty = machine.run(script, "--help"), machine.run(script)
    assert (helped.returncode, empty.returncode) == (0, 2)
    assert helped.stdout == empty.stderr
    assert f"launch/{script} CONFIG.yaml [key=value ...]" in helped.stdout
    assert "OMP_NUM_THREADS" in helped.stdout
    assert "set -e" not in helped.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_executed_and_stop_at_errors(script: str) -> None:
    text = (LAUNCH / script).read_text()
    assert os.access(LAUNCH / script, os.X_OK)
    assert "\nset -euo pipefail\n" in text
    assert "accelerate launch" not in text  # with --cpu it starts one process and says nothing


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_pass_shellcheck() -> None:
    scripts = [*LAUNCH.glob("*.sh"), *(LAUNCH.parent / ".ci").iterdir()]
    done = subprocess.run(
        ["shellcheck", "-x", "-P", "SCRIPTDIR", *map(str, scripts)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------------------------------------------------- the set-up

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EVERYTHING = "-e .[train,android,data,served,report,submit,web,console,docs,dev]"
PYTHON = r"""
case "$1" in
-c) exit "${OLD:-0}" ;;
-m) mkdir -p "$3/bin"; echo "venv" >>"$LOG"; cp "$FAKES/pip" "$FAKES/python" "$3/bin/" ;;
esac
"""
PIP = r"""
echo "$*" >>"$LOG"
case "$*" in *"${FAILS:-nothing fails}"*) exit 1 ;; esac
"""


class Setup:
    """A project of the files that setup.sh reads, on a machine whose python3 makes environments with a fake pip.

    `start` gives what pip and venv were asked for, in order.
    """

    def __init__(self, machine: Machine, folder: Path):
        self.machine, self.project, self.log = machine, folder / "project", folder / "log"
        (self.project / "launch").mkdir(parents=True)
        for name in ("pyproject.toml", "setup.py", "constraints.txt", "launch/setup.sh"):
            shutil.copy(LAUNCH.parent / name, self.project / name)
        fakes = folder / "fakes"
        fakes.mkdir()
        for name, text in (("pip", PIP), ("python", 'exit "${NO_CUDA:-0}"')):
            (fakes / name).write_text(f"#!/bin/bash\n{text}\n")
            (fakes / name).chmod(0o755)
        for name in ("python3", "python3.13", "python3.12", "python3.11"):
            machine.fake(name, PYTHON)
        machine.fake("uname", "echo Linux")
        self.env = {"PATH": f"{machine.bin}:/usr/bin:/bin", "LOG": str(self.log), "FAKES": str(fakes)}

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["bash", "-c", 'set -euo pipefail; source launch/setup.sh; echo "PATH=$PATH"'],
            env=self.env | env,
            cwd=self.project,
            capture_output=True,
            text=True,
            timeout=20,
        )

    def start(self, **env: str) -> list[str]:
        done = self.run(**env)
        assert done.returncode == 0, done.stderr
        assert f"PATH={self.project}/.venv/bin:" in done.stdout
        common = "install --quiet --disable-pip-version-check -c constraints.txt "
        return [line.removeprefix(common) for line in self.log.read_text().splitlines()]


@pytest.fixture
def setup(machine: Machine, tmp_path: Path) -> Setup:
    return Setup(machine, tmp_path)


CPU_BUILD = f"--no-deps --index-url {CPU_INDEX} --retries 1 --timeout 10 torch"


def test_without_a_gpu_the_cpu_build_is_installed_once(setup: Setup) -> None:
    assert setup.start() == ["venv", CPU_BUILD, EVERYTHING]
    assert setup.start() == []
    assert setup.run().stdout.count("\n") == 1  # nothing but our own PATH=


def test_where_only_the_public_index_is_reachable_its_build_is_installed_with_one_clear_line(setup: Setup) -> None:
    assert setup.start(FAILS=CPU_INDEX) == ["venv", CPU_BUILD, "torch", EVERYTHING]
    (setup.project / "setup.py").write_text("# changed")
    said = setup.run(FAILS=CPU_INDEX).stderr.splitlines()
    assert len(said) == 1
    assert f"{CPU_INDEX} cannot be reached" in said[0]


def test_with_a_gpu_the_cuda_build_is_installed(setup: Setup) -> None:
    setup.machine.fake("nvidia-smi", 'echo "GPU 0: NVIDIA H200 (UUID: GPU-1)"')
    assert setup.start() == ["venv", "torch", EVERYTHING]


def test_a_build_that_does_not_see_the_gpu_is_said(setup: Setup) -> None:
    setup.machine.fake("nvidia-smi", 'echo "GPU 0: NVIDIA H200 (UUID: GPU-1)"')
    done = setup.run(NO_CUDA="1")
    assert (done.returncode, "pytorch.org/get-started" in done.stderr) == (0, True)


def test_a_driver_without_devices_is_no_gpu(setup: Setup) -> None:
    setup.machine.fake("nvidia-smi", 'echo "No devices found."')
    assert CPU_BUILD in setup.start()


def test_elsewhere_than_on_linux_the_default_index_holds_cpu_builds(setup: Setup) -> None:
    setup.machine.fake("uname", "echo Darwin")
    assert setup.start() == ["venv", "torch", EVERYTHING]


@pytest.mark.parametrize("name", ["pyproject.toml", "setup.py", "constraints.txt", "launch/setup.sh"])
def test_a_changed_file_installs_again_into_the_same_environment(setup: Setup, name: str) -> None:
    setup.start()
    with (setup.project / name).open("a") as file:
        file.write("\n# changed\n")
    assert setup.start() == [CPU_BUILD, EVERYTHING]
    assert setup.start() == []
    assert len(list((setup.project / ".venv").glob(".guiderail-*"))) == 1


def test_an_environment_of_another_clone_is_installed_again(setup: Setup) -> None:
    setup.start()
    setup.project = setup.project.rename(setup.project.with_name("moved"))
    assert setup.start() == [CPU_BUILD, EVERYTHING]


def test_what_failed_is_tried_again(setup: Setup) -> None:
    assert setup.run(FAILS=EVERYTHING).returncode != 0
    assert setup.start() == [CPU_BUILD, EVERYTHING]


def test_no_python_that_fits(setup: Setup) -> None:
    done = setup.run(OLD="1")
    assert (done.returncode, "Python 3.11, 3.12 or 3.13" in done.stderr) == (2, True)
    assert setup.log.read_text() == ""
    assert setup.start(OLD="1", PYTHON=str(setup.machine.bin / "python3"))[0] == "venv"
