"""AndroidWorld in its own Python, operated through one socket. Run by that Python as a script; nothing of ours installs there.

The head of this file needs the standard library alone, so both sides import it. A message is a head (two lengths, 4 bytes
each, big-endian), a JSON object, and bytes (pixels). Each request is answered once:

    {"op": NAME, ...}  ->  {...}, {"error": TEXT} when something failed, {"refused": TEXT} when the user has to act

On a pocket phone the phone's simulator runs here, under AndroidWorld's code: `guiderail` is then loaded from its own folder
with this Python's numpy, Pillow and android_env. Nothing is added to sys.path.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import json
import os
import shlex
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LIMIT = 64 * 2**20
"""Most bytes of a message."""
ADB_SECONDS = 90.0
SCRATCH = "android-world-"
"""How the folder for temporary files begins that each such process has of its own."""
POINTER_LINES = ("show_touches", "pointer_location")
_HEAD = struct.Struct(">II")

Message = dict[str, Any]


def send(wire: socket.socket, message: Message, blob: bytes = b"") -> None:
    """Raises ValueError for a message over LIMIT, OSError when the other side is gone."""
    text = json.dumps(message).encode()
    if len(text) + len(blob) > LIMIT:
        raise ValueError(f"a message of {len(text) + len(blob)} bytes; at most {LIMIT} are sent")
    wire.sendall(_HEAD.pack(len(text), len(blob)) + text + blob)


def receive(wire: socket.socket, deadline: float | None = None) -> tuple[Message, bytes]:
    """deadline: of `time.monotonic`, for the whole message. Raises TimeoutError, EOFError, ValueError and OSError."""
    text, blob = _HEAD.unpack(_exactly(wire, _HEAD.size, deadline))
    if text + blob > LIMIT:
        raise ValueError(f"a message of {text + blob} bytes; at most {LIMIT} are read")
    message = json.loads(_exactly(wire, text, deadline))
    if not isinstance(message, dict):
        raise ValueError("a message that is not a JSON object")
    return message, _exactly(wire, blob, deadline)


def _exactly(wire: socket.socket, size: int, deadline: float | None) -> bytes:
    got = bytearray()
    while len(got) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            wire.settimeout(left)
        piece = wire.recv(min(size - len(got), 2**20))
        if not piece:
            raise EOFError
        got += piece
    return bytes(got)


# ------------------------------------------------------------------------------------------------- AndroidWorld's process


class Refused(Exception):
    """The user has to act."""


def module(name: str) -> Any:
    """android_world.NAME."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"android_world.{name}")


class AndroidWorld:
    """Its suite, its environment, and the task in progress. Every public method is an operation."""

    def __init__(self) -> None:
        self._suite: dict[str, Any] = {}
        self._env: Any = None
        self._task: Any = None
        self._hidden: Any = None
        """The android_env for which pointer lines were last switched off; AndroidWorld may replace it in the middle of a task."""

    def suite(self, names: list[str] | None, seed: int, combinations: int, family: str) -> Message:
        """names None: all of the family. Equal seeds give equal parameters. Answers with NAME_INSTANCE of each task."""
        registry = module("registry").TaskRegistry().get_registry(family)
        unknown = sorted(set(names or ()) - set(registry))
        if unknown:
            known = ", ".join(sorted(registry))
            raise Refused(f"AndroidWorld has no task {unknown[0]!r} in {family}; choose from: {known}")
        made = module("suite_utils").create_suite(registry, n_task_combinations=combinations, seed=seed, tasks=names)
        made.suite_family = family
        self._suite = {f"{name}_{k}": one for name, instances in made.items() for k, one in enumerate(instances)}
        return {"tasks": [*self._suite]}

    def open(self, pocket: str | None = None, **emulator: Any) -> Message:
        """pocket: folder of the package `guiderail`. emulator: keywords of AndroidWorld's own `load_and_setup_env`."""
        self.close()
        self._env = pocket_env(Path(pocket)) if pocket else module("env.env_launcher").load_and_setup_env(**emulator)
        return {}

    def start(self, task: str) -> Message:
        self._task = copy.deepcopy(self._suite[task])  # a start changes it, and some parts refuse a second one
        self._task.initialize_task(self._env)
        self._env.reset(go_home=self._task.start_on_home_screen)
        self._hide()
        steps = module("suite_utils")._allocate_step_budget(self._task.complexity)
        return {"goal": str(self._task.goal), "max_steps": int(steps), "params": plain(self._task.params)}

    def pixels(self, settle: float | None) -> tuple[Message, bytes]:
        """uint8 RGB, (height, width, 3). settle: seconds before; None waits until the elements stay the same."""
        if self._hidden is not self._env.controller.env:
            self._hide()
        if settle:
            self.shell(["sleep", str(settle)])
        seen = self._env.get_state(settle is None).pixels
        return {"width": seen.shape[1], "height": seen.shape[0]}, seen.tobytes()

    def nodes(self) -> Message:
        """What AndroidWorld's own accessibility reports, with the attributes of a `uiautomator dump`."""
        return {"nodes": [_node(one) for one in self._env.get_state(False).ui_elements if one.bbox_pixels]}

    def shell(self, args: list[str]) -> Message:
        adb = module("env.adb_utils")
        said = adb.issue_generic_request(["shell", shlex.join(args)], self._env.controller, ADB_SECONDS)
        adb.check_ok(said, f"adb shell {args[0]}")
        return {"output": said.generic.output.decode("utf-8", "replace")}

    def activity(self, app: str) -> Message:
        """From AndroidWorld's own table. Its launch_app would hand unknown names to the device's shell."""
        return {"activity": module("env.adb_utils").get_adb_activity(app)}

    def answer(self, text: str) -> Message:
        self._env.interaction_cache = text
        return {}

    def check(self) -> Message:
        return {"score": float(self._task.is_successful(self._env))}

    def stop(self) -> Message:
        if self._task is not None:
            self._task.tear_down(self._env)
        self._task = None
        _sweep()
        return {}

    def close(self) -> Message:
        if self._env is not None:
            self._env.close()
        self._env = self._task = self._hidden = None
        return {}

    def _hide(self) -> None:
        """android_env draws lines where a finger is whenever it resets; AndroidWorld's own agents switch them off too."""
        for name in POINTER_LINES:
            self.shell(["settings", "put", "system", name, "0"])
        self._hidden = self._env.controller.env


def plain(value: Any) -> Any:
    """What of a task's parameters JSON can say: rows of databases as objects, without pictures and the like."""
    if dataclasses.is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items() if _sayable(one)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value if _sayable(one)]
    return value if isinstance(value, str | int | float) else None


def _sayable(value: Any) -> bool:
    return isinstance(value, str | int | float | list | tuple | Mapping) or dataclasses.is_dataclass(value)


def _node(element: Any) -> dict[str, str]:
    box = element.bbox_pixels
    flags = {"clickable": element.is_clickable, "checkable": element.is_checkable}
    flags |= {"checked": element.is_checked, "focused": element.is_focused}
    return {
        "text": element.text or "",
        "content-desc": element.content_description or "",
        "class": element.class_name or "",
        "bounds": f"[{box.x_min},{box.y_min}][{box.x_max},{box.y_max}]",
        **{name: "true" if value else "false" for name, value in flags.items()},
    }


def pocket_env(package: Path) -> Any:
    """`pocket.pocket_env`, with the package `guiderail` loaded from its folder."""
    if "guiderail" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "guiderail", package / "__init__.py", submodule_search_locations=[str(package)]
        )
        if spec is None or spec.loader is None:
            raise Refused(f"no package guiderail in {package}")
        sys.modules["guiderail"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["guiderail"])
    return importlib.import_module("guiderail.envs.android_world.pocket").pocket_env(module)


def serve(wire: socket.socket) -> None:
    """Answer requests until the other side closes the socket."""
    world = AndroidWorld()
    while True:
        try:
            request, _ = receive(wire)
        except (EOFError, OSError):
            return
        send(wire, *_answer(getattr(world, request.pop("op")), request))


def _answer(operation: Callable[..., Message | tuple[Message, bytes]], given: Message) -> tuple[Message, bytes]:
    """Whatever AndroidWorld raises is passed on as text: its own runner goes on after such errors too."""
    try:
        made = operation(**given)
    except (Refused, ImportError) as error:
        return {"refused": str(error)}, b""
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}, b""
    return made if isinstance(made, tuple) else (made, b"")


def _sweep(and_folder: bool = False) -> None:
    """Delete the files that AndroidWorld made for the phone, and perhaps their folder, which is this process's own."""
    folder = Path(tempfile.gettempdir())
    if folder.name.startswith(SCRATCH):
        for one in folder.iterdir():
            shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink(missing_ok=True)
        if and_folder:
            folder.rmdir()


def _end_with(parent: int) -> None:
    """End when the process that started this one does, also in the middle of an operation, with its temporary files."""
    while os.getppid() == parent:
        time.sleep(1.0)
    _sweep(and_folder=True)
    os._exit(1)


def main() -> None:
    """worker.py FD PARENT: serve the socket with this file descriptor, for the process PARENT."""
    wire = socket.socket(fileno=int(sys.argv[1]))
    wire.set_inheritable(False)
    threading.Thread(target=_end_with, args=(int(sys.argv[2]),), daemon=True).start()
    serve(wire)
    os._exit(0)  # android_env's threads must not keep the process


if __name__ == "__main__":
    main()
