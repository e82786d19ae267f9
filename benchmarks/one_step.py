"""Whole steps of semi-online RL with the real trainer, timed by part, beside the plan: for real_widths.py and large.py.

A random model never agrees with the expert. So no group is dropped, and after the credit is computed each sample gets an
advantage by its number in the group (1, -0.5, ...): there is something to learn, and a rollout has two turns with one repair.
Seconds are wall seconds. Memory is the most during a part: on a GPU of torch's tensors, on a CPU of the process above what it took
before the model was loaded.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).parents[1] / "launch"
GIB = 2**30
COMMON = {
    "model.dialect": "guiderail",
    "model.dtype": "bfloat16",
    "model.max_new_tokens": "16",
    "data.limit": "1",
    "method.groups": "1",
    "method.rollouts": "2",
    "method.max_rows": "2",
    "method.spread_of": "none",
    "training.learning_rate": "1e-3",
    "training.max_grad_norm": "1.0",
    "training.steps_per_generation": "2",
    "training.gradient_accumulation_steps": "2",
    "training.max_steps": "2",
    "training.save_steps": "1",
    "training.deepspeed": "null",
    "training.report_to": "none",
}
"""Over launch/configs/lora_80g.yaml: two rollouts of two turns, in two micro-batches."""


def apart(seconds: float, call: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """call(*args) in a process of its own, so that its memory is its own; {"failed": why} where it raises, dies, or takes
    longer than `seconds`. Without a GPU it is a fork, which need not import everything again."""
    import torch

    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, call, args))
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return {"failed": f"not done after {seconds:.0f} s"}
        found: dict[str, Any] = receiver.recv()
        child.join(30)
        return found
    except EOFError:
        child.join(30)
        return {"failed": f"its process ended with code {child.exitcode}"}
    finally:
        child.kill()
        child.join()


def _answer(sender: Any, call: Callable[..., dict[str, Any]], args: Sequence[Any]) -> None:
    try:
        sender.send(call(*args))
    except BaseException as error:
        traceback.print_exc()
        said = " ".join(str(error).split())[:300]
        sender.send({"failed": f"{type(error).__name__}: {said}"})


def configured(settings: dict[str, str], device: str) -> Any:
    """The config of a run: lora_80g.yaml with COMMON and `settings` over it. device: cpu or cuda."""
    from guiderail.rl.config import load_config

    given = COMMON | {"training.bf16": str(device == "cuda").lower()} | settings
    return load_config(LAUNCH / "configs" / "lora_80g.yaml", [f"{key}={value}" for key, value in given.items()])


# ------------------------------------------------------------------------------------------------ inside the process


class Clock:
    """Seconds and peak bytes by part. `end(name)` says what the time since the last call was spent on; several times the same
    name makes a list."""

    def __init__(self) -> None:
        import torch

        self.cuda = torch.cuda.is_available()
        self.seconds: dict[str, list[float]] = {}
        self.memory: dict[str, float] = {}
        self.base = 0 if self.cuda else _resident()
        self._begin()

    def _begin(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again at what is resident now
        self._since = time.perf_counter()

    def end(self, name: str) -> None:
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        self.seconds.setdefault(name, []).append(time.perf_counter() - self._since)
        peak = torch.cuda.max_memory_allocated() if self.cuda else _resident("VmHWM") - self.base
        self.memory[name] = max(self.memory.get(name, 0.0), float(peak))
        self._begin()


def _resident(field: str = "VmRSS") -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def trainer_of(config: Any, out: Path, clock: Clock) -> Any:
    """The product's trainer. Its collector is timed, and its samples have advantages."""
    from guiderail.launch.train import rl_trainer, set_up

    trainer = rl_trainer(set_up(config), None, out, None)
    plan, collect = trainer.collect.plan, trainer.collect

    def credit(group: Any) -> Any:
        started = time.perf_counter()
        made = plan.credit(group)
        clock.seconds.setdefault("credit", []).append(time.perf_counter() - started)
        rows = [
            [replace(sample, advantage=-0.5 if i % 2 else 1.0) for sample in row] for i, row in enumerate(made.samples)
        ]
        return replace(made, samples=rows, signal="kept")

    def timed(policy: Any, generation: int) -> Any:
        clock.end("update")  # what comes before is a moment of the update
        samples = collect(policy, generation)
        clock.end("rollout")
        return samples

    collect.plan = replace(plan, credit=credit)
    trainer.collect = timed
    return trainer


def one_run(settings: dict[str, str], out: str, resume: str | None = None) -> dict[str, Any]:
    """Train as `configured`, from the checkpoint `resume` if it is given. seconds, memory: by part, of each update. updates: of
    each its loss, gradient norm and KL. sizes: what was sampled and trained on."""
    import torch
    from transformers import TrainerCallback

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    config, clock = configured(settings, device), Clock()

    class Ends(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.end("resume" if resume else "start")

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.end("update")

        def on_save(self, *args: Any, **kwargs: Any) -> None:
            clock.end("checkpoint")

    trainer = trainer_of(config, Path(out), clock)
    clock.end("load")
    trainer.add_callback(Ends())
    trainer.train(resume_from_checkpoint=resume)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    sizes = ("rollout/turns", "update/rows", "update/forward_tokens", "update/tokens")
    seconds = clock.seconds
    # Two intervals make an update: a moment before the rollouts, and all after them.
    updates = [a + b for a, b in zip(seconds["update"][::2], seconds["update"][1::2], strict=True)]
    return {
        "seconds": seconds | {"update": updates},
        "memory": clock.memory,
        "updates": [{key: row[key] for key in ("loss", "grad_norm", "kl") if key in row} for row in rows],
        "sizes": {key: rows[-1][key] for key in sizes if key in rows[-1]},
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread",
    }


def ceilings(seconds: float = 2.0, width: int = 0) -> dict[str, Any]:
    """What this device reaches: copied_gbs, bytes read and written per second by a copy; tflops of a bfloat16 product of two
    square matrices. Each is the best of `seconds` of tries. width: of the matrices."""
    import torch

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if not cuda:
        torch.set_num_threads(1)
    width = width or (8192 if cuda else 1536)
    source = torch.ones((1 << 30) if cuda else (1 << 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(width, width, device=device).to(torch.bfloat16) for _ in range(2))
    made = torch.empty_like(a)

    def best(call: Callable[[], Any]) -> float:
        least, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            call()
            if cuda:
                torch.cuda.synchronize()
            least = min(least, time.perf_counter() - started)
        return least

    return {
        "copied_gbs": 2 * len(source) / best(lambda: target.copy_(source)) / 1e9,
        "tflops": 2 * width**3 / best(lambda: torch.mm(a, b, out=made)) / 1e12,
        "device": torch.cuda.get_device_name() if cuda else "CPU, one thread",
    }


def planned_step(settings: dict[str, str], reached: dict[str, Any] | None) -> dict[str, Any]:
    """What `guiderail plan` says of the same run, for the agreement of a random model. memory: bytes by part. floor: seconds by
    part, if all of it ran at the ceilings `reached`. plan: seconds on this GPU by the plan's own assumptions, where its table
    has the GPU."""
    import torch

    from guiderail.launch.plan import planned
    from guiderail.launch.plan.command import measure_of
    from guiderail.launch.plan.machines import GPU, Cluster
    from guiderail.launch.plan.memory import total
    from guiderail.launch.plan.preview import known
    from guiderail.launch.plan.seconds import Assumed, spent
    from guiderail.launch.plan.setting import setting_of
    from guiderail.launch.plan.shape import shape_of

    cuda = torch.cuda.is_available()
    config = configured(settings, "cuda" if cuda else "cpu")
    shape, lengths = shape_of(config.model.path), measure_of(config)(config)
    setting = setting_of(config, shape, gpu=cuda)
    card = None
    if cuda:
        properties = torch.cuda.get_device_properties(0)
        card = known(properties.name, properties.total_memory)
    assumed = Assumed(agreement=0.0, kept=1.0, answer=float(config.model.max_new_tokens))
    at_best = replace(assumed, mfu=1.0, reading=1.0, launch=0.0, wait=1.0)
    held, _ = planned.memory_of(config, shape, setting, lengths, 1, assumed, card.memory * GIB if card else None)
    found: dict[str, Any] = {
        "memory": {
            "load": total(held.static) - held.static["gradients"] - held.static["optimizer"],
            "rollout": total(held.static) + total(held.rollouts),
            "update": total(held.static) + total(held.update),
        }
    }
    if reached is not None:
        here = GPU("here", 0, reached["tflops"], reached["copied_gbs"], 0, 0, "")
        found["floor"] = _by_part(spent(config, shape, setting, lengths, Cluster(here, 1), at_best).seconds)
    if card is not None and card.tflops:
        found["plan"] = _by_part(spent(config, shape, setting, lengths, Cluster(card, 1), assumed).seconds)
    return found


def _by_part(seconds: dict[str, float]) -> dict[str, float]:
    rollout = seconds["prompts"] + seconds["answers"]
    return {"rollout": rollout, "update": sum(seconds.values()) - rollout}


def table(run: dict[str, Any], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each part: measured (of the last update), and what was said before."""
    rows = []
    for part, seconds in run["seconds"].items():
        rows.append(
            {
                "part": part,
                "seconds": seconds[-1],
                "floor_seconds": plan.get("floor", {}).get(part),
                "planned_seconds": plan.get("plan", {}).get(part),
                "gib": run["memory"][part] / GIB if part in run["memory"] else None,
                "planned_gib": plan["memory"][part] / GIB if part in plan["memory"] else None,
            }
        )
    return rows


def printed(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table; a dash is a number that there is not."""

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = [names, ["---"] * len(names), *([cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
