"""What a served model thinks of a turn that somebody else said: vLLM's `prompt_logprobs` of a conversation that ends with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.served.completion import BadAnswer, is_logprob
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.types import Completion, Message, Prompt

Scores = list[dict[int, float]]
"""Of each token of a turn: log-probabilities of some tokens by id, the turn's own among them."""

AFTER = 4
"""Most tokens that a chat template writes behind a turn, its end included."""


def scores(
    policy: ServedPolicy, turns: Sequence[tuple[Prompt, Completion]], top: int
) -> list[Scores | EnvCrashed | None]:
    """The log-probabilities, at temperature 1, of each turn's tokens and of the `top` most likely ones at their places, one turn
    after the other. None where the server cuts the turn's text into other tokens than these. EnvCrashed and SetupError as in
    `Policy.complete`."""
    found = policy.ask([_payload(policy, *turn, top) for turn in turns], _prompt_logprobs)
    return [
        one if isinstance(one, EnvCrashed) else _of_turn(one, said.token_ids)
        for one, (_, said) in zip(found, turns, strict=True)
    ]


def _payload(policy: ServedPolicy, prompt: Prompt, said: Completion, top: int) -> dict[str, Any]:
    told = Prompt((*prompt.messages, Message("assistant", (said.text,))))
    body = policy.payload(Request(told), Sampling(temperature=0.0, max_new_tokens=1))
    more = {"prompt_logprobs": top, "add_generation_prompt": False}
    return {**body, "extra_body": {**dict(body["extra_body"]), **more}}  # type: ignore[call-overload]


def _prompt_logprobs(answer: object) -> list[Mapping[int, float]]:
    """Per token of the prompt; raises BadAnswer."""
    rows = answer.get("prompt_logprobs") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise BadAnswer("an answer without prompt_logprobs: it takes vLLM's OpenAI-compatible server")
    try:
        found: list[Mapping[int, float]] = [
            {} if row is None else {int(i): float(one["logprob"]) for i, one in row.items()} for row in rows
        ]
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        raise BadAnswer("prompt_logprobs that are not numbers by token id") from None
    wrong = next((p for row in found for p in row.values() if not is_logprob(p)), None)
    if wrong is not None:
        raise BadAnswer(f"a log-probability of {wrong}, expected a finite number of at most 0")
    return found


def _of_turn(rows: Sequence[Mapping[int, float]], ids: Sequence[int]) -> Scores | None:
    """The rows of these ids: the last ones but for what the template writes behind a turn."""
    for after in range(AFTER + 1):
        start = len(rows) - after - len(ids)
        part = rows[max(0, start) : start + len(ids)]
        if len(part) == len(ids) and all(i in row for i, row in zip(ids, part, strict=True)):
            return [dict(row) for row in part]
    return None
