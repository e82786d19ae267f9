"""The decode loop: packs of rows in, sampled tokens out.

What is picked at a place depends only on the logits there and the row's own random number for that place (inverse CDF). So
a draft needs no rejection rule: its tokens are put behind the row, one forward gives the logits at all of them, and they
stand for as long as each is what would have been picked anyway. With and without drafts the same tokens come out. Where a
draft put one row ahead of others with the same prompt, what it said is theirs to try.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from agent.policy import Sampling
from agent.tree import Chain, Columns, Ints, Pack, grow, prefill_mask

_MOST_SCORES = 1 << 26  # entries of the (nodes, vocabulary) table made at once


@dataclass(eq=False)
class Speech:
    """One row's answer in the making. draft: ids expected, (possibly) none; uniforms: one random number per token."""

    uniforms: Tensor
    draft: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False
    at: int = 0

    def expected(self) -> list[int]:
        """What the draft says after the token said last: where the draft was left, or where that token comes next in it
        (the thought differs, the action that closes it may not)."""
        try:
            place = self.draft.index(self.tokens[-1], self.at)
        except ValueError:
            return []
        self.at = place + 1
        return self.draft[self.at :]

    def follow(self, siblings: Sequence[Speech]) -> None:
        """Expect what a sibling, who was asked the same and has said the same so far, went on to say."""
        said = len(self.tokens)
        for other in siblings:
            if len(other.tokens) > said and other.tokens[:said] == self.tokens:
                self.draft = other.tokens[:-1] if other.done else [*other.tokens]
                self.at = said - 1
                return


@dataclass
class Gate:
    """Are drafts worth their price? Counts only, so that a run decides the same again: tokens drafted, and tokens of them
    that stood. A drafted token costs about as much as a sampled one without its share of a forward's fixed cost, hence
    `least`. Until something is known one row in 8 tries; when it is not worth it, that many do in one call out of 32, so
    that a policy that comes to agree is noticed and all other calls pay nothing."""

    least: float = 0.3
    drafted: float = 0.0
    stood: float = 0.0
    calls: int = 0
    asked: int = 0
    one_in: int = 8

    def begin(self) -> None:
        """A call begins; what it learns counts from the next one on."""
        self.calls += 1
        known = self.drafted >= 32
        worth = known and self.stood >= self.least * self.drafted
        self.one_in = 1 if worth else 8 if not known or self.calls % 32 == 0 else 0

    def open(self) -> bool:
        """May the next row of this call try its draft?"""
        self.asked += 1
        return self.one_in > 0 and (self.asked - 1) % self.one_in == 0

    def tell(self, drafted: int, stood: int) -> None:
        self.drafted += drafted
        self.stood += stood
        if self.drafted > 4096:
            self.drafted, self.stood = self.drafted / 2, self.stood / 2


@torch.no_grad()
def decode(
    model: Any,
    packs: Sequence[Pack],
    speeches: Sequence[Speech],
    vision: dict[str, Any],
    *,
    banned: Tensor,
    end: int,
    pad: int,
    sampling: Sampling,
    gate: Gate,
) -> None:
    """Let every row of the packs speak to its end; fills in `speeches` (by Pack.places).

    vision: the packs' pictures in order, as the model takes them. banned: (vocabulary,), tokens never said. end: the token
    that ends a turn.
    """
    state = _State(model, packs, speeches, pad)
    hidden, chains = state.read(packs, vision)
    while True:
        picked = _pick(model, hidden, chains, state.speeches, banned, sampling)
        state.settle(chains, picked, end, sampling.max_new_tokens, gate)
        chains = state.next_chains(sampling.max_new_tokens)
        if not chains:
            return
        hidden = state.forward(chains)


class _State:
    """Which columns each row has behind it, on which packs the forward still works, and their keys and values."""

    def __init__(self, model: Any, packs: Sequence[Pack], speeches: Sequence[Speech], pad: int):
        self.model, self.pad = model, pad
        self.cache = Cache(layer_class_to_replicate=Columns)
        self.speeches = [speeches[place] for pack in packs for place in pack.places]
        self.pack = [p for p, pack in enumerate(packs) for _ in pack.places]
        self.packs, self.length, self.offset = len(packs), max(map(len, packs)), 0
        self.seen = np.zeros((len(self.speeches), self.length), np.bool_)
        self.ends = np.zeros(len(self.speeches), np.int64)
        self.following = np.zeros(len(self.speeches), np.int64)
        self.first: list[Chain] = []
        self.siblings: list[list[Speech]] = []
        families: dict[tuple[int, int], list[Speech]] = defaultdict(list)
        for p, pack in enumerate(packs):
            for path, prompt in zip(pack.paths, pack.prompts, strict=True):
                row, last = len(self.first), path[prompt - 1]
                self.siblings.append(families[p, int(last)])  # a prompt's last column tells the whole of it
                self.siblings[row].append(self.speeches[row])
                self.seen[row, path[:prompt]] = True
                self.following[row] = pack.positions[:, last].max()
                self.first.append(Chain(row, p, [-1, *pack.keys[path[prompt:]].tolist()], path[prompt - 1 :].tolist()))

    def read(self, packs: Sequence[Pack], vision: dict[str, Any]) -> tuple[Tensor, list[Chain]]:
        """Prefill: hidden states (packs, length, width), and each row's chain of prompt end and draft."""
        ids = np.full((len(packs), self.length), self.pad)
        positions = np.zeros((3, len(packs), self.length), np.int64)
        image = self.model.config.image_token_id
        for p, pack in enumerate(packs):
            ids[p, : len(pack)] = np.where(pack.keys < 0, image, pack.keys)
            positions[:, p, : len(pack)] = pack.positions
        return self._run(ids, positions, prefill_mask(packs, self.length), vision), self.first

    def forward(self, chains: Sequence[Chain]) -> Tensor:
        self._leave(chains)
        self.offset = self.seen.shape[1]
        ids, positions, mask = grow(chains, self.seen, self.ends, self.following, self.packs, self.pad)
        self.seen = np.concatenate([self.seen, np.zeros((len(self.seen), ids.shape[1]), np.bool_)], axis=1)
        return self._run(ids, np.broadcast_to(positions, (3, *positions.shape)), mask, {})

    def _run(self, ids: Ints, positions: Ints, mask: Any, vision: dict[str, Any]) -> Tensor:
        device = self.model.device
        seen = torch.from_numpy(mask)[:, None].to(device)
        if self.model.config._attn_implementation != "sdpa":
            seen = torch.zeros(seen.shape, device=device, dtype=self.model.dtype).masked_fill(~seen, -torch.inf)
        output = self.model.model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=seen,
            position_ids=torch.from_numpy(np.ascontiguousarray(positions)).to(device),
            past_key_values=self.cache,
            use_cache=True,
            **vision,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def settle(
        self, chains: Sequence[Chain], picked: Sequence[tuple[list[int], list[float]]], end: int, most: int, gate: Gate
    ) -> None:
        """Walk along each chain for as long as it says what was picked."""
        for chain, (tokens, logprobs) in zip(chains, picked, strict=True):
            speech, row, stood = self.speeches[chain.row], chain.row, 0
            while True:
                column = self.offset + chain.slots[stood]
                self.seen[row, column] = True
                self.ends[row] = column
                self.following[row] += 1
                speech.tokens.append(tokens[stood])
                speech.logprobs.append(logprobs[stood])
                if tokens[stood] == end or len(speech.tokens) == most:
                    speech.done = True
                    break
                if stood + 1 == len(chain.tokens) or chain.tokens[stood + 1] != tokens[stood]:
                    break
                stood += 1
            if len(chain.tokens) > 1:
                gate.tell(len(chain.tokens) - 1, stood)
                speech.at += stood

    def next_chains(self, most: int) -> list[Chain]:
        """Every unfinished row's token said last, with what its draft, or a sibling that is ahead, expects to follow."""
        chains = []
        for row, speech in enumerate(self.speeches):
            if not speech.done:
                speech.follow(self.siblings[row])
                room = most - len(speech.tokens) - 1
                chains.append(Chain(row, self.pack[row], [speech.tokens[-1], *speech.expected()[:room]]))
        return chains

    def _leave(self, chains: Sequence[Chain]) -> None:
        """Packs that have nothing more to say leave, once they are a quarter: leaving copies what stays."""
        busy = sorted({chain.pack for chain in chains})
        if len(busy) > 0.75 * self.packs:
            return
        self.cache.batch_select_indices(torch.tensor(busy, device=self.model.device))
        place = {old: new for new, old in enumerate(busy)}
        self.pack = [place.get(p, -1) for p in self.pack]
        self.packs = len(busy)
        for chain in chains:
            chain.pack = place[chain.pack]


def _pick(
    model: Any, hidden: Tensor, chains: Sequence[Chain], speeches: Sequence[Speech], banned: Tensor, sampling: Sampling
) -> list[tuple[list[int], list[float]]]:
    """Tokens and log-probabilities that each chain's row picks after each of the chain's nodes, if it gets there."""
    width = hidden.shape[1]
    nodes = np.array([chain.pack * width + slot for chain in chains for slot in chain.slots])
    starts = [len(speeches[chain.row].tokens) for chain in chains]
    numbers = torch.cat(
        [speeches[c.row].uniforms[start : start + len(c.slots)] for c, start in zip(chains, starts, strict=True)]
    )
    order = np.argsort(nodes, kind="stable")
    distinct, owner = np.unique(nodes, return_inverse=True)
    tokens, logprobs = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.float64)
    flat = hidden.reshape(-1, hidden.shape[-1])
    step = max(1, _MOST_SCORES // len(banned))
    for start in range(0, len(nodes), step):
        chunk = order[start : start + step]
        low, high = owner[chunk[0]], owner[chunk[-1]] + 1
        scores = model.lm_head(flat[torch.from_numpy(distinct[low:high]).to(flat.device)]).float()
        rows = torch.from_numpy(owner[chunk] - low).to(flat.device)
        chosen = pick(
            scores.masked_fill(banned, -torch.inf)[rows], numbers[torch.from_numpy(chunk)].to(flat.device), sampling
        )
        told = scores.log_softmax(-1)[rows, chosen]
        tokens[chunk], logprobs[chunk] = chosen.cpu().numpy(), told.double().cpu().numpy()
    cuts = np.cumsum([len(chain.slots) for chain in chains])[:-1]
    return [(t.tolist(), p.tolist()) for t, p in zip(np.split(tokens, cuts), np.split(logprobs, cuts), strict=True)]


def pick(scores: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """One token per row by inverse CDF. scores: (rows, vocabulary), -inf where banned; uniforms: (rows,) in [0, 1)."""
    if sampling.temperature == 0:
        return scores.argmax(-1)
    scores = scores / sampling.temperature
    if sampling.top_k:
        kth = scores.topk(min(sampling.top_k, scores.shape[-1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if sampling.top_p < 1:
        ordered, index = scores.softmax(-1).sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= sampling.top_p  # the token that crosses top_p stays
        scores = scores.masked_fill(outside.gather(1, index.argsort(-1)), -torch.inf)
    cdf = scores.double().softmax(-1).cumsum(-1)
    total = cdf[:, -1]
    # Strictly greater, and strictly below the total: a token of probability zero spans no part of the CDF.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target[:, None], right=True)[:, 0]
