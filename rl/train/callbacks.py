"""When a run ends before its last update."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class Stop(TrainerCallback):  # type: ignore[misc]
    """Ends a run by what it has sampled. A checkpoint may hold all of that already; what resumes from it makes no update."""

    def reached(self) -> bool:
        """Whether the run is over, at the end of a generation."""
        raise NotImplementedError


class StopAfterTurns(Stop):
    """Ends the run after the update by which `turns` turns have been sampled: arms of a study get equal samples.

    progress: what counts them, as `sampled_turns`.
    """

    def __init__(self, progress: Any, turns: int):
        self.progress, self.turns = progress, turns

    def reached(self) -> bool:
        return bool(getattr(self.progress, "sampled_turns", 0) >= self.turns)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.reached():
            control.should_training_stop = True


class StopAfterVisits(Stop):
    """Ends the run with the generation in which `visits` units have been visited: so many passes over the units, whatever
    dynamic sampling dropped. A checkpoint is left there, as at any other end.

    progress: what counts them, as `cursor`. per_generation: updates.
    """

    def __init__(self, progress: Any, visits: int, per_generation: int):
        self.progress, self.visits, self.per_generation = progress, visits, per_generation

    def reached(self) -> bool:
        return bool(self.progress.cursor >= self.visits)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.per_generation == 0 and self.reached():
            control.should_training_stop = True
            control.should_save = control.should_save or args.save_strategy != "no"
