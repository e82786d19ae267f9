"""Guiderail: train, evaluate and use GUI agents. The folders `agent`, `envs`, `patch`, `rl` and `launch` are its packages.

`import guiderail as gr` gives the Python API (`guiderail.launch.api`), loaded when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guiderail.agent.errors import DataError as DataError
    from guiderail.agent.errors import EnvCrashed as EnvCrashed
    from guiderail.agent.errors import GuiderailError as GuiderailError
    from guiderail.agent.errors import SetupError as SetupError
    from guiderail.agent.types import Episode as Episode
    from guiderail.agent.types import Rollout as Rollout
    from guiderail.envs.recordings.episodes import Dataset as Dataset
    from guiderail.envs.recordings.episodes import load_episodes as load_episodes
    from guiderail.launch.api import Cancelled as Cancelled
    from guiderail.launch.api import credit as credit
    from guiderail.launch.api import evaluate as evaluate
    from guiderail.launch.api import gate as gate
    from guiderail.launch.api import load_policy as load_policy
    from guiderail.launch.api import record_pocket as record_pocket
    from guiderail.launch.api import report as report
    from guiderail.launch.api import sop as sop
    from guiderail.launch.api import submission as submission
    from guiderail.launch.api import train as train
    from guiderail.launch.api import verify as verify
    from guiderail.launch.api import walk as walk
    from guiderail.launch.hub.share import export as export
    from guiderail.launch.hub.share import merge as merge
    from guiderail.launch.hub.share import push as push
    from guiderail.rl.credit.uis1 import CreditRules as CreditRules

_HOMES = {
    "agent.errors": ("DataError", "EnvCrashed", "GuiderailError", "SetupError"),
    "agent.types": ("Episode", "Rollout"),
    "envs.recordings.episodes": ("Dataset", "load_episodes"),
    "rl.credit.uis1": ("CreditRules",),
    "launch.api": (
        *("Cancelled", "credit", "evaluate", "gate", "load_policy", "record_pocket"),
        *("report", "sop", "submission", "train", "verify", "walk"),
    ),
    "launch.hub.share": ("export", "merge", "push"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"guiderail has no {name!r}")
    return getattr(importlib.import_module(f"guiderail.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
