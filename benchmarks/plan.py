"""The planner against measurement: peak memory and operations of real updates, at real widths with few layers.

    python benchmarks/plan.py [--json] [--case NAME] [--out FILE]

Each case trains for two updates of two micro-batches with the real trainer, in a process of its own: published widths, random
weights, screenshots of a simulated phone, a vocabulary of 16,384 except where the name says whole. `memory` is the peak of all
tensors that are alive during the second update (benchmarks/allocations.py); operations are those of the first, counted by torch's
FlopCounterMode. Both stand beside what `guiderail plan` computes for the same micro-batches. A few minutes, and at most 5 GiB at
a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).parents[1] / "launch"
Q25_3B, Q25_7B = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
Q3_2B, Q3_8B = "Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"
LORA = "{r: 16, alpha: 32}"


@dataclass(frozen=True)
class Case:
    """model: whose widths. layers: of the language model; depth: of the tower. rows, steps: of a micro-batch, and the step of
    the recording that they answer, which sets how long they are. settings: as on the command line. teacher: whose widths the
    teacher has, with as many layers; None for no teacher."""

    name: str
    model: str
    layers: int
    depth: int
    rows: int = 2
    step: int = 1
    size: tuple[int, int] = (270, 600)
    settings: dict[str, str] = field(default_factory=dict)
    teacher: str | None = None

    @property
    def vocabulary(self) -> int | None:
        return None if "whole vocabulary" in self.name else 1 << 14


def _case(
    name: str,
    model: str,
    layers: int,
    depth: int,
    rows: int = 2,
    step: int = 1,
    teacher: str | None = None,
    **settings: str,
) -> Case:
    size = (1080, 2400) if name.endswith("1080x2400") else (270, 600)
    given = {k.replace("__", "."): v for k, v in settings.items()}
    return Case(name, model, layers, depth, rows, step, size, given, teacher)


CASES = (
    _case("2B LoRA, float32", Q3_2B, 1, 1, model__lora=LORA, model__dtype="float32"),
    _case(
        "2B LoRA, KL, frozen tower",
        Q3_2B,
        2,
        1,
        2,
        2,
        model__lora=LORA,
        model__freeze_vision="true",
        training__beta="1e-4",
    ),
    _case("3B LoRA, no checkpointing", Q25_3B, 2, 1, model__lora=LORA, training__gradient_checkpointing="false"),
    _case(
        "3B LoRA, ZeRO-2, bf16", Q25_3B, 1, 1, model__lora=LORA, training__deepspeed="zero2.json", training__bf16="true"
    ),
    _case("7B LoRA", Q25_7B, 1, 1, model__lora=LORA),
    _case("2B full", Q3_2B, 1, 1),
    _case(
        "2B full, KL, no checkpointing", Q3_2B, 1, 1, training__beta="1e-4", training__gradient_checkpointing="false"
    ),
    _case("3B full, frozen tower", Q25_3B, 1, 1, 2, 2, model__freeze_vision="true"),
    _case("2B LoRA, whole vocabulary", Q3_2B, 1, 1, model__lora=LORA),
    _case("2B full, whole vocabulary", Q3_2B, 1, 1, 1),
    _case("2B LoRA, 1080x2400", Q3_2B, 1, 1, 1, 0, model__lora=LORA),
    _case("2B LoRA, teacher of 8B", Q3_2B, 1, 1, teacher=Q3_8B, model__lora=LORA),
    _case("2B full, teacher of 2B", Q3_2B, 1, 1, teacher=Q3_2B),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="only these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the JSON there, after each case")
    choices = parser.parse_args()
    chosen = [case for case in CASES if choices.case is None or case.name in choices.case]
    import guiderail.launch.train  # noqa: F401

    rows = []
    for case in chosen:
        rows.append(one_case(case, choices.json))
        if choices.out is not None:  # what is measured stays, whatever ends the next case
            choices.out.write_text(json.dumps({"rows": rows, **about()}, indent=1) + "\n")
    if choices.json:
        print(json.dumps({"rows": rows, **about()}, indent=1))


def about() -> dict[str, str]:
    import torch

    return {
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {platform.system()}",
        "command": "python benchmarks/plan.py --json",
    }


def one_case(case: Case, quiet: bool) -> dict[str, Any]:
    """In a fork of this process, which has imported everything and allocated nothing."""
    with tempfile.TemporaryDirectory() as folder:
        if (child := os.fork()) == 0:
            ended = 1
            try:
                (Path(folder) / "row.json").write_text(json.dumps(measured(case, Path(folder))))
                ended = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(ended)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{case.name} failed")
        row: dict[str, Any] = json.loads((Path(folder) / "row.json").read_text())
    if not quiet:
        print(
            f"{row['case']:34} memory {row['memory'] / 2**30:5.2f} GiB, planned {row['planned_memory'] / 2**30:5.2f} "
            f"({row['planned_memory'] / row['memory'] - 1:+.1%}); operations {row['flops'] / 1e12:6.2f} T, planned "
            f"{row['planned_flops'] / 1e12:6.2f} ({row['planned_flops'] / row['flops'] - 1:+.1%}); {row['seconds']:.0f} s",
            flush=True,
        )
    return row


# ------------------------------------------------------------------------------------------------- inside the process


def measured(case: Case, folder: Path) -> dict[str, Any]:
    """Train the case for two updates; what it took, and what the planner says of the same micro-batches."""
    import time

    import torch
    from allocations import Allocations
    from published import write_model
    from torch.utils.flop_counter import FlopCounterMode

    from guiderail.envs.pocket.record import record
    from guiderail.launch.before import training_of
    from guiderail.launch.plan import flops, memory
    from guiderail.launch.plan.setting import setting_of, teacher_of
    from guiderail.launch.plan.shape import shape_of
    from guiderail.launch.train import _common, set_up
    from guiderail.rl.config import load_config
    from guiderail.rl.distill import teacher as distill
    from guiderail.rl.train.arguments import make_training_args
    from guiderail.rl.train.trainer import SemiOnlineTrainer

    torch.set_num_threads(1)
    record(folder / "data", episodes=6, size=case.size)
    write_model(case.model, folder / "data", folder / "model", case.layers, case.depth, case.vocabulary)
    settings = {
        "model.path": str(folder / "model"),
        "model.dtype": "bfloat16",
        "model.dialect": "guiderail",
        "model.attention": "sdpa",
        "data.train": str(folder / "data"),
        "training.beta": "0.0",
        "training.bf16": "false",
        "training.gradient_checkpointing": "true",
        "training.max_steps": "2",
        "training.gradient_accumulation_steps": "2",
        "training.steps_per_generation": "2",
        "training.deepspeed": "null",
        "training.report_to": "none",
        "training.save_strategy": "'no'",
        "training.lr_scheduler_type": "constant",
        "method.max_rows": str(case.rows),
        **case.settings,
    }
    if case.teacher is not None:
        write_model(case.teacher, folder / "data", folder / "teacher", case.layers, case.depth, case.vocabulary)
        settings |= {"teacher.path": str(folder / "teacher"), "method.algorithm": "distill"}
    config = load_config(
        LAUNCH / "configs" / "qwen3_vl_8b.yaml",
        [f"{key}={value}" for key, value in settings.items()],
    )
    setup = set_up(config)
    samples = made_up(setup, case)
    for sample in samples:  # the host's cache of pixels is not the model's memory
        for picture in sample.prompt.pictures:
            setup.encoder.pixels(picture)
    training, deepspeed = training_of(config)
    counter = FlopCounterMode(display=False, custom_mapping=attention_formulas())
    seen: list[Any] = []
    at: dict[str, Any] = {"flops": 0}

    def collect(policy: Any, generation: int) -> Any:
        if generation == 1:  # the counter keeps tensors alive, so memory is that of what comes after it
            counter.__exit__(None, None, None)
            at["flops"] = counter.get_total_flops()
            tensors.reset()
        return samples

    teacher = None
    if config.teacher is not None:
        teacher = distill.ModelTeacher(config.teacher, setup.encoder)
        teacher.model = distill.frozen(config.teacher, "cpu")
    trainer = SemiOnlineTrainer(
        setup.base,
        collect,
        make_training_args(training, folder / "run", deepspeed),
        max_rows=case.rows,
        teacher=teacher,
        **_common(setup),
    )
    tensors = Allocations()
    models = (trainer.model, trainer.ref_model, teacher and teacher.model)
    tensors.see([[*m.parameters(), *m.buffers()] for m in models if m is not None])
    lay = trainer._lay_out

    def laid(turns: Any) -> Any:
        seen.append(lay(turns))
        return seen[-1]

    trainer._lay = laid
    started = time.perf_counter()
    with tensors:
        counter.__enter__()
        trainer.train()
    seconds = time.perf_counter() - started
    peak = tensors.peak
    shape = shape_of(str(folder / "model"))
    setting = setting_of(config, shape, gpu=False)
    rows = [_rows(layout, setup.encoder) for layout in seen[:2]]
    once = {picture for layout in seen[:2] for picture in layout.pictures}
    stored = memory.Rows(1, 1, 0, tuple(int(setup.encoder.grid(picture).prod()) for picture in once))
    static = memory.static(shape, setting, 1)
    phases = [memory.update(shape, setting, one, 1, gpu=False) for one in rows]
    planned = sum(sum(flops.update(shape, setting, one, stored=config.model.freeze_vision).values()) for one in rows)
    if config.model.freeze_vision:
        planned += flops.forward(shape, setting, stored)["vision"].total
    if (taught := teacher_of(config, setting, gpu=False)) is not None:
        static["teacher"] = memory.weights(taught.shape, taught.setting)
        phases += [memory.teaching(taught.shape, taught.setting, one) for one in rows]
        planned += sum(flops.teaching(taught.shape, taught.setting, one) for one in rows)
        planned += sum(flops.divergence(shape, setting, one) for one in rows)
        planned += flops.forward(taught.shape, taught.setting, stored)["vision"].total
    parts = static | max(phases, key=memory.total)
    return {
        "case": case.name,
        "layers": [case.layers, case.depth],
        "sequences": [[one.sequences, one.longest, one.targets, sum(one.patches)] for one in rows],
        "memory": peak,
        "planned_memory": memory.total(parts),
        "parts": parts,
        "flops": at["flops"],
        "planned_flops": planned,
        "seconds": seconds,
    }


def made_up(setup: Any, case: Case) -> list[Any]:
    """`rows` different answers to the same step of each of two episodes: two micro-batches."""
    from guiderail.agent.types import Completion
    from guiderail.envs.recordings.replay import expert_turn
    from guiderail.rl.credit.samples import StepSample

    episodes = [e for e in setup.data.episodes if len(e.steps) > case.step][:2]
    samples = []
    for episode in episodes:
        for row in range(case.rows):
            past = [replace(step, thought=f"Attempt {row}. {step.thought or ''}") for step in episode.steps]
            prompt, text = expert_turn(replace(episode, steps=tuple(past)), case.step, setup.dialogue)
            ids = tuple(setup.encoder.target(text).tolist())
            completion = Completion(text, ids, (-1.0,) * len(ids))
            advantage = 1.0 if row % 2 else -1.0
            samples.append(StepSample(episode.id, row, case.step, prompt, completion, 0, 0, 0, 0, advantage))
    return samples


def _rows(layout: Any, encoder: Any) -> Any:
    from guiderail.launch.plan.memory import Rows

    patches = tuple(int(encoder.grid(picture).prod()) for picture in dict.fromkeys(layout.pictures))
    return Rows(*layout.ids.shape, len(layout.labels), patches)


def attention_formulas() -> dict[Any, Any]:
    """What torch does not count: attention on CPUs, and the sums in place of TRL's head."""
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    aten = torch.ops.aten

    def forward(q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def backward(grad: Any, q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v)

    def added(total: Any, a: Any, b: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return 2 * a[0] * a[1] * b[1]

    return {
        aten.addmm_: added,
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


if __name__ == "__main__":
    main()
