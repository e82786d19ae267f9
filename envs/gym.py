"""Live worlds as Gymnasium environments, usable without the rest of this project.

    import gymnasium
    import guiderail.envs.gym                                             # registers the names
    env = gymnasium.make("guiderail/Pocket-v0", tasks=20)       # or "guiderail/MiniWoB-v0", suite="click-test-2"
    observation, info = env.reset(seed=3)                       # {"goal": uint8 (4096,), "pixels": uint8 (height, width, 3)}
    goal_text(observation["goal"])                              # or info["goal"]
    observation, reward, terminated, truncated, info = env.step(to_dict(Click(Point(0.5, 0.5))))

`gymnasium.make("guiderail.envs.gym:guiderail/Pocket-v0")` imports and makes at once. The reward is 1.0 at the end of an
episode whose task was done, else 0.0. An episode is truncated when its steps are used up, or when the machine failed.
info["crashed"] then says why, and the reward means nothing. A goal is observed as bytes, because Gymnasium's vector
environments lose texts: AsyncVectorEnv with shared memory, its default, makes blanks of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import (
    ACTION_NAMES,
    BUTTONS,
    Action,
    Answer,
    Click,
    Key,
    LongPress,
    Open,
    Point,
    Screenshot,
    Swipe,
    SystemButton,
    Terminate,
    Type,
    Wait,
)
from guiderail.envs.live.attempts import LiveTask, World, perform
from guiderail.envs.live.device import Device

TEXT = "".join(map(chr, range(32, 127)))
LONGEST_TEXT = 256
LONGEST_PAUSE = 1.0
LONGEST_GOAL = 4096
"""Bytes of UTF-8; a longer goal is cut in the observation, not in `info`."""

Dictionary = dict[str, Any]


def action_space() -> spaces.Dict:
    """kind: index into agent.types.ACTION_NAMES; each kind reads only the entries it has. point, end: screen fractions.
    button: index into agent.types.BUTTONS. failed: the status of "terminate"."""
    return spaces.Dict(
        {
            "kind": spaces.Discrete(len(ACTION_NAMES)),
            "point": spaces.Box(0.0, 1.0, (2,), np.float32),
            "end": spaces.Box(0.0, 1.0, (2,), np.float32),
            "text": spaces.Text(LONGEST_TEXT, min_length=0, charset=TEXT),
            "button": spaces.Discrete(len(BUTTONS)),
            "seconds": spaces.Box(0.0, LONGEST_PAUSE, (1,), np.float32),
            "failed": spaces.Discrete(2),
        }
    )


def to_action(given: Mapping[str, Any]) -> Action:
    """An element of `action_space` as an action."""
    point = Point(*map(float, given["point"]))
    text, seconds = str(given["text"]), float(given["seconds"][0])
    makers: dict[str, Callable[[], Action]] = {
        "click": lambda: Click(point),
        "long_press": lambda: LongPress(point, seconds),
        "swipe": lambda: Swipe(point, Point(*map(float, given["end"]))),
        "type": lambda: Type(text),
        "system_button": lambda: SystemButton(BUTTONS[int(given["button"])]),
        "open": lambda: Open(text),
        "wait": lambda: Wait(seconds),
        "answer": lambda: Answer(text),
        "key": lambda: Key(text),
        "terminate": lambda: Terminate("failure" if given["failed"] else "success"),
    }
    return makers[ACTION_NAMES[int(given["kind"])]]()


def to_dict(action: Action) -> Dictionary:
    """The inverse of `to_action`, at float32's precision."""
    made: Dictionary = {
        "kind": ACTION_NAMES.index(action.name),
        "point": np.zeros(2, np.float32),
        "end": np.zeros(2, np.float32),
        "text": "",
        "button": 0,
        "seconds": np.zeros(1, np.float32),
        "failed": 0,
    }
    match action:
        case Click(point):
            made["point"] = _array(point)
        case LongPress(point, seconds):
            made |= {"point": _array(point), "seconds": np.array([seconds], np.float32)}
        case Swipe(start, end):
            made |= {"point": _array(start), "end": _array(end)}
        case Type(text) | Open(text) | Answer(text) | Key(text):
            made["text"] = text
        case SystemButton(button):
            made["button"] = BUTTONS.index(button)
        case Wait(seconds):
            made["seconds"] = np.array([seconds], np.float32)
        case Terminate(status):
            made["failed"] = int(status == "failure")
    return made


def _array(point: Point) -> npt.NDArray[np.float32]:
    return np.array([point.x, point.y], np.float32)


def goal_bytes(goal: str) -> npt.NDArray[np.uint8]:
    """uint8 (LONGEST_GOAL,): the goal in UTF-8, then zeros."""
    data = goal.encode("utf-8", "replace")[:LONGEST_GOAL]
    return np.frombuffer(data.ljust(LONGEST_GOAL, b"\0"), np.uint8)


def goal_text(data: npt.NDArray[np.uint8]) -> str:
    """The inverse of `goal_bytes`."""
    return data.tobytes().rstrip(b"\0").decode("utf-8", "ignore")


class LiveEnv(gymnasium.Env[Dictionary, Dictionary]):  # type: ignore[misc]
    """Any World. size: of its screenshots, (width, height) pixels. reset(seed=n) begins task n of the world's list
    (modulo its length), reset() the next one, reset(options={"task": name}) the named one."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 (gymnasium's own attribute)

    def __init__(self, world: World, size: tuple[int, int], render_mode: str | None = None):
        self.render_mode = render_mode
        self.action_space = action_space()
        self.observation_space = spaces.Dict(
            {
                "goal": spaces.Box(0, 255, (LONGEST_GOAL,), np.uint8),
                "pixels": spaces.Box(0, 255, (size[1], size[0], 3), np.uint8),
            }
        )
        self._names = [name for name, _ in world.listed()]
        self._session = world.open(0)
        self._next = 0
        self._task: LiveTask | None = None
        self._device: Device | None = None
        self._steps = 0
        self._pixels = np.zeros((size[1], size[0], 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        """info: "task", its name, and "goal", as text. Raises EnvCrashed when the machine does not start."""
        super().reset(seed=seed)
        if self._task is not None:
            self._task.close()
        self._next = self._next if seed is None else seed
        name = (options or {}).get("task", self._names[self._next % len(self._names)])
        self._next += 1
        self._task, self._steps, self._device = self._session.task(name), 0, None
        self._device = self._task.start()
        return self._seen(self._device.screenshot()), {"task": name, "goal": self._task.goal}

    def step(self, action: Dictionary) -> tuple[Dictionary, float, bool, bool, dict[str, Any]]:
        """Raises gymnasium.error.ResetNeeded before the first reset and after the end of an episode."""
        if self._task is None or self._device is None:
            raise gymnasium.error.ResetNeeded("the episode is over, or none has begun; call reset()")
        info: dict[str, Any] = {"task": self._task.id, "goal": self._task.goal}
        self._steps += 1
        try:
            end = perform(self._task, self._device, to_action(action))
            seen = self._seen(self._device.screenshot())
        except EnvCrashed as crash:
            self._device = None
            return self._seen(None), 0.0, False, True, info | {"crashed": str(crash)}
        truncated = end is None and self._steps >= self._task.max_steps
        if end is not None or truncated:
            self._device = None
        return seen, float(end is not None and end[1].success), end is not None, truncated, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        return self._pixels.copy() if self.render_mode == "rgb_array" else None

    def _seen(self, shot: Screenshot | None) -> Dictionary:
        if shot is not None:
            self._pixels = np.asarray(shot.image(), np.uint8)
        return {"goal": goal_bytes(self._task.goal if self._task else ""), "pixels": self._pixels}

    def close(self) -> None:
        if self._task is not None:
            self._task.close()
        self._session.close()


def pocket(
    tasks: int = 100,
    seed: int = 0,
    split: str = "train",
    style: str = "easy",
    size: tuple[int, int] | None = None,
    render_mode: str | None = None,
) -> LiveEnv:
    """Pocket tasks drawn from `seed`. style: "easy", "free" or "phone". size: None for the style's own."""
    from guiderail.envs.pocket.state import size_of_style
    from guiderail.envs.pocket.world import PocketTasks

    screen = size or size_of_style(style)
    return LiveEnv(PocketTasks(tasks, seed, split, style, screen), screen, render_mode)


def miniwob(
    suite: str = "smoke", seeds: int = 100, scale: int = 2, max_steps: int = 30, render_mode: str | None = None
) -> LiveEnv:
    """Pages of MiniWoB++ in headless Chromium."""
    from guiderail.envs.miniwob.page import HEIGHT, WIDTH
    from guiderail.envs.miniwob.tasks import WebTasks

    return LiveEnv(WebTasks(suite, seeds, 0, scale, max_steps), (scale * WIDTH, scale * HEIGHT), render_mode)


def mobilegym(
    checkout: str | None = None,
    split: str = "train",
    seeds: int = 1,
    seed: int = 0,
    language: Literal["zh", "en"] = "zh",
    scale: int = 1,
    render_mode: str | None = None,
) -> LiveEnv:
    """Tasks of MobileGym, from a checkout of the user (None: the one that GUIDERAIL_MOBILEGYM names)."""
    from guiderail.envs.mobilegym import terms
    from guiderail.envs.mobilegym.checkout import Checkout
    from guiderail.envs.mobilegym.page import HEIGHT, WIDTH
    from guiderail.envs.mobilegym.tasks import MobileGym

    terms.require()
    folder = str(Checkout.at(checkout).folder)
    world = MobileGym(folder, split, seeds=seeds, seed=seed, language=language, scale=scale)
    return LiveEnv(world, (scale * WIDTH, scale * HEIGHT), render_mode)


for _name, _entry in (
    ("guiderail/Pocket-v0", "guiderail.envs.gym:pocket"),
    ("guiderail/MiniWoB-v0", "guiderail.envs.gym:miniwob"),
    ("guiderail/MobileGym-v0", "guiderail.envs.gym:mobilegym"),
):
    if _name not in gymnasium.registry:
        gymnasium.register(_name, entry_point=_entry)
