"""The run folder: everything needed to re-compute a number without the model.

    run.json         command, resolved config, versions, data digest, rules, seeds, times
    rollouts.jsonl   one line per rollout: every turn's text, verdict, repair, reward, advantage
    likelihood.jsonl one line per scored expert turn (guiderail evaluate likelihood)
    passed_over.jsonl one line per group that was not sampled because of its expected difficulty
    metrics.json     the result

Lines are keyed by episode id and sample, never by order.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from agent.codec import action_to_json
from agent.dialogue import transform
from agent.errors import DataError, SetupError
from agent.types import Prompt, Rollout, Turn

PACKAGES = ("guiderail", "torch", "transformers", "trl", "peft", "deepspeed", "accelerate", "android-env", "pillow")
LINES = ("rollouts.jsonl", "likelihood.jsonl", "passed_over.jsonl")


class RunLog:
    """Writes one run folder. A folder that already holds another run is refused, unless `resume`."""

    def __init__(self, folder: Path, kind: str, details: Mapping[str, Any], *, resume: bool = False):
        self.folder = folder
        if (folder / "run.json").exists() and not resume:
            raise SetupError(f"{folder} already holds a run; give another --out, or --resume to go on with it")
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            for file in LINES:
                (folder / file).unlink(missing_ok=True)
        record = {"kind": kind, "command": sys.argv[1:], "started": _now(), "versions": versions(), **details}
        write_json(folder / "run.json", record)

    def rollout(self, row: Mapping[str, Any], name: str = "rollouts.jsonl") -> None:
        """Append one line; a line is either whole or absent after a crash, since it is written in one call."""
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self, metrics: Mapping[str, Any]) -> None:
        write_json(self.folder / "metrics.json", dict(metrics))


def rollout_row(
    rollout: Rollout, steps: int, credit: Sequence[Mapping[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """One line of rollouts.jsonl. steps: length of the recording. credit: reward and advantages per turn."""
    turns = [turn_row(turn) | (dict(credit[i]) if credit else {}) for i, turn in enumerate(rollout.turns)]
    head = {"episode_id": rollout.episode_id, "sample": rollout.sample, "steps": steps, "ended": rollout.ended}
    return {**head, **more, "turns": turns}


def turn_row(turn: Turn) -> dict[str, Any]:
    """One turn: coordinates are model pixels of `screen` [width, height]."""
    screen = transform(turn.prompt.screen)
    row: dict[str, Any] = {
        "index": turn.index,
        "text": turn.completion.text,
        "finish": turn.completion.finish,
        "tokens": len(turn.completion.token_ids),
        "screen": [screen.width, screen.height],
        "thought": turn.thought,
        "action": None if turn.action is None else action_to_json(turn.action, screen),
        "verdict": asdict(turn.verdict),
    }
    if turn.repair is not None:
        row["repair"] = {"strategy": turn.repair.strategy, "text": turn.repair.text}
    return row


def prompt_digest(prompt: Prompt) -> str:
    """SHA-256, hex, of everything the policy was shown: roles, texts, pictures by content and size."""
    shown = [
        [m.role, *(p if isinstance(p, str) else [p.screenshot.digest, p.width, p.height] for p in m.parts)]
        for m in prompt.messages
    ]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def read_rollouts(folder: Path, name: str = "rollouts.jsonl") -> Iterator[dict[str, Any]]:
    """The lines of a run's rollouts.jsonl. Raises SetupError for no such run, DataError for a broken line."""
    path = folder / name
    if not path.is_file():
        raise SetupError(f"{folder} is not a run folder: no {name} in it")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}", f"not JSON: {error}") from None


def drop_rollouts(folder: Path, stale: Callable[[Mapping[str, Any]], bool], name: str = "rollouts.jsonl") -> None:
    """Remove lines that a resumed run is about to write again."""
    path = folder / name
    if not path.exists():
        return
    kept = [row for row in read_rollouts(folder, name) if not stale(row)]
    partial = path.with_name(path.name + ".part")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SetupError(f"{path} is not there; is {path.parent} a run folder?") from None
    except ValueError as error:
        raise DataError(f"{path}:1", f"not JSON: {error}") from None


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def versions() -> dict[str, str | None]:
    """Python, platform, packages and the source commit when there is one."""
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    here = Path(__file__).parent
    try:
        git = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        found["commit"] = git.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        found["commit"] = None
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
