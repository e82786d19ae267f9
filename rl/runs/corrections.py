"""Corrected attempts become recordings: the person's steps are what is learned, the agent's own steps are their history.

This is DAgger (Ross et al. 2011, arXiv 1011.0686): the expert says what is right in the states that the agent itself gets
into. Steps after the person's last one are left out, and so are answers that could not be read, which did nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_from_json, action_to_json
from guiderail.agent.disk import new_folder, write_whole
from guiderail.agent.errors import DataError, SetupError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Click, LongPress, Point, Swipe
from guiderail.agent.untrusted import read_file
from guiderail.envs.recordings.episodes import episode_of, image_size, untagged
from guiderail.rl.runs.log import read_rollouts, reading

Row = Mapping[str, Any]
PERSON = "person"


def recordings_of(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the corrected attempts of these run folders as recordings into the folder `out`, which appears at once and
    complete. Returns counts: attempts read, episodes, history (the agent's steps), targets (the person's).

    Raises SetupError when no person took part in any attempt, DataError for a broken run.
    """
    counts = {"attempts": 0, "episodes": 0, "history": 0, "targets": 0}
    seen: set[str] = set()
    with new_folder(out) as partial:
        (partial / "images").mkdir()
        with (partial / "episodes.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for run in runs:
                with reading(run):
                    for number, row in enumerate(read_rollouts(run), 1):
                        counts["attempts"] += 1
                        where = f"{run / 'rollouts.jsonl'}:{number}"
                        if not _corrected(row):
                            continue
                        line = _line(row, run, where, partial)
                        line["episode_id"] = _fresh(str(line["episode_id"]), run, seen)
                        episode = episode_of(line, partial / "episodes.jsonl", where, "")
                        counts["episodes"] += 1
                        counts["targets"] += len(episode.targets)
                        counts["history"] += len(episode.steps) - len(episode.targets)
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not counts["episodes"]:
            named = ", ".join(str(run) for run in runs)
            raise SetupError(f"no person took part in the attempts of {named}; take over in: guiderail console")
        write_whole(partial / "DATASET.md", _card(runs, counts).encode())
    return counts


def _corrected(row: Row) -> bool:
    return "outcome" in row and any(turn.get("by") == PERSON for turn in row["turns"])


def _fresh(name: str, run: Path, seen: set[str]) -> str:
    """An id that no earlier attempt has: of several runs, the later one's carries the name of its folder."""
    chosen, number = name, 1
    while chosen in seen:
        number += 1
        chosen = f"{run.name}-{name}" if number == 2 else f"{run.name}-{name}-{number}"
    seen.add(chosen)
    return chosen


def _line(row: Row, run: Path, where: str, out: Path) -> dict[str, Any]:
    last = max(k for k, turn in enumerate(row["turns"]) if turn.get("by") == PERSON)
    line: dict[str, Any] = {"goal": row["goal"], "episode_id": f"{row['unit']}-{row['sample']}", "swipes": "finger"}
    if row.get("template"):
        line["template"] = row["template"]
    if row["outcome"] is not None:
        line["is_successful"] = bool(row["outcome"]["success"])
    line["recorded"] = "corrected"
    line["steps"] = [*_steps(row["turns"][: last + 1], run, where, out)]
    return line


def _steps(turns: Sequence[Row], run: Path, where: str, out: Path) -> Iterator[dict[str, Any]]:
    for turn in turns:
        at = f"{where} turn {turn['index']}"
        if turn["action"] is None:
            if turn.get("by") == PERSON:
                raise DataError(at, "a person's turn has no action")
            continue
        picture, size = _picture(turn, run, at, out)
        pixels = ScreenTransform(*size)
        try:
            action = action_from_json(turn["action"], ScreenTransform(*turn["screen"]))
        except UnreadableAction as error:
            raise DataError(at, str(error)) from None
        step: dict[str, Any] = {"action_content": content_of(action, pixels), "screenshot": picture}
        if thought := untagged(turn["thought"] or ""):
            step["thought"] = thought
        if turn.get("by") != PERSON:
            step["history"] = True
        elif (box := turn.get("target")) is not None:
            sides = [round(side * length, 3) for side, length in zip(box, size * 2, strict=True)]
            step["action_content"]["bbox"] = sides
            step |= {"check_options": {"candidate_bbox": [sides]}, "box_origin": "tree"}
        yield step


def content_of(action: Action, pixels: ScreenTransform) -> dict[str, Any]:
    """The action in pixels to 1/1000, moved to the edge where a model has aimed outside the screen."""

    def at(point: Point) -> list[float]:
        x, y = min(max(point.x, 0.0), 1.0), min(max(point.y, 0.0), 1.0)
        return [round(x * pixels.width, 3), round(y * pixels.height, 3)]

    content = action_to_json(action, pixels)
    match action:
        case Click(point) | LongPress(point):
            content["coordinate"] = at(point)
        case Swipe(start, end):
            content |= {"coordinate": at(start), "coordinate2": at(end)}
    return content


def _picture(turn: Row, run: Path, where: str, out: Path) -> tuple[str, tuple[int, int]]:
    """The screenshot's name in `out`, where it is put once, and its size."""
    digest = str(turn.get("screenshot", ""))
    if not re.fullmatch(r"[0-9a-f]{64}", digest):  # another name could lead out of the folder
        raise DataError(where, f"screenshot {digest[:80]!r}, expected a SHA-256")
    source, name = run / "images" / f"{digest}.png", f"images/{digest[:32]}.png"
    if not (out / name).exists():
        data = read_file(source, where, "screenshot", hint="; a run without --out keeps no screenshots")
        partial = out / f"{name}.part"
        partial.write_bytes(data)
        os.replace(partial, out / name)
    return name, image_size(out / name, where)


def _card(runs: Sequence[Path], counts: Mapping[str, int]) -> str:
    return (
        "# Corrected attempts\n\n"
        f"{counts['episodes']} of {counts['attempts']} attempts of {', '.join(run.name for run in runs)} in which a person "
        f"took over: {counts['targets']} steps of the person to learn from, {counts['history']} of the agent as their "
        "history. Swipes are finger motion.\n"
    )
