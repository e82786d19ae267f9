"""guiderail distill minilm: a small model from a large one of the same tokenizer, as a start for on-policy distillation."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import check_model, shipped
from guiderail.agent.types import Prompt
from guiderail.envs.recordings.episodes import Dataset
from guiderail.envs.recordings.replay import expert_turn
from guiderail.launch import parts, show
from guiderail.launch.agents import features_folder, read_voice
from guiderail.launch.before import check_out
from guiderail.launch.going_on import going_on, then
from guiderail.launch.options import spread
from guiderail.rl.keys.training import LARGEST_SEED
from guiderail.rl.runs.log import RunLog, run_log

app = typer.Typer(no_args_is_help=True, help="A small model from a large one of the same tokenizer.")

LOOKED_AT = 64
"""Recorded turns in which the teacher's hidden states are looked at for the student's first weights."""


@dataclass(frozen=True, slots=True)
class MiniLM:
    """What the user said. None: in proportion, see `rl.distill.student`."""

    teacher: Annotated[str, typer.Option(help="folder or hub id of a trained Qwen2.5-VL or Qwen3-VL")]
    data: Annotated[str, typer.Option(help="recordings: whatever `guiderail train` takes as data.train")]
    layers: Annotated[
        int | None,
        typer.Option(help="of the student; by default all if --width is given, else half of the teacher's", min=1),
    ] = None
    width: Annotated[int | None, typer.Option(help="hidden size; by default the teacher's", min=1)] = None
    heads: Annotated[int | None, typer.Option(help="attention heads; by default in proportion to the width", min=1)] = (
        None
    )
    intermediate: Annotated[
        int | None, typer.Option(help="channels of an MLP; by default in proportion to the width", min=1)
    ] = None
    relation_heads: Annotated[
        int | None, typer.Option(help="heads to compare in; by default as many as divide both numbers of heads", min=1)
    ] = None
    steps: Annotated[int, typer.Option(help="updates; 0 keeps the sliced teacher", min=0)] = 400
    batch: Annotated[int, typer.Option(help="recorded turns per update, over all processes", min=1)] = 16
    rate: Annotated[float, typer.Option(help="learning rate, falling to zero")] = 5e-4
    thoughts: Annotated[bool, typer.Option(help="whether the experts' turns hold the recorded thoughts")] = True
    save_every: Annotated[int, typer.Option(help="updates between two checkpoints", min=1)] = 100
    seed: Annotated[int, typer.Option(help="of the order of the turns", min=0, max=LARGEST_SEED)] = 0


@app.callback()
def _group() -> None:
    """Keeps `minilm` a sub-command while it is the only one."""


@app.command()
@spread
def minilm(
    asked: MiniLM,
    out: Annotated[Path, typer.Option(help="run folder to write; the student is OUT/model")],
    resume: Annotated[bool, typer.Option("--resume", help="continue from the last checkpoint in --out")] = False,
) -> None:
    """A student of fewer layers or a smaller width, whose attention relates tokens as its teacher's does (MiniLM)."""
    if not 0 < asked.rate < math.inf:
        raise SetupError(f"--rate {asked.rate}: expected a number above 0")
    parts.require("torch", "train")
    check_model(asked.teacher, "--teacher ")
    check_out(out, resume)
    parts.quiet()
    from guiderail.rl.train.distributed import processes, wait_for_the_others

    recordings = parts.dataset(asked.data, None, "detect", False, None)
    first = processes().rank == 0
    about = {
        "model": asked.teacher,
        "data": parts.describe(asked.data, recordings, None),
        "seed": asked.seed,
        "world": {"name": "minilm", **asdict(asked)},
        "processes": processes().world,
    }
    with going_on(out, "--resume"), run_log(out if first else None, "distill", about, resume=resume) as log:
        metrics = _distil(asked, recordings, out, resume, log)
        if log is not None:
            log.finish({"seconds": log.seconds, **metrics})
            line = f"distilled in {log.seconds:.0f} s: {out / 'model'}, {metrics['parameters']:,} parameters"
            show.err.print(f"{line} of {metrics['teacher_parameters']:,}", highlight=False)
    wait_for_the_others()
    if first:
        named = {"model.path": f"{out}/model", "teacher.path": asked.teacher, "data.train": asked.data}
        then(shlex.join(["guiderail", "train", "tiny_distill", *(f"{key}={value}" for key, value in named.items())]))


def _distil(asked: MiniLM, recordings: Dataset, out: Path, resume: bool, log: RunLog | None) -> dict[str, Any]:
    """The run's metrics; leaves out/model."""
    from guiderail.agent.local.loading import load_encoder, load_model
    from guiderail.launch.bar import Bar
    from guiderail.rl.distill.minilm import RelationTrainer, make_start
    from guiderail.rl.distill.student import shape_of, student_shape
    from guiderail.rl.train.arguments import make_plain_args
    from guiderail.rl.train.checkpoints import last_checkpoint, mean_loss
    from guiderail.rl.train.distributed import processes
    from guiderail.rl.train.model import check_budget

    voice = read_voice(Path(shipped(asked.teacher)))
    encoder = load_encoder(asked.teacher, max_prompt_tokens=voice.max_prompt_tokens)
    dialogue = Dialogue(encoder.vision, parts.dialect(voice.dialect), voice.images, voice.window)
    longer = f"write max_prompt_tokens {{}} into guiderail.json of {asked.teacher}, or leave the episode out"
    check_budget(recordings.episodes, dialogue, encoder, longer)
    examples = [expert_turn(e, t, dialogue, asked.thoughts) for e in recordings.episodes for t in e.targets]
    model = load_model(asked.teacher, "cpu", "float32")
    shape = student_shape(model.config, asked.layers, asked.width, asked.heads, asked.intermediate)
    heads = _relation_heads(shape_of(model.config).heads, shape.heads, asked.relation_heads)
    size = sum(weight.numel() for weight in model.parameters())
    world = processes().world
    if asked.batch % world:
        raise SetupError(f"--batch {asked.batch}: {world} processes cannot share it evenly; give a multiple of {world}")
    args = make_plain_args(_training(asked, world), out)
    start = out / "start"
    with args.main_process_first(local=False):
        if processes().rank == 0 and not (start / "complete").is_file():
            make_start(model, shape, encoder, _spaced(examples, LOOKED_AT), start)
            (start / "complete").touch()
    del model
    checkpoint = last_checkpoint(out) if resume else None
    trainer = RelationTrainer(
        asked.teacher, start, examples, args, encoder=encoder, heads=heads, features=features_folder(None)
    )
    trainer.beside = voice.save
    mean, done = 0.0, int(checkpoint.name.split("-")[-1]) if checkpoint is not None else 0
    if asked.steps:
        trainer.add_callback(bar := Bar(log.mark if log is not None else lambda: None))
        try:
            mean = trainer.train(resume_from_checkpoint=checkpoint).training_loss
        finally:
            bar.close()
    trainer.save_policy(out / "model")
    small = sum(getattr(weight, "ds_numel", weight.numel()) for weight in trainer.model.parameters())
    loss = mean_loss(trainer.state.log_history, done, trainer.state.global_step, mean)
    updates = {"updates": trainer.state.global_step, "loss": loss, "relation_heads": heads}
    return updates | {"shape": asdict(shape), "parameters": small, "teacher_parameters": size, "model": f"{out}/model"}


def _relation_heads(teacher: int, student: int, wanted: int | None) -> int:
    """The number of heads in which relations are compared. Raises SetupError for one that does not divide both."""
    most = math.gcd(teacher, student)
    if wanted is not None and most % wanted:
        raise SetupError(f"--relation-heads {wanted}: expected a number that divides {teacher} and {student}")
    return wanted or most


def _training(asked: MiniLM, processes: int) -> dict[str, Any]:
    return {
        "max_steps": max(1, asked.steps),
        "per_device_train_batch_size": asked.batch // processes,
        "learning_rate": asked.rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": asked.steps // 20,
        "adam_beta2": 0.98,
        "save_steps": asked.save_every,
        "seed": asked.seed,
        "average_tokens_across_devices": False,
    }


def _spaced(examples: Sequence[tuple[Prompt, str]], count: int) -> Sequence[tuple[Prompt, str]]:
    return examples[:: max(1, len(examples) // count)][:count]
