"""Looks like the android_world package to our worker: copied as android_world/__init__.py. Task names say what goes wrong."""

import os
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np

SETTINGS, OPENED = {}, []


class Task:
    start_on_home_screen, complexity = True, 1.0

    def __init__(self, name):
        self.name, self.goal, self.params = name, f"do {name}", {"seed": 3, "what": np.zeros(2)}

    def initialize_task(self, env):
        print("noise on standard output" * 100)
        if self.name == "Hang":
            time.sleep(60)
        if self.name == "Die":
            print("Killed by the kernel", file=sys.stderr, flush=True)
            time.sleep(0.2)
            os._exit(9)
        if self.name == "Orphan":
            print(f"child {subprocess.Popen(['sleep', '60']).pid}", flush=True)
            time.sleep(0.2)
            os._exit(9)
        if self.name == "Bad":
            raise ValueError("no such app")

    def is_successful(self, env):
        return 0.5 if self.name == "Half" else 1.0

    def tear_down(self, env):
        pass


class Env:
    interaction_cache = ""

    def __init__(self):
        self.controller = SimpleNamespace(env=object())

    def reset(self, go_home):
        SETTINGS.update(show_touches="1", pointer_location="1")

    def get_state(self, wait):
        pixels = np.zeros((3 * 2**13, 2**12, 3) if SETTINGS.get("huge") else (4, 2, 3), np.uint8)
        if SETTINGS.get("lost"):  # as AndroidWorld does when it loses its accessibility service
            self.controller.env = object()
            SETTINGS.update(show_touches="1", pointer_location="1", lost="")
        box = SimpleNamespace(x_min=0, y_min=0, x_max=1, y_max=2)
        node = SimpleNamespace(text="ok", content_description=None, class_name="android.widget.Button", bbox_pixels=box)
        node.is_clickable, node.is_checkable, node.is_checked, node.is_focused = True, None, None, False
        return SimpleNamespace(pixels=pixels, ui_elements=[node])

    def close(self):
        pass


def shell(args, controller, seconds):
    words = args[1].split()
    if words[:3] == ["settings", "put", "system"]:
        SETTINGS[words[3]] = words[4]
    said = repr(SETTINGS) if words[0] == "settings" else repr(OPENED)
    return SimpleNamespace(generic=SimpleNamespace(output=said.encode()))


def opened(**given):
    OPENED.append(given)
    return Env()


class Registry:
    def get_registry(self, family):
        return dict.fromkeys(("Good", "Hang", "Die", "Bad", "Half", "Orphan"))


class Suite(dict):
    pass


def create_suite(registry, n_task_combinations, seed, tasks):
    return Suite({name: [Task(name)] * n_task_combinations for name in tasks or registry})


for name, content in {
    "registry": {"TaskRegistry": Registry},
    "suite_utils": {"create_suite": create_suite, "_allocate_step_budget": lambda complexity: int(10 * complexity)},
    "env": {"__path__": []},
    "env.env_launcher": {"load_and_setup_env": opened},
    "env.adb_utils": {
        "issue_generic_request": shell,
        "check_ok": lambda said, what: None,
        "get_adb_activity": {"Clock": "clock/.Main"}.get,
    },
}.items():
    sys.modules[f"android_world.{name}"] = made = ModuleType(name)
    vars(made).update(content)
