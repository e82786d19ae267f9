"""Tasks: a template, a phone and parameters, all drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Terminate
from guiderail.envs.pocket.expert import Move, move, thought
from guiderail.envs.pocket.hands import perform
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import DECOYS, OpenPage, State, new_state
from guiderail.envs.pocket.templates import TEMPLATES, Template
from guiderail.envs.pocket.ui import Scene
from guiderail.envs.pocket.wordings import wording

SPLITS = {"train": 0, "test": 1, "heldout": 2}
"""Seeds of different splits never meet: seed = 3 x number + offset."""


@dataclass(frozen=True)
class Task:
    """Something to do, from a given start.

    live: the start is disturbed (another app open, extra notes, flipped switches) and pop-ups come at random moments.
    popups: without `live`, whether one pop-up comes at a seeded moment.
    """

    template: str
    seed: int
    split: str = "train"
    style: str = "easy"
    live: bool = False
    popups: bool = False
    params: dict[str, str] = field(default_factory=dict, compare=False)
    goal: str = ""
    memory: bool = False
    max_steps: int = 0

    @property
    def id(self) -> str:
        return task_id(self.template, self.seed, self.split, self.style, self.live)

    @cached_property
    def _template(self) -> Template:
        return next(t for t in TEMPLATES if t.name == self.template)

    def start(self) -> State:
        """A fresh copy of the state in which this task begins."""
        state = new_state(self.seed, self.style, held_out=self._template.held_out)
        rng = random.Random(f"start-{self.seed}-{self.template}")
        if self.live:
            _disturb(state, rng, self._template, self.params)
        elif self.popups:
            state.popups = {rng.randint(1, 4): rng.randrange(4)}
        return state

    def success(self, phone: Phone, answers: Sequence[str] = ()) -> bool:
        """Whether the goal is reached: the phone is as asked for and, where the goal is a question, it was answered."""
        return self._template.done(phone.state, self.params, answers)

    def expert(self, phone: Phone, answers: Sequence[str] = ()) -> Move:
        """The expert's next step from any state of this phone. Terminates with success when all is done."""
        return move(phone, self._template.want(phone.state, self.params, answers))

    def say(self, text: str, index: int, informative: float = 0.5) -> str:
        """The expert's thought at step `index`: `text` in this share of steps, something vague in the others."""
        return thought(text, self.seed, index, informative)


def task_id(template: str, seed: int, split: str, style: str, live: bool) -> str:
    return f"{template}-{split}-{seed}{'' if style == 'easy' else '-' + style}{'-live' if live else ''}"


def task(
    template: str, seed: int, split: str = "train", style: str = "easy", live: bool = False, popups: bool = False
) -> Task:
    """The task of this template on the phone of this seed. max_steps = 2 x expert length + 5."""
    found = next((t for t in TEMPLATES if t.name == template), None)
    if found is None:
        raise SetupError(f"unknown template {template!r}; choose one of {', '.join(t.name for t in TEMPLATES)}")
    state = new_state(seed, style, held_out=found.held_out)
    params = found.draw(random.Random(f"params-{seed}-{template}"), state)
    words = wording(template, seed, split) if style == "phone" else found.goal
    made = Task(template, seed, split, style, live, popups, params, words.format(**params), found.memory)
    length = sum(1 for _ in demonstrate(made, Phone(made.start())))
    return Task(template, seed, split, style, live, popups, params, made.goal, found.memory, 2 * length + 5)


def tasks(n: int, seed: int = 0, split: str = "test", live: bool = True, style: str = "easy") -> list[Task]:
    """n tasks, every template equally often, phones from seeds seed, seed+1, ... of the split."""
    return [task(name, number, split, style, live) for name, number in draws(n, seed, split)]


def draws(n: int, seed: int, split: str, templates: Sequence[str] = ()) -> list[tuple[str, int]]:
    """(template, phone seed) of n tasks; every template (or each of `templates`) equally often, in a shuffled order."""
    if split not in SPLITS:
        raise SetupError(f"split {split!r}, expected one of {', '.join(SPLITS)}")
    names = [t.name for t in TEMPLATES if t.held_out == (split == "heldout") and (not templates or t.name in templates)]
    if not names:
        raise SetupError(f"none of {', '.join(templates)} is a template of split {split!r}")
    order: list[str] = []
    rng = random.Random(f"draws-{seed}-{split}")
    while len(order) < n:
        order += rng.sample(names, len(names))
    return [(name, 3 * (seed * 1_000_003 + k) + SPLITS[split]) for k, name in enumerate(order[:n])]


def demonstrate(made: Task, phone: Phone, limit: int = 60) -> Iterator[tuple[Scene, Move]]:
    """What the expert sees and does, step by step, Terminate last. Acts on the phone.

    Raises RuntimeError when it does not arrive within `limit` steps: a template's `want` and `done` disagree.
    """
    answers: list[str] = []
    for _ in range(limit):
        scene, step = phone.scene(), made.expert(phone, answers)
        yield scene, step
        if isinstance(step.action, Terminate):
            return
        answers += perform(phone, step.action)
    raise RuntimeError(f"the expert got lost in {made.id}")


def _disturb(state: State, rng: random.Random, template: Template, params: dict[str, str]) -> None:
    """Disturb the start but leave something to do: what the task is about stays, except for one of several toggles."""
    state.popups = {k: rng.randrange(4) for k in rng.sample(range(1, 9), rng.choice([0, 1, 1, 2]))}
    asked = set(params.values())
    for name in rng.sample(state.toggles, 2):
        if name not in asked:
            _flip(state, name)
    if "b_to" in params and rng.random() < 0.3:
        _flip(state, params["b"])
    for title in ("shopping", "call"):
        if rng.random() < 0.5:
            state.notes[title] = "old"
    if rng.random() < 0.5:
        state.stack = [OpenPage(rng.choice([a for a in state.apps if a != template.app or a in DECOYS]))]


def _flip(state: State, name: str) -> None:
    state.switch(name, not state.is_on(name))
