"""Thoughts for recordings that have none: a large model is shown the goal, the screens and the expert's action, and writes why.

They go into a thought store (patch/off_policy.py), one line per step as they come, so that a stopped command goes on where it
was. A thought counts only if the expert's turn, said with it in the dialect and read back, still holds this thought and the
same action. Thoughts of similar steps may be shown as examples (patch/examples.py).
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_to_json, think_block
from guiderail.agent.dialects.base import describe
from guiderail.agent.dialogue import Dialogue, transform
from guiderail.agent.disk import append_whole, cut_torn_line
from guiderail.agent.errors import DataError, EnvCrashed, SetupError, UnreadableAction
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.agent.screen import ScreenTransform, Vision
from guiderail.agent.types import Episode, Message, Picture, Prompt
from guiderail.patch.examples import Example, Examples
from guiderail.patch.off_policy import lines_of, load_thoughts

LONGEST = 1000  # characters
_SYSTEM = """You write the thoughts of an agent that operates a phone. You are shown its goal, what it has done, the screen it \
looks at, the action it takes there, and the screen after it. Write what it thinks before it acts, in the first person and the \
present tense, in one or two short sentences: what on this screen matters for the goal, what to remember for later, and why \
this action is next. Use only what can be known before the action: do not mention the screen after it, and give no \
coordinates. Answer with the thought alone."""
_THOUSAND = ScreenTransform(1000, 1000)
_PER_TOKEN = 4.0  # characters


@dataclass(frozen=True)
class Place:
    """One step of a recording that needs a thought."""

    episode: Episode
    index: int

    @property
    def key(self) -> tuple[str, int]:
        return self.episode.id, self.index


def question(place: Place, vision: Vision, examples: Sequence[Example] = ()) -> Prompt:
    """What the writer is shown. Coordinates are thousandths of the screen."""
    episode, index = place.episode, place.index
    step = episode.steps[index]
    done = [f"{i}. {describe(one.action)}" for i, one in enumerate(episode.steps[:index], 1)]
    action = json.dumps(action_to_json(step.action, _THOUSAND), ensure_ascii=False)
    before = "".join(_example(one) for one in examples)
    parts: list[str | Picture] = [
        f"{before}Goal: {episode.goal}\nDone so far:\n" + ("\n".join(done) or "nothing") + "\nThe screen now:",
        vision.picture(step.screenshot),
        f"The action it takes (coordinates in thousandths of the screen): {action}",
    ]
    if index + 1 < len(episode.steps):
        parts += ["The screen after it:", vision.picture(episode.steps[index + 1].screenshot)]
    return Prompt((Message("system", (_SYSTEM,)), Message("user", tuple(parts))))


def _example(one: Example) -> str:
    """As text, without screens."""
    action = describe(one.episode.steps[one.index].action)
    return f"Example from another task\nGoal: {one.episode.goal}\nThe action it takes: {action}\nIts thought: {one.thought}\n\n"


def thought_in(text: str) -> str:
    """The thought in an answer: its think block if it has one, as one line."""
    return " ".join((think_block(text) or text).split())


def refused(thought: str, place: Place, dialogue: Dialogue) -> str | None:
    """Why this thought cannot stand before the expert's action; None where it can."""
    if not thought:
        return "empty"
    if len(thought) > LONGEST:
        return f"longer than {LONGEST} characters"
    step = place.episode.steps[place.index]
    screen = transform(dialogue.vision.picture(step.screenshot))
    bare = dialogue.dialect.read(dialogue.say("x", step.action, step.screenshot), screen)
    try:
        heard = dialogue.dialect.read(dialogue.say(thought, step.action, step.screenshot), screen)
    except UnreadableAction:
        return "unreadable in the dialect"
    if heard.action != bare.action:
        return "changes the action"
    return None if heard.thought == thought else "not read back as it is"


# ------------------------------------------------------------------------------------------------------------ the store


@dataclass(frozen=True)
class Store:
    """A thought store that is being filled. model: who writes into it."""

    path: Path
    model: str

    def held(self) -> set[tuple[str, int]]:
        """The steps that have a thought. Raises SetupError where another model wrote them, DataError for a broken file."""
        if not self.path.exists():
            return set()
        cut_torn_line(self.path)
        for number, line in enumerate(lines_of(self.path), 1):
            row = _parsed(line, f"{self.path}:{number}") if line.strip() else {}
            other = row.get("model", self.model)
            if other != self.model:
                raise SetupError(
                    f"{self.path}:{number}: written by {other!r}, not by {self.model!r}; give another --out"
                )
        return set(load_thoughts(self.path))

    def add(self, place: Place, thought: str, examples: int = 0) -> None:
        """examples: how many the model was shown."""
        row = {"episode_id": place.episode.id, "step": place.index, "thought": thought, "model": self.model}
        row |= {"examples": examples} if examples else {}
        append_whole(self.path, json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise DataError(where, f"expected a JSON object, got {line[:80]!r}")
    return row


def missing(episodes: Sequence[Episode], dialogue: Dialogue, held: set[tuple[str, int]]) -> list[Place]:
    """The steps without a thought in the store, without those that the dialect cannot express."""
    places = (Place(episode, t) for episode in episodes for t in episode.targets)
    return [p for p in places if p.key not in held and dialogue.dialect.says(p.episode.steps[p.index].action)]


# ----------------------------------------------------------------------------------------------------------------- cost


@dataclass(frozen=True)
class Cost:
    """What asking takes, at most one answer per step. read, written: tokens, about; a picture counts as Qwen2.5-VL counts it,
    four characters as one token, and an answer as long as it may be."""

    requests: int
    read: int
    written: int

    def price(self, per_read: float, per_written: float) -> float:
        """At these prices per million tokens."""
        return (self.read * per_read + self.written * per_written) / 1e6


def cost(places: Sequence[Place], longest: int, examples: int = 0) -> Cost:
    """longest: tokens of an answer. examples: shown with each, counted as long as this place's own would be."""
    qwen, read = Vision(), 0.0
    for place in places:
        if examples:
            own = _example(Example(place.episode, place.index, "", 1.0))
            read += examples * (len(own) / _PER_TOKEN + longest)
        for part in (part for m in question(place, qwen).messages for part in m.parts):
            read += len(part) / _PER_TOKEN if isinstance(part, str) else part.width * part.height / qwen.factor**2
    return Cost(len(places), math.ceil(read), len(places) * longest)


# ----------------------------------------------------------------------------------------------------------------- fill


@dataclass
class First:
    """First answers of a kind, and how many of them were refused."""

    answers: int = 0
    refused: int = 0


@dataclass
class Filled:
    """written, failed: steps with a thought, and those whose request failed. refused: thoughts by why they were not taken.
    shown, bare: the first answers with and without examples. similarities: of each first request with examples, their mean."""

    written: int = 0
    failed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    shown: First = field(default_factory=First)
    bare: First = field(default_factory=First)
    similarities: list[float] = field(default_factory=list)


def fill(
    store: Store,
    places: Sequence[Place],
    policy: Policy,
    dialogue: Dialogue,
    sampling: Sampling,
    *,
    at_once: int,
    tries: int = 2,
    examples: Examples | None = None,
    control: float = 0.0,
    done: Callable[[], None] = lambda: None,
) -> Filled:
    """Ask for a thought for each place, `at_once` in a batch; each batch is in the store before the next is asked. tries: how
    often a place is asked whose thought was refused. control: share of the places that are asked without examples, to compare
    with. done: called for each place that is dealt with."""
    found = Filled()
    for batch in _batches(places, at_once):
        waiting = list(batch)
        with_ = {place.key: _examples_for(place, examples, control) for place in batch}
        found.similarities += [math.fsum(e.similarity for e in some) / len(some) for some in with_.values() if some]
        for attempt in range(tries):
            requests = [Request(question(p, policy.vision, with_[p.key]), seed=attempt) for p in waiting]
            again: list[Place] = []
            for place, said in zip(waiting, policy.complete(requests, sampling), strict=True):
                if isinstance(said, EnvCrashed):
                    found.failed += 1
                    continue
                thought = thought_in(said.text)
                why = "cut by the token limit" if said.finish == "length" else refused(thought, place, dialogue)
                if attempt == 0:
                    first = found.shown if with_[place.key] else found.bare
                    first.answers, first.refused = first.answers + 1, first.refused + (why is not None)
                if why is None:
                    store.add(place, thought, len(with_[place.key]))
                    found.written += 1
                    if examples is not None and examples.grows:
                        examples.add(place.key, thought)
                elif attempt + 1 < tries:
                    again.append(place)
                else:
                    found.refused[why] += 1
            waiting = again
            if not waiting:
                break
        for _ in batch:
            done()
    return found


def _examples_for(place: Place, examples: Examples | None, control: float) -> tuple[Example, ...]:
    """The same places are asked without examples in every run."""
    if examples is None or random.Random(f"{place.episode.id}/{place.index}").random() < control:
        return ()
    return examples.most_similar(place.episode, place.index)


def _batches(places: Sequence[Place], size: int) -> Iterator[Sequence[Place]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
