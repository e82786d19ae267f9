"""What agents that do not look score in live worlds: the floors under every score there.

Measured with the command that stands beside each. `--agent random` presses, swipes and types anywhere, and sometimes says
that it is done; `--agent claim` says so at once and does nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from guiderail.rl.score.statistics import wilson

Blind = Literal["random", "claim"]
WORDS: Mapping[Blind, str] = {"random": "a random agent", "claim": "a claim of success at once"}


@dataclass(frozen=True, slots=True)
class Floor:
    """right of n attempts of an agent succeeded. world: what a run's record must say about its world, at least."""

    world: Mapping[str, Any]
    right: int
    n: int
    options: str
    agent: Blind = "random"

    @property
    def command(self) -> str:
        """What measures it again."""
        return f"guiderail evaluate {self.world['name']} {self.options} --agent {self.agent}"

    def row(self) -> dict[str, Any]:
        """As a row of scores."""
        interval = list(wilson(self.right, self.n))
        return {
            "success": self.right / self.n,
            "interval": interval,
            "n": self.n,
            "unscored": 0,
            "command": self.command,
        }


def _pocket(split: str, style: str, right: int, n: int, agent: Blind = "random") -> Floor:
    world = {"name": "pocket", "split": split, "style": style}
    return Floor(world, right, n, f"--split {split} --style {style} --tasks {n}", agent)


def _miniwob(suite: str, max_steps: int, right: int, n: int, seeds: int) -> Floor:
    world = {"name": "miniwob", "suite": suite, "max_steps": max_steps}
    return Floor(world, right, n, f"--suite {suite} --max-steps {max_steps} --seeds {seeds}")


def _android_world(suite: Mapping[str, Any], right: int, n: int, options: str = "", agent: Blind = "random") -> Floor:
    world = {"name": "android-world", "device": "pocket", "tasks": "", **suite}
    return Floor(world, right, n, f"--device pocket{options}", agent)


FLOORS: tuple[Floor, ...] = (
    _pocket("test", "easy", 0, 500),
    _pocket("test", "free", 0, 500),
    _pocket("test", "phone", 0, 500),
    _pocket("heldout", "easy", 0, 500),
    _pocket("train", "easy", 0, 500),
    _pocket("test", "easy", 0, 500, "claim"),
    _pocket("test", "free", 0, 500, "claim"),
    _pocket("test", "phone", 0, 500, "claim"),
    _pocket("heldout", "easy", 0, 500, "claim"),
    _pocket("train", "easy", 0, 500, "claim"),
    _miniwob("smoke", 30, 1, 30, 5),
    _miniwob("tiny", 30, 1, 45, 5),
    _miniwob("tiny", 5, 7, 180, 20),
    # Of AndroidWorld's tasks, six of the eight to verify a setting begin as wanted under the default seed, and one asks to
    # delete recipes with an ingredient that none has: "done" is enough.
    _android_world({"task_seed": 30, "combinations": 1}, 7, 113),
    _android_world({"task_seed": 30, "combinations": 1}, 7, 113, agent="claim"),
    _android_world({}, 27, 565, " --combinations 5"),
    _android_world({}, 32, 565, " --combinations 5", "claim"),
)


def floor_of(world: Mapping[str, Any] | None, agent: Blind = "random") -> Floor | None:
    """The known floor of a run's world, as `rl.runs.record.About.world` describes it; that of the same tasks comes first."""
    known = world or {}
    return next((one for one in FLOORS if one.agent == agent and one.world.items() <= known.items()), None)


def rows(world: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The known floors of a world as rows of scores, by the words for them."""
    found = {WORDS[agent]: floor_of(world, agent) for agent in WORDS}
    return {words: floor.row() for words, floor in found.items() if floor is not None}
