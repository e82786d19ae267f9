"""The records that all parts share. Plain, frozen, importable without torch.

Positions are fractions of the screen: x from 0 (left edge) to 1 (right), y from 0 (top) to 1 (bottom). Pixels exist in
three places only, each with its own size: recorded files, the model's view (`Picture`) and devices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.untrusted import is_file, opened, read_file

if TYPE_CHECKING:
    from PIL import Image

# ----------------------------------------------------------------------------------------------- positions and images


@dataclass(frozen=True, slots=True)
class Point:
    """A position, in screen fractions."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle, in screen fractions; left <= right, top <= bottom."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def center(self) -> Point:
        """Centre of the box."""
        return Point((self.left + self.right) / 2, (self.top + self.bottom) / 2)

    @property
    def area(self) -> float:
        """Share of the screen's area, 0 to 1 for a box on the screen."""
        return (self.right - self.left) * (self.bottom - self.top)

    def contains(self, point: Point) -> bool:
        """Edges included."""
        return self.left <= point.x <= self.right and self.top <= point.y <= self.bottom

    def scaled(self, factor: float) -> Box:
        """The box with both sides multiplied by `factor` about its centre."""
        c, w, h = self.center, (self.right - self.left) * factor / 2, (self.bottom - self.top) * factor / 2
        return Box(c.x - w, c.y - h, c.x + w, c.y + h)


@dataclass(frozen=True, slots=True)
class TargetBox:
    """A box in which a click of this step counts.

    origin: how the recording stores it: "bbox" (the single box of the expert's target) or "candidate" (one of the nodes
    that hold the expert's point). `Step.box_origin` says what it was read from.
    """

    box: Box
    origin: str


@dataclass(frozen=True)
class Screenshot:
    """A reference to an image: a file or encoded bytes. Pixels are decoded on demand and never kept here.

    width, height: original pixels. path and data are both None in recordings without images; asking such a screenshot for
    pixels is a SetupError. source: "file:line step" of the recording, for messages.
    """

    width: int
    height: int
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    source: str = field(default="", repr=False, compare=False)

    def encoded(self) -> bytes:
        """The image file's bytes (PNG or JPEG). Raises SetupError for a missing file, DataError for a file that is too large."""
        if self.data is not None:
            return self.data
        if self.path is None or not is_file(self.path):
            where = f"{self.source}: " if self.source else ""
            state = "has no image" if self.path is None else f"has no image at {self.path}"
            raise SetupError(f"{where}this needs pixels, but the screenshot {state}; add the images next to the data")
        return read_file(self.path, self.source or str(self.path))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoded bytes, hex; the key under which anything derived from the pixels may be cached."""
        return hashlib.sha256(self.encoded()).hexdigest()

    def image(self) -> Image.Image:
        """Decode to RGB, shape (height, width, 3). Raises DataError when the pixels are broken or of another size."""
        where, name = self.source or str(self.path or "screenshot"), str(self.path or "its image")
        with opened(self.encoded(), where, name) as picture:
            image = picture.convert("RGB")
        if image.size != (self.width, self.height):
            got = f"{image.width}x{image.height}"
            raise DataError(where, f"{name} is {got}, but its coordinates were read as {self.width}x{self.height}")
        return image


# ------------------------------------------------------------------------------------------------------------- actions

Direction = Literal["up", "down", "left", "right"]
Button = Literal["Back", "Home", "Menu", "Enter"]
BUTTONS: tuple[Button, ...] = ("Back", "Home", "Menu", "Enter")


@dataclass(frozen=True, slots=True)
class Click:
    """Touch a point."""

    name: ClassVar[str] = "click"
    point: Point


@dataclass(frozen=True, slots=True)
class LongPress:
    """Touch a point for some seconds."""

    name: ClassVar[str] = "long_press"
    point: Point
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Swipe:
    """Finger motion from `start` to `end`. A finger moving up scrolls the content down."""

    name: ClassVar[str] = "swipe"
    start: Point
    end: Point

    @property
    def direction(self) -> Direction:
        """Direction of the finger. The longer axis decides; a tie is vertical, as in UI-S1's matcher."""
        dx, dy = self.end.x - self.start.x, self.end.y - self.start.y
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"


@dataclass(frozen=True, slots=True)
class Type:
    """Enter text into the focused field."""

    name: ClassVar[str] = "type"
    text: str


@dataclass(frozen=True, slots=True)
class SystemButton:
    """Press a button of the system."""

    name: ClassVar[str] = "system_button"
    button: Button


@dataclass(frozen=True, slots=True)
class Open:
    """Open an app by its name."""

    name: ClassVar[str] = "open"
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for some seconds."""

    name: ClassVar[str] = "wait"
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Say something to the user. Does not end the episode."""

    name: ClassVar[str] = "answer"
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """An adb key event by name, e.g. "volume_up"."""

    name: ClassVar[str] = "key"
    text: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """End the episode. status: whether the agent considers the goal reached."""

    name: ClassVar[str] = "terminate"
    status: Literal["success", "failure"] = "success"


Action = Click | LongPress | Swipe | Type | SystemButton | Open | Wait | Answer | Key | Terminate
ACTION_NAMES: tuple[str, ...] = tuple(
    c.name for c in (Click, LongPress, Swipe, Type, SystemButton, Open, Wait, Answer, Key, Terminate)
)

# ---------------------------------------------------------------------------------------------------------- recordings


@dataclass(frozen=True, slots=True)
class Accepted:
    """An action that counts as right beside the expert's. boxes: as in `Step`."""

    action: Action
    boxes: tuple[TargetBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded step, of the expert unless `history` is set.

    boxes: where a click counts (empty when the recording has no boxes). box_origin: what they were read from, where known:
    "tree" (accessibility tree), "detector" or "annotation". thought, instruction: as recorded. scroll_label: the
    recording's own direction word for a swipe. For up and down it names the direction of the *view*; it is kept only to
    reproduce released matchers. `action` is finger motion. exchanged: it was stored as the inverse; also kept for released
    matchers alone. accepted: what people accepted beside the expert's action. history: an agent took this step before a
    person corrected it; later steps see it, and nobody is asked for it, trained on it or judged by it.
    """

    screenshot: Screenshot
    action: Action
    boxes: tuple[TargetBox, ...] = ()
    thought: str | None = None
    instruction: str | None = None
    scroll_label: Direction | None = None
    box_origin: str | None = None
    exchanged: bool = False
    accepted: tuple[Accepted, ...] = ()
    history: bool = False


@dataclass(frozen=True, slots=True)
class Episode:
    """One recorded expert trajectory. source: "file:line". meta: the other fields of the line (template, seed, ...)."""

    id: str
    goal: str
    steps: tuple[Step, ...]
    source: str
    meta: Mapping[str, object] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[int, ...]:
        """The steps that a policy is asked for, by index: all but those that are history only. At least one."""
        return tuple(i for i, step in enumerate(self.steps) if not step.history)


# ----------------------------------------------------------------------------------------------- prompts and completions


@dataclass(frozen=True, slots=True)
class Picture:
    """A screenshot as the model sees it: resized to width x height model pixels."""

    screenshot: Screenshot
    width: int
    height: int

    def image(self) -> Image.Image:
        """The screenshot at this size, RGB, bicubic. Raises as `Screenshot.image` does."""
        from PIL import Image

        image, size = self.screenshot.image(), (self.width, self.height)
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: text and pictures in order."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Picture, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends with a user turn with the current screen.

    draft: a likely answer, such as the expert's. It is never shown to the model: a policy may use it only to decode faster
    the answer that it gives anyway (`agent.local.decode`).
    """

    messages: tuple[Message, ...]
    draft: str | None = field(default=None, compare=False, repr=False)

    @property
    def screen(self) -> Picture:
        """The current screen: the last picture of the conversation. Model coordinates refer to it."""
        for message in reversed(self.messages):
            for part in reversed(message.parts):
                if isinstance(part, Picture):
                    return part
        raise ValueError("the prompt has no picture, expected at least one")

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in order."""
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, Picture))


@dataclass(frozen=True, slots=True)
class Completion:
    """A policy's answer.

    text: decoded up to the end of turn, without special tokens. token_ids, logprobs: the sampled tokens, with the
    end-of-turn token when one was sampled, and the log-probability of each (natural log, temperature 1) under the policy
    that sampled it; both empty when the backend does not report them. finish: "stop" (the model ended its turn), "length"
    (cut by the token limit), or "budget": the policy's own turns have made the prompt longer than its limit, so nothing was
    sampled and text is empty. That is an ordinary, scored failure.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Literal["stop", "length", "budget"] = "stop"


# ------------------------------------------------------------------------------------------------------------ rollouts


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison of the policy's action with the expert's.

    readable: the answer holds an action of the vocabulary; under loose rules (`MatchRules.loose`), JSON. type_ok: the same
    kind of action. exact: everything agrees. why: one clause for people. judgeable: False where the public code of these
    rules raises an exception instead of judging: on this expert action (released SOP on answer, key and terminate), or on
    this answer. Such a step counts as a mismatch. thought: 0 to 1, how much of the expert's thought is in the policy's and the
    other way round (`envs.recordings.match.words_shared`); None where the expert has no thought.
    """

    readable: bool
    type_ok: bool
    exact: bool
    why: str
    judgeable: bool = True
    thought: float | None = None


@dataclass(frozen=True, slots=True)
class Repair:
    """What a patch puts into the history in place of the policy's turn.

    action: the expert's. strategy: name of the patch. thought: of the repaired turn, None for none. question: a prompt whose
    answer's think block becomes `thought` (on-policy patch); the rollout loop asks it. text: the turn as written into the
    history; the rollout loop renders it from action and thought.
    """

    action: Action
    strategy: str
    thought: str | None = None
    question: Prompt | None = None
    text: str = ""


# Box markers belong to the turns of some families (UI-TARS wraps every point in them); they do not end a turn.
_MARKER = re.compile(r"<\|(?!(?:box|quad|object_ref)_(?:start|end)\|>)[A-Za-z0-9_]+\|>")


def clean_turn(text: str) -> str:
    """The text of a turn up to its end: cut at the first special-token marker (such as `<|im_end|>`), stripped."""
    return _MARKER.split(text, maxsplit=1)[0].strip()


By = Literal["agent", "person", "expert"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of a rollout.

    index: step of the recording, or number of the live turn, from 0. thought: None where the answer has none. action: None
    where the answer was unreadable; then nothing was done. verdict: the comparison with the expert's action; None where
    there is no expert. repairs_before: repairs made earlier in this rollout. repair: of this turn, None for none. note: why
    a live answer was unreadable. by: who made the turn. One of a person or an expert stands in the history in the words of
    the agent's dialect, so later prompts show one joint history. state: the world's
    own key of the state in which this turn acted, "" where it gives none; equal keys mean equal states. shown: what the world's
    expert would have said here, in the words of the agent's dialect; "" where it was not asked.
    """

    index: int
    prompt: Prompt
    completion: Completion
    thought: str | None
    action: Action | None
    verdict: Verdict | None = None
    repairs_before: int = 0
    repair: Repair | None = None
    note: str = ""
    by: By = "agent"
    state: str = ""
    shown: str = ""

    @property
    def screen(self) -> Picture:
        """The screen on which this turn acted, as the model saw it."""
        return self.prompt.screen

    @property
    def exact(self) -> bool:
        """Whether the judge found the action exact; False where nothing judged it."""
        return self.verdict is not None and self.verdict.exact

    def history_text(self) -> str:
        """This turn as later prompts show it.

        This line is what "semi-online" means. Offline RL would put the expert's words here, and the next prompt would show a
        past that the policy never produced. Semi-online RL keeps the policy's *own* words while they agree with the
        recording, so later steps are conditioned on the policy's own thoughts. Where they disagree it puts the repaired
        turn, so that the next recorded screenshot still makes sense. Live attempts have no repairs and use the same line.
        The text ends at the end of the turn: special or pad tokens in a history would be read as real ones and would
        distinguish repaired turns from own ones (method audit, B7).
        """
        return self.repair.text if self.repair is not None else clean_turn(self.completion.text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of the check at the end of a rollout.

    success: the goal was reached. progress: share of the goal that was reached, 0 to 1; None where the world does not
    measure it. side_effects: unwanted changes; None where the world does not look for them. reason: one clause for people.
    checked_by: the state of the device, a judge model, or a person.
    """

    success: bool
    progress: float | None = None
    side_effects: tuple[str, ...] | None = None
    reason: str = ""
    checked_by: Literal["state", "judge", "person"] = "state"


Ended = Literal["finished", "mismatch", "gave_up", "out_of_steps", "stopped", "crashed"]
ENDED: tuple[Ended, ...] = get_args(Ended)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One trajectory of a policy: along a recording or live.

    unit: the episode, or the live task. sample: which of the unit's rollouts, from 0. start: the step at which it began;
    above 0 for single steps of a recording and for live branches that begin in the middle of a task. ended:
    - "finished": the last recorded step was reached and matched, or the agent said that the task is done;
    - "mismatch": stopped at, or ended on, a disagreement with the expert;
    - "gave_up": the agent said that the task cannot be done;
    - "out_of_steps": the step limit of a live task was reached;
    - "stopped": a person ended a live attempt; nobody knows what the agent would have done, so it is not scored;
    - "crashed": a machine failed; `reason` names the failed part. Never scored, never trained on.
    outcome: result of the check at the end; None along recordings, after a crash or a stop, and where nobody has checked. tries: live
    attempts lost to broken machines before this one. spent: turns that were sampled for it and that it does not hold. sampled:
    the generation of a training that sampled it, where that is an earlier one than its group's.
    """

    unit: str
    sample: int
    turns: tuple[Turn, ...]
    ended: Ended
    outcome: Outcome | None = None
    goal: str = ""
    reason: str = ""
    start: int = 0
    tries: int = 0
    spent: int = 0
    sampled: int | None = None

    @property
    def matched(self) -> bool:
        """Whether every turn is exact."""
        return all(turn.exact for turn in self.turns)


Patch = Callable[[Episode, Turn], Repair | None]
"""Called at each mismatch. Returns a repair, or None to end the rollout."""
