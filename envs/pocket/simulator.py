"""A pocket phone as an android_env simulator: the real AndroidEnv, Coordinator and adb parser run on top of it.

Some properties of android_env explain the code. It creates adb controllers and log streams repeatedly, so all of them share
the one phone here. Rewards through logcat arrive late, from a polling thread, so the log is silent and success is read from
the phone. Every reset step of a task sleeps half a second, so resets happen here. Screenshots are passed on without a copy,
so each is made as one. A LIFT has coordinates of its own, even at a reset, so a tap is where the finger last touched.
"""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from android_env.components import adb_controller, config_classes, errors, log_stream
from android_env.components import coordinator as coordinator_lib
from android_env.components import device_settings as device_settings_lib
from android_env.components import task_manager as task_manager_lib
from android_env.components.simulators import base_simulator
from android_env.environment import AndroidEnv
from android_env.proto import state_pb2, task_pb2

from guiderail.envs.pocket.adb.intents import emu
from guiderail.envs.pocket.adb.shell import KEYCODES, execute
from guiderail.envs.pocket.draw import draw
from guiderail.envs.pocket.files import FileError
from guiderail.envs.pocket.phone import TAP_SLOP, Phone
from guiderail.envs.pocket.state import State
from guiderail.envs.pocket.ui import Scene

HOLD_SECONDS = 0.5


class PocketSimulator(base_simulator.BaseSimulator):  # type: ignore[misc]  # android_env is untyped
    """One phone. `phone` may be exchanged at any time; its size may not."""

    def __init__(self, phone: Phone):
        super().__init__(config_classes.SimulatorConfig())
        self.lock = threading.RLock()
        self._phone = phone
        self._touches: list[tuple[float, float, float]] = []
        self._clock = 0.0
        self._frame: tuple[Scene, np.ndarray[Any, np.dtype[np.uint8]]] | None = None
        self._saved: dict[str, State] = {}

    @property
    def phone(self) -> Phone:
        return self._phone

    @phone.setter
    def phone(self, phone: Phone) -> None:
        with self.lock:
            self._phone, self._touches = phone, []

    def elapse(self, seconds: float) -> None:
        """Let the phone's own time pass, without sleeping."""
        with self.lock:
            self._clock += seconds
            self._phone.elapse(seconds)

    def adb_device_name(self) -> str:
        return "pocket"

    def create_adb_controller(self) -> adb_controller.AdbController:
        return _Adb(self)

    def create_log_stream(self) -> log_stream.LogStream:
        return _Silence()

    def _launch_impl(self) -> None:
        """Nothing to boot."""

    def send_touch(self, touches: list[tuple[int, int, bool, int]]) -> None:
        x, y, down, _finger = touches[0]
        with self.lock:
            if down:
                self._touches.append(((x + 0.5) / self._phone.width, (y + 0.5) / self._phone.height, self._clock))
            elif self._touches:
                self._lift()

    def _lift(self) -> None:
        (x0, y0, t0), (x1, y1, _t1) = self._touches[0], self._touches[-1]
        self._touches = []
        if max(abs(x1 - x0), abs(y1 - y0)) > TAP_SLOP:
            self._phone.swipe(x0, y0, x1, y1)
        elif self._clock - t0 >= HOLD_SECONDS:
            self._phone.hold(x1, y1)
        else:
            self._phone.tap(x1, y1)

    def send_key(self, keycode: np.int32, event_type: str) -> None:
        with self.lock:
            if event_type != "keyup":
                self._phone.key(KEYCODES.get(int(keycode), ""))

    def _get_screenshot_impl(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        with self.lock:
            scene = self._phone.scene()
            if self._frame is None or self._frame[0] != scene:
                self._frame = scene, np.asarray(draw(scene))
            return self._frame[1].copy()

    def save_state(self, request: state_pb2.SaveStateRequest) -> state_pb2.SaveStateResponse:
        with self.lock:
            self._saved[request.args.get("snapshot_name", "")] = self._phone.snapshot()
        return state_pb2.SaveStateResponse(status=state_pb2.SaveStateResponse.Status.OK)

    def load_state(self, request: state_pb2.LoadStateRequest) -> state_pb2.LoadStateResponse:
        name = request.args.get("snapshot_name", "")
        with self.lock:
            if name not in self._saved:
                status = state_pb2.LoadStateResponse.Status.NOT_FOUND
                return state_pb2.LoadStateResponse(status=status, error_message=f"no snapshot {name!r}")
            self._phone.restore(self._saved[name])
            self._touches = []
        return state_pb2.LoadStateResponse(status=state_pb2.LoadStateResponse.Status.OK)


class _Adb(adb_controller.AdbController):  # type: ignore[misc]  # android_env is untyped
    """Runs commands on the phone. The base class's constructor is skipped: it edits os.environ."""

    def __init__(self, simulator: PocketSimulator):
        self._simulator = simulator

    def execute_command(self, args: list[str], timeout: float | None = None, device_specific: bool = True) -> bytes:
        """`shell` words are joined by blanks into one line, as adb does. Commands not known here succeed silently."""
        with self._simulator.lock:
            phone = self._simulator.phone
            match args:
                case ["shell", *words]:
                    return execute(phone, " ".join(words))[1]
                case ["exec-out", *words]:
                    return execute(phone, " ".join(words))[1]
                case ["emu", *words]:
                    return emu(phone, words)[1].encode()
                case ["pull", remote, local]:
                    with _adb_fault():
                        Path(local).write_bytes(phone.state.files[remote])
                case ["push", local, remote]:
                    with _adb_fault():
                        folder = posixpath.dirname(remote)
                        if not phone.state.files.is_folder(folder):
                            phone.state.files.make_folder(folder)
                        phone.state.files.write(remote, Path(local).read_bytes(), phone.state.now)
            return b""


@contextmanager
def _adb_fault() -> Iterator[None]:
    try:
        yield
    except FileError as error:
        raise errors.AdbControllerError(f"adb: error: {error}") from None


class _Silence(log_stream.LogStream):  # type: ignore[misc]  # android_env is untyped
    """A log without lines. It waits until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped = threading.Event()

    def _get_stream_output(self) -> Iterator[str]:
        self._stopped.wait()
        yield from ()

    def stop_stream(self) -> None:
        self._stopped.set()


def build_env(simulator: base_simulator.BaseSimulator) -> AndroidEnv:
    """AndroidEnv around any simulator; android_env's own loader knows only two kinds. Silences absl, which logs each call."""
    logging.set_verbosity(logging.ERROR)
    manager = task_manager_lib.TaskManager(task_pb2.Task(id="open", name="open"))
    settings = device_settings_lib.DeviceSettings(simulator)
    coordinator = coordinator_lib.Coordinator(simulator, manager, settings, config_classes.CoordinatorConfig())
    return AndroidEnv(simulator=simulator, coordinator=coordinator, task_manager=manager)
