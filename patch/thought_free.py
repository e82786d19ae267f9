"""Thought-free patch: the expert's action, nobody's thought (UI-S1 section 3.2; the paper's final choice)."""

from __future__ import annotations

from agent.types import Episode, Patch, Repair, Turn


def thought_free(thought: str | None = None) -> Patch:
    """thought None leaves the think block out; "" writes an empty one, as the released code does."""

    def repair(episode: Episode, turn: Turn) -> Repair:
        return Repair(episode.steps[turn.index].action, "thought-free", thought)

    return repair
