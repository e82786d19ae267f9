"""The attempts that a console shows: one lane, or two side by side on the same task and seed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.launch.agents import AgentSpec
from guiderail.launch.console.actors import Actor, build_actor
from guiderail.launch.console.attended import Again, Attended
from guiderail.launch.console.devices import POCKETS, DeviceSpec, open_place
from guiderail.launch.console.keep import Keeper
from guiderail.launch.console.standing import Options
from guiderail.launch.console.view import view

LANES = 2
NOBODY = "nobody"
"""The agent's name for an attempt by a person alone."""
LONGEST_GOAL = 2000


@dataclass(frozen=True)
class Offer:
    """What the page may choose from. agents: by the name shown. devices: names of --device that are shown; a name of the
    kinds in `free` may also be typed. Nothing else is opened: a name of a file would be run as code."""

    agents: Mapping[str, AgentSpec]
    devices: Sequence[str]
    temperature: float = 0.0
    apps: Path | None = None
    settle: float = 1.0
    free: Sequence[str] = (*POCKETS, "miniwob")

    def agent(self, name: object) -> AgentSpec | None:
        if name == NOBODY:
            return None
        if not isinstance(name, str) or name not in self.agents:
            raise SetupError(f"there is no agent {str(name)[:80]!r}; start the console with --model")
        return self.agents[name]

    def device(self, name: object, goal: object, seed: object) -> DeviceSpec:
        if not isinstance(name, str) or (name not in self.devices and name.partition(":")[0] not in self.free):
            raise SetupError(f"the device {str(name)[:80]!r} is not offered; start the console with --device")
        if not isinstance(goal, str) or len(goal) > LONGEST_GOAL:
            raise SetupError(f"a goal is a text of at most {LONGEST_GOAL} characters")
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            raise SetupError(f"the seed {str(seed)[:20]!r} is not a whole number of at least 0")
        return DeviceSpec(name, goal.strip(), seed, self.apps, self.settle)


@dataclass
class Lane:
    """One attempt and where it is kept. asked: what the page asked for. number: counts the attempts of this process."""

    attempt: Attended
    asked: Mapping[str, Any]
    keeper: Keeper | None = None
    number: int = field(default_factory=count().__next__)
    kept: str = ""
    problem: str = ""


class Lanes:
    """offer: what may be chosen. out: where finished attempts are kept, each in a folder of its own; None keeps none. Methods
    may be called from any thread and wait neither for devices and agents nor for the disk, except `close`."""

    def __init__(self, offer: Offer, options: Options | None = None, out: Path | None = None):
        self.offer, self.options, self.out = offer, options or Options(likely=16), out
        self.lanes: list[Lane | None] = [None] * LANES
        self._listeners: set[Callable[[], object]] = set()
        self._actors: dict[tuple[AgentSpec, int], Actor] = {}
        self._loading = threading.Lock()
        self._changing = threading.Lock()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="keep")

    def start(
        self, number: int, agent: object, device: object, goal: object, seed: object, again: Again | None = None
    ) -> None:
        """Begin a new attempt in this lane; the one before gives its device back. Raises SetupError."""
        who, spec = self.offer.agent(agent), self.offer.device(device, goal, seed)
        load = None if who is None else partial(self._actor, who, spec.seed)
        with self._changing:
            self._leave(number)
            changed = partial(self._changed, number)
            attempt = Attended(partial(open_place, spec), load, self.options, changed, again)
            self.lanes[number] = Lane(attempt, {"agent": agent, "device": device, "goal": goal, "seed": seed})
        self.tell()

    def leave(self, number: int) -> None:
        """Close the lane's attempt."""
        with self._changing:
            self._leave(number)
        self.tell()

    def _leave(self, number: int) -> None:
        lane, self.lanes[number] = self.lanes[number], None
        if lane is not None:
            lane.attempt.close()
            self._disk.submit(self._keep, lane, True)

    def attempt(self, number: int) -> Attended | None:
        """What is under way in a lane."""
        lane = self.lanes[number]
        return None if lane is None else lane.attempt

    def close(self, seconds: float = 5.0) -> None:
        """Give all devices back; those that hang are left behind."""
        left = [lane.attempt for lane in self.lanes if lane is not None]
        for number in range(LANES):
            self.leave(number)
        until = time.monotonic() + seconds
        for attempt in left:
            attempt.join(max(0.1, until - time.monotonic()))
        self._disk.shutdown()

    def view(self) -> list[dict[str, Any] | None]:
        """One row per lane: `view.view` with what was asked for and where it is kept."""
        lanes = list(self.lanes)
        return [
            None
            if lane is None
            else view(lane.attempt)
            | {"number": lane.number, "asked": lane.asked, "kept": lane.kept, "problem": lane.problem}
            for lane in lanes
        ]

    def image(self, digest: str) -> bytes | None:
        """The PNG of a screen that a lane shows."""
        for lane in list(self.lanes):
            if lane is not None:
                attempt = lane.attempt
                with attempt.lock:
                    shots = [attempt.screen, *(turn.screen.screenshot for turn in reversed(attempt.turns))]
                for shot in shots:
                    if shot is not None and shot.digest == digest:
                        return shot.encoded()
        return None

    def listen(self, call: Callable[[], object]) -> Callable[[], None]:
        """`call` after every change, from any thread. Returns what ends that."""
        self._listeners.add(call)
        return lambda: self._listeners.discard(call)

    def tell(self) -> None:
        for call in tuple(self._listeners):
            call()

    def _changed(self, number: int) -> None:
        """May be called with the attempt's lock held, so the disk has a thread of its own."""
        lane = self.lanes[number]
        if lane is not None and lane.attempt.phase == "over":
            self._disk.submit(self._keep, lane)
        self.tell()

    def _keep(self, lane: Lane, last: bool = False) -> None:
        if self.out is None:
            return
        if lane.keeper is None:
            lane.keeper = Keeper(self.out / _name(lane))
        try:
            lane.kept = str(lane.keeper.folder) if lane.keeper.keep(lane.attempt) else ""
        except (SetupError, OSError) as error:
            lane.problem = f"not kept: {error}"
        if last:
            lane.keeper.close()
        self.tell()

    def _actor(self, spec: AgentSpec, seed: int) -> Actor:
        """Loaded once; attempts share its weights and, through its lock, take turns."""
        with self._loading:
            known = next((actor for (one, _), actor in self._actors.items() if one == spec), None)
            key = (spec, seed)
            if key not in self._actors:
                made = replace(known, seed=seed) if known else build_actor(spec, self.offer.temperature, seed)
                self._actors[key] = made
            return self._actors[key]


def _name(lane: Lane) -> str:
    agent = "".join(c if c.isalnum() else "-" for c in str(lane.asked["agent"]))[-30:].strip("-")
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06d}-{agent}"
