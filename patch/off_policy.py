"""Off-policy thought patch: the expert's action with a thought that was written beforehand (UI-S1 section 3.2).

The thought comes from a thought store, a JSONL file of {"episode_id", "step", "thought"} that any auxiliary model wrote, else
from the recording itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from guiderail.agent.errors import DataError
from guiderail.agent.types import Episode, Patch, Repair, Turn

Thoughts = Mapping[tuple[str, int], str]


def off_policy(store: Thoughts | None = None) -> Patch:
    """store: (episode id, step) -> thought. Where neither the store nor the recording has a thought the patch raises
    DataError, because a silent fallback would be another strategy."""

    def repair(episode: Episode, turn: Turn) -> Repair:
        step = episode.steps[turn.index]
        thought = (store or {}).get((episode.id, turn.index), step.thought)
        if thought is None:
            raise DataError(
                f"{episode.source} step {turn.index}",
                "the off-policy patch needs a thought, and neither the thought store nor the recording has one",
            )
        return Repair(step.action, "off-policy", thought)

    return repair


def load_thoughts(path: Path) -> dict[tuple[str, int], str]:
    """Read a thought store: (episode id, step) -> thought. Raises DataError with file:line."""
    store: dict[tuple[str, int], str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            episode, step, thought = str(row["episode_id"]), row["step"], row["thought"]
            if type(step) is not int or not isinstance(thought, str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            expected = 'expected {"episode_id": ..., "step": int, "thought": string}'
            raise DataError(f"{path}:{number}", f"{expected}, got {line[:120]}") from None
        if (episode, step) in store:
            raise DataError(f"{path}:{number}", f"second thought for episode {episode} step {step}")
        store[episode, step] = thought
    return store
