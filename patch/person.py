"""Person patch: the action that a person gave at this step of this recording, when asked about an agent's mismatch there.

Answers are a JSONL file that the review queue writes (`guiderail console --review RUN`), one object per line:

    {"episode_id": "7", "step": 3, "verdict": "person", "action": {"action": "click", "coordinate": [80, 96]},
     "screen": [160, 288], "thought": "that is the shop"}

verdict: "person" for an action that the person gave, "agent" for an action of the agent that is right too. action: in pixels
of `screen`, the recorded screenshot. thought, and who answered (`by`), are optional.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guiderail.agent.codec import action_from_json
from guiderail.agent.errors import DataError, UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import Action, Episode, Patch, Repair, Turn
from guiderail.agent.untrusted import read_file


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer about one step. content: the action as the file has it, in pixels."""

    episode: str
    step: int
    verdict: Literal["person", "agent"]
    action: Action
    content: dict[str, Any]
    thought: str | None = None


def person(answers: Sequence[Answered]) -> Patch:
    """Where nobody gave an action the patch declines, and the rollout ends: an answer by somebody else would be another
    strategy. Of several answers to one step, the last holds."""
    given = {(one.episode, one.step): one for one in answers if one.verdict == "person"}

    def repair(episode: Episode, turn: Turn) -> Repair | None:
        found = given.get((episode.id, turn.index))
        return None if found is None else Repair(found.action, "person", found.thought)

    return repair


def load_answers(path: Path) -> list[Answered]:
    """Raises DataError with file:line."""
    return [*_answers(path)]


def _answers(path: Path) -> Iterator[Answered]:
    content = read_file(path, f"{path}:1", "file", hint="; run: guiderail console --review RUN")
    for number, text in enumerate(content.split(b"\n"), 1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(text)
            episode, step, verdict, thought = row["episode_id"], row["step"], row["verdict"], row.get("thought")
            width, height = row["screen"]
            sound = type(step) is int and type(width) is int and type(height) is int and width > 0 and height > 0
            sound &= verdict in ("person", "agent") and isinstance(thought, str | None)
            if not sound or not isinstance(row["action"], dict):
                raise TypeError
            action = action_from_json(row["action"], ScreenTransform(width, height))
        except UnreadableAction as error:
            raise DataError(where, str(error)) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            expected = (
                "expected episode_id, step, verdict, action and screen; the head of patch/person.py has an example"
            )
            raise DataError(where, f"{expected}, got {text[:120]!r}") from None
        yield Answered(str(episode), step, verdict, action, row["action"], thought)
