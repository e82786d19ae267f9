"""Episodes become standard trajectory JSONL and its screenshots again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_to_json
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Click, Episode, LongPress, Screenshot, Step, Swipe
from guiderail.envs.recordings.conventions import imported_from


def save_episodes(path: Path, episodes: Sequence[Episode]) -> None:
    """Write standard JSONL, completely or not at all. Coordinates are pixels of the original screenshots, to 1/1000.

    Every line says `"swipes": "finger"`, and under `import` whether its source stores them inverted. Screenshots inside the
    file's folder are named relative to it, others by their absolute path; those held in memory are written to `images/`.
    Only a first box of origin "bbox" keeps its origin; all others are read back as "candidate".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for number, episode in enumerate(episodes):
            line: dict[str, Any] = {**episode.meta, "goal": episode.goal, "episode_id": episode.id, "swipes": "finger"}
            if any(step.exchanged for step in episode.steps) and imported_from(line) != "inverted":
                line["import"] = {**line.get("import", {}), "swipes": "inverted"}
            line["steps"] = [_step_json(step, path.parent, f"{number}_{i}") for i, step in enumerate(episode.steps)]
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(partial, path)


def _step_json(step: Step, folder: Path, name: str) -> dict[str, Any]:
    width, height = step.screenshot.width, step.screenshot.height

    def pixels(*fractions: float) -> list[float]:
        exact = (round(f * side, 3) for f, side in zip(fractions, (width, height) * 2, strict=False))
        return [int(v) if v == math.floor(v) else v for v in exact]

    def spoken(action: Action) -> dict[str, Any]:
        said = action_to_json(action, ScreenTransform(width, height))
        match action:
            case Click(point) | LongPress(point):
                said["coordinate"] = pixels(point.x, point.y)
            case Swipe(start, end):
                said |= {"coordinate": pixels(start.x, start.y), "coordinate2": pixels(end.x, end.y)}
        return said

    content = spoken(step.action)
    written: dict[str, Any] = {"action_content": content}
    if (image := _image_name(step.screenshot, folder, name)) is not None:
        written["screenshot"] = image
    texts = {"thought": step.thought, "step_instruction": step.instruction, "box_origin": step.box_origin}
    for key, text in texts.items():
        if text is not None:
            written[key] = text
    boxes = ((target.origin, target.box) for target in step.boxes)
    targets = [(origin, pixels(box.left, box.top, box.right, box.bottom)) for origin, box in boxes]
    if targets and targets[0][0] == "bbox":
        content["bbox"] = targets.pop(0)[1]
    check: dict[str, Any] = {"candidate_bbox": [box for _, box in targets]} if targets else {}
    if step.scroll_label is not None:
        check["direction"] = step.scroll_label
    if check:
        written["check_options"] = {"action": step.action.name, **check}
    if step.history:
        written["history"] = True
    if step.accepted:
        boxes_of = [
            [pixels(t.box.left, t.box.top, t.box.right, t.box.bottom) for t in one.boxes] for one in step.accepted
        ]
        written["also_accepted"] = [
            spoken(one.action) | ({"bbox": boxes[0]} if boxes else {})
            for one, boxes in zip(step.accepted, boxes_of, strict=True)
        ]
    return written


def _image_name(screenshot: Screenshot, folder: Path, name: str) -> str | None:
    if screenshot.path is None and screenshot.data is None:
        return None
    if screenshot.path is not None:
        path, here = screenshot.path.absolute(), folder.absolute()
        inside = path.relative_to(here) if path.is_relative_to(here) else None
        return str(path) if inside is None or ".." in inside.parts else inside.as_posix()
    image = folder / "images" / f"{name}.{'png' if screenshot.encoded()[:4] == bytes((0x89, 80, 78, 71)) else 'jpg'}"
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(screenshot.encoded())
    return f"images/{image.name}"
