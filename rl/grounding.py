"""Does a model read its screen? Named elements pointed at and states told, free-running, on screens it has never seen."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent.dialogue import Dialogue
from agent.errors import UnreadableAction
from agent.policy import GREEDY, Policy, Request, Sampling
from agent.types import Click, Completion, Prompt, Screenshot
from envs.device import encode_png
from envs.questions import Question, state, where
from envs.screens import SIZE, Screen, Shown, generic_screens, pocket_screens
from rl.statistics import wilson

PROBE_SCREENS = 300
SOURCES: dict[str, Callable[..., Iterator[Screen]]] = {"generic": generic_screens, "pocket": pocket_screens}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its prompt. what: "element" or "state"."""

    what: str
    question: Question
    prompt: Prompt


def evaluate_grounding(
    policy: Policy,
    dialogue: Dialogue,
    *,
    seed: int,
    screens: int,
    style: str = "easy",
    max_new_tokens: int = 24,
    width: int = 64,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Scores on `screens` random and as many Pocket screens of the stream "eval", which no training touches.

    Of each screen: up to two elements whose text is nobody else's, those at rare places preferred, and one state of each
    answer that it shows. An element counts when the click falls inside its box, a state when the answer is the word. Returns
    {source: {"element": rate, "state": rate}} and under "probe" what the most frequent place of training screens would
    score in place of the model. A rate holds accuracy, right, n and its Wilson interval. style: of the Pocket phones.
    """
    sampling = Sampling(GREEDY.temperature, max_new_tokens)
    result: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    for source in SOURCES:
        rows, right = list(_questions(source, seed, screens, style, dialogue, tick)), Counter[str]()
        for start in range(0, len(rows), width):
            some = rows[start : start + width]
            completions = policy.complete([Request(row.prompt) for row in some], sampling)
            for row, completion in zip(some, completions, strict=True):
                right[row.what] += is_right(row.question, completion, row.prompt, dialogue)
        asked = Counter(row.what for row in rows)
        result[source] = {what: _rate(right[what], asked[what]) for what in ("element", "state")}
        probe[source] = _probe(source, [row.question for row in rows if row.what == "element"])
    return {**result, "probe": probe}


def _questions(
    source: str, seed: int, screens: int, style: str, dialogue: Dialogue, tick: Callable[[], None]
) -> Iterator[Asked]:
    for number, screen in enumerate(_stream(source, "eval", seed, screens, style)):
        tick()
        rng = random.Random(f"asked-{seed}-{number}")
        shot = encode_png(screen.image)
        for shown in _rare(screen.named, source, rng):
            yield _asked("element", where(shown), dialogue, shot)
        for on in (True, False):
            if marked := [shown for shown in screen.named if shown.checked is on]:
                yield _asked("state", state(rng.choice(marked)), dialogue, shot)


def _stream(source: str, name: str, seed: int, screens: int, style: str) -> Iterator[Screen]:
    options = {"style": style} if source == "pocket" else {}
    return itertools.islice(SOURCES[source](name, seed, **options), screens)


@lru_cache(maxsize=8)
def _places(source: str) -> Counter[tuple[int, int]]:
    """How often an element's centre is where, on training screens."""
    screens = _stream(source, "train", 0, PROBE_SCREENS, "easy")
    return Counter(shown.centre for screen in screens for shown in screen.named)


def _rare(named: Sequence[Shown], source: str, rng: random.Random) -> list[Shown]:
    """Two of them, each drawn with a weight of one over the squared frequency of its place: titles and first rows are on
    every page, and a model must not score by knowing that."""
    places = _places(source)
    return sorted(named, key=lambda shown: rng.expovariate(1) * (1 + places[shown.centre]) ** 2)[:2]


def _asked(what: str, question: Question, dialogue: Dialogue, shot: Screenshot) -> Asked:
    return Asked(what, question, dialogue.prompt(question.goal, [shot], []))


def is_right(question: Question, completion: Completion, prompt: Prompt, dialogue: Dialogue) -> bool:
    """Whether the answer names the state, or clicks into the element."""
    if question.about == "state":
        return completion.text.strip() == question.answer
    try:
        action = dialogue.read(completion, prompt.screen).action
    except UnreadableAction:
        return False
    if not isinstance(action, Click) or question.target is None:
        return False
    return _inside(question.target, action.point.x * SIZE[0], action.point.y * SIZE[1])


def _inside(shown: Shown, x: float, y: float) -> bool:
    left, top, right, bottom = shown.box
    return left <= x < right and top <= y < bottom


def _probe(source: str, asked: Sequence[Question]) -> dict[str, Any]:
    """What always clicking the most frequent centre of this source's training screens would score."""
    place = _places(source).most_common(1)[0][0]
    return _rate(sum(_inside(q.target, *place) for q in asked if q.target), len(asked))


def _rate(right: int, n: int) -> dict[str, Any]:
    return {"accuracy": right / n if n else None, "right": right, "n": n, "interval": list(wilson(right, n))}
