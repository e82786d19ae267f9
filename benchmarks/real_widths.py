"""Real widths on any machine: a whole step, and the whole path of a user, with models of published width and few layers.

    python -m benchmarks.real_widths step [--model 2b 3b] [--tune lora full] [--layers 2] [--scale 0.5] [--screens FOLDER]
    python -m benchmarks.real_widths path [--model 2b] [--layers 2] [--scale 0.5] [--screens FOLDER]

Qwen3-VL-2B and Qwen2.5-VL-3B: published widths, the whole vocabulary, random bfloat16 weights, --layers layers in text and tower.
`step` makes two updates of semi-online RL (rollout, credit, update, checkpoint), then goes on from the first checkpoint in a new
process, and compares the second update with the one before. `path` runs the commands that a user types, from recordings to a
verified submission. --screens: a folder of recordings in the standard JSONL with their screenshots; without it the simulated phone
draws 1080x2400 screens. --scale shrinks their sides before the model sees them: the tower's attention is quadratic in the pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.one_step import LAUNCH, apart, ceilings, one_run, planned_step, printed, table
from benchmarks.published import write_model

MODELS = {"2b": "Qwen/Qwen3-VL-2B-Instruct", "3b": "Qwen/Qwen2.5-VL-3B-Instruct"}
LORA = "{r: 16, alpha: 32}"
SCREEN = (1080, 2400)
DEADLINE = 3600.0
"""Seconds for one command or one run."""


def recordings(screens: Path | None, out: Path) -> Path:
    """The folder given, or episodes of the simulated phone at the size of a real one."""
    from guiderail.envs.pocket.record import record

    if screens is None:
        record(out, episodes=2, size=SCREEN)
    return screens or out


def pixels(data: Path, scale: float) -> int:
    """Most pixels of a screenshot whose sides are to be `scale` times as long."""
    from guiderail.envs.recordings.episodes import load_episodes

    shot = load_episodes(data).episodes[0].steps[0].screenshot
    return round(shot.width * shot.height * scale**2)


def built(model: str, data: Path, out: Path, layers: int) -> dict[str, Any]:
    return {"parameters": write_model(MODELS[model], data, out, layers, layers)}


# --------------------------------------------------------------------------------------------------------------- step


def step(choices: argparse.Namespace, folder: Path) -> dict[str, Any]:
    data = recordings(choices.screens, folder / "data")
    reached = apart(DEADLINE, ceilings)
    found: dict[str, Any] = {"ceilings": reached, "runs": []}
    for model in choices.model:
        made = apart(DEADLINE, built, model, data, folder / model, choices.layers)
        for tune in choices.tune:
            settings = {
                "model.path": str(folder / model),
                "model.lora": LORA if tune == "lora" else "null",
                "model.max_pixels": str(pixels(data, choices.scale)),
                "model.max_new_tokens": "4",
                "data.train": str(data),
            }
            about = {"model": MODELS[model], "tune": tune, "layers": choices.layers, "scale": choices.scale}
            found["runs"].append(about | made | one_step(settings, folder / f"{model}-{tune}", reached))
            if not choices.json:
                shown(found["runs"][-1])
            if choices.out is not None:  # what is measured stays, whatever ends the next run
                choices.out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def one_step(settings: dict[str, str], out: Path, reached: dict[str, Any]) -> dict[str, Any]:
    """Two updates, and the second once more after a resume. same: whether it is."""
    first = apart(DEADLINE, one_run, settings, str(out))
    if "failed" in first:
        return first
    again = apart(DEADLINE, one_run, settings, str(out), str(out / "checkpoint-1"))
    if "failed" in again:
        return again
    plan = apart(DEADLINE, planned_step, settings, reached)
    run = first | {
        "seconds": first["seconds"] | {"resume": again["seconds"]["resume"]},
        "memory": first["memory"] | {"resume": again["memory"]["resume"]},
    }
    del run["seconds"]["start"]
    second = again["updates"][-1]  # before it stands what the checkpoint remembers of the first
    return {"same": second == first["updates"][-1], "again": second, "rows": table(run, plan), **run}


def shown(run: dict[str, Any]) -> None:
    print(f"\n{run['model']}, {run['tune']}, {run['layers']} layers, screenshots at {run['scale']:g}")
    if "failed" in run:
        print(run["failed"])
        return
    print(printed(run["rows"]))
    print(f"the second update after a resume: {'the same' if run['same'] else 'DIFFERENT'} {run['again']}", flush=True)


# --------------------------------------------------------------------------------------------------------------- path


def path(choices: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The commands of a user, each with its seconds and its most memory. Ends at the first that fails."""
    model, data, runs = folder / "model", folder / "data", folder / "runs"
    source = recordings(choices.screens, folder / "drawn")
    made = apart(DEADLINE, built, choices.model[0], source, model, choices.layers)
    if "failed" in made:
        return made
    small = [f"model.max_pixels={pixels(source, choices.scale)}", "model.dtype=bfloat16", "model.max_new_tokens=4"]
    small += [f"data.train={data}", "data.limit=1", "training.max_steps=2", "training.gradient_accumulation_steps=1"]
    small += ["training.deepspeed=null", "training.report_to=none"] + ([] if _cuda() else ["training.bf16=false"])
    first = [f"model.path={model}", f"model.lora={LORA}"]
    then = [f"model.path={runs / 'sft' / 'model'}", "model.lora=null"]  # the adapter of SFT is trained on
    group = ["method.groups=1", "method.rollouts=2", "method.spread_of=none", "method.max_rows=2"]
    recipe, last = str(LAUNCH / "configs" / "lora_80g.yaml"), str(runs / "rl" / "model")
    sop, bundle = str(runs / "sop"), str(folder / "bundle.zip")
    commands = [
        ["import", "uis1", str(source), "--out", str(data)],
        ["gate", str(data)],
        ["train", str(stage_one(folder)), *first, *small, "--out", str(runs / "sft")],
        ["train", recipe, *then, *small, *group, "training.steps_per_generation=1", "--out", str(runs / "rl")],
        ["evaluate", "sop", str(data), "--model", last, "--limit", "1", "--out", sop],
        ["report", str(runs / "rl"), sop, "--out", str(folder / "report")],
        ["submit", "build", sop, "--out", bundle],
        ["submit", "verify", bundle],
    ]
    rows = []
    for words in commands:
        rows.append(command(words))
        if not choices.json:
            print(printed([rows[-1]]).splitlines()[-1], flush=True)
        if rows[-1]["code"]:
            break
    return {"model": MODELS[choices.model[0]], "layers": choices.layers, "scale": choices.scale, **made, "rows": rows}


def stage_one(folder: Path) -> Path:
    """The recipe's config with SFT in place of RL."""
    import yaml

    known = yaml.safe_load((LAUNCH / "configs" / "lora_80g.yaml").read_text())
    kept = ("learning_rate", "max_grad_norm", "gradient_checkpointing", "bf16", "seed")
    training = {key: value for key, value in known["training"].items() if key in kept}
    sft = {"model": known["model"], "method": {"algorithm": "sft"}}
    file = folder / "sft.yaml"
    file.write_text(yaml.safe_dump(sft | {"training": training | {"per_device_train_batch_size": 1}}))
    return file


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def command(words: list[str]) -> dict[str, Any]:
    """Run `guiderail WORDS`. gib: the most that it took, but no less than this process. said: the end of what it printed, where
    it failed."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed_there:
        ran = [sys.executable, "-m", "guiderail.launch.cli", *words]
        process = subprocess.Popen(ran, stdout=printed_there, stderr=printed_there)
        timer = threading.Timer(DEADLINE, process.kill)
        timer.start()
        _, status, used = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        printed_there.seek(0)
        said = printed_there.read()
    name = " ".join(words[:2]) if words[0] in ("import", "evaluate", "submit") else words[0]
    row = {"command": name, "code": process.returncode, "seconds": time.perf_counter() - started}
    return row | {"gib": used.ru_maxrss / 2**20} | ({"said": said[-2000:]} if process.returncode else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "path"))
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tune", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--screens", type=Path)
    parser.add_argument("--folder", type=Path, help="keeps models and runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    choices = parser.parse_args()
    if choices.what == "step":
        import guiderail.launch.train  # noqa: F401  processes that are forked from this one have it

    with tempfile.TemporaryDirectory() as scratch:
        folder = choices.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = {"step": step, "path": path}[choices.what](choices, folder.absolute())
    if choices.json:
        print(json.dumps(found, indent=1))
    if choices.out is not None:
        choices.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
