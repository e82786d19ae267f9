"""A recorder: a person acts on a device, and each step is on the disk, complete, before it is done on the device.

episodes.jsonl   finished attempts, standard JSONL; what a training reads
failed.jsonl     attempts that the person marked as failed, in the same format
draft.json       the attempt under way, after every step; what a crash leaves is gone on with or thrown away
images/          each screenshot once, with personal data blacked out
DATASET.md       what the folder holds
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guiderail.agent.codec import action_to_json
from guiderail.agent.disk import append_whole, cut_torn_line, locked, write_whole
from guiderail.agent.errors import DataError, EnvCrashed, SetupError
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Answer, Box, Click, LongPress, Point, Screenshot, Swipe, Terminate
from guiderail.envs.byhand.hiding import PATTERNS, Hidden, blacked_out, personal
from guiderail.envs.byhand.targets import targets
from guiderail.envs.live.device import Device, Element
from guiderail.envs.recordings.conventions import Size
from guiderail.envs.recordings.episodes import episode_of, image_size
from guiderail.envs.recordings.match import judge

Line = dict[str, Any]
Origin = Literal["tree", "annotation"]


@dataclass(frozen=True)
class Seen:
    """The screen that the next step acts on. hidden: what the patterns found on it."""

    shot: Screenshot
    elements: tuple[Element, ...]
    hidden: tuple[Hidden, ...]


@dataclass(frozen=True, slots=True)
class Remarks:
    """What a person may add to a step. box: the target of a touch; None takes the first of `Recorder.targets`. origin:
    "annotation" for a box that was drawn by hand. hide: boxes to black out; None takes what the patterns found."""

    box: Box | None = None
    origin: Origin = "tree"
    hide: Sequence[Box] | None = None
    thought: str = ""
    instruction: str = ""


class Recorder:
    """Writes one folder, alone: it is locked until `close`. annotator: a name, part of every episode's id. patterns: of
    `hiding.PATTERNS`. Raises SetupError for a folder in use or a call out of order, DataError for a step that cannot be
    recorded, which then is not done either, and EnvCrashed when the device fails.
    """

    def __init__(self, folder: Path, annotator: str = "", patterns: Sequence[str] = tuple(PATTERNS)):
        self.folder, self.annotator, self.patterns = folder, annotator, tuple(patterns)
        self._lock = ExitStack()
        self._lock.enter_context(locked(folder))
        for name in ("episodes.jsonl", "failed.jsonl"):
            cut_torn_line(folder / name)
        self._ids = {str(line["episode_id"]) for name in ("episodes", "failed") for line in _lines(folder, name)}
        self.line: Line | None = _draft(folder)
        if self.line is not None and str(self.line["episode_id"]) in self._ids:
            self.discard()  # the crash came between the last line and the removal of its draft
        self._device: Device | None = None
        self._states: list[object | None] = []
        self.seen: Seen | None = None

    # ------------------------------------------------------------------------------------------------- an attempt

    def begin(self, device: Device, goal: str, **about: Any) -> Seen:
        """Start an attempt. about: further fields of the line, such as the task."""
        if self.line is not None:
            raise SetupError(f"{self.folder} holds an unfinished attempt; go on with it, or discard it first")
        if not goal.strip():
            raise SetupError("the goal is blank; say in words what is to be done")
        number = 1 + len(self._ids)
        while (name := f"{self.annotator or 'hand'}-{number}") in self._ids:
            number += 1
        who = {"annotator": self.annotator} if self.annotator else {}
        self.line = {"goal": goal, "episode_id": name, "swipes": "finger", "recorded": "by hand", **who, **about}
        self.line["steps"] = []
        self._states = []
        self._device = device
        self._keep()
        return self.look()

    def resume(self, device: Device) -> Seen:
        """Go on with the attempt that a crash has left. The person has brought the device to where it was."""
        if self.line is None:
            raise SetupError(f"{self.folder} holds no unfinished attempt; begin one")
        self._device = device
        self._states = [None] * len(self.line["steps"])
        return self.look()

    def look(self) -> Seen:
        """What is on the device now."""
        device = self._running()
        shot = device.screenshot()
        elements = tuple(device.elements())
        self.seen = Seen(shot, elements, tuple(personal(elements, self.patterns)))
        return self.seen

    def targets(self, point: Point) -> list[Element]:
        """What a touch here may be aimed at, the likeliest first."""
        return targets(self._look_of().elements, point)

    def do(self, action: Action, remarks: Remarks = Remarks()) -> Seen:
        """Record one step, then do it on the device. Returns what is to be seen after it."""
        seen, line, device = self._look_of(), self._line(), self._running()
        step = self._step(seen, action, remarks)
        line["steps"].append(step)
        try:
            self._check(line)
        except DataError:
            line["steps"].pop()
            raise
        self._states.append(_state(device))
        self._keep()
        device.act(action)
        return self.look()

    def redo(self) -> bool:
        """Take the last step back. True: the device is where it was before the step; False: the person has to bring it
        there."""
        line = self._line()
        if not line["steps"]:
            raise SetupError("there is no step to take back")
        line["steps"].pop()
        state = self._states.pop()
        self._keep()
        if state is not None:
            self._running().restore(state)
        self.look()
        return state is not None

    def cut(self, number: int) -> None:
        """Leave out a step that led nowhere, by its place from 0. The device stays as it is."""
        steps = self._line()["steps"]
        if not 0 <= number < len(steps):
            raise SetupError(f"there is no step {number}; this attempt has {len(steps)}, counted from 0")
        del steps[number], self._states[number]
        self._keep()

    def finish(
        self, status: Literal["success", "failure"] | None = "success", failed: bool = False, over: bool = False
    ) -> Line:
        """End the attempt. status: of its last step "terminate"; None where an answer ends it, or where the task ended by
        itself (over). failed: the person got lost; the attempt is kept apart, and no training reads it. Returns the line as
        written."""
        line = self._line()
        if status is not None and not failed:
            self.do(Terminate(status))
        if not line["steps"]:
            raise SetupError("the attempt has no step; act first, or discard it")
        last = line["steps"][-1]["action_content"]["action"]
        if not (failed or over) and last not in (Answer.name, Terminate.name):
            raise SetupError("an attempt ends with an answer or with terminate; give one of them")
        line["is_successful"] = not failed
        target = self.folder / ("failed.jsonl" if failed else "episodes.jsonl")
        append_whole(target, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._ids.add(str(line["episode_id"]))
        self.discard()
        self._card()
        return line

    def discard(self) -> None:
        """Throw the attempt under way away."""
        self.line, self._device, self.seen = None, None, None
        (self.folder / "draft.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Let others write. An attempt under way stays as a draft."""
        self._lock.close()

    @property
    def can_redo(self) -> bool:
        """Whether the device itself goes back when the last step is taken back."""
        return bool(self._states) and self._states[-1] is not None

    def size(self, step: Mapping[str, Any]) -> Size:
        """(width, height) of a step's screenshot."""
        return image_size(self.folder / step["screenshot"], "this step")

    # ---------------------------------------------------------------------------------------------------- one step

    def _step(self, seen: Seen, action: Action, remarks: Remarks) -> Line:
        boxes = [one.box for one in seen.hidden] if remarks.hide is None else remarks.hide
        shot = blacked_out(seen.shot, boxes)
        pixels = ScreenTransform(shot.width, shot.height)
        step: Line = {"action_content": _content(action, pixels), "screenshot": self._picture(shot)}
        if isinstance(action, Click | LongPress):
            found = self.targets(action.point)
            box, origin = remarks.box or (found[0].box if found else None), remarks.origin
            if box is not None:
                if not box.contains(action.point):
                    raise DataError(
                        "this step", "the touch is outside its target box; choose another box, or touch again"
                    )
                sides = [round(side, 3) for side in _pixels(box, pixels)]
                step["action_content"]["bbox"] = sides
                step["check_options"] = {"candidate_bbox": [sides]}
                step["box_origin"] = origin
        texts = {"thought": remarks.thought, "step_instruction": remarks.instruction}
        return step | {key: text.strip() for key, text in texts.items() if text.strip()}

    def _picture(self, shot: Screenshot) -> str:
        name = f"images/{shot.digest[:16]}.png"
        if not (self.folder / name).exists():
            (self.folder / "images").mkdir(exist_ok=True)
            write_whole(self.folder / name, shot.encoded())
        return name

    def _check(self, line: Line) -> None:
        """Read the attempt back as a training will. Raises DataError where the last step would fail the oracle gate."""
        episode = episode_of(line, self.folder / "draft.json", "this step", str(line["episode_id"]))
        verdict = judge(episode.steps[-1], episode.steps[-1].action)
        if not verdict.exact:
            raise DataError("this step", f"does not agree with itself: {verdict.why}")

    # ------------------------------------------------------------------------------------------------------ the folder

    def _keep(self) -> None:
        write_whole(self.folder / "draft.json", json.dumps(self.line, ensure_ascii=False).encode())

    def _card(self) -> None:
        lines = _lines(self.folder, "episodes")
        actions = Counter(step["action_content"]["action"] for line in lines for step in line["steps"])
        who = sorted({str(line["annotator"]) for line in lines if "annotator" in line})
        rows = "".join(f"| {name} | {n} |\n" for name, n in sorted(actions.items()))
        text = (
            "# Recorded by hand\n\n"
            f"{len(lines)} episodes, {actions.total()} steps, by {', '.join(who) or 'one person'}; "
            f"{len(_lines(self.folder, 'failed'))} failed attempts in `failed.jsonl`. Last change: "
            f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}. Coordinates are pixels of the screenshots, swipes are "
            f"finger motion. Blacked out by pattern: {', '.join(self.patterns) or 'nothing'}; and what people marked.\n\n"
            f"| action | steps |\n|---|---|\n{rows}"
        )
        write_whole(self.folder / "DATASET.md", text.encode())

    def _line(self) -> Line:
        if self.line is None:
            raise SetupError("no attempt is under way; begin one")
        return self.line

    def _running(self) -> Device:
        if self._device is None:
            raise SetupError("no attempt is under way; begin one, or go on with the unfinished one")
        return self._device

    def _look_of(self) -> Seen:
        self._running()
        return self.seen or self.look()


def _content(action: Action, pixels: ScreenTransform) -> Line:
    """As `action_to_json`, with fractions of pixels, so that a touch near the edge of its box stays inside."""
    content: Line = action_to_json(action, pixels)
    match action:
        case Click(point) | LongPress(point):
            content["coordinate"] = _at(point, pixels)
        case Swipe(start, end):
            content |= {"coordinate": _at(start, pixels), "coordinate2": _at(end, pixels)}
    return content


def _at(point: Point, screen: ScreenTransform) -> list[float]:
    return [round(point.x * screen.width, 3), round(point.y * screen.height, 3)]


def _pixels(box: Box, screen: ScreenTransform) -> tuple[float, float, float, float]:
    return box.left * screen.width, box.top * screen.height, box.right * screen.width, box.bottom * screen.height


def _state(device: Device) -> object | None:
    """None where the device cannot go back."""
    try:
        return device.snapshot()
    except EnvCrashed:
        return None


def _lines(folder: Path, name: str) -> list[Mapping[str, Any]]:
    file = folder / f"{name}.jsonl"
    return [json.loads(text) for text in file.read_text("utf-8").split("\n") if text] if file.exists() else []


def _draft(folder: Path) -> Line | None:
    file = folder / "draft.json"
    if not file.exists():
        return None
    try:
        line: Line = json.loads(file.read_bytes())
        if isinstance(line["steps"], list) and isinstance(line["goal"], str) and line["episode_id"]:
            return line
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{file}:1", "not an attempt of this recorder; move it away")
