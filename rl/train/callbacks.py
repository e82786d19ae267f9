"""When a run ends before its last update."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class StopAfterTurns(TrainerCallback):  # type: ignore[misc]
    """Ends the run after the update by which `turns` turns have been sampled: arms of a study get equal samples.

    progress: what counts them, as `sampled_turns`.
    """

    def __init__(self, progress: Any, turns: int):
        self.progress, self.turns = progress, turns

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if getattr(self.progress, "sampled_turns", 0) >= self.turns:
            control.should_training_stop = True


class StopAfterVisits(TrainerCallback):  # type: ignore[misc]
    """Ends the run with the generation in which `visits` units have been visited: so many passes over the units, whatever
    dynamic sampling dropped. A checkpoint is left there, as at any other end.

    progress: what counts them, as `cursor`. per_generation: updates.
    """

    def __init__(self, progress: Any, visits: int, per_generation: int):
        self.progress, self.visits, self.per_generation = progress, visits, per_generation

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.per_generation == 0 and self.progress.cursor >= self.visits:
            control.should_training_stop = True
            control.should_save = control.should_save or args.save_strategy != "no"
