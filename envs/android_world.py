"""AndroidWorld with its own registry, suite, seeds, step budgets and success checks; only the agent is ours.

    env = pocket_env()                                    # or emulator_env(lease)
    agent = make_agent(env, policy, dialogue)
    run_suite(make_suite(("SystemWifiTurnOn",)), agent, Path("runs/aw"))         # its runner, results as JSONL

Actions go through adb as `envs.adb` writes them, not through AndroidWorld's JSONAction: that one has no two-point swipe and
no press time, mirrors horizontal swipes, presses Enter after every text and hands app names to a shell.
`envs.android_world_live` has the same tasks for our own runner: parallel, resumable. The package is not on PyPI; it is
imported when first needed.
"""

from __future__ import annotations

import importlib
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agent.dialogue import Dialogue
from agent.errors import EnvCrashed, GuiderailError, SetupError, UnreadableAction
from agent.policy import GREEDY, Policy, Request, Sampling
from agent.types import Action, Answer, Completion, Open, Screenshot, Terminate, clean_turn
from envs.adb import DUMP, adb_commands, read_window
from envs.android_world_results import episode_json, read_episodes, write_episode
from envs.device import Element, encode_png
from envs.emulator import Lease

INSTALL = (
    "git clone https://github.com/google-research/android_world && cd android_world "
    "&& pip install -r requirements.txt && python setup.py install"
)
ADB_SECONDS = 90.0


def module(name: str) -> Any:
    """android_world.NAME. Raises SetupError when the package is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"android_world.{name}")
    except ImportError as error:
        raise SetupError(f"AndroidWorld cannot be imported ({error}); run: {INSTALL}") from None


# ------------------------------------------------------------------------------------------------------------- the device


class WorldDevice:
    """AndroidWorld's AsyncEnv as a Device.

    pause: seconds before each look; None waits until the elements stay the same, as AndroidWorld's own agents do.
    """

    def __init__(self, env: Any, pause: float | None = None, unicode_keyboard: bool = False):
        self.env, self._pause, self._unicode = env, pause, unicode_keyboard
        self._adb = module("env.adb_utils")
        self._answers: list[str] = []
        self._size = (1, 1)

    def screenshot(self) -> Screenshot:
        with machine("looking"):
            if self._pause:
                self.shell(["sleep", str(self._pause)])
            pixels: np.ndarray[Any, np.dtype[np.uint8]] = self.env.get_state(self._pause is None).pixels
        self._size = (pixels.shape[1], pixels.shape[0])
        return encode_png(Image.fromarray(pixels, "RGB"))

    def act(self, action: Action) -> None:
        if isinstance(action, Answer):
            self._answers.append(action.text)
            self.env.interaction_cache = action.text
        apps: Mapping[str, str] = {}
        if isinstance(action, Open):
            # AndroidWorld's own table; its launch_app would hand unknown names to the device's shell
            activity = self._adb.get_adb_activity(action.text)
            apps = {" ".join(action.text.split()).casefold(): activity} if activity else {}
        for command in adb_commands(action, self._size, apps, self._unicode):
            self.shell(command)

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self._answers)

    def shell(self, args: list[str]) -> str:
        with machine(f"adb shell {args[0]}"):
            said = self._adb.issue_generic_request(["shell", shlex.join(args)], self.env.controller, ADB_SECONDS)
            self._adb.check_ok(said, f"adb shell {args[0]}")
        return str(said.generic.output.decode("utf-8", "replace"))

    def elements(self) -> list[Element]:
        self.shell(["uiautomator", "dump", DUMP])
        return read_window(self.shell(["cat", DUMP]), *self._size)

    def snapshot(self) -> object:
        raise EnvCrashed("AndroidWorld sets its tasks up itself; there are no snapshots")

    def restore(self, token: object) -> None:
        raise TypeError("this token was not made by this device")

    def close(self) -> None:
        """The environment belongs to whoever made it."""


@contextmanager
def machine(doing: str) -> Iterator[None]:
    """Whatever AndroidWorld raises while it sets up, acts or checks is the machine's fault, as in its own runner."""
    try:
        yield
    except GuiderailError:
        raise
    except Exception as error:
        raise EnvCrashed(f"{doing}: {type(error).__name__}: {str(error)[:300]}") from error


# -------------------------------------------------------------------------------------------------------- its own runner


def make_agent(
    env: Any,
    policy: Policy,
    dialogue: Dialogue,
    *,
    name: str = "guiderail",
    sampling: Sampling = GREEDY,
    seed: int = 0,
    pause: float | None = None,
) -> Any:
    """A policy as AndroidWorld's EnvironmentInteractingAgent, with its own words as history.

    A step's data is plain JSON. As in AndroidWorld's own agents every terminate ends the episode, and the state decides.
    """
    base = module("agents.base_agent")

    class Agent(base.EnvironmentInteractingAgent):  # type: ignore[misc,name-defined]  # imported at run time
        def __init__(self) -> None:
            super().__init__(env, name, pause)
            self._begin()

        def _begin(self) -> None:
            self._device = WorldDevice(env, pause)
            self._shots: list[Screenshot] = []
            self._texts: list[str] = []

        def reset(self, go_home: bool = False) -> None:
            super().reset(go_home)
            self._begin()

        def step(self, goal: str) -> Any:
            self._shots.append(self._device.screenshot())
            prompt = dialogue.prompt(goal, self._shots, self._texts)
            (completion,) = policy.complete([Request(prompt, seed + len(self._texts))], sampling)
            self._texts.append(clean_turn(completion.text))
            action, note = _read(completion, dialogue, prompt.screen)
            if action is not None:
                self._device.act(action)
            data = {"text": completion.text, "note": note, "screenshot": self._shots[-1].digest}
            return base.AgentInteractionResult(isinstance(action, Terminate), data)

    return Agent()


def _read(completion: Completion, dialogue: Dialogue, picture: Any) -> tuple[Action | None, str]:
    try:
        return dialogue.read(completion, picture).action, ""
    except UnreadableAction as error:
        return None, str(error)


def make_suite(
    names: Sequence[str] | None = None, *, seed: int = 30, combinations: int = 1, family: str = "android_world"
) -> Any:
    """AndroidWorld's Suite: {task name: [instances]}. names None: all of the family. Equal seeds, equal parameters."""
    utils = module("suite_utils")
    registry = module("registry").TaskRegistry().get_registry(family)
    unknown = sorted(set(names or ()) - set(registry))
    if unknown:
        raise SetupError(
            f"AndroidWorld has no task {unknown[0]!r} in {family}; choose from: {', '.join(sorted(registry))}"
        )
    suite = utils.create_suite(
        registry, n_task_combinations=combinations, seed=seed, tasks=list(names) if names else None
    )
    suite.suite_family = family
    return suite


def run_suite(suite: Any, agent: Any, out: Path) -> list[dict[str, Any]]:
    """AndroidWorld's own run over a suite; `out`/episodes.jsonl holds one line per episode, and what it prints goes into
    `out`/log.txt. Episodes that are there are not run again, except crashed ones. Returns all episodes, as JSON has them."""
    out.mkdir(parents=True, exist_ok=True)
    base = module("checkpointer")
    file = out / "episodes.jsonl"

    class Lines(base.Checkpointer):  # type: ignore[misc,name-defined]  # imported at run time
        """Where AndroidWorld would write pickles."""

        def save_episodes(self, task_episodes: list[dict[str, Any]], task_name: str) -> None:
            for episode in task_episodes:
                write_episode(file, episode_json(task_name, episode))

        def load(self, fields: list[str] | None = None) -> list[dict[str, Any]]:
            episodes = read_episodes(file)
            back = [e | {"is_successful": _nan(e), "exception_info": e.get("exception_info")} for e in episodes]
            return [{k: e.get(k) for k in fields} if fields else e for e in back]

    with (out / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log):
        module("suite_utils").run(suite, agent, checkpointer=Lines())
    return read_episodes(file)


def _nan(episode: Mapping[str, Any]) -> float:
    value = episode.get("is_successful")
    return float("nan") if value is None else float(value)


# --------------------------------------------------------------------------------------------------------- environments


def pocket_env(seed: int = 0, size: tuple[int, int] = (270, 600)) -> Any:
    """AndroidWorld's AsyncAndroidEnv on a pocket phone with AndroidWorld's apps. Nothing is downloaded."""
    from envs.pocket.aosp import aosp_state
    from envs.pocket.phone import Phone
    from envs.pocket.simulator import PocketSimulator, build_env

    controllers = module("env.android_world_controller")
    env = build_env(PocketSimulator(Phone(aosp_state(seed), *size)))
    return _async_env(controllers.AndroidWorldController(env, controllers.A11yMethod.UIAUTOMATOR))


def _async_env(controller: Any) -> Any:
    return module("env.interface").AsyncAndroidEnv(controller)


def emulator_env(held: Lease, setup: bool = False) -> Any:
    """AsyncAndroidEnv on a running emulator. setup: AndroidWorld's first-time installation of its apps (downloads)."""
    with machine("connecting to the emulator"):
        return module("env.env_launcher").load_and_setup_env(
            console_port=held.console_port, emulator_setup=setup, adb_path=held.spec.adb, grpc_port=held.grpc_port
        )
