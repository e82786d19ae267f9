"""What can be wrong with a command, found before a model is loaded. Of a training: its keys, what it reads, where it writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from guiderail.agent.disk import locked
from guiderail.agent.errors import SetupError
from guiderail.agent.served.vllm.setting_up import check_one_environment
from guiderail.agent.shipped import check_adapter, check_model
from guiderail.envs.recordings.sources import recordings_file
from guiderail.launch import parts
from guiderail.patch.off_policy import load_thoughts
from guiderail.patch.person import load_answers
from guiderail.rl.config import Config
from guiderail.rl.keys.training import checked
from guiderail.rl.rollout.worlds import OURS, world_of
from guiderail.rl.runs.log import refuse_filled


def check(config: Config, out: Path, resume: bool) -> None:
    """Raises SetupError and DataError."""
    training, deepspeed = training_of(config)
    checked(training, config.method.algorithm)
    if config.model.adapter is not None and config.model.lora is not None:
        raise SetupError("model.adapter continues an adapter and model.lora starts one; give one of them")
    if config.data is not None:
        recordings_file(config.data.train)
    if config.world is not None and config.live:
        if (known := OURS.get(config.world.name)) is not None:
            parts.require(known.module, known.extra)
        world_of(config.world.name, config.world.options)
    if config.rollout.engine == "vllm-colocate" and config.method.algorithm != "sft":
        check_one_environment()
    check_model(config.model.path, "model.path=")
    if config.model.adapter is not None:
        check_adapter(config.model.adapter, "model.adapter=")
    if config.method.thought_store is not None:
        store = Path(config.method.thought_store)
        if not store.is_file():
            raise SetupError(f"no thought store {store}; give method.thought_store=FILE.jsonl")
        load_thoughts(store)
    if config.teacher is not None and config.teacher.path is not None:
        check_model(config.teacher.path, "teacher.path=")
    _check_answers(config)
    if deepspeed is not None and not deepspeed.is_file():
        raise SetupError(f"no DeepSpeed config {deepspeed}; guiderail brings zero1.json, zero2.json and zero3.json")
    if int(os.environ.get("RANK", "0")) == 0:  # the others may come after the first has made the folder
        check_out(out, resume)


def _check_answers(config: Config) -> None:
    name = config.method.answers
    if name is None and config.method.patch == "person":
        raise SetupError("the patch person needs a person's answers; give method.answers=RUN/review.jsonl")
    if name is not None:
        if not Path(name).is_file():
            raise SetupError(f"no answers at {name}; run: guiderail console --review RUN")
        load_answers(Path(name))


def training_of(config: Config) -> tuple[dict[str, Any], Path | None]:
    """The training section without its deepspeed key, and the JSON file that names: a path or a shipped zero2.json."""
    training = dict(config.training)
    name = training.pop("deepspeed", None)
    if name is None:
        return training, None
    if not isinstance(name, str):
        raise SetupError(f"training.deepspeed is {name!r}, expected the name of a JSON file, such as zero2.json")
    shipped = Path(__file__).parent / "deepspeed" / Path(name).name
    return training, shipped if not Path(name).is_file() and shipped.is_file() else Path(name)


def check_out(out: Path | None, resume: bool | None) -> None:
    """Raises SetupError for a run folder in which this run could not start. resume: as for `rl.runs.log.run_log`."""
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise SetupError(f"{out} is a file; give another --out")
    with locked(out):
        refuse_filled(out, resume)
