"""AndroidWorld as a world by name: `world.name=android-world` in a training config, `guiderail record attempts android-world`."""

from __future__ import annotations

from dataclasses import dataclass

from guiderail.envs.android_world.client import python_of
from guiderail.envs.android_world.tasks import AndroidWorldTasks


@dataclass(frozen=True)
class Named(AndroidWorldTasks):
    """python "": the one that GUIDERAIL_ANDROID_WORLD_PYTHON names. Raises SetupError where there is none."""

    python: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "python", python_of(self.python or None))
