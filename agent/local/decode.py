"""The decode loop: prefix trees in, sampled tokens out.

The token sampled at a place depends only on the logits there and on the row's own random number for that place (inverse
CDF). So a draft needs no rejection rule: its tokens are appended to the row, one forward gives the logits at all of them,
and each is accepted if it is the token that would have been sampled anyway. With and without drafts the same tokens come
out. When a draft has put one row ahead of others with the same prompt, its tokens become a draft for them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from guiderail.agent.local.columns import Chain, GrowingLayer, add_columns
from guiderail.agent.local.drafts import Gate
from guiderail.agent.local.encode import Encoder
from guiderail.agent.local.prefix import Tree, side_by_side, visible
from guiderail.agent.policy import Sampling

_MOST_SCORES = 1 << 26  # entries of the (nodes, vocabulary) table made at once


@dataclass(eq=False)
class Decoding:
    """One row's answer while it is decoded.

    uniforms: (max new tokens,) random numbers in [0, 1), one per token. draft: the ids that may come, or none. others: more
    such answers, which take its place where they agree with what was sampled and it does not. tokens, logprobs: sampled so
    far. at: how much of the draft has been passed.
    """

    uniforms: Tensor
    draft: list[int] = field(default_factory=list)
    others: Sequence[list[int]] = ()
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False
    at: int = 0

    def expected(self) -> list[int]:
        """The draft's tokens after the token sampled last: from the place reached in the draft, or from where that token
        occurs next in it (the thought may differ while the action after it agrees)."""
        try:
            place = self.draft.index(self.tokens[-1], self.at)
        except ValueError:
            return []
        self.at = place + 1
        return self.draft[self.at :]

    def follow(self, siblings: Sequence[Decoding]) -> None:
        """Take as draft what a sibling said: a row with the same prompt that is ahead and has sampled the same so far."""
        length = len(self.tokens)
        for other in siblings:
            if len(other.tokens) > length and other.tokens[:length] == self.tokens:
                self.draft = other.tokens[:-1] if other.done else [*other.tokens]
                self.at = length - 1
                return
        if self.others and self.draft[:length] != self.tokens:
            for said in self.others:
                if len(said) > length and said[:length] == self.tokens:
                    self.draft, self.at = said, length - 1
                    return


@torch.no_grad()
def decode(
    model: Any,
    trees: Sequence[Tree],
    decodings: Sequence[Decoding],
    vision: dict[str, Any],
    *,
    banned: Tensor,
    encoder: Encoder,
    sampling: Sampling,
    gate: Gate,
) -> None:
    """Sample every row of the trees to its end; fills in `decodings`, which `Tree.places` index.

    A branch is a row's prompt with its draft behind it. vision: the trees' pictures in order, as the model takes them.
    banned: (vocabulary,), True for tokens that are never sampled.
    """
    state = _State(model, trees, decodings, encoder)
    columns, forwards = sum(len(decoding.draft) for decoding in state.decodings), 0
    hidden, chains = state.prefill(trees, vision)
    picked = _pick(model, hidden, chains, state.decodings, banned, sampling)
    while True:
        state.accept(chains, picked, sampling.max_new_tokens, gate)
        chains = state.next_chains(sampling.max_new_tokens)
        if not chains:
            break
        began = time.perf_counter()
        hidden = state.forward(chains)
        picked = _pick(model, hidden, chains, state.decodings, banned, sampling)  # waits for the device
        computed = hidden.shape[0] * hidden.shape[1]
        gate.forward(computed, time.perf_counter() - began)
        columns, forwards = columns + computed, forwards + 1
    gate.end_call(sum(len(decoding.tokens) for decoding in state.decodings), forwards, columns)


class _State:
    """Which columns each row has behind it, the trees the forward still works on, and their keys and values."""

    def __init__(self, model: Any, trees: Sequence[Tree], decodings: Sequence[Decoding], encoder: Encoder):
        self.model, self.encoder = model, encoder
        self.cache = Cache(layer_class_to_replicate=GrowingLayer)
        self.decodings = [decodings[place] for tree in trees for place in tree.places]
        self.tree = [t for t, tree in enumerate(trees) for _ in tree.places]
        self.trees, self.offset = len(trees), 0
        self.seen = np.zeros((len(self.decodings), max(map(len, trees))), np.bool_)
        self.last = np.zeros(len(self.decodings), np.int64)
        self.following = np.zeros(len(self.decodings), np.int64)
        self.first: list[Chain] = []
        self.siblings: list[list[Decoding]] = []
        families: dict[tuple[int, int], list[Decoding]] = defaultdict(list)
        for t, tree in enumerate(trees):
            for path in tree.paths:
                row, decoding = len(self.first), self.decodings[len(self.first)]
                prompt = len(path) - len(decoding.draft)
                last = int(path[prompt - 1])
                self.siblings.append(families[t, last])  # the last column of a prompt identifies all of it
                self.siblings[row].append(decoding)
                self.seen[row, path[:prompt]] = True
                self.following[row] = tree.positions[:, last].max()
                self.first.append(Chain(row, t, [-1, *decoding.draft], path[prompt - 1 :].tolist()))

    def prefill(self, trees: Sequence[Tree], vision: dict[str, Any]) -> tuple[Tensor, list[Chain]]:
        """Hidden states (trees, longest, width), and each row's chain of prompt end and draft."""
        ids, positions, ends = (part.to(self.model.device) for part in side_by_side([[t] for t in trees], self.encoder))
        return self._run(ids, positions, visible(ends), vision), self.first

    def forward(self, chains: Sequence[Chain]) -> Tensor:
        """Hidden states (trees, new columns, width) of the chains' tokens."""
        self._drop_finished(chains)
        self.offset = self.seen.shape[1]
        ids, positions, mask = add_columns(chains, self.seen, self.last, self.following, self.trees, self.encoder.pad)
        self.seen = np.concatenate([self.seen, np.zeros((len(self.seen), ids.shape[1]), np.bool_)], axis=1)
        parts = (torch.from_numpy(part).to(self.model.device) for part in (ids, positions, mask))
        new, places, sees = parts
        return self._run(new, places.expand(3, -1, -1), sees, {})

    def _run(self, ids: Tensor, positions: Tensor, sees: Tensor, vision: dict[str, Any]) -> Tensor:
        mask = sees[:, None]
        if self.model.config._attn_implementation != "sdpa":
            mask = torch.zeros(mask.shape, device=mask.device, dtype=self.model.dtype).masked_fill(~mask, -torch.inf)
        output = self.model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **vision,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def accept(
        self, chains: Sequence[Chain], picked: Sequence[tuple[list[int], list[float]]], most: int, gate: Gate
    ) -> None:
        """Append to each row what it picked, along its chain for as long as the chain holds the picked token."""
        for chain, (tokens, logprobs) in zip(chains, picked, strict=True):
            decoding, row, accepted = self.decodings[chain.row], chain.row, 0
            while True:
                column = self.offset + chain.slots[accepted]
                self.seen[row, column] = True
                self.last[row] = column
                self.following[row] += 1
                decoding.tokens.append(tokens[accepted])
                decoding.logprobs.append(logprobs[accepted])
                if tokens[accepted] == self.encoder.end_of_turn or len(decoding.tokens) == most:
                    decoding.done = True
                    break
                if accepted + 1 == len(chain.tokens) or chain.tokens[accepted + 1] != tokens[accepted]:
                    break
                accepted += 1
            if len(chain.tokens) > 1:
                gate.record(len(chain.tokens) - 1, accepted)
                decoding.at += accepted

    def next_chains(self, most: int) -> list[Chain]:
        """For every unfinished row the token sampled last, with what its draft, or a sibling ahead of it, expects next."""
        chains = []
        for row, decoding in enumerate(self.decodings):
            if not decoding.done:
                decoding.follow(self.siblings[row])
                room = most - len(decoding.tokens) - 1
                chains.append(Chain(row, self.tree[row], [decoding.tokens[-1], *decoding.expected()[:room]]))
        return chains

    def _drop_finished(self, chains: Sequence[Chain]) -> None:
        """Drop trees whose rows are all done, once they are a quarter: dropping copies what stays."""
        busy = sorted({chain.tree for chain in chains})
        if len(busy) > 0.75 * self.trees:
            return
        self.cache.batch_select_indices(torch.tensor(busy, device=self.model.device))
        index = {old: new for new, old in enumerate(busy)}
        self.tree = [index.get(t, -1) for t in self.tree]
        self.trees = len(busy)
        for chain in chains:
            chain.tree = index[chain.tree]


def _pick(
    model: Any,
    hidden: Tensor,
    chains: Sequence[Chain],
    decodings: Sequence[Decoding],
    banned: Tensor,
    sampling: Sampling,
) -> list[tuple[list[int], list[float]]]:
    """For each chain, the tokens its row samples after each of the chain's nodes, if it gets there, and their
    log-probabilities at temperature 1."""
    width = hidden.shape[1]
    nodes = np.array([chain.tree * width + slot for chain in chains for slot in chain.slots])
    starts = [len(decodings[chain.row].tokens) for chain in chains]
    numbers = torch.cat(
        [decodings[c.row].uniforms[start : start + len(c.slots)] for c, start in zip(chains, starts, strict=True)]
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
        logps = scores.log_softmax(-1)[rows, chosen]
        tokens[chunk], logprobs[chunk] = chosen.cpu().numpy(), logps.double().cpu().numpy()
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
