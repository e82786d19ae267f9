"""Write expert episodes of pocket phones in the standard trajectory format (one JSON line per episode, PNG files)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_to_json
from guiderail.agent.disk import new_folder
from guiderail.agent.errors import SetupError
from guiderail.agent.screen import ScreenTransform
from guiderail.envs.live.device import encode_png
from guiderail.envs.pocket.draw import draw, text_box
from guiderail.envs.pocket.expert import Move
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import size_of_style
from guiderail.envs.pocket.tasks import Task, demonstrate, draws, task
from guiderail.envs.pocket.ui import Placed, Scene

FORMAT = 2


def record(
    out: Path,
    episodes: int,
    seed: int = 0,
    split: str = "train",
    size: tuple[int, int] | None = None,
    style: str = "easy",
    disturbed: float = 0.5,
    informative: float = 0.5,
    templates: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Record expert episodes into the folder `out`. Returns counts by template and by action.

    size: (width, height) in pixels; None for the style's own. disturbed: share of episodes that are disturbed like live tasks: another app
    open, flipped switches, pop-ups. informative: share of steps whose thought says what was done or read. templates: only
    these (default: all of the split). Equal arguments give equal bytes.

    The folder appears at once and complete (agent/disk.py). Raises SetupError when `out` already holds something or is
    being written.
    """
    if episodes < 1 or not 0 <= disturbed <= 1 or not 0 <= informative <= 1:
        got = f"episodes {episodes}, disturbed {disturbed}, informative {informative}"
        raise SetupError(f"{got}: expected at least 1 and shares from 0 to 1")
    size = size or size_of_style(style)
    with new_folder(out) as partial:
        shelf = _Shelf(partial / "images")
        by_template: Counter[str] = Counter()
        by_action: Counter[str] = Counter()
        with (partial / "episodes.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for number, (name, phone_seed) in enumerate(draws(episodes, seed, split, templates)):
                share = int(hashlib.sha256(f"disturbed-{phone_seed}".encode()).hexdigest()[:8], 16) / 2**32
                made = task(name, phone_seed, split, style, live=share < disturbed)
                line = _episode(made, number, size, informative, shelf)
                by_template[name] += 1
                by_action.update(step["action_content"]["action"] for step in line["steps"])
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        counts = {
            "episodes": episodes,
            "steps": sum(by_action.values()),
            "screens": len(shelf.names),
            "templates": dict(sorted(by_template.items())),
            "actions": dict(sorted(by_action.items())),
        }
        command = {"episodes": episodes, "seed": seed, "split": split, "size": list(size), "style": style}
        shares = {"disturbed": disturbed, "informative": informative}
        (partial / "DATASET.md").write_text(_card(command | shares | {"templates": list(templates)}, counts), "utf-8")
    return counts


class _Shelf:
    """Images stored once by content. Equal pixels are recognised before they are encoded."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: dict[bytes, str] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, scene: Scene) -> str:
        image = draw(scene)
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in self.names:
            shot = encode_png(image)
            self.names[key] = f"{shot.digest[:16]}.png"
            (self.folder / self.names[key]).write_bytes(shot.encoded())
        return f"images/{self.names[key]}"


def _episode(made: Task, number: int, size: tuple[int, int], informative: float, shelf: _Shelf) -> dict[str, Any]:
    phone = Phone(made.start(), *size)
    pixels = ScreenTransform(*size)
    steps = [
        _step(scene, move, made.say(move.thought, index, informative), pixels, shelf)
        for index, (scene, move) in enumerate(demonstrate(made, phone, made.max_steps))
    ]
    return {
        "goal": made.goal,
        "is_successful": True,
        "swipes": "finger",
        "episode_id": number,
        "steps": steps,
        "template": made.template,
        "memory": made.memory,
        "seed": made.seed,
        "split": made.split,
        "params": made.params,
        "disturbed": made.live,
        "max_steps": made.max_steps,
    }


def _step(scene: Scene, move: Move, said: str, pixels: ScreenTransform, shelf: _Shelf) -> dict[str, Any]:
    content = action_to_json(move.action, pixels)
    check = dict(content)
    if move.target is not None:
        content["bbox"] = list(move.target.box)
        check["candidate_bbox"] = [list(move.target.box)]
    else:
        check["candidate_bbox"] = []
    return {
        "action_content": content,
        "screenshot": shelf.put(scene),
        "thought": said,
        "check_options": check,
        "elements": [_element(item, scene) for item in sorted(scene.active, key=_reading_order)],
    }


def _reading_order(item: Placed) -> tuple[int, int]:
    return item.box[1], item.box[0]


def _element(item: Placed, scene: Scene) -> dict[str, Any]:
    """bbox: the whole element. text_bbox: only its words."""
    cell = item.cell
    made: dict[str, Any] = {
        "text": cell.text,
        "bbox": list(item.box),
        "text_bbox": list(text_box(item, scene)),
        "kind": cell.kind,
    }
    if cell.kind in ("toggle", "check"):
        made["checked"] = bool(cell.checked)
    return made


def _card(command: dict[str, Any], counts: dict[str, Any]) -> str:
    rows = "".join(f"| {name} | {n} |\n" for name, n in counts["templates"].items())
    actions = "".join(f"| {name} | {n} |\n" for name, n in counts["actions"].items())
    return (
        "# Pocket episodes\n\n"
        f"Expert episodes of a simulated phone, format {FORMAT}. {counts['episodes']} episodes, {counts['steps']} steps, "
        f"{counts['screens']} distinct screens.\n\n"
        f"Arguments of `envs.pocket.record.record`:\n\n```json\n{json.dumps(command, indent=2)}\n```\n\n"
        f"About {command['informative']:.0%} of the thoughts are informative, the others vague on purpose: what an agent "
        "remembers is part of what it has to learn.\n\n"
        f"| template | episodes |\n|---|---|\n{rows}\n| action | steps |\n|---|---|\n{actions}"
    )
