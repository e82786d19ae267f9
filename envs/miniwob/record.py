"""Write expert episodes of MiniWoB++ in the standard trajectory format (one JSON line per episode, PNG files)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_to_json
from guiderail.agent.disk import new_folder
from guiderail.agent.errors import SetupError
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Box, Screenshot
from guiderail.envs.live.device import Element
from guiderail.envs.miniwob.experts import EXPERTS
from guiderail.envs.miniwob.moves import Move
from guiderail.envs.miniwob.suites import suite
from guiderail.envs.miniwob.tasks import WebTask, WebTasks

FORMAT = 1


def record(out: Path, world: WebTasks, done: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Record every task of a world, done by its expert, into the folder `out`. Returns counts. Only episodes with a raw
    reward of 1 are kept; the names of the others are under "failed". done: called after each episode.

    The folder appears at once and complete (agent/disk.py). Raises SetupError when `out` already holds something or is
    being written, or a page has no expert, EnvCrashed when the browser fails.
    """
    alone = sorted({*suite(world.suite)} - {*EXPERTS})
    if alone:
        raise SetupError(
            f"no expert for {', '.join(alone)}; --suite experts and pix2act-experts have the pages with one"
        )
    with new_folder(out) as partial:
        (partial / "images").mkdir()
        pages: Counter[str] = Counter()
        actions: Counter[str] = Counter()
        failed: list[str] = []
        session = world.open(0)
        try:
            with (partial / "episodes.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for name, _ in world.listed():
                    line = _episode(session.task(name), partial)
                    if line is None:
                        failed.append(name)
                    else:
                        pages[line["page"]] += 1
                        actions.update(step["action_content"]["action"] for step in line["steps"])
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    done()
        finally:
            session.close()
        counts = {
            "episodes": sum(pages.values()),
            "steps": sum(actions.values()),
            "failed": failed,
            "pages": dict(sorted(pages.items())),
            "actions": dict(sorted(actions.items())),
        }
        (partial / "DATASET.md").write_text(_card(world, counts), "utf-8")
    return counts


def _episode(task: WebTask, folder: Path) -> dict[str, Any] | None:
    """One line of the file; None when the expert did not solve the page."""
    steps: list[dict[str, Any]] = []
    try:
        device = task.start()
        goal = task.goal
        while not task.over() and len(steps) < task.max_steps:
            shot, seen = device.screenshot(), device.elements()
            move = task.move()
            steps.append(_step(shot, seen, move, folder))
            device.act(move.action)
        if not task.check().success:
            return None
    finally:
        task.close()
    return {
        "goal": goal,
        "is_successful": True,
        "swipes": "finger",
        "episode_id": task.id,
        "steps": steps,
        "page": task.page,
        "seed": task.seed,
        "max_steps": task.max_steps,
    }


def _step(shot: Screenshot, seen: list[Element], move: Move, folder: Path) -> dict[str, Any]:
    pixels = ScreenTransform(shot.width, shot.height)
    name = f"images/{shot.digest[:16]}.png"
    if not (folder / name).exists():
        (folder / name).write_bytes(shot.encoded())
    content = action_to_json(move.action, pixels)
    check = dict(content)
    if move.box is not None:
        content["bbox"] = _pixels(move.box, pixels)
    check["candidate_bbox"] = [content["bbox"]] if move.box is not None else []
    return {
        "action_content": content,
        "screenshot": name,
        "thought": move.thought,
        "check_options": check,
        "elements": [_element(one, pixels) for one in seen],
    }


def _pixels(box: Box, screen: ScreenTransform) -> list[float]:
    sides = (box.left * screen.width, box.top * screen.height, box.right * screen.width, box.bottom * screen.height)
    return [round(side, 1) for side in sides]


def _element(one: Element, screen: ScreenTransform) -> dict[str, Any]:
    made: dict[str, Any] = {"text": one.text, "bbox": _pixels(one.box, screen), "kind": one.kind}
    return made if one.checked is None else made | {"checked": one.checked}


def _card(world: WebTasks, counts: dict[str, Any]) -> str:
    pages = "".join(f"| {name} | {n} |\n" for name, n in counts["pages"].items())
    return (
        "# MiniWoB++ episodes\n\n"
        f"Scripted experts on the pages of the miniwob package in headless Chromium, format {FORMAT}. {counts['episodes']} "
        f"episodes, {counts['steps']} steps, all with a raw reward of 1; left out: {', '.join(counts['failed']) or 'none'}.\n\n"
        f"Arguments of `envs.miniwob.tasks.WebTasks`:\n\n```json\n{json.dumps(asdict(world), indent=2)}\n```\n\n"
        f"| page | episodes |\n|---|---|\n{pages}"
    )
