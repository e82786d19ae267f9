"""An attempt of a run, taken up again at one of its steps: the state is restored by doing its actions once more.

That works where the same start and the same actions give the same state: on Pocket and on MiniWoB++. A phone cannot be put
back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_from_json
from guiderail.agent.errors import DataError, SetupError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Completion, Message, Picture, Prompt, Screenshot, Turn
from guiderail.envs.live.worlds import RESTORED
from guiderail.envs.pocket.state import STYLES
from guiderail.launch.console.attended import Again
from guiderail.rl.runs.log import read_record, read_rollouts, reading
from guiderail.rl.runs.record import About


@dataclass(frozen=True, slots=True)
class Found:
    """device, goal, seed: as the console is asked for them. model: what acted."""

    device: str
    goal: str
    seed: int
    model: str
    again: Again


def find(run: Path, unit: str, sample: int, step: int) -> Found:
    """The attempt of a run before its turn `step`. Raises SetupError for what is not there or cannot be restored, DataError
    for a broken run."""
    record = read_record(run)
    about, world = record.about, record.about.world or {}
    if world.get("name") not in RESTORED:
        raise SetupError(
            f"{run} was made on {world.get('name') or 'recordings'}, which cannot be put back; take one of {', '.join(RESTORED)}"
        )
    with reading(run):
        rows = [row for row in read_rollouts(run) if row["unit"] == unit and row["sample"] == sample]
        if not rows:
            raise SetupError(f"{run} has no attempt {sample} at {unit!r}; see its report for those it has")
        turns = rows[0]["turns"]
        if not 0 <= step <= len(turns):
            raise SetupError(f"--step {step}: this attempt has {len(turns)} turns; give 0 to {len(turns)}")
        made = tuple(_turn(run, turn) for turn in turns[:step])
        device, goal = _device(world, rows[0])
    return Found(
        device, goal, _seed(about, world), about.model or "", Again(made, str((about.voice or {}).get("dialect", "")))
    )


def _device(world: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, str]:
    """--device and goal that start this task again."""
    unit = str(row["unit"])
    if world["name"] == "miniwob":
        return f"miniwob:{unit}", ""
    style = str(world.get("style", "easy"))
    if list(world.get("size", STYLES["easy"])) != list(STYLES.get(style, ())):
        raise SetupError(
            f"this run's screens have {world['size']} pixels, which is not the size that the console opens"
        )
    free = unit.startswith("goal-")
    name = "pocket-adb" if world.get("device") == "adb" else "pocket-phone" if free and style == "phone" else "pocket"
    return (name, str(row["goal"])) if free else (f"{name}:{unit}", "")


def _seed(about: About, world: Mapping[str, Any]) -> int:
    seed = world.get("seed", about.seed)
    return seed if isinstance(seed, int) else 0


def _turn(run: Path, row: Mapping[str, Any]) -> Turn:
    """The turn with the screen that it was made on, if the run kept it."""
    width, height = row["screen"]
    digest = str(row.get("screenshot", ""))
    path = run / "images" / f"{digest}.png" if re.fullmatch(r"[0-9a-f]{64}", digest) else None
    picture = Picture(Screenshot(width, height, path), width, height)
    try:
        action = None if row["action"] is None else action_from_json(row["action"], ScreenTransform(width, height))
    except UnreadableAction as error:
        raise DataError(str(run / "rollouts.jsonl"), f"turn {row['index']}: {error}") from None
    prompt, said = Prompt((Message("user", (picture,)),)), Completion(row["text"], finish=row.get("finish", "stop"))
    return Turn(row["index"], prompt, said, row["thought"], action, note=row.get("note", ""), by=row.get("by", "agent"))
