"""Live worlds of users: found by name, checked, and sent to other processes as that name."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass
from typing import cast

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import Registry, function_of
from guiderail.envs.live.attempts import LiveTask, Session, World

RESTORED = ("pocket", "miniwob")
"""Worlds, by the name in a run's record, in which the same steps lead to the same state: an attempt can be put back."""

_TASK = ("id", "goal", "max_steps", "start", "check", "close")


def _accept(name: str, found: object) -> World:
    expected = "a world: an object with listed() and open(worker)"
    if isinstance(found, type):
        raise TypeError(f"got the class {found.__name__}, expected {expected}, such as {found.__name__}()")
    function_of(getattr(found, "listed", None), 0, expected)
    function_of(getattr(found, "open", None), 1, expected)
    return cast(World, found)


WORLDS: Registry[World] = Registry("world", "guiderail.worlds", {}, _accept)


@dataclass(frozen=True, slots=True)
class NamedWorld:
    """A World that pickles as its name; each process finds it anew."""

    name: str

    def listed(self) -> list[tuple[str, tuple[str, ...]]]:
        """Raises SetupError where the user's list breaks the contract."""
        expected = "expected a list of (task name, (name of its template, names of other groups...))"
        tasks: list[tuple[str, tuple[str, ...]]] = []
        for entry in WORLDS.find(self.name).listed():
            match entry:
                case (str(task), (tuple() | list()) as groups) if all(isinstance(group, str) for group in groups):
                    tasks.append((task, tuple(groups)))
                case _:
                    raise SetupError(f"{self.name} lists {str(entry)[:80]!r}, {expected}")
        twice = [task for task, count in Counter(task for task, _ in tasks).items() if count > 1]
        if twice or not tasks:
            raise SetupError(
                f"{self.name} lists {f'{twice[0]!r} twice' if twice else 'no task'}, {expected}, each once"
            )
        return tasks

    def open(self, worker: int) -> Session:
        return _Checked(self.name, WORLDS.find(self.name).open(worker))


@dataclass(frozen=True, slots=True)
class _Checked:
    """A user's session whose tasks are looked at before they are run."""

    name: str
    session: Session

    def task(self, name: str) -> LiveTask:
        task = self.session.task(name)
        missing = [part for part in _TASK if inspect.getattr_static(task, part, None) is None]
        if missing:
            raise SetupError(
                f"task {name!r} of {self.name} has no {' and no '.join(missing)}; a LiveTask has all of {_TASK}"
            )
        return task

    def close(self) -> None:
        self.session.close()
