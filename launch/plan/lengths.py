"""How long prompts and answers are: steps per episode, picture sizes, and texts of the recordings that are to be trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.screen import Vision
from guiderail.agent.shipped import shipped
from guiderail.agent.types import Action, Click, Episode, Picture, Point, Prompt, Screenshot, Step, Terminate
from guiderail.envs.recordings.replay import expert_turn

MOST_EPISODES = 100  # whose texts are counted; the steps of all are
_MESSAGE, _ANSWER, _PICTURE = (
    5,
    3,
    2,
)  # tokens that the chat template puts around a message, before an answer, around a picture
_THOUGHT = "The list shows the item that the goal names, so I open it and read what it says before I go on. " * 3


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt under the expert's history. step: its place in the episode. tokens: the prompt's, image tokens included. lead:
    those before the first answer, which the rollouts of a group have in common. patches: of each picture, before the
    merger. answer: the expert's turn in tokens."""

    step: int
    tokens: int
    lead: int
    patches: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Lengths:
    """steps: of every episode. asks: of some of the episodes. said: where the numbers are from, in words."""

    steps: tuple[int, ...]
    asks: tuple[Ask, ...]
    said: str

    @cached_property
    def longest(self) -> Ask:
        return max(self.asks, key=lambda ask: ask.tokens)

    @property
    def mean_steps(self) -> float:
        return sum(self.steps) / len(self.steps)

    @property
    def answer(self) -> float:
        return sum(ask.answer for ask in self.asks) / len(self.asks)


def lengths_of(
    episodes: Sequence[Episode], dialogue: Dialogue, merge: int, tokens: Callable[[str], int], thoughts: bool, said: str
) -> Lengths:
    """merge: patches per image token and side. tokens: the number of tokens of a text. thoughts: as in the config."""
    distinct = [*{id(episode): episode for episode in episodes}.values()]
    asks = []
    for episode in distinct[:: max(1, len(distinct) // MOST_EPISODES)][:MOST_EPISODES]:
        for t in range(len(episode.steps)):
            prompt, answer = expert_turn(episode, t, dialogue, thoughts)
            asks.append(_ask(t, prompt, tokens(answer) + 1, dialogue.vision, merge, tokens))
    return Lengths(tuple(len(episode.steps) for episode in episodes), tuple(asks), said)


def _ask(step: int, prompt: Prompt, answer: int, vision: Vision, merge: int, tokens: Callable[[str], int]) -> Ask:
    before, whole, answered = 0, _ANSWER, False
    patches = []
    for message in prompt.messages:
        answered = answered or message.role == "assistant"
        size = _MESSAGE
        for part in message.parts:
            if isinstance(part, Picture):
                seen = part.width * part.height // vision.factor**2
                patches.append(seen * merge**2)
                size += seen + _PICTURE
            else:
                size += tokens(part)
        whole += size
        before += 0 if answered else size
    return Ask(step, whole, whole if not answered else before, tuple(patches), answer)


def counter(model: str) -> tuple[Callable[[str], int], bool]:
    """(number of tokens of a text, whether it is exact): by the model's own tokenizer where its folder has one; else four
    characters are a token."""
    file = Path(shipped(model)) / "tokenizer.json"
    if file.is_file():
        try:
            from tokenizers import Tokenizer
        except ImportError:
            return _quarter, False
        tokenizer = Tokenizer.from_file(str(file))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), True
    return _quarter, False


def _quarter(text: str) -> int:
    return -(-len(text) // 4)


def typical(episodes: int = 1000, steps: int = 6, size: tuple[int, int] = (1080, 2400)) -> list[Episode]:
    """Recordings to plan with before there are any: AndroidControl's mean number of steps, on a usual phone."""
    screen = Screenshot(*size)
    actions: list[Action] = [*[Click(Point(0.5, 0.5))] * (steps - 1), Terminate("success")]
    walked = tuple(Step(screen, action, thought=_THOUGHT) for action in actions)
    goal = "Open the shopping app, look for a lamp under 30 dollars and put it into the cart."
    return [Episode("typical", goal, walked, "assumed")] * episodes
