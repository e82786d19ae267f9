"""A policy that samples on vLLM: a server beside the trainer, or an engine in this process.

vLLM only samples. Prompts are sent as the token ids that `agent.local.encode` makes, never as text to be tokenized again, and
vLLM's own count of them is compared, so training sees exactly the tokens that were sampled from. Pictures are sent at the
model's size, so no other resize rule can move a coordinate. Ids and log-probabilities come back as sampled.

Each request carries its own seed, which vLLM honours per request. A run is repeatable only as far as vLLM's kernels are:
another batch composition may round differently and change a draw. Only the in-process policy replays exactly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from guiderail.agent.errors import EnvCrashed, PromptTooLong, SetupError
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.screen import Vision
from guiderail.agent.served.completion import is_logprob
from guiderail.agent.types import Completion, Picture

if TYPE_CHECKING:
    from guiderail.agent.local.encode import Encoder

Sampled = tuple[list[int], list[float]]
"""Sampled ids, the end of turn included, and the log-probability of each."""


@dataclass(frozen=True, eq=False)
class EncodedRequest:
    """whole: the prompt's ids as the model sees them. ids: the same with one image pad per picture, which is what vLLM is
    given: it puts in the others itself. pictures: what the pads stand for, in order. names: under which vLLM keeps the
    pictures and their features. seed: from 0 to 2^63 - 1."""

    ids: list[int]
    whole: list[int]
    pictures: tuple[Picture, ...]
    names: tuple[str, ...]
    seed: int

    @cached_property
    def group(self) -> int:
        """Equal for rollouts of one task: their prompts begin alike, with the goal and the first screenshot."""
        at = next((i for i, (a, b) in enumerate(zip(self.ids, self.whole, strict=False)) if a != b), len(self.ids))
        return hash((tuple(self.ids[:at]), self.names[:1]))


class Engine(Protocol):
    """Where vLLM runs."""

    def sample(
        self, rows: Sequence[EncodedRequest], sampling: Sampling, extra: dict[str, Any]
    ) -> Sequence[Sampled | EnvCrashed]:
        """One answer per row, in order; an EnvCrashed in the place of a row that failed. extra: further vLLM sampling
        parameters. Raises SetupError and EnvCrashed."""


class VLLMPolicy:
    """Samples with `engine`. encoder: the trainer's own. vocabulary: rows of the model's embedding table. drafting: whether
    vLLM was started with speculation. It then takes no bias, so that special tokens are banned as words, and the table's rows
    behind the tokenizer's last are not banned."""

    def __init__(self, engine: Engine, encoder: Encoder, name: str, vocabulary: int, drafting: bool = False):
        self.engine, self.encoder, self.name = engine, encoder, name
        special = [token for token in encoder.special_ids if token != encoder.end_of_turn]
        if drafting:
            self._bans: dict[str, Any] = {"bad_words": encoder.tokenizer.convert_ids_to_tokens(special)}
        else:  # a bias is at most 100; -100 leaves e^-100 of a token's probability
            unused = [i for i in range(len(encoder.tokenizer), vocabulary) if i != encoder.end_of_turn]
            self._bans = {"logit_bias": dict.fromkeys([*special, *unused], -100.0)}

    @property
    def vision(self) -> Vision:
        """The checkpoint's resize rule."""
        return self.encoder.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion | EnvCrashed]:
        """As `LocalPolicy.complete`: special tokens are banned, and too long conversations get finish "budget"."""
        results: list[Completion | EnvCrashed] = [Completion("", finish="budget")] * len(requests)
        rows = {i: row for i, request in enumerate(requests) if (row := self.encode(request)) is not None}
        answers = self.engine.sample([*rows.values()], sampling, {**self._bans, **self.stop})
        for i, answer in zip(rows, answers, strict=True):
            if isinstance(answer, EnvCrashed):
                results[i] = answer
                continue
            ids, logprobs = answer
            ended = bool(ids) and ids[-1] == self.encoder.end_of_turn
            text = self.encoder.text(ids)
            results[i] = Completion(text, tuple(ids), tuple(logprobs), "stop" if ended else "length")
        return results

    @property
    def stop(self) -> dict[str, Any]:
        """vLLM's sampling parameters that end an answer at the end of turn."""
        return {"stop_token_ids": [self.encoder.end_of_turn]}

    def encode(self, request: Request, salt: str = "") -> EncodedRequest | None:
        """None for a prompt that its own conversation has made too long. Raises PromptTooLong for any other such prompt.
        salt: makes the pictures others to vLLM, so that nothing it has kept is used."""
        try:
            encoded = self.encoder.prompt(request.prompt)
        except PromptTooLong:
            if any(message.role == "assistant" for message in request.prompt.messages):
                return None
            raise
        whole = encoded.ids.tolist()
        tokens = [self.encoder.image_tokens(picture) for picture in encoded.pictures]
        names = tuple(picture_name(picture) + salt for picture in encoded.pictures)
        ids = one_pad_each(whole, tokens, self.encoder.image_pad)
        return EncodedRequest(ids, whole, encoded.pictures, names, request.seed % 2**63)


def one_pad_each(ids: Sequence[int], tokens: Iterable[int], pad: int) -> list[int]:
    """ids with one `pad` where picture k has tokens[k] of them."""
    kept: list[int] = []
    at, counts = 0, iter(tokens)
    while at < len(ids):
        kept.append(ids[at])
        at += next(counts) if ids[at] == pad else 1
    return kept


def picture_name(picture: Picture) -> str:
    """What determines the pixels that the model sees: the file and the size it is resized to."""
    said = f"{picture.screenshot.digest} {picture.width} {picture.height}"
    return hashlib.sha256(said.encode()).hexdigest()


def check_prompt(row: EncodedRequest, seen: Sequence[int] | None, encoder: Encoder) -> None:
    """seen: the prompt's ids as vLLM used them. Raises SetupError where they are not the trainer's."""
    if seen is None or list(seen) == row.whole:
        return
    pads = seen.count(encoder.image_pad), row.whole.count(encoder.image_pad)
    sizes = ", ".join(f"{picture.width}x{picture.height}" for picture in row.pictures[:3])
    why = f"it has {pads[0]} tokens for the pictures ({sizes} px), the trainer {pads[1]}" if pads[0] != pads[1] else ""
    raise SetupError(
        f"vLLM reads a prompt of {len(row.whole)} tokens as {len(seen)} other ones{f': {why}' if why else ''}; start it with "
        "the model folder that is trained and its pixel bounds (--mm-processor-kwargs)"
    )


def number(logprob: float | None) -> float:
    """A sampled token's log-probability; vLLM's JSON says null for NaN. Raises EnvCrashed for what cannot be one."""
    if logprob is None or not is_logprob(logprob):
        said = "NaN" if logprob is None or math.isnan(logprob) else logprob
        raise EnvCrashed(f"vLLM reported {said} as a sampled token's log-probability")
    return float(logprob)
