"""Screens of recordings, for a tiny model that has to read them: each step is a question that the expert's turn answers.

A recording says of a step where the expert pointed (its target's box), and recordings of our own also which elements the screen
showed. So the aids of `rl.tiny.pretrain` work here too: where the answer is read, and where each word stands.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.types import Box, Click, Episode, LongPress, Picture
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
    """Every step that the dialect can say. Raises SetupError where screens differ in size or are larger than SIZE."""
    made = [one for episode in episodes for one in _steps(episode, dialogue, elements)]
    sizes = {(one.picture.width, one.picture.height) for one in made}
    if len(sizes) != 1 or any(side > most for size in sizes for side, most in zip(size, SIZE, strict=True)):
        said = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)) or "none"
        raise SetupError(f"screens of {said}: expected one size for all, of at most {SIZE[0]}x{SIZE[1]} pixels")
    return made


def elements_of(file: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The elements that a recording's JSONL file holds; empty where it holds none. An episode without an id has the one that
    `load_episodes` gives it."""
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        row = json.loads(line) if line.strip() else {"steps": []}
        name = str(row.get("episode_id", f"{file.stem}-{number}"))
        found.update({(name, index): step.get("elements", []) for index, step in enumerate(row["steps"])})
    return found


def _steps(episode: Episode, dialogue: Dialogue, elements: Elements) -> Iterator[RecordedScreen]:
    history: list[str] = []
    for index, step in enumerate(episode.steps):
        picture = dialogue.vision.picture(step.screenshot)
        across, down = picture.width / step.screenshot.width, picture.height / step.screenshot.height
        shown = tuple(_shown(one, across, down) for one in elements.get((episode.id, index), ()) if one["text"].strip())
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


def _shown(one: Mapping[str, Any], across: float, down: float) -> Shown:
    left, top, right, bottom = one["bbox"]
    box = (int(left * across), int(top * down), int(right * across), int(bottom * down))
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
    left, right = int(box.left * picture.width), int(box.right * picture.width) - 1
    top, bottom = int(box.top * picture.height), int(box.bottom * picture.height) - 1
    return left, top, max(left, right), max(top, bottom)
