"""Live worlds as Gymnasium environments, for people who want nothing else of this project.

    import gymnasium
    import envs.gym                                             # registers the names
    env = gymnasium.make("guiderail/Pocket-v0", tasks=20)       # or "guiderail/MiniWoB-v0", suite="click-test-2"
    observation, info = env.reset(seed=3)                       # {"goal": text, "pixels": uint8 (height, width, 3)}
    observation, reward, terminated, truncated, info = env.step(to_dict(Click(Point(0.5, 0.5))))

`gymnasium.make("envs.gym:guiderail/Pocket-v0")` imports and makes at once. The reward is 1.0 at the end of an
episode whose task was done, else 0.0. An episode is truncated when its steps are used up, or when the machine failed:
info["crashed"] then says why, and the reward says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from agent.errors import EnvCrashed
from agent.types import (
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
from envs.attempts import LiveTask, SelfEnding, World
from envs.device import Device

TEXT = "".join(map(chr, range(32, 127)))
LONGEST_TEXT = 256
LONGEST_PAUSE = 1.0

Dictionary = dict[str, Any]


def action_space() -> spaces.Dict:
    """kind: index into agent.types.ACTION_NAMES; the other entries count for the kinds that have them. point, end:
    screen fractions. button: index into BUTTONS. failed: of "terminate"."""
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


class LiveEnv(gymnasium.Env[Dictionary, Dictionary]):  # type: ignore[misc]
    """Any World. size: of its screenshots, (width, height) pixels. reset(seed=n) begins task n of the world's list (modulo
    its length), reset() the next one; options={"task": name} a certain one."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 (gymnasium's own attribute)

    def __init__(self, world: World, size: tuple[int, int], render_mode: str | None = None):
        self.render_mode = render_mode
        self.action_space = action_space()
        self.observation_space = spaces.Dict(
            {
                "goal": spaces.Text(4096, min_length=0, charset=_Anything()),
                "pixels": spaces.Box(0, 255, (size[1], size[0], 3), np.uint8),
            }
        )
        self._names = [name for name, _ in world.listed()]
        self._site = world.open(0)
        self._next = 0
        self._task: LiveTask | None = None
        self._device: Device | None = None
        self._steps = 0
        self._pixels = np.zeros((size[1], size[0], 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        """Raises EnvCrashed when the machine does not start."""
        super().reset(seed=seed)
        if self._task is not None:
            self._task.close()
        self._next = self._next if seed is None else seed
        name = (options or {}).get("task", self._names[self._next % len(self._names)])
        self._next += 1
        self._task, self._steps = self._site.task(name), 0
        self._device = self._task.start()
        return self._seen(self._device.screenshot()), {"task": name}

    def step(self, action: Dictionary) -> tuple[Dictionary, float, bool, bool, dict[str, Any]]:
        if self._task is None or self._device is None:
            raise RuntimeError("reset() comes first")
        info: dict[str, Any] = {"task": self._task.id}
        done = to_action(action)
        self._steps += 1
        try:
            self._device.act(done)
            ended = isinstance(done, Terminate) or (isinstance(self._task, SelfEnding) and self._task.over())
            claimed = not (isinstance(done, Terminate) and done.status == "failure")
            success = ended and claimed and self._task.success()
            seen = self._seen(self._device.screenshot())
        except EnvCrashed as crash:
            return self._seen(None), 0.0, False, True, info | {"crashed": str(crash)}
        return seen, float(success), ended, not ended and self._steps >= self._task.max_steps, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        return self._pixels.copy() if self.render_mode == "rgb_array" else None

    def _seen(self, shot: Screenshot | None) -> Dictionary:
        if shot is not None:
            self._pixels = np.asarray(shot.image(), np.uint8)
        return {"goal": self._task.goal if self._task else "", "pixels": self._pixels}

    def close(self) -> None:
        if self._task is not None:
            self._task.close()
        self._site.close()


class _Anything(frozenset[str]):
    """A character set that holds every character: goals are human text."""

    def __new__(cls) -> _Anything:
        return super().__new__(cls, TEXT)

    def __contains__(self, character: object) -> bool:
        return True


def pocket(
    tasks: int = 100,
    seed: int = 0,
    split: str = "train",
    style: str = "easy",
    size: tuple[int, int] = (160, 288),
    render_mode: str | None = None,
) -> LiveEnv:
    """Pocket tasks drawn from `seed`."""
    from envs.pocket.live import PocketTasks

    return LiveEnv(PocketTasks(tasks, seed, split, style, size), size, render_mode)


def miniwob(
    suite: str = "smoke", seeds: int = 100, scale: int = 2, max_steps: int = 30, render_mode: str | None = None
) -> LiveEnv:
    """Pages of MiniWoB++ in headless Chromium."""
    from envs.miniwob.page import HEIGHT, WIDTH
    from envs.miniwob.tasks import WebTasks

    return LiveEnv(WebTasks(suite, seeds, 0, scale, max_steps), (scale * WIDTH, scale * HEIGHT), render_mode)


for _name, _entry in (("guiderail/Pocket-v0", "envs.gym:pocket"), ("guiderail/MiniWoB-v0", "envs.gym:miniwob")):
    if _name not in gymnasium.registry:
        gymnasium.register(_name, entry_point=_entry)
