"""Positive replay: an own success of the past for groups that have none (MAI-UI, arXiv 2512.22047).

A group without a success teaches nothing. Where the task was solved before, one of its attempts, drawn at random, gives its
place to one of the task's last `keep` successes, drawn at random. Its turns keep the log-probabilities of the policy that
sampled them, so that the loss can weigh them (`StepSample.behind`). MAI-UI keeps 8.

What is kept is plain data: texts, tokens and the hashes of screenshots, whose files are in the run folder. So a checkpoint holds
it, and a resumed run goes on with the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from guiderail.agent.codec import action_from_json, action_to_json
from guiderail.agent.dialogue import Dialogue, transform
from guiderail.agent.types import Completion, Outcome, Rollout, Screenshot, Turn, Verdict
from guiderail.rl.rollout.drive import seed_of
from guiderail.rl.rollout.plan import Group

Kept = dict[str, Any]


@dataclass
class Successes:
    """dialogue: words the prompts of kept attempts again. images: the folder with HASH.png of every screenshot. keep: per
    task."""

    dialogue: Dialogue
    images: Path
    keep: int = 8
    seed: int = 0
    kept: dict[str, list[Kept]] = field(default_factory=dict)

    def fill(self, unit: str, visit: int, group: Sequence[Rollout]) -> tuple[Rollout, ...]:
        """The group, with a kept success in place of one attempt if it has none."""
        known = self.kept.get(unit)
        whole = all(one.outcome is not None and one.start == 0 for one in group)
        if not known or not group or not whole or any(one.outcome.success for one in group if one.outcome):
            return tuple(group)
        rng = random.Random(seed_of(self.seed, "replay", visit, unit))
        place, chosen = rng.randrange(len(group)), rng.choice(known)
        return (*group[:place], self._again(unit, group[place].sample, chosen), *group[place + 1 :])

    def learn(self, groups: Sequence[Group], generation: int) -> None:
        """Keep the generation's own successes from the start of a task."""
        for group in groups:
            for one in group.rollouts:
                if one.outcome is not None and one.outcome.success and one.start == 0 and one.sampled is None:
                    rows = self.kept.setdefault(group.unit, [])
                    rows.append(_plain(one, generation))
                    del rows[: -self.keep]

    def _again(self, unit: str, sample: int, kept: Kept) -> Rollout:
        turns: list[Turn] = []
        shots: list[Screenshot] = []
        for index, row in enumerate(kept["turns"]):
            width, height = row["size"]
            shots.append(Screenshot(width, height, self.images / f"{row['screenshot']}.png"))
            prompt = self.dialogue.prompt(kept["goal"], shots, [turn.history_text() for turn in turns])
            said = Completion(row["text"], tuple(row["token_ids"]), tuple(row["logprobs"]), row["finish"])
            action = None if row["action"] is None else action_from_json(row["action"], transform(prompt.screen))
            verdict = Verdict(**row["verdict"]) if row.get("verdict") else None  # checkpoints before 0.2.0 have none
            turns.append(Turn(index, prompt, said, row["thought"], action, verdict=verdict, state=row["state"]))
        outcome = Outcome(**{**kept["outcome"], "side_effects": None})
        return Rollout(unit, sample, tuple(turns), "finished", outcome, kept["goal"], sampled=int(kept["generation"]))

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]


def _plain(rollout: Rollout, generation: int) -> Kept:
    return {
        "generation": generation,
        "goal": rollout.goal,
        "outcome": {k: v for k, v in asdict(rollout.outcome or Outcome(True)).items() if k != "side_effects"},
        "turns": [
            {
                "text": turn.completion.text,
                "token_ids": list(turn.completion.token_ids),
                "logprobs": list(turn.completion.logprobs),
                "finish": turn.completion.finish,
                "thought": turn.thought,
                "action": None if turn.action is None else action_to_json(turn.action, transform(turn.screen)),
                "verdict": None if turn.verdict is None else asdict(turn.verdict),
                "state": turn.state,
                "screenshot": turn.screen.screenshot.digest,
                "size": [turn.screen.screenshot.width, turn.screen.screenshot.height],
            }
            for turn in rollout.turns
        ],
    }
