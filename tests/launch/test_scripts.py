"""The start scripts, each run with fakes on PATH that say how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = ("train_single.sh", "train_multi_node.sh", "train_slurm.sh")
NODE = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
JOB = {"SLURM_JOB_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456"}
GIVEN = ["my config.yaml", "training.deepspeed=launch/deepspeed/zero2.json", "goal=a  b $HOME *"]
TRAIN = ["-m", "launch.cli", "train", *GIVEN]
SAYS = 'for a in "$@"; do printf "%s\\n" "$a"; done; echo "OMP=$OMP_NUM_THREADS"'

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Machine:
    """A PATH with fakes in front; `run` gives the arguments that torchrun (or srun) got, one per line."""

    def __init__(self, folder: Path):
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.cwd = folder
        self.fake("torchrun", SAYS)
        self.fake("nvidia-smi", "exit 1")

    def fake(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(LAUNCH / script), *arguments],
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": "/nowhere", **env},
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=20,
        )

    def said(self, script: str, **env: str) -> list[str]:
        done = self.run(script, *GIVEN, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_single_machine(machine: Machine) -> None:
    assert machine.said("train_single.sh") == ["--standalone", "--nproc_per_node=1", *TRAIN, "OMP=1"]
    assert machine.said("train_single.sh", NPROC="3", OMP_NUM_THREADS="4") == [
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
        "--nnodes=2",
        "--nproc_per_node=1",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=10.0.0.1:29500",
        "--rdzv_id=guiderail",
        "--rdzv_conf=is_host=false",
        *TRAIN,
        "OMP=1",
    ]
    assert machine.said("train_multi_node.sh", **NODE) == expected
    first = machine.said("train_multi_node.sh", **NODE | {"NODE_RANK": "0", "MASTER_PORT": "4000", "RUN_ID": "r7"})
    assert first[3:6] == ["--rdzv_endpoint=10.0.0.1:4000", "--rdzv_id=r7", "--rdzv_conf=is_host=true"]


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
        "torchrun",
        "--nnodes=2",
        "--nproc_per_node=8",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=gpu07:23456",
        "--rdzv_id=123456",
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


def test_slurm_directives_stand_before_the_first_command() -> None:
    lines = (LAUNCH / "train_slurm.sh").read_text().splitlines()
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [index for index, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert len(directives) >= 4
    assert max(directives) < first_command  # sbatch reads none after it


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_failure_of_the_launcher_is_the_scripts_failure(machine: Machine, script: str) -> None:
    slurm(machine)
    for name in ("torchrun", "srun"):
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
    done = subprocess.run(
        ["shellcheck", *(str(LAUNCH / script) for script in SCRIPTS)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
