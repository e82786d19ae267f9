"""What can be asked about a screen, with the true answer and where one has to look for it.

Plain questions ("where is milk?") and errands, which are asked and answered in an agent's own format: a goal, the agent's
turns so far, then a thought that takes the word from the goal and an action that takes the place from the screen.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from agent.codec import say
from agent.screen import ScreenTransform
from agent.types import Click, Point, Swipe, Terminate, Type
from envs.screens import SIZE, PixelBox, Screen, Shown, vocabulary

About = Literal["where", "state", "what", "kind", "errand"]
PIXELS = ScreenTransform(*SIZE)
_speak = partial(say, screen=PIXELS)


@dataclass(frozen=True, slots=True)
class Look:
    """The answer's characters start..end are read off these boxes (pixels)."""

    start: int
    end: int
    boxes: tuple[PixelBox, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """goal: text of the first user turn, after the picture. history: the agent's own turns so far. target: the element
    that the answer is about, if there is one."""

    about: About
    goal: str
    answer: str
    looks: tuple[Look, ...] = ()
    history: tuple[str, ...] = ()
    target: Shown | None = None


def where(shown: Shown) -> Question:
    return _clicking("where", f"where is {shown.text}?", None, shown)


def state(shown: Shown) -> Question:
    """For elements that have a state: on or off for switches, yes or no for what can be selected."""
    if shown.mark is None:
        raise ValueError(f"a {shown.kind} has no state")
    goal = f"state of {shown.text}?" if shown.kind == "toggle" else f"is {shown.text} selected?"
    words = ("off", "on") if shown.kind == "toggle" else ("no", "yes")
    answer = words[bool(shown.checked)]
    return Question("state", goal, answer, (Look(0, len(answer), (*shown.text_boxes, shown.mark)),), target=shown)


def what(shown: Shown) -> Question:
    """The text of the element at this place."""
    x, y = shown.centre
    looks, start = [], 0
    for word, box in shown.words:
        looks.append(Look(start, start + len(word), (box,)))
        start += len(word) + 1
    return Question("what", f"what is at [{x}, {y}]?", shown.text, tuple(looks), target=shown)


def kind(shown: Shown) -> Question:
    looks = (Look(0, len(shown.kind), shown.text_boxes),)
    return Question("kind", f"what kind is {shown.text}?", shown.kind, looks, target=shown)


def questions(screen: Screen, rng: random.Random, errands: int = 6) -> list[Question]:
    """A mixed handful: up to 6 places, up to 4 states with both answers as even as the screen allows, 2 texts, a kind, and
    this many errands."""
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


def errand(screen: Screen, rng: random.Random) -> Question | None:
    """One task in the agent's format, somewhere on its way; None where the screen offers nothing for the drawn sort."""
    if screen.scene.panel and rng.random() < 0.5:
        return _close(screen, rng)
    sorts = (_tap, _tap, _switch, _switch, _sequence, _sequence, _absent, _absent, _write)
    return rng.choice(sorts)(screen, rng)


def _clicking(about: About, goal: str, thought: str | None, shown: Shown, history: Sequence[str] = ()) -> Question:
    answer = _speak(thought, Click(_point(shown.centre)))
    start = answer.rindex("[")
    return Question(
        about, goal, answer, (Look(start + 1, answer.rindex("]"), shown.text_boxes),), tuple(history), shown
    )


def _point(pixels: tuple[int, int]) -> Point:
    return PIXELS.to_fraction(*pixels)


def _pick(screen: Screen, rng: random.Random, kinds: Sequence[str] = ()) -> Shown | None:
    choice = [shown for shown in screen.named if not kinds or shown.kind in kinds]
    return rng.choice(choice) if choice else None


def _tap(screen: Screen, rng: random.Random) -> Question | None:
    shown = _pick(screen, rng)
    verb = rng.choice(("Tap", "Open", "Press", "Choose", "Call", "Buy", "Play"))
    return _clicking("errand", f"{verb} {shown.text}.", f"tap {shown.text}", shown) if shown else None


def _switch(screen: Screen, rng: random.Random) -> Question | None:
    """Turn something on or off; nothing is to do where it already is so."""
    shown = _pick(screen, rng, ("toggle",))
    if shown is None:
        return None
    on = rng.random() < 0.5
    goal = f"Turn {'on' if on else 'off'} {shown.text}."
    if on != shown.checked:
        return _clicking("errand", goal, f"tap {shown.text}", shown)
    answer = _speak("all done", Terminate("success"))
    return Question("errand", goal, answer, (Look(7, 15, (*shown.text_boxes, *_mark(shown))),), target=shown)


def _mark(shown: Shown) -> tuple[PixelBox, ...]:
    return (shown.mark,) if shown.mark else ()


def _sequence(screen: Screen, rng: random.Random) -> Question | None:
    """Several things in a row, some of them done: the next one, or the end."""
    shown = _pick(screen, rng)
    if shown is None:
        return None
    others = [word for word in rng.sample(vocabulary(), 2) if word != shown.text]
    place = rng.randrange(len(others) + 1)
    names = [*others[:place], shown.text, *others[place:]]
    verb, joint = rng.choice((("Tap", " and "), ("Open", ", then "), ("Add", " and "), ("Call", " and ")))
    goal = f"{verb} {joint.join(names)}."
    told = [f"tap {names[0]}", *(f"done {a} tap {b}" for a, b in itertools.pairwise(names))]
    done = [_speak(thought, Click(_somewhere(rng))) for thought in told]
    if rng.random() < 0.15:
        return Question("errand", goal, _speak("all done", Terminate("success")), history=tuple(done))
    return _clicking("errand", goal, told[place], shown, done[:place])


def _somewhere(rng: random.Random) -> Point:
    return _point((8 * rng.randint(2, 18), 8 * rng.randint(2, 34)))


def _absent(screen: Screen, rng: random.Random) -> Question | None:
    """What is not on the screen is looked for further down."""
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


def _write(screen: Screen, rng: random.Random) -> Question | None:
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


def _close(screen: Screen, rng: random.Random) -> Question | None:
    """A dialog with a single button is in the way of everything else."""
    buttons = [shown for shown in screen.named if shown.kind == "button"]
    if len(buttons) != 1:
        return None
    word = rng.choice(vocabulary())
    if any(word in shown.text.split() for shown in screen.elements):
        return None
    question = _clicking("errand", f"Tap {word}.", f"close this tap {buttons[0].text}", buttons[0])
    start, looks = question.answer.index("tap ") + 4, list(question.looks)
    for part, box in buttons[0].words:
        looks.append(Look(start, start + len(part), (box,)))
        start += len(part) + 1
    return Question("errand", question.goal, question.answer, tuple(looks), target=buttons[0])
