"""The progress line of a training run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.progress import Progress
from transformers import TrainerCallback

from guiderail.launch import show
from guiderail.rl.credit.samples import DROPPED

LINE_EVERY = 5.0
"""Least seconds between two lines where standard error is not a terminal. Slower updates have a line each."""


Watch = Callable[[int, int], None]
"""Is called on the first process after each update, with the number of updates done and of all; what it raises ends the run."""


class Bar(TrainerCallback):  # type: ignore[misc]
    """A progress line on a terminal, else a line per update, on standard error; it names why groups carry no signal.

    marked: called after each checkpoint, on the first process.
    """

    def __init__(self, marked: Callable[[], None] = lambda: None, watch: Watch | None = None) -> None:
        self.marked, self.watch = marked, watch
        self.progress: Progress | None = None
        self.task: Any = None
        self.note = ""
        self.started = self.said = 0.0
        self.first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.started, self.first = time.monotonic(), state.global_step
            self.progress = show.progress()
            if show.err.is_terminal:
                self.progress.start()
            self.task = self.progress.add_task("update", total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step)
        if self.watch is not None and state.is_world_process_zero:
            self.watch(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.progress is None or not logs:
            return
        self.note = note(logs) or self.note
        self.progress.update(self.task, note=self.note)
        over = control.should_training_stop or state.global_step >= state.max_steps
        if show.err.is_terminal or not note(logs) or (time.monotonic() - self.said < LINE_EVERY and not over):
            return
        self.said = time.monotonic()
        left = (
            (self.said - self.started) / max(1, state.global_step - self.first) * (state.max_steps - state.global_step)
        )
        line = f"update {state.global_step}/{state.max_steps}, {self.note}, {left:.0f} s left"
        show.err.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.marked()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()


def note(logs: dict[str, Any]) -> str:
    """One line out of a log: "reward .41, pass 2.3, 31 % of groups carry no signal: all right 22 %, all wrong 9 %"."""
    if "rollout/reward" not in logs:
        return f"loss {logs['loss']:.3f}" if "loss" in logs else ""
    reasons = {reason: float(logs.get(f"groups/{reason.replace(' ', '_')}", 0.0)) for reason in DROPPED}
    text = f"reward {logs['rollout/reward']:.2f}, pass {logs.get('rollout/passes', 0.0):.1f}"
    if sum(reasons.values()) > 0:
        named = ", ".join(f"{reason} {100 * share:.0f} %" for reason, share in reasons.items() if share > 0)
        text += f", {100 * sum(reasons.values()):.0f} % of groups carry no signal: {named}"
    return text


_ADVICE = {
    "all wrong": "start from a model that gets some steps right (guiderail train tiny_sft ...), or allow more repairs "
    "(method.patch_budget)",
    "all right": "this data has nothing left to teach: give harder recordings",
    "alike": "lower method.eta, or sample more rollouts per group (method.rollouts)",
}


def learned_nothing(groups: Mapping[str, int]) -> str:
    """Why no update changed anything, and what to change. groups: how many by signal."""
    sampled = sum(groups.values())
    if not sampled:
        return "nothing was learned: no group was sampled; widen method.difficulty (low, high) or raise its rounds"
    counts = ", ".join(f"{count} {reason}" for reason, count in groups.items() if count)
    most = max(groups, key=lambda reason: groups[reason])
    return f"nothing was learned: 0 of {sampled} groups kept ({counts}); {_ADVICE[most]}"
