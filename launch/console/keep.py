"""An attended attempt as a run folder of its own, which report, replay and submit read as they read any other."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.registry import origins
from guiderail.agent.types import Click, LongPress
from guiderail.envs.byhand.targets import targets
from guiderail.launch import show
from guiderail.launch.console.attended import Attended
from guiderail.rl.live.journal import images_of, keep_images
from guiderail.rl.live.score import live_score
from guiderail.rl.runs.log import RunLog, drop_lines
from guiderail.rl.runs.record import About
from guiderail.rl.runs.rows import rollout_row

KIND = "run"


class Keeper:
    """Writes one attempt to one folder; again, whenever it has ended anew after an undo."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._log: RunLog | None = None

    def keep(self, attempt: Attended) -> bool:
        """Whether there was anything to keep. Raises SetupError where the folder holds another run."""
        made = attempt.rollout()
        if not made.turns and attempt.ended != "crashed" and self._log is None:
            return False
        if self._log is None:
            self._log = RunLog(self.folder, KIND, about(attempt))
        else:
            drop_lines(self.folder, lambda row: True)
        keep_images(self.folder / "images", images_of(made))
        row = rollout_row(made)
        for turn, line in zip(made.turns, row["turns"], strict=True):
            if turn.by == "person" and isinstance(turn.action, Click | LongPress):
                aims = targets(attempt.seen.get(turn.index, ()), turn.action.point)
                line |= (
                    {"target": [aims[0].box.left, aims[0].box.top, aims[0].box.right, aims[0].box.bottom]}
                    if aims
                    else {}
                )
        self._log.line(row)
        self._log.finish(show.strict(live_score([row], {})))
        return True

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def about(attempt: Attended) -> About:
    """What an attempt is about, for its run.json."""
    place = attempt.place
    actor, world = attempt.actor, dict(place.world) | {"max_steps": attempt.max_steps} if place else None
    if actor is None:
        return About(model="person", world=world)
    return About(
        model=actor.name,
        voice=asdict(actor.voice),
        temperature=actor.sampling.temperature,
        seed=actor.seed,
        repeats=1,
        world=world,
        parts=origins((DIALECTS, actor.voice.dialect)).get("parts"),
    )
