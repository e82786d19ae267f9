"""The records every part speaks in. Plain, frozen, importable without torch.

Positions are fractions of the screen: x from 0 (left edge) to 1 (right), y from 0 (top) to 1 (bottom). Pixels exist in
three places only, each with its own size attached: recorded files, the model's view (`Picture`) and devices.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from agent.errors import DataError, SetupError

if TYPE_CHECKING:
    from PIL import Image

# ---------------------------------------------------------------------------------------------- places on the screen


@dataclass(frozen=True, slots=True)
class Point:
    """A place, in screen fractions."""

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
        return Point((self.left + self.right) / 2, (self.top + self.bottom) / 2)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def contains(self, point: Point) -> bool:
        return self.left <= point.x <= self.right and self.top <= point.y <= self.bottom

    def scaled(self, factor: float) -> Box:
        """The box with both sides multiplied by `factor` about its centre."""
        c, w, h = self.center, (self.right - self.left) * factor / 2, (self.bottom - self.top) * factor / 2
        return Box(c.x - w, c.y - h, c.x + w, c.y + h)


@dataclass(frozen=True, slots=True)
class TargetBox:
    """A box that a click of this step may fall into.

    origin: how the recording stored it: "bbox" (the single box of the expert's target) or "candidate" (one of the
    nodes that hold the expert's point). What it was read from is `Step.box_origin`.
    """

    box: Box
    origin: str


@dataclass(frozen=True)
class Screenshot:
    """A reference to an image: a file or encoded bytes. Pixels are decoded on demand and never kept here.

    width, height: original pixels. path and data may both be None for recordings that came without images; asking such
    a screenshot for pixels is a SetupError. source: "file:line step" of the recording, for messages.
    """

    width: int
    height: int
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    source: str = field(default="", repr=False, compare=False)

    def encoded(self) -> bytes:
        """The image file's bytes (PNG or JPEG)."""
        if self.data is not None:
            return self.data
        if self.path is None or not self.path.is_file():
            raise SetupError(
                f"this needs pixels, but the screenshot {self.path} is not there; add the images next to the data"
            )
        return self.path.read_bytes()

    @property
    def digest(self) -> str:
        """SHA-256 of the encoded bytes, hex; the key under which anything derived from the pixels may be cached."""
        known = self.__dict__.get("_digest")
        if known is None:
            known = hashlib.sha256(self.encoded()).hexdigest()
            self.__dict__["_digest"] = known
        return known

    def image(self) -> Image.Image:
        """Decode to RGB, shape (height, width, 3). Raises DataError when the pixels are broken or of another size."""
        from PIL import Image, UnidentifiedImageError

        where, name = self.source or str(self.path or "screenshot"), self.path or "its image"
        try:
            with Image.open(io.BytesIO(self.encoded())) as picture:
                image = picture.convert("RGB")
        except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
            raise DataError(where, f"{name} cannot be decoded: {reason}") from None
        if image.size != (self.width, self.height):
            got = f"{image.width}x{image.height}"
            raise DataError(where, f"{name} is {got}, but its coordinates were read as {self.width}x{self.height}")
        return image


# ------------------------------------------------------------------------------------------------------ what one can do

Direction = Literal["up", "down", "left", "right"]
Button = Literal["Back", "Home", "Menu", "Enter"]
BUTTONS: tuple[Button, ...] = ("Back", "Home", "Menu", "Enter")


@dataclass(frozen=True, slots=True)
class Click:
    name: ClassVar[str] = "click"
    point: Point


@dataclass(frozen=True, slots=True)
class LongPress:
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
        """Direction of the finger; the longer axis decides, a tie is vertical (method of UI-S1's matcher)."""
        dx, dy = self.end.x - self.start.x, self.end.y - self.start.y
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"


@dataclass(frozen=True, slots=True)
class Type:
    name: ClassVar[str] = "type"
    text: str


@dataclass(frozen=True, slots=True)
class SystemButton:
    name: ClassVar[str] = "system_button"
    button: Button


@dataclass(frozen=True, slots=True)
class Open:
    """Open an app by its name."""

    name: ClassVar[str] = "open"
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    name: ClassVar[str] = "wait"
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell the user something; does not end the episode."""

    name: ClassVar[str] = "answer"
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """An adb key event by name, e.g. "volume_up"."""

    name: ClassVar[str] = "key"
    text: str


@dataclass(frozen=True, slots=True)
class Terminate:
    name: ClassVar[str] = "terminate"
    status: Literal["success", "failure"] = "success"


Action = Click | LongPress | Swipe | Type | SystemButton | Open | Wait | Answer | Key | Terminate
ACTION_NAMES: tuple[str, ...] = tuple(
    c.name for c in (Click, LongPress, Swipe, Type, SystemButton, Open, Wait, Answer, Key, Terminate)
)

# ------------------------------------------------------------------------------------------------------ what was recorded


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded expert step.

    boxes: targets a click may fall into (empty when the recording has none). box_origin: what they were read from, where
    known: "tree" (accessibility tree), "detector" or "annotation".
    scroll_label: the recording's own direction word for a swipe, as written there. It names the direction the *view*
    moves for up/down and is kept only so that released matchers can be reproduced; `action` is finger motion.
    """

    screenshot: Screenshot
    action: Action
    boxes: tuple[TargetBox, ...] = ()
    thought: str | None = None
    instruction: str | None = None
    scroll_label: Direction | None = None
    box_origin: str | None = None


@dataclass(frozen=True, slots=True)
class Episode:
    """One recorded expert trajectory. `source` is "file:line"; `meta` holds what else the line said (template, seed...)."""

    id: str
    goal: str
    steps: tuple[Step, ...]
    source: str
    meta: Mapping[str, object] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------- what is said to the policy


@dataclass(frozen=True, slots=True)
class Picture:
    """A screenshot as the model sees it: resized to width x height model pixels."""

    screenshot: Screenshot
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Picture, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends with a user turn showing the current screen.

    draft: an answer that may well come, such as the expert's. Never shown: a policy may only use it to say sooner what it
    would have said anyway.
    """

    messages: tuple[Message, ...]
    draft: str | None = field(default=None, compare=False, repr=False)

    @property
    def screen(self) -> Picture:
        """The current screen: the last picture of the conversation; model coordinates refer to it."""
        for message in reversed(self.messages):
            for part in reversed(message.parts):
                if isinstance(part, Picture):
                    return part
        raise ValueError("a prompt holds at least one picture")

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, Picture))


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy said.

    text: decoded up to the end of turn, without special tokens.
    token_ids, logprobs: the sampled tokens including the end-of-turn token when one was sampled, and the log-probability
    (natural log, temperature 1) of each under the policy that sampled it. Both empty when the backend does not tell.
    finish: "stop" (the model ended its turn), "length" (cut by the token limit), or "budget": the policy's own words have
    filled its prompt budget, nothing was asked and text is empty. An ordinary, scored failure.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Literal["stop", "length", "budget"] = "stop"


# ------------------------------------------------------------------------------------------------------ what came out


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison of the policy's action with the expert's. `why` is one clause for people.

    readable: the answer held an action of the vocabulary. type_ok: same kind of action. exact: everything agrees.
    judgeable: False when the named rule itself has no answer for this expert action (released SOP: answer, key,
    terminate raise there); such a step counts as a mismatch.
    """

    readable: bool
    type_ok: bool
    exact: bool
    why: str
    judgeable: bool = True


@dataclass(frozen=True, slots=True)
class Repair:
    """What a patch puts into the history in place of the policy's turn.

    question: a prompt whose answer's think block becomes `thought` (on-policy patch); the walk asks it.
    text: the turn as written into the history; the walk renders it from action and thought.
    """

    action: Action
    strategy: str
    thought: str | None = None
    question: Prompt | None = None
    text: str = ""


# Box markers are part of what some families say (UI-TARS wraps every point in them), not the end of a turn.
_MARKER = re.compile(r"<\|(?!(?:box|quad|object_ref)_(?:start|end)\|>)[A-Za-z0-9_]+\|>")


def clean_turn(text: str) -> str:
    """The text of a turn up to its end: cut at the first special-token marker (such as `<|im_end|>`), stripped."""
    return _MARKER.split(text, maxsplit=1)[0].strip()


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of a walk: what was asked, what came, how it was judged, whether it was repaired.

    index: step of the recording, from 0. repairs_before: repairs made earlier in this walk.
    """

    index: int
    prompt: Prompt
    completion: Completion
    thought: str | None
    action: Action | None
    verdict: Verdict
    repairs_before: int = 0
    repair: Repair | None = None

    def history_text(self) -> str:
        """How this turn is remembered by the turns after it.

        This line is what "semi-online" means. Offline RL would put the expert's words here; the next prompt would then
        show a past that the policy never produced. Online RL would put the policy's words and live with whatever screen
        follows. Semi-online keeps the policy's *own* words while they agree with the recording, so later steps are
        conditioned on thoughts the policy really had, and swaps in the repaired turn where they do not, so that the
        recorded next screenshot still makes sense. The text ends where the turn ended: special or pad tokens in a
        history would be re-read as real ones and would tell repaired turns from own ones (method audit, B7).
        """
        return self.repair.text if self.repair is not None else clean_turn(self.completion.text)


Ended = Literal["finished", "mismatch", "crashed"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One walk through one recording.

    sample: which of the group's N rollouts, from 0. ended: "finished" (the last recorded step was reached and matched),
    "mismatch" (stopped at, or ended on, a disagreement), "crashed".
    """

    episode_id: str
    sample: int
    turns: tuple[Turn, ...]
    ended: Ended


Patch = Callable[[Episode, Turn], Repair | None]
"""What happens at a mismatch: a repair, or None to end the walk."""
