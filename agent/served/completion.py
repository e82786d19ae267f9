"""A chat completion as JSON -> Completion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from guiderail.agent.types import Completion

ROUNDING = 1e-3
"""By so much a server's log-probability of a certain token may exceed 0: half precision rounds sums of exponentials."""


class BadAnswer(Exception):
    """The server's answer is not a chat completion."""


def parse_json(content: bytes) -> object:
    """Raises BadAnswer."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise BadAnswer(f"an answer that is not JSON: {content[:80].decode('utf-8', 'replace')!r}") from None


def read_completion(answer: object, want_tokens: bool) -> Completion:
    """The first choice of a chat completion. Raises BadAnswer.

    Thoughts that the server split off (a reasoning parser) are put back in front as a think block. Token ids and
    log-probabilities are kept only if both came, one for one; vLLM reports log-probabilities at temperature 1 by default.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise BadAnswer("an answer without choices")
    message, finish = choice["message"], choice.get("finish_reason")
    if finish in ("abort", "error", "content_filter"):
        raise BadAnswer(f"an answer that ended with {finish!r}")
    thought = message.get("reasoning_content") or message.get("reasoning")
    text = message.get("content")
    if text is None and isinstance(thought, str):
        text = ""
    if not isinstance(text, str):
        raise BadAnswer("an answer without text")
    if isinstance(thought, str) and thought.strip():
        text = f"<think>\n{thought.strip()}\n</think>\n{text.lstrip()}"
    ids, logprobs = _tokens(choice) if want_tokens else ((), ())
    ended: Literal["stop", "length"] = "length" if finish == "length" else "stop"
    return Completion(utf8(text), ids, logprobs, ended)


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(ids, list) or not isinstance(entries, list) or len(ids) != len(entries):
        return (), ()
    try:
        found = tuple(int(i) for i in ids), tuple(float(entry["logprob"]) for entry in entries)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise BadAnswer("token ids or log-probabilities that are not numbers") from None
    wrong = next((p for p in found[1] if not is_logprob(p)), None)
    if wrong is not None:
        raise BadAnswer(f"a log-probability of {wrong}, expected a finite number of at most 0")
    return found


def is_logprob(value: float) -> bool:
    """Whether this can be the log-probability of a token that was sampled."""
    return -math.inf < value <= ROUNDING


def utf8(text: str) -> str:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")
