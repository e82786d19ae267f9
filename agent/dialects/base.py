"""A dialect: how one model family is prompted and read. And the parts that several families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from guiderail.agent import codec
from guiderail.agent.codec import Reply
from guiderail.agent.errors import SetupError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Direction, Picture, Point, Swipe, SystemButton, Terminate

THOUSAND = ScreenTransform(1000, 1000)
MAX_TURN = 50_000  # characters; a turn of 512 tokens has about 2,000

Space = Literal["picture", "original", "thousand", "unit"]
Composed = tuple[str | Picture, ...]


def unchanged(turn: str) -> str:
    """A turn of the history as it is."""
    return turn


@dataclass(frozen=True)
class Dialect:
    """How one model family is prompted and read.

    system: the system prompt, "" for none; WIDTHxHEIGHT in it becomes the size of the picture shown. first(goal): text of
    the first user turn. later: text of every later user turn. say(thought, action, screen): a turn as text; raises
    SetupError for an action in `cannot`. read(text, screen): the inverse; raises UnreadableAction only, and may accept more
    forms than `say` writes. integrate(goal): system prompt of the on-policy patch, which asks the policy to write the
    reasoning for the expert's action.

    remember: a turn of the rollout as the history shows it. compose: for families that keep the history as text inside one
    user turn: (goal, remembered turns, current picture) -> that turn's parts. goal_apart: the first user text is a message
    of its own, and each picture follows in its own message. pictures_first: the first user turn begins with all pictures, so
    that the rollouts of a step have the same prompt up to their own turns, and pictures and goal are computed once.

    space: the unit of coordinates: pixels of the "picture" shown, pixels of the "original" screenshot, "thousand"ths or
    fractions ("unit") of the screen. swipe: how a swipe is written: its two "points", or one word for the direction in which
    the "finger" or the "view" moves (these are opposite). images: how many screenshots a prompt shows, the current one
    included. cannot: actions that the family cannot express, as names or as "system_button Menu". forgets: arguments that
    the text does not hold, such as "wait.seconds" or "swipe.points"; they are read back as defaults.
    """

    name: str
    system: str
    first: Callable[[str], str]
    later: str
    integrate: Callable[[str], str]
    say: Callable[[str | None, Action, ScreenTransform], str] = codec.say
    read: Callable[[str, ScreenTransform], Reply] = codec.read
    remember: Callable[[str], str] = unchanged
    compose: Callable[[str, Sequence[str], Picture], Composed] | None = None
    goal_apart: bool = False
    pictures_first: bool = False
    space: Space = "picture"
    swipe: Literal["points", "finger", "view"] = "points"
    images: int = 2
    cannot: frozenset[str] = frozenset()
    forgets: frozenset[str] = frozenset()

    def says(self, action: Action) -> bool:
        """Whether the dialect can express this action."""
        return not self.cannot & {action.name, _kind(action)}


def unsayable(dialect: str, action: Action) -> SetupError:
    """The error for an action in `Dialect.cannot`."""
    return SetupError(
        f"the dialect {dialect} cannot express {_kind(action)}; choose another one with --dialect, or leave such steps out"
    )


def _kind(action: Action) -> str:
    match action:
        case SystemButton(word) | Terminate(word):
            return f"{action.name} {word}"
    return action.name


def describe(action: Action) -> str:
    """The action in plain words without coordinates, for histories in words."""
    match action:
        case Swipe():
            return f"swipe {action.direction}"
        case SystemButton(word) | Terminate(word):
            return f"press {word}" if isinstance(action, SystemButton) else f"finish with {word}"
    text = getattr(action, "text", None)
    return action.name.replace("_", " ") + ("" if text is None else f" {text}")


def reply(thought: str | None, action: Callable[[], Action]) -> Reply:
    """The thought with the action. Where the action raises UnreadableAction, the error carries the thought."""
    try:
        return Reply(thought, action())
    except UnreadableAction as error:
        error.thought = thought
        raise


def bounded(text: str) -> str:
    """The text unchanged. Raises UnreadableAction where it is longer than MAX_TURN characters."""
    if len(text) > MAX_TURN:
        raise UnreadableAction(f"the turn has {len(text)} characters, expected at most {MAX_TURN}")
    return text


_ENDS: dict[Direction, tuple[Point, Point]] = {
    "up": (Point(0.5, 0.7), Point(0.5, 0.3)),
    "down": (Point(0.5, 0.3), Point(0.5, 0.7)),
    "left": (Point(0.7, 0.5), Point(0.3, 0.5)),
    "right": (Point(0.3, 0.5), Point(0.7, 0.5)),
}
_AGAINST: dict[Direction, Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}


def finger(word: object) -> Swipe:
    """A swipe about the centre with the finger moving in the direction `word`. Raises UnreadableAction."""
    known = word.strip().lower() if isinstance(word, str) else ""
    for direction, (start, end) in _ENDS.items():
        if known == direction:
            return Swipe(start, end)
    raise UnreadableAction(f"direction {codec.show(word)}, expected up, down, left or right")


def view(word: object) -> Swipe:
    """A swipe that moves the view in the direction `word`: the finger moves the opposite way. Raises UnreadableAction."""
    towards = finger(word)
    return Swipe(towards.end, towards.start)


def view_word(swipe: Swipe) -> Direction:
    """The direction in which the swipe moves the view."""
    return _AGAINST[swipe.direction]


def action_line(text: str) -> int:
    """Index of the last line that starts with "Action:", -1 when there is none."""
    return text.rfind("\nAction:") + 1 or (0 if text.startswith("Action:") else -1)


def one_line(text: str) -> str:
    """The text with each run of white space as one blank."""
    return " ".join(text.split())


def numbered(turns: Sequence[str], separator: str = "\n") -> str:
    """ "Step 1: ...", counted from 1."""
    return separator.join(f"Step {number}: {turn}" for number, turn in enumerate(turns, 1))


def integrate(goal: str) -> str:
    """The default system prompt of the on-policy patch, see `Dialect.integrate`."""
    return f"""You write the reasoning of a phone agent. The user's goal: {goal}
Each turn shows a screen and, at the last one, a hint with the next action. Write one coherent passage in English that
starts from the goal, uses what was done and seen so far, and arrives at that action as the agent's own decision.
Never mention coordinates and never mention that there was a hint. If another app is needed, opening it is a fine step.
Answer with the think block only: <think>...</think>"""
