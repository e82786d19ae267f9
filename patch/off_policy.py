"""Off-policy thought patch: the expert's action with a thought that was written beforehand (UI-S1 section 3.2).

The thought is the recording's. A thought store, a JSONL file of {"episode_id", "step", "thought"} that any auxiliary model wrote,
takes the place of what the recording says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from guiderail.agent.errors import DataError
from guiderail.agent.types import Episode, Patch, Repair, Turn

Thoughts = Mapping[tuple[str, int], str]


def off_policy() -> Patch:
    """Where the recording has no thought the patch raises DataError, because a silent fallback would be another strategy."""

    def repair(episode: Episode, turn: Turn) -> Repair:
        step = episode.steps[turn.index]
        if step.thought is None:
            raise DataError(
                f"{episode.source} step {turn.index}",
                "the off-policy patch needs a thought, and neither the thought store nor the recording has one",
            )
        return Repair(step.action, "off-policy", step.thought)

    return repair


def with_thoughts(episodes: Sequence[Episode], store: Thoughts) -> tuple[Episode, ...]:
    """The episodes with the store's thoughts; steps that it does not name keep theirs."""

    def told(episode: Episode) -> Episode:
        steps = (replace(s, thought=store.get((episode.id, t), s.thought)) for t, s in enumerate(episode.steps))
        return replace(episode, steps=tuple(steps))

    return tuple(map(told, episodes))


def lines_of(path: Path) -> list[str]:
    """The lines of a JSONL file, which may hold U+2028 and the like in their text. Raises DataError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{number}", f"not UTF-8 text: {error.reason}") from None


def load_thoughts(path: Path) -> dict[tuple[str, int], str]:
    """Read a thought store: (episode id, step) -> thought. Raises DataError with file:line."""
    store: dict[tuple[str, int], str] = {}
    for number, line in enumerate(lines_of(path), 1):
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
