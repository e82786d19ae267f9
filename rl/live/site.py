"""A site in a process of its own, for training: an open world that makes the attempts it is ordered, and asks the trainer's policy
through a pipe."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue, Window
from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.screen import Vision
from guiderail.agent.types import Completion, Prompt
from guiderail.envs.live.attempts import Patience, World
from guiderail.envs.recordings.match import ALL_RULES
from guiderail.rl.live.wire import Wire
from guiderail.rl.rollout.drive import Asking
from guiderail.rl.rollout.live import Site


@dataclass(frozen=True)
class SiteSpec:
    """A site as a value that pickles. dialect: by name, since dialects hold functions; vision, images, window: see `Dialogue`.
    rules: name of those by which turns are judged; None: they are not. shown: see `Site`."""

    world: World
    dialect: str
    vision: Vision
    images: int = 2
    window: Window = "sliding"
    patience: Patience = field(default_factory=Patience)
    retries: int = 2
    rules: str | None = None
    shown: bool = False

    def open(self, worker: int) -> Site:
        rules = None if self.rules is None else ALL_RULES.find(self.rules)
        dialogue = Dialogue(self.vision, DIALECTS.find(self.dialect), self.images, self.window)
        return Site(self.world.open(worker), dialogue, self.patience, self.retries, rules, self.shown)


def _listen(wire: Wire, told: queue.SimpleQueue[Any]) -> None:
    """Take what comes at once. The supervisor sends while this process does: if neither read, both could wait for ever."""
    try:
        while True:
            told.put(wire.receive())
    except Exception as error:
        told.put(error)


def serve(connection: Connection, spec: SiteSpec, number: int) -> None:
    """The main function of a worker process. It ends when the pipe is closed."""
    with suppress(PermissionError):  # it leads its group already
        os.setsid()
    wire = Wire(connection)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    site: Site | None = None
    walks: dict[int, Asking[Any]] = {}

    def step(number: int, go: Callable[[Asking[Any]], Prompt]) -> None:
        try:
            wire.send(("asks", number, go(walks[number])))
        except StopIteration as stop:
            del walks[number]
            wire.send(("done", number, stop.value), last=True)

    try:
        site = spec.open(number)
        wire.send(("open",))
        threading.Thread(target=_listen, args=(wire, told), daemon=True).start()
        while True:
            match told.get():
                case Exception() as error:
                    raise error
                case ("begin", int(key), order):
                    walks[key] = site.begin(order)
                    step(key, next)
                case ("said", int(key), Completion() as said):
                    step(key, lambda walk, said=said: walk.send(said))  # type: ignore[misc]
                case ("fault", int(key), str(reason)):
                    step(key, lambda walk, reason=reason: walk.throw(EnvCrashed(reason)))  # type: ignore[misc]
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except SetupError as error:
        with suppress(OSError):
            wire.send(("setup", str(error)))
    except Exception as error:  # the world's own; the supervisor starts another worker
        with suppress(OSError):
            wire.send(("died", f"{type(error).__name__}: {error}"))
    finally:
        for walk in walks.values():
            walk.close()
        if site is not None:
            site.session.close()
