"""Screens of recordings, for a tiny model that has to read them: each step is a question that the expert's turn answers.

A recording says of a step where the expert pointed (its target's box), and recordings of our own also which elements the screen
showed. So the aids of `rl.tiny.pretrain` work here too: where the answer is read, and where each word stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Box, Click, Episode, LongPress, Picture
from guiderail.envs.imports.folder import episode_id, lines_of
from guiderail.envs.live.device import Kind
from guiderail.rl.tiny.questions import Evidence, Question
from guiderail.rl.tiny.screens import SIZE, PixelBox, Shown

KINDS = get_args(Kind)
Elements = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]
"""(episode id, step) -> the elements as recorded: text, bbox in pixels of the screenshot, kind."""


@dataclass(frozen=True)
class RecordedScreen:
    """picture: the screenshot as the model sees it; boxes are in its pixels. step: the expert's turn as a question."""

    picture: Picture
    elements: tuple[Shown, ...]
    step: Question
    panel: None = None

    @property
    def drawn(self) -> tuple[Shown, ...]:
        return self.elements

    @cached_property
    def named(self) -> tuple[Shown, ...]:
        """Those of `elements` whose text occurs once on this screen."""
        often = Counter(shown.text for shown in self.elements)
        return tuple(shown for shown in self.elements if often[shown.text] == 1)


def recorded_screens(episodes: Sequence[Episode], dialogue: Dialogue, elements: Elements) -> list[RecordedScreen]:
    """Every step that the dialect can say. Raises SetupError where there is one alone, and where screens differ in size or are
    larger than SIZE."""
    made = [one for episode in episodes for one in _steps(episode, dialogue, elements)]
    sizes = {(one.picture.width, one.picture.height) for one in made}
    if len(sizes) != 1 or any(side > most for size in sizes for side, most in zip(size, SIZE, strict=True)):
        said = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)) or "none"
        raise SetupError(f"screens of {said}: expected one size for all, of at most {SIZE[0]}x{SIZE[1]} pixels")
    if len(made) == 1:
        raise SetupError("the recordings have one screen, expected two or more: one is kept to score on")
    return made


def elements_of(file: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The elements that a recording's JSONL file holds; empty where it holds none. An episode without an id has the one that
    `load_episodes` gives it. Raises DataError."""
    found = {}
    for where, _, line in lines_of(file):
        for index, step in enumerate(line["steps"]):
            found[episode_id(where, line), index] = elements = step.get("elements") or []
            _check(elements, where, index)
    return found


def _check(elements: Any, where: str, index: int) -> None:
    for one in elements if isinstance(elements, list) else [elements]:
        match one:
            case {"text": str(), "bbox": [*box], "kind": str()} if len(box) == 4 and all(map(_number, box)):
                continue
        expected = "expected a list of {text, bbox: [left, top, right, bottom] in pixels, kind}"
        raise DataError(where, f"step {index}: elements: {expected}, got {str(one)[:80]!r}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _steps(episode: Episode, dialogue: Dialogue, elements: Elements) -> Iterator[RecordedScreen]:
    history: list[str] = []
    for index, step in enumerate(episode.steps):
        picture = dialogue.vision.picture(step.screenshot)
        across, down = picture.width / step.screenshot.width, picture.height / step.screenshot.height
        found = (_shown(one, across, down, picture) for one in elements.get((episode.id, index), ()))
        shown = tuple(one for one in found if one is not None)
        if not dialogue.dialect.says(step.action):
            return
        said = dialogue.say(step.thought, step.action, step.screenshot)
        evidence: tuple[Evidence, ...] = ()
        target = None
        if isinstance(step.action, Click | LongPress) and step.boxes:
            box = _pixels(step.boxes[0].box, picture)
            target = Shown("", "text", box, (), None, None, False)
            evidence = (Evidence(said.rindex("[") + 1, said.rindex("]"), (box,)),)
        yield RecordedScreen(picture, shown, Question("step", episode.goal, said, evidence, tuple(history), target))
        history.append(said)


def _shown(one: Mapping[str, Any], across: float, down: float, picture: Picture) -> Shown | None:
    """The part of it that is on the screen; None where nothing of it can be read there."""
    left, top, right, bottom = one["bbox"]
    wide, high = picture.width, picture.height
    box = (
        max(0, int(left * across)),
        max(0, int(top * down)),
        min(wide, int(right * across)),
        min(high, int(bottom * down)),
    )
    if box[0] >= box[2] or box[1] >= box[3] or not one["text"].strip():
        return None
    kind: Kind = one["kind"] if one["kind"] in KINDS else "text"
    return Shown(one["text"], kind, box, _words(one["text"], box), None, None, False)


def _words(text: str, box: PixelBox) -> tuple[tuple[str, PixelBox], ...]:
    """Each word with its share of the element's width; a recording does not say where in an element its words are."""
    words, (left, top, right, bottom) = text.split(), box
    letter = (right - left) / max(1, len(" ".join(words)))
    found, at = [], float(left)
    for word in words:
        end = at + letter * len(word)
        found.append((word, (int(at), top, max(int(at) + 1, int(end)), bottom)))
        at = end + letter
    return tuple(found)


def _pixels(box: Box, picture: Picture) -> PixelBox:
    """The last column and row are inside."""
    (left, right), (top, bottom) = (
        (min(max(0, int(low * size)), size - 1), min(int(high * size), size) - 1)
        for low, high, size in ((box.left, box.right, picture.width), (box.top, box.bottom, picture.height))
    )
    return left, top, max(left, right), max(top, bottom)
