"""AndroidWorld's environment on a pocket phone with stand-ins for its apps. Runs in AndroidWorld's process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from guiderail.envs.pocket.aosp import aosp_state
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.simulator import PocketSimulator, build_env
from guiderail.envs.pocket.tree import window_xml

Module = Callable[[str], Any]
"""android_world.NAME."""
FOREST = "forest"
"""AndroidWorld's name for the accessibility trees of an observation."""


class PhoneClock:
    """Stands for the module `time` in AndroidWorld's modules: what it waits for happens on the phone, so it waits there.

    Its code is unchanged; a task that sleeps for 20 s begins at once, and the phone is 20 s older.
    """

    def __init__(self, simulator: PocketSimulator):
        self._simulator, self._slept = simulator, 0.0

    def sleep(self, seconds: float) -> None:
        self._slept += seconds
        self._simulator.elapse(seconds)

    def time(self) -> float:
        return time.time() + self._slept

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def pocket_env(module: Module, seed: int = 0, size: tuple[int, int] = (270, 600)) -> Any:
    """AndroidWorld's AsyncAndroidEnv. Nothing is downloaded."""
    simulator = PocketSimulator(Phone(aosp_state(seed), *size))
    controllers = module("env.android_world_controller")

    class Controller(controllers.AndroidWorldController):  # type: ignore[misc, name-defined]  # imported at run time
        """Its own controller asks `uiautomator` for elements and then knows no trees, which one of its checks reads."""

        def _process_timestep(self, timestep: Any) -> Any:
            seen = super()._process_timestep(timestep)
            seen.observation[FOREST] = forest(window_xml(simulator.phone))
            return seen

    controller = Controller(build_env(simulator), controllers.A11yMethod.UIAUTOMATOR)
    clock = PhoneClock(simulator)
    for name, loaded in list(sys.modules.items()):
        if name.startswith("android_world.") and getattr(loaded, "time", None) is time:
            loaded.time = clock  # type: ignore[attr-defined]
    return module("env.interface").AsyncAndroidEnv(controller)


def forest(xml: str) -> Any:
    """A `uiautomator dump` as android_env's accessibility trees: one window, every node a leaf."""
    from android_env.proto.a11y import android_accessibility_forest_pb2

    made = android_accessibility_forest_pb2.AndroidAccessibilityForest()
    tree = made.windows.add().tree
    for k, node in enumerate(ElementTree.fromstring(xml).iter("node")):
        one = tree.nodes.add(unique_id=k, is_visible_to_user=True)
        one.text, one.hint_text = node.get("text", ""), node.get("hint", "")
        one.content_description, one.class_name = node.get("content-desc", ""), node.get("class", "")
        for flag in ("checkable", "checked", "clickable", "enabled", "focusable", "focused", "scrollable"):
            setattr(one, f"is_{flag}", node.get(flag) == "true")
        one.is_long_clickable = node.get("long-clickable") == "true"
        sides = node.get("bounds", "[0,0][0,0]").strip("[]").replace("][", ",").split(",")
        box = one.bounds_in_screen
        box.left, box.top, box.right, box.bottom = (int(side) for side in sides)
    return made
