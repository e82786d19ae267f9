"""Does a model read its screen? It points at named elements and names states, free-running, on screens it has not seen."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.policy import GREEDY, Policy, Request, Sampling, completions
from guiderail.agent.types import Click, Completion, Prompt, Screenshot
from guiderail.envs.live.device import encode_png
from guiderail.rl.score.statistics import wilson
from guiderail.rl.tiny.questions import Question, state, where
from guiderail.rl.tiny.screens import SIZE, DrawnScreen, Shown, generic_screens, pocket_screens

PROBE_SCREENS = 300
SOURCES: dict[str, Callable[..., Iterator[DrawnScreen]]] = {"generic": generic_screens, "pocket": pocket_screens}


@dataclass(frozen=True, slots=True)
class Item:
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
    size: tuple[int, int] = SIZE,
    max_new_tokens: int = 24,
    width: int = 64,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Scores on `screens` random and as many Pocket screens of the stream "eval", which no training uses.

    Of each screen: up to two elements whose text occurs once, those at rare places preferred, and one state of each answer
    that the screen shows. An element counts when the click falls inside its box, a state when the answer is the word.
    Returns {source: {"element": rate, "state": rate}}, and under "probe" the score of a blind policy that always clicks the
    most frequent place of training screens. A rate holds accuracy, right, n and its Wilson interval. style: of the Pocket
    phones. size: of the screens, (width, height) in pixels. width: prompts per batch. tick: called once per screen.
    """
    sampling = Sampling(GREEDY.temperature, max_new_tokens)
    result: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    for source in SOURCES:
        items, right = list(_questions(source, seed, screens, style, size, dialogue, tick)), Counter[str]()
        for start in range(0, len(items), width):
            some = items[start : start + width]
            answers = completions(policy.complete([Request(item.prompt) for item in some], sampling))
            for item, completion in zip(some, answers, strict=True):
                right[item.what] += is_right(item.question, completion, item.prompt, dialogue)
        asked = Counter(item.what for item in items)
        result[source] = {what: _rate(right[what], asked[what]) for what in ("element", "state")}
        probe[source] = _probe(source, size, [item.question for item in items if item.what == "element"])
    return {**result, "probe": probe}


def _questions(
    source: str,
    seed: int,
    screens: int,
    style: str,
    size: tuple[int, int],
    dialogue: Dialogue,
    tick: Callable[[], None],
) -> Iterator[Item]:
    for number, screen in enumerate(_stream(source, "eval", seed, screens, style, size)):
        tick()
        rng = random.Random(f"asked-{seed}-{number}")
        shot = encode_png(screen.image)
        for shown in _rare(screen.named, source, size, rng):
            yield _item("element", where(shown), dialogue, shot)
        for on in (True, False):
            if marked := [shown for shown in screen.named if shown.checked is on]:
                yield _item("state", state(rng.choice(marked)), dialogue, shot)


def _stream(
    source: str, name: str, seed: int, screens: int, style: str, size: tuple[int, int]
) -> Iterator[DrawnScreen]:
    options = {"style": style} if source == "pocket" else {}
    return itertools.islice(SOURCES[source](name, seed, size=size, **options), screens)


@lru_cache(maxsize=8)
def _places(source: str, size: tuple[int, int]) -> Counter[tuple[int, int]]:
    """How many elements of training screens have their centre at each place (pixels)."""
    screens = _stream(source, "train", 0, PROBE_SCREENS, "easy", size)
    return Counter(shown.centre for screen in screens for shown in screen.named)


def _rare(named: Sequence[Shown], source: str, size: tuple[int, int], rng: random.Random) -> list[Shown]:
    """Two of them, drawn with weights 1 / (1 + frequency of the place)^2: titles and first rows are on every page, and a
    model must not score by knowing that."""
    places = _places(source, size)
    return sorted(named, key=lambda shown: rng.expovariate(1) * (1 + places[shown.centre]) ** 2)[:2]


def _item(what: str, question: Question, dialogue: Dialogue, shot: Screenshot) -> Item:
    return Item(what, question, dialogue.prompt(question.goal, [shot], []))


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
    shot = prompt.screen.screenshot
    return _inside(question.target, action.point.x * shot.width, action.point.y * shot.height)


def _inside(shown: Shown, x: float, y: float) -> bool:
    left, top, right, bottom = shown.box
    return left <= x < right and top <= y < bottom


def _probe(source: str, size: tuple[int, int], asked: Sequence[Question]) -> dict[str, Any]:
    """The score of always clicking the most frequent centre of this source's training screens."""
    place = _places(source, size).most_common(1)[0][0]
    return _rate(sum(_inside(q.target, *place) for q in asked if q.target), len(asked))


def _rate(right: int, n: int) -> dict[str, Any]:
    return {"accuracy": right / n if n else None, "right": right, "n": n, "interval": list(wilson(right, n))}
