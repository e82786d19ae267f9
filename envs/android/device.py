"""Any android_env.AndroidEnv as a Device: an emulator, a phone, the pocket phone, the fake simulator.

Touch goes through env.step, everything else through adb as `envs.android.adb` describes it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from android_env.components.errors import AndroidEnvError
from android_env.proto import adb_pb2, state_pb2
from PIL import Image

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import Action, Answer, Click, LongPress, Point, Screenshot, Swipe, Wait
from guiderail.envs.android.adb import (
    LONGEST_WAIT,
    adb_commands,
    app_table,
    dump_window,
    hide_pointer_lines,
    read_window,
)
from guiderail.envs.live.device import Element, encode_png

TOUCH, LIFT, REPEAT = 0, 1, 2
SWIPE_POINTS = 8


class AndroidDevice:
    """env: the environment; it is reset here once. apps: name -> "package/activity" (or a package) for Open.

    settle: seconds for the screen to come to rest after each action (an emulator needs about 1).
    sleep: waits; a simulator with its own clock passes its own function.
    close_env: whether `close` ends the environment.
    """

    def __init__(
        self,
        env: Any,
        apps: Mapping[str, str] | None = None,
        settle: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        unicode_keyboard: bool = False,
        close_env: bool = True,
    ):
        self.env = env
        self.apps = app_table(apps or {})
        self._settle, self._sleep = settle, sleep
        self._unicode, self._close_env = unicode_keyboard, close_env
        self._answers: list[str] = []
        self._snapshots = 0
        with _machine():
            self._pixels: np.ndarray[Any, np.dtype[np.uint8]] = env.reset().observation["pixels"]
        hide_pointer_lines(self.shell)

    # ---------------------------------------------------------------------------------------------------- looking

    def pixels(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The screen now, uint8 (height, width, 3)."""
        self._step(REPEAT, Point(0, 0))
        return self._pixels

    def screenshot(self) -> Screenshot:
        return encode_png(Image.fromarray(self.pixels(), "RGB"))

    def elements(self) -> list[Element]:
        """From `uiautomator dump`; empty when the device cannot dump now (moving screens, protected windows)."""
        height, width = self._pixels.shape[:2]
        return read_window(dump_window(self.shell), width, height)

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    # ----------------------------------------------------------------------------------------------------- acting

    def act(self, action: Action) -> None:
        match action:
            case Click(point):
                self._press(point, 0.0)
            case LongPress(point, seconds):
                self._press(point, min(seconds, LONGEST_WAIT))
            case Swipe(start, end):
                self._swipe(start, end)
            case Wait(seconds):
                self._sleep(min(seconds, LONGEST_WAIT))
            case Answer(text):
                self._answers.append(text)
            case _:
                for command in adb_commands(action, self._pixels.shape[1::-1], self.apps, self._unicode):
                    self.shell(command)
        if self._settle:
            self._sleep(self._settle)

    def _press(self, point: Point, seconds: float) -> None:
        self._step(TOUCH, point)
        if seconds:
            self._sleep(seconds)
        self._step(LIFT, point)

    def _swipe(self, start: Point, end: Point) -> None:
        """The last point is touched twice: a finger that stops before it lifts drags instead of flinging."""
        for k in [*range(SWIPE_POINTS), SWIPE_POINTS - 1]:
            t = k / (SWIPE_POINTS - 1)
            self._step(TOUCH, Point(start.x + t * (end.x - start.x), start.y + t * (end.y - start.y)))
        self._step(LIFT, end)

    def _step(self, kind: int, point: Point) -> None:
        action = {
            "action_type": np.array(kind, np.int32),
            "touch_position": np.array([min(max(point.x, 0.0), 1.0), min(max(point.y, 0.0), 1.0)], np.float32),
        }
        with _machine():
            timestep = self.env.step(action)
        if timestep.last():
            raise EnvCrashed("android_env ended the episode by itself (simulator failure or a limit of its task)")
        self._pixels = timestep.observation["pixels"]

    # ------------------------------------------------------------------------------------------------------- shell

    def shell(self, args: list[str]) -> str:
        """One command with its arguments; each is quoted, so shell syntax in them is text. Raises EnvCrashed."""
        generic = adb_pb2.AdbRequest.GenericRequest(args=["shell", shlex.join(args)])
        with _machine():
            response = self.env.execute_adb_call(adb_pb2.AdbRequest(generic=generic))
        if response.status != adb_pb2.AdbResponse.Status.OK:
            raise EnvCrashed(f"adb shell {args[0]}: {response.error_message}")
        return str(response.generic.output.decode("utf-8", "replace"))

    # --------------------------------------------------------------------------------------------------- snapshots

    def snapshot(self) -> object:
        """A machine snapshot under a new name, with the answers so far."""
        self._snapshots += 1
        name = f"guiderail-{self._snapshots}"
        with _machine():
            response = self.env.save_state(state_pb2.SaveStateRequest(args={"snapshot_name": name}))
        if response.status != state_pb2.SaveStateResponse.Status.OK:
            raise EnvCrashed(f"cannot save state: {response.error_message}")
        return name, self.answers

    def restore(self, token: object) -> None:
        match token:
            case (str(name), tuple(answers)):
                with _machine():
                    response = self.env.load_state(state_pb2.LoadStateRequest(args={"snapshot_name": name}))
                if response.status != state_pb2.LoadStateResponse.Status.OK:
                    raise EnvCrashed(f"cannot load state {name}: {response.error_message}")
                self._answers = list(answers)
            case _:
                raise TypeError("this token was not made by this device")

    def close(self) -> None:
        if self._close_env:
            self.env.close()


@contextmanager
def _machine() -> Iterator[None]:
    """What android_env raises is the machine's fault, never the agent's."""
    try:
        yield
    except (AndroidEnvError, NotImplementedError, OSError) as error:
        raise EnvCrashed(f"{type(error).__name__}: {error}") from error
