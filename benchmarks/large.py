"""What one big GPU does with real sizes, in one command and under ten minutes; the same code on a CPU with tiny shapes.

    python -m benchmarks.large --all [--out FILE] [--folder DIR]      # a GPU with 80 GB; 25 GB of disk
    python -m benchmarks.large --all --small                          # any machine, two minutes
    python -m benchmarks.large --part exactness [--small]

Each part runs in a process of its own and has its own time; one that fails is a row that says why.

    ceilings    bytes copied and bfloat16 operations per second: what the device reaches
    exactness   losses and gradients of each attention in bfloat16, against dense attention in float32; seconds beside them
    step 3b     a semi-online step of Qwen2.5-VL-3B with LoRA: seconds and memory by part, beside the plan and the floor
    step 7b     the same of Qwen2.5-VL-7B
    rollouts    rollouts per second of the local engine, with prefixes and features shared and without
    vllm        rollouts per second through a vLLM server, where `guiderail setup vllm` has made its environment

Weights are random. `floor` is what the operations and bytes that the plan counts would take at the ceilings; `share` is the floor over
what was measured. The second of two updates, or generations, counts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.one_step import Clock, apart, ceilings, configured, one_run, planned_step, printed, table, trainer_of

MODELS = {"3b": "Qwen/Qwen2.5-VL-3B-Instruct", "7b": "Qwen/Qwen2.5-VL-7B-Instruct"}
BUDGETS = {"ceilings": 20, "exactness": 90, "step 3b": 110, "step 7b": 160, "rollouts": 80, "vllm": 130}
"""Seconds of each part, its imports included."""
SMALL = {"ceilings", "exactness", "step 3b", "rollouts", "vllm"}
"""Parts of --small; its 3b is a tiny model."""
LORA = {"model.lora": "{r: 16, alpha: 32}"}


def settings_of(folder: Path, model: str, small: bool) -> dict[str, str]:
    """Over benchmarks.one_step.COMMON."""
    found = {"model.path": str(folder / model), "data.train": str(folder / "data"), "training.save_steps": "2"}
    if small:
        return found | {"model.max_prompt_tokens": "2048"}
    many = {"model.max_new_tokens": "64", "data.limit": "2", "method.groups": "2", "method.rollouts": "8"}
    return (
        found
        | many
        | {"method.max_rows": "8", "training.gradient_accumulation_steps": "4"}
        | {"training.steps_per_generation": "4"}
    )


# ---------------------------------------------------------------------------------------- the parts, each in its process


def model_in(folder: Path, model: str, small: bool) -> dict[str, Any]:
    """Recordings and a model, once per folder."""
    from benchmarks.published import write_model
    from guiderail.envs.pocket.record import record
    from guiderail.launch.pretrain import build_tiny_for

    data, out = folder / "data", folder / model
    if not data.exists():
        record(data, episodes=4, size=(160, 288) if small else (1080, 2400))
    if not (out / "whole").exists():
        if small:
            build_tiny_for(str(data), out, "qwen2_5_vl", 0)
        else:
            write_model(MODELS[model], data, out)
        (out / "whole").touch()
    return {"model": str(out)}


def exactness(small: bool) -> dict[str, Any]:
    """Rows of one micro-batch that share most of their prompt, through the whole language model. logps, gradients: distance to
    dense attention in float32 with the same weights, the largest of any token, and relative."""
    import torch

    from benchmarks.attention import TREES, Side, made_up, random_model, seconds
    from guiderail.agent.errors import SetupError
    from guiderail.agent.local.attention import use_attention
    from guiderail.agent.local.loading import load_encoder
    from guiderail.rl.tiny.model import build_tiny

    cuda = torch.cuda.is_available()
    sizes = {"model": None, "width": 128, "layers": 1} if small else {"model": MODELS["3b"], "layers": 4}
    width = argparse.Namespace(**sizes, device="cuda" if cuda else "cpu", checkpointing=False, dtype="bfloat16")
    with tempfile.TemporaryDirectory() as scratch:
        encoder = load_encoder(build_tiny(Path(scratch), ["tap the button"], width=32, layers=1, vision_layers=1))
    model = random_model(width, encoder)
    exact = random_model(argparse.Namespace(**vars(width) | {"dtype": "float32"}), encoder)
    exact.load_state_dict(model.state_dict())
    shape = (1, 4, 120, 40) if small else TREES["8k"]
    turns = made_up(*shape, model.config.get_text_config().vocab_size, encoder.special_ids)

    def passed(side: Any) -> tuple[Any, Any]:
        logps = side.step()
        weights = [p.grad.flatten().float() for p in side.model.parameters() if p.grad is not None]
        return logps.float(), torch.cat(weights)

    truth = passed(Side(exact, turns, encoder, None))
    rows = []
    for way in ("sdpa", "varlen", "flex"):
        try:
            side = Side(model, turns, encoder, use_attention(model, way, model.device))
        except SetupError as error:
            rows.append({"attention": way, "failed": str(error)})
            continue
        logps, gradient = passed(side)
        apart_by = (gradient - truth[1]).norm() / truth[1].norm()
        row = {"attention": way, "logps": float((logps - truth[0]).abs().max()), "gradients": float(apart_by)}
        rows.append(row | {"seconds": min(seconds(side.step, model.device) for _ in range(2))})
    return {"rows": rows}


def step(folder: Path, model: str, small: bool, reached: dict[str, Any]) -> dict[str, Any]:
    model_in(folder, model, small)
    settings = settings_of(folder, model, small) | LORA
    plan = planned_step(settings, reached)
    run = one_run(settings, str(folder / f"{model}-run"))
    return run | {"rows": [_with_share(row) for row in table(run, plan)]}


def _with_share(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"share": row["floor_seconds"] / row["seconds"] if row["floor_seconds"] else None}


def rollouts(folder: Path, model: str, small: bool, reached: dict[str, Any]) -> dict[str, Any]:
    """The local engine, twice over the same number of groups."""
    import torch

    from guiderail.agent.local.vision import VisionStore
    from guiderail.agent.policy import Sharing

    model_in(folder, model, small)
    settings = settings_of(folder, model, small) | LORA
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = configured(settings, device)
    trainer = trainer_of(config, folder / "rollouts", Clock())
    plan = planned_step(settings, reached)
    rows = []
    trainer.sampled()  # a warm-up
    for name, on in (("shared", True), ("not shared", False)):
        trainer.sharing, trainer.vision = Sharing(on, on, on), VisionStore(trainer.encoder, on=on)
        floor, said = (plan.get(key, {}).get("rollout") if on else None for key in ("floor", "plan"))
        row = {"engine": f"local, {name}", **_sampled(trainer, config)} | {
            "floor_seconds": floor,
            "planned_seconds": said,
        }
        rows.append(_with_share(row))
    return {"rows": rows}


def _sampled(trainer: Any, config: Any) -> dict[str, Any]:
    """One generation of rollouts, timed."""
    started = time.perf_counter()
    trainer.sampled()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rollouts_per_second": config.method.groups * config.method.rollouts / seconds}


def vllm(folder: Path, model: str, small: bool, server: str) -> dict[str, Any]:
    """All weights are sent to the server, then it samples."""
    import torch

    there = {"rollout.engine": "vllm-server", "rollout.server": server, "model.lora": "null"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = configured(settings_of(folder, model, small) | there, device)
    trainer = trainer_of(config, folder / "vllm", Clock())
    started = time.perf_counter()
    trainer.rollouts.sync()
    sync = time.perf_counter() - started
    trainer.sampled()  # a warm-up
    return {"rows": [{"engine": "vLLM", **_sampled(trainer, config), "sync_seconds": sync}]}


def through_vllm(folder: Path, small: bool, budget: float) -> dict[str, Any]:
    """The server belongs to this process, so that it ends whatever becomes of the part."""
    from guiderail.agent.errors import SetupError

    made = apart(budget, model_in, folder, "3b", small)
    if "failed" in made:
        return made
    started = time.perf_counter()
    try:
        with served(folder / "3b", folder / "vllm.log", 0.6 * budget, 4096 if small else 12352) as server:
            return apart(budget - (time.perf_counter() - started), vllm, folder, "3b", small, server)
    except SetupError as error:
        return {"failed": str(error)}


@contextmanager
def served(model: Path, log: Path, seconds: float, context: int) -> Iterator[str]:
    """The address of a vLLM server with this model, which ends with the block: $GUIDERAIL_VLLM_SERVER, or one that is started.
    context: tokens of the longest prompt and answer. Raises SetupError without vLLM's environment, and where the server is not up in time."""
    from guiderail.agent.errors import SetupError
    from guiderail.agent.served.vllm.client import Server
    from guiderail.agent.served.vllm.setting_up import Start, environment
    from guiderail.agent.served.waiting import Failed

    if given := os.environ.get("GUIDERAIL_VLLM_SERVER"):
        yield given
        return
    program = environment() / "bin" / "vllm"
    if not program.is_file():
        raise SetupError(
            f"no vLLM in {environment()}: guiderail setup vllm --path FOLDER, export GUIDERAIL_VLLM=FOLDER"
        )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    words = Start(str(model), context, 2, dtype="bfloat16", port=port).arguments()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(program), *words, "--enforce-eager", "--gpu-memory-utilization", "0.5"],
            env={**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    end = time.monotonic() + seconds
    try:
        while True:
            try:
                Server(f"http://127.0.0.1:{port}").wait_until_up(5)
                break
            except Failed:
                if process.poll() is not None or time.monotonic() > end:
                    raise SetupError(f"vLLM did not come up: {log.read_text()[-500:]}") from None
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its engine is a process of its own
        process.wait(30)


# ------------------------------------------------------------------------------------------------------------ the whole


def part(name: str, folder: Path, small: bool, reached: dict[str, Any] | None, budget: float) -> dict[str, Any]:
    """One part in its process."""
    if name == "ceilings":
        return apart(budget, ceilings, *((0.2, 256) if small else ()))
    if name == "exactness":
        return apart(budget, exactness, small)
    if name == "vllm":
        return through_vllm(folder, small, budget)
    if name == "rollouts":
        return apart(budget, rollouts, folder, "3b", small, reached)
    return apart(budget, step, folder, name.split()[1], small, reached)


def measure(parts: list[str], folder: Path, choices: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"small": choices.small, "parts": {}}
    for name in parts:
        started = time.perf_counter()
        reached = found["parts"].get("ceilings")
        made = part(
            name, folder, choices.small, None if reached is None or "failed" in reached else reached, BUDGETS[name]
        )
        found["parts"][name] = made | {"took": time.perf_counter() - started}
        print(f"\n## {name}, {found['parts'][name]['took']:.0f} s\n\n{said(made)}", flush=True)
        if choices.out is not None:  # what is measured stays, whatever ends the next part
            choices.out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def said(made: dict[str, Any]) -> str:
    return f"failed: {made['failed']}" if "failed" in made else printed(made.get("rows") or [made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true")
    chosen.add_argument("--part", nargs="+", choices=BUDGETS)
    parser.add_argument("--small", action="store_true", help="tiny shapes, for any machine")
    parser.add_argument("--folder", type=Path, help="keeps recordings and weights for the next call")
    parser.add_argument("--out", type=Path, help="also write JSON there, after each part")
    choices = parser.parse_args()
    import guiderail.launch.train  # noqa: F401  processes that are forked from this one have it

    parts = choices.part or [name for name in BUDGETS if not choices.small or name in SMALL]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (choices.folder or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        measure(parts, folder, choices)


if __name__ == "__main__":
    main()
