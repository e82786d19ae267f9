"""Recorded turns among the sampled ones: a teacher's lesson on the expert's own words, at the expert's own history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guiderail.agent.types import Completion, Prompt
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.rollout.drive import seed_of
from guiderail.rl.rollout.processes import ALONE, Processes

RECORDED = -1
"""The number of the rollout that a recorded turn stands in."""

Told = Callable[[Any, int], tuple[Prompt, str, Sequence[int]]]
"""(episode, step) -> the expert's prompt, and its turn as text and token ids."""


@dataclass(frozen=True)
class RecordedTurns:
    """Draws them: of each process's turns of a generation, the share `share` are recorded. steps: (unit, episode, step) of all
    that may be drawn. The same generation and process draw the same, so a resumed run does too."""

    steps: Sequence[tuple[str, Any, int]]
    told: Told
    share: float
    seed: int
    processes: Processes = ALONE

    def __call__(self, samples: Sequence[StepSample], generation: int) -> list[StepSample]:
        """To go with this process's `samples`. They have no advantage and nobody sampled them, so only a teacher's divergence
        reads them."""
        count = min(len(self.steps), round(len(samples) * self.share / (1 - self.share)))
        rng = np.random.default_rng(seed_of(self.seed, "recorded", generation, self.processes.rank))
        made = []
        for place in rng.choice(len(self.steps), count, replace=False).tolist():
            unit, episode, index = self.steps[place]
            prompt, text, ids = self.told(episode, index)
            said = Completion(text, tuple(ids))
            made.append(StepSample(unit, RECORDED, index, prompt, said, 0.0, 0.0, 0.0, 0.0, 0.0))
        return made
