"""Starts the real vLLM on the CPU, from its own environment: $GUIDERAIL_VLLM, made by `guiderail setup vllm --cpu`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guiderail.agent.served.vllm.client import Server
from guiderail.agent.served.vllm.setting_up import Start, environment
from guiderail.agent.served.waiting import Failed

PROGRAM = environment() / "bin" / "vllm"
QUIET = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",  # else its CPU kernels are compiled for minutes
    "HF_HUB_OFFLINE": "1",
}
START_SECONDS = float(os.environ.get("GUIDERAIL_VLLM_SECONDS", "600"))


def start(folder: Path, log: Path, **more: Any) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    words = Start(str(folder), 4096, 4, dtype="float32", port=port, **more).arguments()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(PROGRAM), *words, "--enforce-eager", "--max-num-seqs", "16"],
            env={**os.environ, **QUIET},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return process, f"http://127.0.0.1:{port}"


@contextmanager
def serving(folder: Path, log: Path, running: str, **more: Any) -> Iterator[tuple[subprocess.Popen[bytes] | None, str]]:
    """running: the variable that names a server which is up already, with the model of `folder`."""
    if given := os.environ.get(running):
        yield None, given
        return
    with started(folder, log, **more) as both:
        yield both


@contextmanager
def started(folder: Path, log: Path, **more: Any) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    process, where = start(folder, log, **more)
    server = Server(where)
    end = time.monotonic() + START_SECONDS
    try:
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            try:
                server.wait_until_up(5)
                break
            except Failed:
                time.sleep(1)
        yield process, where
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)  # longer where a client still holds a connection
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
