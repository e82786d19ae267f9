"""The card of a trained model, filled from its run: what it was made from, how, and how it scored."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import SHIPPED
from guiderail.agent.untrusted import printable
from guiderail.launch import show
from guiderail.launch.submission.redact import Redactor
from guiderail.rl.runs.log import read_json, read_record
from guiderail.rl.runs.record import RunRecord

METHODS = {
    "sft": "supervised fine-tuning on expert turns",
    "offline": "offline RL, under the experts' history",
    "semi-online": "semi-online RL (UI-S1, [arXiv 2509.11543](https://arxiv.org/abs/2509.11543))",
    "online": "online RL from live attempts",
    "distill": "on-policy distillation from a larger model",
}
_SCORES = {"sop": ("PG", "TSR", "Score"), "offline": ("TM", "GR", "SR"), "screenspot": ("accuracy",)}
_COMMANDS = ("train", "evaluate", "study")
_METHOD_KEYS = ("rules", "credit", "reward", "gamma", "returns", "patch", "patch_budget", "rollouts", "groups", "eta")
_SHOWN = {"sft": ("rules",), "online": ("credit", "rollouts", "groups")}


@dataclass(frozen=True)
class Trained:
    """A finished training, and the folder of its model: the run's own, or one that was merged from it."""

    run: Path
    model: Path
    record: RunRecord
    metrics: dict[str, Any]

    @property
    def base(self) -> str:
        """What an adapter belongs to; else the model that the training began with."""
        file = self.model / "adapter_config.json"
        return str(read_json(file).get("base_model_name_or_path")) if file.is_file() else self.config["model"]["path"]

    @property
    def config(self) -> dict[str, Any]:
        return self.record.about.config or {}

    @property
    def is_adapter(self) -> bool:
        return (self.model / "adapter_config.json").is_file()


def trained(run: Path, model: Path | None = None) -> Trained:
    """Raises SetupError for what is no finished training with a model."""
    record = read_record(run)
    if record.kind != "train" or record.about.config is None:
        raise SetupError(f"{run} is a run of {record.kind}; give the folder of a training")
    if not (run / "metrics.json").is_file():
        raise SetupError(f"{run} is not finished; run its command again with --resume")
    folder = model or run / "model"
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise SetupError(f"{folder} holds no model; give the folder that does with --model")
    return Trained(run, folder, record, read_json(run / "metrics.json"))


Known = Callable[[str, str], bool]
"""known(name, "model" or "dataset"): whether others can load it by this name."""


def looks_known(made: Trained) -> Known:
    """OWNER/NAME that is no folder here, nor where the run's command was most likely started. Only the Hub can tell for sure."""
    above = [Path(), *made.run.resolve().parents]

    def known(name: str, kind: str) -> bool:
        here = name.startswith((".", "/", "~")) or any((place / name).exists() for place in above)
        return name.count("/") == 1 and not here

    return known


def model_card(made: Trained, scores: Sequence[Path] = (), name: str | None = None, known: Known | None = None) -> str:
    """Markdown with the Hub's metadata. scores: run folders of evaluations of this model. name: its name on the Hub. known: by
    default `looks_known`. Raises SetupError for scores of another model."""
    clean, known = Redactor().everything, known or looks_known(made)
    rows = [clean(row) for folder in scores for row in _score_rows(made, folder)]
    title = (name or made.run.resolve().name).rpartition("/")[2]
    algorithm = made.config["method"]["algorithm"]
    text = f"""---
{yaml.safe_dump(_metadata(made, known), sort_keys=False)}---
# {title}

`{clean(made.base)}` after {METHODS[algorithm]}, with Guiderail. An agent that operates a screen: it reads a goal and
screenshots, and answers with a thought and an action in the dialect `{made.config["model"]["dialect"]}`.

## Load it

{_loading(made, name, known)}
## How it was made

{_table(["", ""], [[key, clean(value)] for key, value in _facts(made)])}
Commands:

{"".join(f"    {clean(_command(leg.command))}{chr(10)}" for leg in made.record.legs)}
The digest is the SHA-256 of the recordings' lines. `run.json` of the run holds every key of the config.

## Scores

{_scores(rows)}"""
    return printable(text)


def _metadata(made: Trained, known: Known) -> dict[str, Any]:
    data = made.record.about.data
    head: dict[str, Any] = {"library_name": "peft" if made.is_adapter else "transformers"}
    head["pipeline_tag"] = "image-text-to-text"
    if known(made.base, "model"):
        head["base_model"] = made.base
    elif made.base in SHIPPED:
        head["license"] = "apache-2.0"
    if data is not None and known(data.path.partition(":")[0], "dataset"):
        head["datasets"] = [data.path.partition(":")[0]]
    return head | {"tags": ["guiderail", "gui-agent", made.config["method"]["algorithm"]]}


def _loading(made: Trained, name: str | None, known: Known) -> str:
    """Lines that work without torchvision, which AutoProcessor's video part asks for."""
    folder = json.dumps(name or "FOLDER")
    base = json.dumps(made.base if known(made.base, "model") else "BASE")
    whole = f"AutoModelForImageTextToText.from_pretrained({base if made.is_adapter else folder})"
    lines = ["from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer"]
    if made.is_adapter:
        lines += ["from peft import PeftModel", f"model = PeftModel.from_pretrained({whole}, {folder})"]
    else:
        lines += [f"model = {whole}"]
    lines += [
        f"tokenizer = AutoTokenizer.from_pretrained({folder})",
        f'images = AutoImageProcessor.from_pretrained({folder}, backend="pil")',
    ]
    note = "" if base != '"BASE"' or not made.is_adapter else "\nBASE is the model that the adapter was trained on.\n"
    return (
        "".join(f"    {line}\n" for line in lines)
        + note
        + f"""
With Guiderail, which also knows the prompt: `guiderail evaluate sop DATA --model {name or "FOLDER"}`.

"""
    )


def _facts(made: Trained) -> Iterator[tuple[str, str]]:
    about, config = made.record.about, made.config
    method, learned = config["method"], made.metrics
    yield "base model", made.base
    if about.data is not None:
        yield "recordings", f"{about.data.path}, {about.data.episodes} episodes"
        yield "their digest", about.data.digest
    if world := config.get("world"):
        yield "live world", ", ".join(f"{key} {value}" for key, value in world.items() if key in ("name", "options"))
    keys = _SHOWN.get(method["algorithm"], _METHOD_KEYS)
    yield "method", ", ".join(f"{key} {method[key]}" for key in keys if key in method)
    yield "prompt", f"dialect {config['model']['dialect']}, images per prompt {config['model']['images']}"
    if lora := config["model"].get("lora"):
        yield "LoRA", ", ".join(f"{key} {value}" for key, value in lora.items())
    yield (
        "trained",
        f"{learned['updates']} updates, {learned['sampled_turns']} turns sampled, {learned['seconds']:.0f} s",
    )
    yield "training keys", ", ".join(f"{key} {value}" for key, value in config["training"].items()) or "the defaults"
    if about.parts:
        yield "parts of its own", json.dumps(about.parts)
    leg = made.record.legs[-1]
    shown = [f"{key} {value}" for key, value in leg.versions.items() if value and key != "platform"]
    yield "versions", ", ".join([*shown, *([f"commit {leg.commit[:12]}"] if leg.commit else [])])


def _score_rows(made: Trained, folder: Path) -> list[list[str]]:
    """One row of the table per metric."""
    record = read_record(folder)
    about, result = record.about, read_json(folder / "metrics.json")
    if not _scored_this(made, folder, about.model or ""):
        raise SetupError(f"{folder} scored {about.model}, not {made.model}; evaluate with --model {made.model}")
    keys = _SCORES.get(record.kind) or (("success",) if "success" in result else ())
    if not keys:
        raise SetupError(f"{folder} is a run of {record.kind}; a card shows sop, offline, screenspot and live scores")
    where = about.data.path if about.data is not None else str((about.world or {}).get("name", record.kind))
    temperature = "greedy" if not about.temperature else f"temperature {about.temperature:g}"
    rules = str((about.rules or {}).get("name") or "state check")
    intervals = [result["intervals"][key] if "intervals" in result else result["interval"] for key in keys]
    command = _command(record.legs[-1].command)
    return [
        [f"{record.kind} {key}", where, show.percent(result[key], span), str(result["n"]), rules, temperature, command]
        for key, span in zip(keys, intervals, strict=True)
    ]


def _scored_this(made: Trained, folder: Path, model: str) -> bool:
    """Paths in a record count from where the command was started, most often a folder above the run."""
    places = [Path(model), *(parent / model for parent in folder.resolve().parents)]
    return any(place.is_dir() and place.samefile(made.model) for place in places if model)


def _scores(rows: Sequence[list[str]]) -> str:
    if not rows:
        return "None yet.\n"
    table = _table(["score", "on", "% with 95 % interval", "n", "rules", "answers"], [row[:-1] for row in rows])
    commands = "".join(f"    {command}\n" for command in dict.fromkeys(row[-1] for row in rows))
    return f"""{table}
Commands:

{commands}
Scores on recordings (sop, offline) know one way to the goal; live success counts what was reached.
"""


def _command(words: Sequence[str]) -> str:
    """As it was typed; a run that was made from Python has the words of that program."""
    return (
        shlex.join(["guiderail", *words]) if words and words[0] in _COMMANDS else "(from Python: gr.train, gr.evaluate)"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(' '.join(str(cell).replace('|', chr(92) + '|').split()) for cell in line)} |\n"
        for line in lines
    )
