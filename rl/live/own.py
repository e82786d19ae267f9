"""An agent's own attempts as recordings, in the standard format: for SFT on own successes, or as a new rail.

The target box of a click is that of the smallest element on the device that holds the point. Every line says which model
acted, in which task, and what checked the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_to_json
from guiderail.agent.disk import new_folder
from guiderail.agent.policy import Policy, Sampling
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Box, Click, LongPress, Rollout, Turn
from guiderail.envs.live.attempts import LiveTask
from guiderail.envs.live.device import Device, Element
from guiderail.envs.recordings.episodes import untagged
from guiderail.rl.rollout.drive import Asking, Key, drive
from guiderail.rl.rollout.live import Site
from guiderail.rl.runs.log import write_json

Attempt = tuple[Rollout, list[Box | None]]
"""With the target box of each turn."""


@dataclass(frozen=True)
class Recording:
    """What is to be recorded: `repeats` attempts at each task of a site."""

    site: Site
    names: Sequence[str]
    repeats: int
    policy: Policy
    sampling: Sampling
    seed: int = 0
    width: int = 32

    def attempts(self, done: Callable[[Attempt], None]) -> None:
        """done: called with each attempt as it ends."""

        def walk(name: str, sample: int) -> Asking[None]:
            done((yield from _watched(self.site, name, sample)))

        def walks() -> Iterator[tuple[Key, Asking[None]]]:
            for sample in range(self.repeats):
                for name in self.names:
                    yield (self.seed, name, sample), walk(name, sample)

        drive(walks(), self.policy, self.sampling, width=self.width)


def _watched(site: Site, name: str, sample: int) -> Asking[Attempt]:
    boxes: list[Box | None] = []

    def look(task: LiveTask, device: Device, turn: Turn) -> Turn:
        if turn.index == 0:
            boxes.clear()
        boxes.append(target(turn.action, device.elements()) if isinstance(turn.action, Click | LongPress) else None)
        return site.look(task, device, turn)

    made = yield from site.attempt(name, sample, look=look)
    return made, boxes


def target(action: Click | LongPress, elements: Sequence[Element]) -> Box | None:
    """The smallest element that holds the point; None where there is none."""
    holding = [one.box for one in elements if one.box.contains(action.point)]
    return min(holding, key=lambda box: box.area, default=None)


def write_attempts(
    out: Path, recording: Recording, source: Mapping[str, Any], successes: bool, tick: Callable[[], None]
) -> dict[str, Any]:
    """Make the attempts and write the folder `out`: it appears complete or not at all. source: for every line and the card.
    successes: leave out attempts that failed. Attempts with an unreadable turn, and those whose machine failed, are always
    left out. Returns counts, which are in attempts.json as well; turns: those of all attempts. Raises SetupError when `out` holds something."""
    counts: Counter[str] = Counter()
    lines: dict[str, dict[str, Any]] = {}
    with new_folder(out) as partial:
        (partial / "images").mkdir()

        def done(attempt: Attempt) -> None:
            made, boxes = attempt
            tick()
            why = _left_out(made, successes)
            counts[why or "episodes"] += 1
            counts["turns"] += len(made.turns)
            if why is None:
                counts["steps"] += len(made.turns)
                line = _line(made, boxes, source, partial)
                lines[line["episode_id"]] = line

        recording.attempts(done)
        with (partial / "episodes.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for key in sorted(lines):
                file.write(json.dumps(lines[key], ensure_ascii=False) + "\n")
        found = {name: counts[name] for name in ("episodes", "steps", *LEFT_OUT, "turns")}
        write_json(partial / "attempts.json", found)
        (partial / "DATASET.md").write_text(_card(source, found), "utf-8")
    return found


LEFT_OUT = ("failed", "unreadable", "infrastructure")


def _left_out(made: Rollout, successes: bool) -> str | None:
    if made.outcome is None:
        return "infrastructure"
    if successes and not made.outcome.success:
        return "failed"
    return "unreadable" if any(turn.action is None for turn in made.turns) or not made.turns else None


def _line(made: Rollout, boxes: Sequence[Box | None], source: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    assert made.outcome is not None
    return {
        "goal": made.goal,
        "is_successful": made.outcome.success,
        "swipes": "finger",
        "episode_id": f"{made.unit}/{made.sample}",
        "steps": [_step(turn, box, folder) for turn, box in zip(made.turns, boxes, strict=True)],
        "task": made.unit,
        "checked_by": made.outcome.checked_by,
        "source": dict(source),
    }


def _step(turn: Turn, box: Box | None, folder: Path) -> dict[str, Any]:
    shot = turn.screen.screenshot
    name = f"images/{shot.digest[:16]}.png"
    if not (folder / name).exists():
        (folder / name).write_bytes(shot.encoded())
    action: Action | None = turn.action
    assert action is not None
    pixels = ScreenTransform(shot.width, shot.height)
    content = action_to_json(action, pixels)
    check = dict(content)
    if box is not None:
        sides = (box.left * shot.width, box.top * shot.height, box.right * shot.width, box.bottom * shot.height)
        content["bbox"] = [round(side, 1) for side in sides]
    check["candidate_bbox"] = [content["bbox"]] if box is not None else []
    return {
        "action_content": content,
        "screenshot": name,
        "thought": untagged(turn.thought or ""),
        "check_options": check,
    }


def _card(source: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    rows = "".join(f"| {name} | {count} |\n" for name, count in counts.items())
    return (
        "# Own attempts of a model\n\nMade in a live world and checked there; the target box of a click is that of the smallest "
        f"element on the device that holds the point.\n\n```json\n{json.dumps(dict(source), indent=2)}\n```\n\n"
        f"| attempts | |\n|---|---|\n{rows}"
    )
