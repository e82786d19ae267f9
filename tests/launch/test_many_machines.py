"""The start scripts for many machines, for real: two namespaces with a cable between them stand for two machines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from guiderail.envs.live.attempts import Session
from tests.launch import slurm
from tests.launch.machines import ROOT, Node, missing, two_machines, until
from tests.rl.rollout.pocket import TellingTasks
from tests.rl.train.test_distributed import extensions

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
__all__ = ["extensions"]

MULTI, SLURM = (ROOT / "launch" / name for name in ("train_multi_node.sh", "train_slurm.sh"))
LONG = 900  # seconds; a busy machine needs most of it to import torch in four processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from guiderail.envs.pocket.record import record

    out = tmp_path_factory.mktemp("recorded") / "data"
    record(out, episodes=12, seed=0)
    return out


def settings(data: Path, out: Path, updates: int) -> list[str]:
    """A training of a minute, which saves after every generation."""
    chosen = {
        "model.path": "tiny-sft",
        "data.train": data,
        "method.groups": 4,
        "method.rollouts": 4,
        "method.eta": 0,
        "method.max_rows": 16,
        "method.tries": 1,
        "training.max_steps": updates,
        "training.steps_per_generation": 1,
        "training.gradient_accumulation_steps": 1,
        "training.save_steps": 1,
        "training.lr_scheduler_type": "constant",
        "training.report_to": "none",
    }
    return [
        str(ROOT / "launch/configs/tiny_semi_online.yaml"),
        *(f"{k}={v}" for k, v in chosen.items()),
        "--out",
        str(out),
    ]


def processes(out: Path) -> list[int]:
    """Of each start of the run."""
    return [leg["about"]["processes"] for leg in json.loads((out / "run.json").read_text())["legs"]]


def test_zero3_over_two_machines_goes_on_after_one_of_them_died(data: Path, tmp_path: Path, extensions: Path) -> None:
    out = tmp_path / "run"
    arguments = [*settings(data, out, 40), "training.deepspeed=zero3.json"]

    def start(nodes: tuple[Node, Node], *more: str, leg: str) -> list[object]:
        return [
            node.start(
                "bash",
                MULTI,
                *arguments,
                *more,
                log=f"{node.name}-{leg}.log",
                NNODES=2,
                NODE_RANK=rank,
                MASTER_ADDR=nodes[0].name,
                NPROC=1,
                TORCH_EXTENSIONS_DIR=extensions,
            )
            for rank, node in enumerate(nodes)
        ]

    with two_machines(tmp_path) as nodes:
        first, _ = start(nodes, leg="first")
        saved = "checkpoint-*/complete.json"
        until(
            "a checkpoint",
            lambda: any(out.glob(saved)),
            LONG,
            lambda: nodes[0].said("guide1-first.log") if first.poll() is not None else None,
        )
        nodes[1].kill()
        assert first.wait(300) not in (0, None), "a machine that is left alone must end, not wait"
        before = max(int(path.parent.name.split("-")[-1]) for path in out.glob(saved))
        assert before < 40
        again = start(nodes, "--resume", f"training.max_steps={before + 2}", leg="second")
        ended = [process.wait(LONG) for process in again]
        assert ended == [0, 0], nodes[0].said("guide1-second.log")
    assert json.loads((out / "metrics.json").read_text())["updates"] == before + 2
    assert f"goes on after update {before}" in (tmp_path / "guide1-second.log").read_text()
    assert processes(out) == [2, 2]


def test_a_name_that_nobody_knows_ends_within_a_minute(data: Path, tmp_path: Path) -> None:
    with two_machines(tmp_path) as nodes:
        started = time.monotonic()
        process = nodes[1].start(
            "bash", MULTI, *settings(data, tmp_path / "run", 1), log="log", NNODES=2, NODE_RANK=1, MASTER_ADDR="guide7"
        )
        assert process.wait(60) == 2
        assert time.monotonic() - started < 60
        assert "the name guide7 is not known on guide2" in nodes[1].said("log")


@pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "-")
def test_a_slurm_job_on_two_nodes_is_requeued_and_goes_on(data: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "job.log"
    saved = "checkpoint-*/complete.json"
    with two_machines(tmp_path) as nodes, slurm.slurm(nodes) as cluster:
        choices = [
            "--parsable",
            "--nodes=2",
            "--gpus-per-node=0",
            "--cpus-per-task=1",
            f"--output={log}",
            f"--chdir={ROOT}",
        ]
        job = cluster.run("sbatch", *choices, SLURM, *settings(data, out, 12))

        def failed() -> str | None:
            state = cluster.state(job)
            bad = state.startswith(("FAILED", "CANCELLED", "NODE_FAIL")) or "held" in state
            return f"{state}: {log.read_text()[-3000:] if log.exists() else ''}" if bad else None

        until("a checkpoint", lambda: any(out.glob(saved)), LONG, failed)
        cluster.run("scontrol", "requeue", job)
        until("the second start", lambda: cluster.state(job).startswith("RUNNING 1"), LONG, failed)
        until(
            "the end",
            lambda: cluster.state(job).startswith("COMPLETED 1"),
            LONG,
            failed,
        )
    assert processes(out) == [2, 2]
    assert json.loads((out / "metrics.json").read_text())["updates"] == 12
    assert "goes on after update" in log.read_text()


RAY = """
import json, socket, sys
from functools import partial
from pathlib import Path
from guiderail.rl.live.executors import run_ray
from guiderail.rl.live.jobs import Job, JobQueue
from tests.launch.test_many_machines import rollcall
rows = []
run_ray(JobQueue([Job("good", n) for n in range(24)], 0, lambda row, images: rows.append(row)), partial(rollcall, Path(sys.argv[1])), 2, 4, 60)
print(len(rows))
"""


FLEET = """
import sys
from pathlib import Path
from guiderail.rl.live.fleet import Fleet
from guiderail.rl.live.on_ray import starting
from guiderail.rl.live.site import SiteSpec
from guiderail.rl.rollout.generation import generation
from tests.launch.test_many_machines import Present
from tests.rl.live.test_fleet import plan_of, spec, told
from tests.rl.rollout.pocket import Coin
world = Present(6, 5, "train", device="hand", folder=sys.argv[1])
alone = spec(world).open(0)
expected = generation(plan_of(alone.begin), Coin(0.9), 0, 0)
for path in Path(sys.argv[1]).glob("fleet-*"):
    path.unlink()
with starting("ray") as start:
    fleet = Fleet(spec(world), 2, start=start)
    made = generation(plan_of(fleet.begin, fleet.drive), Coin(0.9), 0, 0)
    fleet.close()
assert [told(group) for group in made.groups] == [told(group) for group in expected.groups]
print(len(made.groups))
"""


@dataclass(frozen=True, slots=True)
class Present(TellingTasks):
    """A world that says on which machine it is open."""

    folder: str = ""

    def open(self, worker: int) -> Session:
        (Path(self.folder) / f"fleet-{socket.gethostname()}").touch()
        session: Session = TellingTasks.open(self, worker)
        return session


def rollcall(folder: Path, number: int) -> object:
    """A worker that says on which machine it is."""
    import socket

    from tests.rl.live.test_executors import build

    (folder / f"on-{socket.gethostname()}").touch()
    return build(folder, number)


def test_live_attempts_and_a_fleet_over_two_raylets(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    short = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp")  # a socket's path has at most 107 characters
    with short as folder, two_machines(tmp_path) as nodes:
        (tmp_path / "token").write_text("7" * 64)
        local = {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        local |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
        start = ["python", "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--block", "--disable-usage-stats"]
        head = f"{nodes[0].address}:6399"
        places = [
            [f"--temp-dir={folder}", "--head", "--port=6399", "--include-dashboard=false"],
            [f"--address={head}"],
        ]
        for node, place in zip(nodes, places, strict=True):
            process = node.start(*start, *place, f"--node-ip-address={node.address}", log=f"{node.name}.log", **local)
            _ready(node, process)
        for script, made in ((RAY, "24"), (FLEET, "4")):
            driver = nodes[0].start("python", "-c", script, tmp_path, log="driver.log", RAY_ADDRESS=head, **local)
            assert driver.wait(300) == 0, nodes[0].said("driver.log")
            assert nodes[0].said("driver.log").split()[-1] == made
    for kind in ("on", "fleet"):
        assert {path.name for path in tmp_path.glob(f"{kind}-*")} == {f"{kind}-guide1", f"{kind}-guide2"}


def _ready(node: Node, process: subprocess.Popen[bytes]) -> None:
    until(
        "a raylet",
        lambda: "Ray runtime started" in node.said(f"{node.name}.log"),
        300,
        lambda: node.said(f"{node.name}.log") if process.poll() is not None else None,
    )
