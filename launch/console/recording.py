"""The page of `guiderail record --by-hand`: a person acts on a device, and every step is recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from guiderail.agent.codec import action_from_json
from guiderail.agent.errors import GuiderailError, SetupError
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Screenshot
from guiderail.envs.byhand.recorder import Recorder, Remarks
from guiderail.envs.live.attempts import SelfEnding
from guiderail.envs.live.device import Element
from guiderail.launch.console.asked import box_of, boxes_of, routes, sides, text_of
from guiderail.launch.console.devices import FreeGoal, Place
from guiderail.launch.console.server import Page
from guiderail.launch.console.talk import action_of
from guiderail.launch.console.view import cut, drawn

LONGEST_GOAL = 2000
MOST_ELEMENTS = 400


@dataclass
class Session:
    """What the page is about. places(goal, number): the device for one attempt; goal "" takes its own. number: of the next
    task, where the device has tasks of its own. asks_goal: whether the person has to say what is to be done."""

    recorder: Recorder
    places: Callable[[str, int], Place]
    number: int = 0
    asks_goal: bool = False
    place: Place | None = None
    note: str = ""
    written: list[int] = field(default_factory=lambda: [0, 0])

    def do(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """One command of the page; what it shows next. Raises GuiderailError for what cannot be done."""
        self.note = ""
        name = str(said.get("do"))[:40]
        calls: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "show": lambda said: None,
            "begin": self._begin,
            "act": self._act,
            "look": lambda said: self._looked(),
            "redo": self._redo,
            "cut": self._cut,
            "finish": self._finish,
            "fail": self._fail,
            "discard": lambda said: self._discard(),
        }
        if name not in calls:
            raise SetupError(f"the recorder knows no {name!r}")
        calls[name](said)
        return self.view()

    def _begin(self, said: Mapping[str, Any]) -> None:
        """Start an attempt, or go on with the one that a crash has left."""
        goal, number = text_of(said, "goal", LONGEST_GOAL), said.get("number", self.number)
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
            raise SetupError("the number of the task is a whole number of at least 0")
        resumed = self.recorder.line is not None
        if resumed and self.place is not None:
            raise SetupError("an attempt is under way; finish it, or throw it away")
        if self.asks_goal and not goal and not resumed:
            raise SetupError("say in words what is to be done")
        self._leave()
        self.place, self.number = self.places(goal, number), number
        try:
            device = self.place.task.start()
            if resumed:
                self.recorder.resume(device)
            else:
                about = {"world": dict(self.place.world), "task": self.place.task.id}
                template = getattr(getattr(self.place.task, "task", None), "template", None)
                self.recorder.begin(
                    device, self.place.task.goal, **about, **({"template": template} if template else {})
                )
        except BaseException:
            self._leave()
            raise

    def _act(self, said: Mapping[str, Any]) -> None:
        action = action_of(said.get("action"))
        box = None if said.get("box") is None else box_of(said["box"])
        hide = None if said.get("hide") is None else boxes_of(said["hide"])
        remarks = Remarks(
            self._element(box, said),
            "annotation" if said.get("drawn") is True else "tree",
            hide,
            text_of(said, "thought"),
            text_of(said, "instruction"),
        )
        self.recorder.do(action, remarks)
        if isinstance(task := self._task(), SelfEnding) and task.over():
            self.note = "the task is decided; finish the episode"

    def _element(self, box: Any, said: Mapping[str, Any]) -> Any:
        """The element's own box, of which the page has a rounded copy; a drawn box as it is."""
        if box is None or said.get("drawn") is True or self.recorder.seen is None:
            return box
        for element in self.recorder.seen.elements:
            if sides(element.box) == sides(box):
                return element.box
        raise SetupError("that box is not on this screen any more; look again")

    def _redo(self, said: Mapping[str, Any]) -> None:
        if not self.recorder.redo():
            self.note = "this device cannot go back: bring it to where it was before that step, then look again"

    def _cut(self, said: Mapping[str, Any]) -> None:
        number = said.get("step")
        if not isinstance(number, int) or isinstance(number, bool):
            raise SetupError("the step's number is missing")
        self.recorder.cut(number)

    def _finish(self, said: Mapping[str, Any]) -> None:
        """sure: keep it although the device's own state says that the goal is not reached."""
        task, status = self._task(), said.get("status", "success")
        if status not in ("success", "failure", None):
            raise SetupError("the status is success or failure")
        over = isinstance(task, SelfEnding) and task.over()
        checked = status != "failure" and said.get("sure") is not True and not isinstance(task, FreeGoal)
        if checked and not task.check().success:
            raise SetupError(
                "the device's state says that the goal is not reached; go on, mark the attempt as failed, or finish anyway"
            )
        self.recorder.finish(None if over else status, over=over)
        self._after(0, "episode written")

    def _fail(self, said: Mapping[str, Any]) -> None:
        self.recorder.finish(failed=True)
        self._after(1, "kept apart in failed.jsonl")

    def _after(self, which: int, note: str) -> None:
        self.written[which] += 1
        self.number += 1
        self.note = note
        self._leave()

    def _discard(self) -> None:
        self.recorder.discard()
        self._leave()

    def _looked(self) -> None:
        self.recorder.look()

    def _task(self) -> Any:
        if self.place is None:
            raise SetupError("no attempt is under way; begin one")
        return self.place.task

    def _leave(self) -> None:
        if self.place is not None:
            self.place.task.close()
            self.place.close()
        self.place = None

    def close(self) -> None:
        with suppress(GuiderailError):  # the device may be gone already
            self._leave()
        self.recorder.close()

    # -------------------------------------------------------------------------------------------------------- showing

    def view(self) -> dict[str, Any]:
        """Everything that the page shows; positions are fractions of the screen."""
        line, seen = self.recorder.line, self.recorder.seen
        under_way = line is not None and self.place is not None
        return {
            "folder": self.recorder.folder.name,
            "annotator": self.recorder.annotator,
            "number": self.number,
            "asks_goal": self.asks_goal,
            "note": cut(self.note),
            "written": self.written,
            "goal": "" if line is None else cut(line["goal"]),
            "unfinished": line is not None and self.place is None,
            "under_way": under_way,
            "can_redo": self.recorder.can_redo,
            "steps": [] if line is None else [_step(step, self.recorder.size(step)) for step in line["steps"]],
            "screen": seen and under_way and {"src": seen.shot.digest, "w": seen.shot.width, "h": seen.shot.height},
            "elements": [_element(one) for one in seen.elements[:MOST_ELEMENTS]] if seen and under_way else [],
            "hidden": [{"box": sides(one.box), "pattern": one.pattern} for one in seen.hidden]
            if seen and under_way
            else [],
        }

    def image(self, digest: str) -> bytes | None:
        """The screen of now as it is, or a recorded one as it was written."""
        seen: Screenshot | None = self.recorder.seen.shot if self.recorder.seen else None
        if seen is not None and seen.digest == digest:
            return seen.encoded()
        file = self.recorder.folder / "images" / f"{digest}.png"
        return file.read_bytes() if re.fullmatch(r"[0-9a-f]{16}", digest) and file.is_file() else None


def _step(step: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    content = step["action_content"]
    row = {"action": drawn(action_from_json(content, ScreenTransform(*size)))}
    box = content.get("bbox")
    return row | {
        "box": box and [round(side / length, 4) for side, length in zip(box, size * 2, strict=True)],
        "thought": cut(step.get("thought", "")),
        "instruction": cut(step.get("step_instruction", "")),
        "screen": {"src": step["screenshot"][-20:-4], "w": size[0], "h": size[1]},
    }


def _element(one: Element) -> dict[str, Any]:
    return {"text": cut(one.text)[:80], "kind": one.kind, "touch": one.clickable, "box": sides(one.box)}


def record_page(session: Session, patience: float = 120.0) -> Page:
    return Page("", "Record", "record.html", routes(session.do, session.image, patience))
