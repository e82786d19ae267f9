"""Questions about a screen, with the true answer and the places on the screen that show it.

Plain questions ("where is milk?"), and errands in an agent's own format: a goal, the agent's turns so far, then a thought
that takes the word from the goal and an action that takes the place from the screen.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from guiderail.agent.codec import say
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Click, Point, Swipe, Terminate, Type
from guiderail.rl.tiny.screens import SIZE, DrawnScreen, PixelBox, Shown, vocabulary

About = Literal["where", "state", "what", "kind", "errand", "step"]
PIXELS = ScreenTransform(*SIZE)
_speak = partial(say, screen=PIXELS)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The answer's characters start to end - 1 are read off these boxes (pixels)."""

    start: int
    end: int
    boxes: tuple[PixelBox, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """goal: text of the first user turn, after the picture. answer: the true one. history: the agent's own turns so far.
    target: the element that the answer is about, if there is one."""

    about: About
    goal: str
    answer: str
    evidence: tuple[Evidence, ...] = ()
    history: tuple[str, ...] = ()
    target: Shown | None = None


def where(shown: Shown) -> Question:
    """The place of the element with this text; the answer is a click."""
    return _clicking("where", f"where is {shown.text}?", None, shown)


def state(shown: Shown) -> Question:
    """The state of an element: on or off for a switch, yes or no for a choice. Raises ValueError for one without."""
    if shown.mark is None:
        raise ValueError(f"a {shown.kind} has no state")
    goal = f"state of {shown.text}?" if shown.kind == "toggle" else f"is {shown.text} selected?"
    words = ("off", "on") if shown.kind == "toggle" else ("no", "yes")
    answer = words[bool(shown.checked)]
    return Question("state", goal, answer, (Evidence(0, len(answer), (*shown.text_boxes, shown.mark)),), target=shown)


def what(shown: Shown) -> Question:
    """The text of the element at this place."""
    x, y = shown.centre
    evidence, start = [], 0
    for word, box in shown.words:
        evidence.append(Evidence(start, start + len(word), (box,)))
        start += len(word) + 1
    return Question("what", f"what is at [{x}, {y}]?", shown.text, tuple(evidence), target=shown)


def kind(shown: Shown) -> Question:
    """The kind of the element with this text."""
    evidence = (Evidence(0, len(shown.kind), shown.text_boxes),)
    return Question("kind", f"what kind is {shown.text}?", shown.kind, evidence, target=shown)


def questions(screen: DrawnScreen, rng: random.Random, errands: int = 6) -> list[Question]:
    """Up to 6 places, up to 4 states with both answers as often as the screen allows, 2 texts, a kind, and up to `errands`
    errands."""
    named = list(screen.named)
    rng.shuffle(named)
    asked = [where(shown) for shown in named[:6]]
    sides = ([s for s in named if s.checked], [s for s in named if s.checked is False])
    asked += [state(shown) for side in sides for shown in side[:2]]
    asked += [what(shown) for shown in rng.sample(screen.elements, min(2, len(screen.elements)))]
    asked += [kind(shown) for shown in named[-1:]]
    made = (errand(screen, rng) for _ in range(errands))
    return asked + [question for question in made if question is not None]


# ------------------------------------------------------------------------------------------------------------- errands


def errand(screen: DrawnScreen, rng: random.Random) -> Question | None:
    """One step of a task in the agent's format; None where the screen has nothing for the drawn kind of task."""
    if screen.scene.panel and rng.random() < 0.5:
        return _close(screen, rng)
    kinds = (_tap, _tap, _switch, _switch, _sequence, _sequence, _absent, _absent, _write)
    return rng.choice(kinds)(screen, rng)


def _clicking(about: About, goal: str, thought: str | None, shown: Shown, history: Sequence[str] = ()) -> Question:
    answer = _speak(thought, Click(_point(shown.centre)))
    start = answer.rindex("[")
    return Question(
        about, goal, answer, (Evidence(start + 1, answer.rindex("]"), shown.text_boxes),), tuple(history), shown
    )


def _point(pixels: tuple[int, int]) -> Point:
    return PIXELS.to_fraction(*pixels)


def _pick(screen: DrawnScreen, rng: random.Random, kinds: Sequence[str] = ()) -> Shown | None:
    choice = [shown for shown in screen.named if not kinds or shown.kind in kinds]
    return rng.choice(choice) if choice else None


def _tap(screen: DrawnScreen, rng: random.Random) -> Question | None:
    shown = _pick(screen, rng)
    verb = rng.choice(("Tap", "Open", "Press", "Choose", "Call", "Buy", "Play"))
    return _clicking("errand", f"{verb} {shown.text}.", f"tap {shown.text}", shown) if shown else None


def _switch(screen: DrawnScreen, rng: random.Random) -> Question | None:
    """Turn something on or off; where it is so already, the task is done."""
    shown = _pick(screen, rng, ("toggle",))
    if shown is None:
        return None
    on = rng.random() < 0.5
    goal = f"Turn {'on' if on else 'off'} {shown.text}."
    if on != shown.checked:
        return _clicking("errand", goal, f"tap {shown.text}", shown)
    answer = _speak("all done", Terminate("success"))
    return Question("errand", goal, answer, (Evidence(7, 15, (*shown.text_boxes, *_mark(shown))),), target=shown)


def _mark(shown: Shown) -> tuple[PixelBox, ...]:
    return (shown.mark,) if shown.mark else ()


def _sequence(screen: DrawnScreen, rng: random.Random) -> Question | None:
    """Several things in a row, some of them done: the next one, or the end of the task."""
    shown = _pick(screen, rng)
    if shown is None:
        return None
    others = [word for word in rng.sample(vocabulary(), 2) if word != shown.text]
    place = rng.randrange(len(others) + 1)
    names = [*others[:place], shown.text, *others[place:]]
    verb, joint = rng.choice((("Tap", " and "), ("Open", ", then "), ("Add", " and "), ("Call", " and ")))
    goal = f"{verb} {joint.join(names)}."
    thoughts = [f"tap {names[0]}", *(f"done {a} tap {b}" for a, b in itertools.pairwise(names))]
    done = [_speak(thought, Click(_somewhere(rng))) for thought in thoughts]
    if rng.random() < 0.15:
        return Question("errand", goal, _speak("all done", Terminate("success")), history=tuple(done))
    return _clicking("errand", goal, thoughts[place], shown, done[:place])


def _somewhere(rng: random.Random) -> Point:
    return _point((8 * rng.randint(2, 18), 8 * rng.randint(2, 34)))


def _absent(screen: DrawnScreen, rng: random.Random) -> Question | None:
    """The target is not on the screen: scroll down."""
    if screen.scene.panel:
        return None
    seen = {word for shown in screen.drawn for word, _ in shown.words}
    name, done = itertools.islice((w for w in rng.sample(vocabulary(), len(seen) + 2) if w not in seen), 2)
    verb = rng.choice(("Tap", "Open", "Choose", "Call", "Buy", "Add"))
    answer = _speak("scroll down", Swipe(Point(0.5, 0.7), Point(0.5, 0.3)))
    if rng.random() < 0.5:
        return Question("errand", f"{verb} {name}.", answer)
    history = (_speak(f"tap {done}", Click(_somewhere(rng))),)
    return Question("errand", f"{verb} {done} and {name}.", answer, history=history)


def _write(screen: DrawnScreen, rng: random.Random) -> Question | None:
    """Tap the field, then type."""
    fields = [shown for shown in screen.named if shown.kind == "field"]
    text = rng.choice(vocabulary())
    if not fields or any(shown.text == text for shown in screen.drawn):
        return None
    shown = rng.choice(fields)
    goal = rng.choice((f"Write {text} into {shown.text}.", f"Search for {text} in {shown.text}."))
    tap = _clicking("errand", goal, f"tap {shown.text}", shown)
    if not shown.focused:
        return tap
    history = (_speak(f"tap {shown.text}", Click(_point(shown.centre))),)
    return Question("errand", goal, _speak(f"type {text}", Type(text)), history=history)


def _close(screen: DrawnScreen, rng: random.Random) -> Question | None:
    """A dialog with a single button has to be closed before anything else."""
    buttons = [shown for shown in screen.named if shown.kind == "button"]
    if len(buttons) != 1:
        return None
    word = rng.choice(vocabulary())
    if any(word in shown.text.split() for shown in screen.elements):
        return None
    question = _clicking("errand", f"Tap {word}.", f"close this tap {buttons[0].text}", buttons[0])
    start, evidence = question.answer.index("tap ") + 4, list(question.evidence)
    for part, box in buttons[0].words:
        evidence.append(Evidence(start, start + len(part), (box,)))
        start += len(part) + 1
    return Question("errand", question.goal, question.answer, tuple(evidence), target=buttons[0])
