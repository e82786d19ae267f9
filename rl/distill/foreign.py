"""A teacher whose tokenizer is not the student's. It reads the same prompt and the same answer in its own tokens (rl/train/spans.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from guiderail.agent.errors import PromptTooLong, SetupError
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.loading import load_encoder
from guiderail.agent.policy import Policy
from guiderail.agent.types import Prompt
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.distill.teacher import FrozenTeacher, check_pictures, turn_key
from guiderail.rl.train.prefix import EncodedTurn, lay_out
from guiderail.rl.train.spans import Best, Spans, align, told_in_spans

_LONGER = 4  # times the student's longest prompt, in the teacher's tokens
_BYTES = {character: bytes([byte]) for byte, character in bytes_to_unicode().items()}
_Reread = tuple[EncodedTurn, list[int], list[int]]
"""A turn in the teacher's tokens, and the span of each token of the student and of the teacher."""


class ForeignTeacher(FrozenTeacher):
    """With its own tokenizer and chat template. Raises SetupError for a tokenizer that does not write text as bytes.

    Turns are not taught whose sampled tokens are not UTF-8, or whose text the teacher's tokenizer does not keep.
    """

    _turns: Mapping[tuple[object, ...], _Reread] = MappingProxyType({})

    def reader(self, path: str) -> Encoder:
        own = load_encoder(path, max_prompt_tokens=_LONGER * self.encoder.max_prompt_tokens)
        check_pictures(self.encoder, own, path)
        for who, one in (("student", self.encoder), ("teacher", own)):
            check_bytes(one, who)
        return own

    def prompts(self, policy: Policy, samples: Sequence[StepSample], generation: int) -> list[Prompt | None]:
        """The student's own, of the turns that both can read."""
        turns: dict[tuple[object, ...], _Reread] = {}
        found: list[Prompt | None] = []
        for sample in samples:
            said = sample.completion.token_ids
            read = self._reread(sample.prompt, said)
            if read is not None:
                row = EncodedTurn.of(self.encoder.prompt(sample.prompt), torch.tensor(said))
                turns[turn_key(row)] = read
            found.append(None if read is None else sample.prompt)
        self._turns = turns
        self.counts = {"teach/heard": (sum(one is not None for one in found), len(found))}
        return found

    def _reread(self, prompt: Prompt, said: Sequence[int]) -> _Reread | None:
        if not said:
            return None
        ours = token_bytes(self.encoder, said)
        ended = said[-1:] == (self.encoder.end_of_turn,)
        try:
            target = self.own.target(b"".join(ours[:-1] if ended else ours).decode())
            target = target if ended else target[:-1]
            spans = align(ours, token_bytes(self.own, target.tolist()))
            return EncodedTurn.of(self.own.prompt(prompt), target), *spans
        except (ValueError, PromptTooLong):  # ValueError: not UTF-8, or another text
            return None

    def tell(self, trainer: Any, turns: Sequence[EncodedTurn]) -> Spans:
        known = [self._turns.get(turn_key(turn)) for turn in turns]
        read = [one for one in known if one is not None]
        if len(read) < len(turns):  # the filler of a micro-batch that is not taught
            return _nothing(sum(len(turn.ids) - turn.start for turn in turns))
        device = trainer.accelerator.device
        self.load(device)
        rows = [row for row, _, _ in read]
        rope = self.model.model.get_rope_index
        layout = lay_out(rows, self.own, rope, trainer._pairs, trainer._maskless).to(device)
        told = self.read(layout, trainer)
        said = torch.cat([row.ids[row.start :] for row in rows]).to(device)
        ours = _numbered([spans for _, spans, _ in read]).to(device)
        theirs = _numbered([spans for _, _, spans in read]).to(device)
        likely = told.tokens[:, 0].tolist()
        words = {token: str(self.own.tokenizer.decode([token])) for token in set(likely)}
        return told_in_spans(told, said, theirs, ours, [words[token] for token in likely])


def _numbered(rows: Sequence[Sequence[int]]) -> Tensor:
    """The spans of several turns, one after the other."""
    found, first = list[int](), 0
    for row in rows:
        found += [first + span for span in row]
        first = found[-1] + 1
    return torch.tensor(found)


def _nothing(places: int) -> Spans:
    even = torch.full((places, 2), 0.5)
    nothing = (Best("", 0.0),) * places
    return Spans(torch.arange(places), torch.zeros(places), torch.zeros(places, dtype=torch.bool), even, nothing)


def check_bytes(encoder: Encoder, who: str) -> None:
    """Raises SetupError for a tokenizer whose tokens are not strings of bytes, as those of Qwen's family are."""
    added = {token.content for token in encoder.tokenizer.added_tokens_decoder.values()}
    odd = next((t for t in sorted(encoder.tokenizer.get_vocab()) if t not in added and set(t) - _BYTES.keys()), None)
    if odd is not None:
        raise SetupError(
            f"the {who}'s tokenizer has the token {odd!r}, which is not a string of bytes; teacher.tokenizer=other needs "
            "byte-level tokenizers, as Qwen's are"
        )


def token_bytes(encoder: Encoder, ids: Sequence[int]) -> list[bytes]:
    """The text of each token. Ids without a token, which a model may sample, are the replacement character."""
    added = encoder.tokenizer.added_tokens_decoder
    found = []
    for token, text in zip(ids, encoder.tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if token in added or text is None:
            found.append(("\ufffd" if text is None else str(added[token].content)).encode())
        else:
            found.append(b"".join(_BYTES[character] for character in text))
    return found
