"""On-policy thought patch: the expert's action with a thought that the policy itself writes (UI-S1 section 3.2).

The policy is asked in a second conversation: its own history, a thought-writing system prompt with the goal, and the
expert's action as a hint at the current screen. It is asked only at mismatches; the released code asks at every step, which
doubles generation (method audit, B32). The answer is never trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from guiderail.agent.codec import action_to_json
from guiderail.agent.dialogue import transform
from guiderail.agent.types import Episode, Message, Patch, Prompt, Repair, Turn


def on_policy(integrate: Callable[[str], str]) -> Patch:
    """integrate(goal): the system prompt of the second conversation, see `Dialect.integrate`."""

    def repair(episode: Episode, turn: Turn) -> Repair:
        action = episode.steps[turn.index].action
        hint = f"Hint, the next action: {json.dumps(action_to_json(action, transform(turn.prompt.screen)))}"
        turns = [message for message in turn.prompt.messages if message.role != "system"]
        last = replace(turns[-1], parts=(hint, *(part for part in turns[-1].parts if not isinstance(part, str))))
        question = Prompt((Message("system", (integrate(episode.goal),)), *turns[:-1], last))
        return Repair(action, "on-policy", question=question)

    return repair
