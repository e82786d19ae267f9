"""AndroidWorld's environment as a Device.

Actions go through adb as `envs.android.adb` writes them, not through AndroidWorld's JSONAction. That one has no two-point
swipe and no press time, mirrors horizontal swipes, presses Enter after every text and hands app names to a shell.
"""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import Action, Answer, Open, Screenshot
from guiderail.envs.android.adb import adb_commands, plain_name, window_elements
from guiderail.envs.android_world.client import Client
from guiderail.envs.live.device import Element, encode_png


class AndroidWorldDevice:
    """client: a process whose environment is open.

    settle: seconds before each screenshot. None waits until the elements stay the same, as AndroidWorld's own agents do.
    """

    def __init__(self, client: Client, settle: float | None = None, unicode_keyboard: bool = False):
        self.client, self._settle, self._unicode = client, settle, unicode_keyboard
        self._answers: list[str] = []
        self._size = (1, 1)

    def screenshot(self) -> Screenshot:
        about, pixels = self.client.ask("pixels", settle=self._settle)
        try:
            image = Image.frombytes("RGB", (int(about["width"]), int(about["height"])), pixels)
        except (KeyError, TypeError, ValueError) as error:
            raise EnvCrashed(f"AndroidWorld gave {len(pixels)} bytes that are not a screenshot ({error})") from None
        self._size = image.size
        return encode_png(image)

    def act(self, action: Action) -> None:
        if isinstance(action, Answer):
            self._answers.append(action.text)
            self.client.ask("answer", text=action.text)
        apps: Mapping[str, str] = {}
        if isinstance(action, Open):
            activity = self.client.ask("activity", app=action.text)[0]["activity"]
            apps = {plain_name(action.text): activity} if activity else {}
        for command in adb_commands(action, self._size, apps, self._unicode):
            self.shell(command)

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    def shell(self, args: list[str]) -> str:
        return str(self.client.ask("shell", args=args)[0]["output"])

    def elements(self) -> list[Element]:
        """As AndroidWorld sees them. `uiautomator dump` would silence the accessibility service that it listens to."""
        return window_elements(self.client.ask("nodes")[0]["nodes"], *self._size)

    def snapshot(self) -> object:
        raise EnvCrashed("AndroidWorld sets its tasks up itself; there are no snapshots")

    def restore(self, token: object) -> None:
        raise TypeError("this token was not made by this device")

    def close(self) -> None:
        """The environment belongs to whoever made it."""
