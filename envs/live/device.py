"""What a device is: one small protocol for simulated phones, emulators and browsers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from guiderail.agent.types import Action, Box, Screenshot

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["text", "title", "row", "button", "toggle", "check", "field", "icon"]


@dataclass(frozen=True, slots=True)
class Element:
    """One visible thing, as accessibility reports it. `checked` is None for what cannot be checked."""

    text: str
    box: Box
    kind: Kind
    clickable: bool = False
    checked: bool | None = None
    focused: bool = False


class Device(Protocol):
    """A screen that can be seen and acted on. Every method raises EnvCrashed when the machine fails.

    No action of a policy raises anything else: one that makes no sense on this device changes nothing.
    """

    def screenshot(self) -> Screenshot:
        """The screen as it is now, encoded (PNG in `Screenshot.data`)."""
        ...

    def act(self, action: Action) -> None:
        """Perform one action. Terminate does nothing; Answer is remembered in `answers`."""
        ...

    @property
    def answers(self) -> tuple[str, ...]:
        """What the agent has told the user so far, oldest first."""
        ...

    def shell(self, args: list[str]) -> str:
        """Run one command on the device. Arguments arrive unchanged: no shell syntax is interpreted."""
        ...

    def elements(self) -> list[Element]:
        """What is visible, top to bottom. Empty where the device does not report it."""
        ...

    def snapshot(self) -> object:
        """A token for the present state; only `restore` of the same device accepts it."""
        ...

    def restore(self, token: object) -> None: ...

    def close(self) -> None: ...


def encode_png(image: Image.Image) -> Screenshot:
    """An image as an encoded screenshot. Equal pixels give equal bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return Screenshot(image.width, image.height, data=buffer.getvalue())
