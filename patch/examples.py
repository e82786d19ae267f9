"""Thoughts that a model has already written, as examples for the next: those of the most similar steps.

A small model is to write like a large one, and is shown what the large one answered to similar requests (IC-Cache, arXiv
2501.12689). Similar is the cosine of two bags of words, each word weighed by how rare it is among all steps (TF-IDF):

    w(word, step) = count * (1 + log((1 + steps) / (1 + steps with the word))),      cosine = w . w' / (|w| |w'|)

The words of a step are those of its goal, its instruction, its action and the action before it.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from guiderail.agent.dialects.base import describe
from guiderail.agent.types import Episode

Key = tuple[str, int]
ENOUGH = 50  # candidates looked at for one example, at most


@dataclass(frozen=True)
class Example:
    """A step that has been answered. similarity: 0 to 1, with the step that it is shown for."""

    episode: Episode
    index: int
    thought: str
    similarity: float


def words(episode: Episode, index: int) -> Counter[str]:
    """The bag of words of a step. Those of actions are marked, so that a goal that says "click" is not a click."""
    step = episode.steps[index]
    bag = Counter(_split(f"{episode.goal} {step.instruction or ''}"))
    bag.update(f"now:{word}" for word in _split(describe(step.action)))
    bag.update(f"before:{word}" for word in (_split(describe(episode.steps[index - 1].action)) if index else ["start"]))
    return bag


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@dataclass
class Examples:
    """Answered steps, and the most similar of them. count: how many are shown. grows: whether thoughts that are being written
    are added, as they come."""

    episodes: Mapping[str, Episode]
    count: int
    grows: bool
    _rarest: float = field(init=False)
    _rarity: dict[str, float] = field(init=False)
    _steps: list[tuple[Key, str]] = field(default_factory=list, init=False)
    _where: dict[str, tuple[array[int], array[float]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        everything = [words(one, t) for one in self.episodes.values() for t in one.targets]
        seen = Counter(word for bag in everything for word in bag)
        self._rarest = 1 + math.log(1 + len(everything))
        self._rarity = {word: 1 + math.log((1 + len(everything)) / (1 + n)) for word, n in seen.items()}

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, key: Key, thought: str) -> None:
        """Steps of recordings that are not at hand are passed over."""
        episode = self.episodes.get(key[0])
        if episode is None or not 0 <= key[1] < len(episode.steps):
            return
        for word, weight in self._vector(episode, key[1]).items():
            places, weights = self._where.setdefault(word, (array("q"), array("d")))
            places.append(len(self._steps))
            weights.append(weight)
        self._steps.append((key, thought))

    def most_similar(self, episode: Episode, index: int) -> tuple[Example, ...]:
        """Up to `count` answered steps of other episodes, the most similar first. Steps with nothing in common are not shown, and
        no thought is shown twice. Another step of the same episode could say what is yet to come."""
        if not self._steps:
            return ()
        scores = np.zeros(len(self._steps))
        for word, weight in self._vector(episode, index).items():
            if word in self._where:
                places, weights = self._where[word]
                scores[np.frombuffer(places, dtype=np.int64)] += weight * np.frombuffer(weights)
        found: list[Example] = []
        for place in np.argsort(-scores, kind="stable")[: ENOUGH * self.count].tolist():
            (other, t), thought = self._steps[place]
            if scores[place] <= 0 or len(found) == self.count:
                break
            if other != episode.id and thought not in (one.thought for one in found):
                found.append(Example(self.episodes[other], t, thought, min(1.0, float(scores[place]))))
        return tuple(found)

    def _vector(self, episode: Episode, index: int) -> dict[str, float]:
        """Of length 1. Words of no step at hand count as the rarest."""
        found = {word: n * self._rarity.get(word, self._rarest) for word, n in words(episode, index).items()}
        length = math.sqrt(sum(weight**2 for weight in found.values()))
        return {word: weight / length for word, weight in found.items()}


def examples_of(episodes: Iterable[Episode], thoughts: Mapping[Key, str], count: int, grows: bool) -> Examples:
    """thoughts: those that are there, (episode id, step) -> thought."""
    made = Examples({episode.id: episode for episode in episodes}, count, grows)
    for key in sorted(thoughts):
        made.add(key, thoughts[key])
    return made
