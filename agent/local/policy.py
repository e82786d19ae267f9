"""A policy in this process: transformers weights, our own decode loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guiderail.agent.errors import PromptTooLong
from guiderail.agent.local.attention import fast_windows
from guiderail.agent.local.decode import Decoding, decode
from guiderail.agent.local.drafts import Drafts
from guiderail.agent.local.encode import Encoded, Encoder
from guiderail.agent.local.loading import load_encoder, load_model, with_adapter
from guiderail.agent.local.prefix import Branch, batches, build_trees, extend, make_branches, pairs_per_token
from guiderail.agent.local.vision import VisionStore, plain_model
from guiderail.agent.policy import Request, Sampling, Sharing
from guiderail.agent.screen import Vision
from guiderail.agent.shipped import adapter_base, shipped
from guiderail.agent.types import Completion, Prompt

_MOST_PAIRS = 1 << 28  # entries of the attention mask of one batch

# -------------------------------------------------------------------------------------------------------------- policy


class LocalPolicy:
    """Samples from a transformers vision-language model, plain or PEFT-wrapped, on the device the model is on.

    Each request has its own random stream: what is sampled depends on its logits and its seed, not on the other requests.
    max_batch: the most rows decoded together. max_batch_tokens: the most prompt tokens among them, padding included.
    sharing: which work the rows share (`Sharing`); none of it changes an answer. store: where vision features are kept; pass
    the same store to every other part that sees the same screenshots. drafts: pass those of an earlier policy that learned
    what its successor may use.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        name: str,
        *,
        max_batch: int = 64,
        max_batch_tokens: int = 1 << 16,
        sharing: Sharing | None = None,
        store: VisionStore | None = None,
        drafts: Drafts | None = None,
    ):
        self.model, self.encoder, self.name = model, encoder, name
        self.max_batch, self.max_batch_tokens = max_batch, max_batch_tokens
        self.sharing = sharing or Sharing()
        shared = store if self.sharing.share_vision else None
        self.store = shared or VisionStore(encoder, on=self.sharing.share_vision)
        self.drafts = drafts or Drafts.of(self.sharing.speculation)
        rows = model.get_input_embeddings().weight
        vocabulary = getattr(rows, "ds_shape", rows.shape)[0]
        # An image pad among the sampled tokens would make the update ask for features that do not exist; ids past the
        # tokenizer's own are padding of the embedding table.
        banned = torch.zeros(vocabulary, dtype=torch.bool)
        banned[list(encoder.special_ids)] = True
        banned[len(encoder.tokenizer) :] = True
        banned[encoder.end_of_turn] = False
        self._banned = banned

    @property
    def vision(self) -> Vision:
        """The checkpoint's resize rule."""
        return self.encoder.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion per request, in order. Prompts of like length are decoded together.

        A prompt that its own conversation has made too long gets finish "budget". Raises PromptTooLong for one that is too
        long from the start.
        """
        encoded = self._encode(requests)
        fitting = [i for i, row in enumerate(encoded) if row is not None]
        results = [Completion("", finish="budget")] * len(requests)
        training = self.model.training
        self.model.eval()
        self.drafts.gate.begin_call(min(len(fitting), self.max_batch))
        try:
            decodings = self._decode(
                [encoded[i] for i in fitting],  # type: ignore[misc]
                [self._start(requests[i], sampling) for i in fitting],
                sampling,
            )
        finally:
            self.model.train(training)
        for i, decoding in zip(fitting, decodings, strict=True):
            results[i] = self._completion(decoding)
            if self.drafts.visits is not None:
                ended = decoding.tokens[-1] == self.encoder.end_of_turn
                self.drafts.visits.remember(requests[i].prompt, decoding.tokens[:-1] if ended else decoding.tokens)
        return results

    def _encode(self, requests: Sequence[Request]) -> list[Encoded | None]:
        """Equal prompts are encoded once and share one object: rollouts of a group often have the same history so far."""
        known: dict[Prompt, Encoded | None] = {}
        for prompt in (request.prompt for request in requests):
            if prompt not in known:
                try:
                    known[prompt] = self.encoder.prompt(prompt)
                except PromptTooLong:
                    if not any(message.role == "assistant" for message in prompt.messages):
                        raise
                    known[prompt] = None
        return [known[request.prompt] for request in requests]

    def _start(self, request: Request, sampling: Sampling) -> Decoding:
        """An empty answer, with drafts cut before the first token that cannot be sampled."""
        uniforms = np.random.default_rng(request.seed % 2**64).random(sampling.max_new_tokens)
        first, *others = self._drafts(request.prompt, sampling.max_new_tokens - 1) or [[]]
        return Decoding(torch.from_numpy(uniforms), first, others)

    def _drafts(self, prompt: Prompt, most: int) -> list[list[int]]:
        """Possible answers of at most so many tokens, the best first; none where the gate is shut."""
        visits = self.drafts.visits
        said = visits.answers(prompt) if visits is not None else []
        if self.sharing.speculation == "off" or not (said or prompt.draft) or not self.drafts.gate.allows():
            return []
        drafts = [answer[:most] for answer in said]
        if prompt.draft:
            ids = self.encoder.target(prompt.draft)[:most]
            possible = ~self._banned[ids] & (ids != self.encoder.end_of_turn)
            drafts.append(ids[: int(possible.long().cumprod(0).sum())].tolist())
        return drafts

    @torch.no_grad()
    def _decode(self, encoded: Sequence[Encoded], decodings: list[Decoding], sampling: Sampling) -> list[Decoding]:
        if not encoded:
            return decodings
        model = plain_model(self.model)
        banned, branches = self._banned.to(model.device), self._branches(model, encoded, decodings)
        pairs = pairs_per_token(model.config) if self.sharing.share_prefill else None
        trees = sorted(build_trees(branches, pairs, self.max_batch), key=len)
        for batch in batches(trees, self.max_batch, self.max_batch_tokens, _MOST_PAIRS):
            decode(
                model,
                batch,
                decodings,
                self.store.inputs(model, [picture for tree in batch for picture in tree.pictures]),
                banned=banned,
                encoder=self.encoder,
                sampling=sampling,
                gate=self.drafts.gate,
            )
        return decodings

    def _branches(self, model: Any, encoded: Sequence[Encoded], decodings: Sequence[Decoding]) -> list[Branch]:
        """Prompts with their drafts behind them."""
        distinct = {id(row): row for row in encoded}
        made = make_branches([*distinct.values()], self.encoder, model.model.get_rope_index)
        known = dict(zip(distinct, made, strict=True))
        return [_with_draft(known[id(row)], decoding.draft) for row, decoding in zip(encoded, decodings, strict=True)]

    def _completion(self, decoding: Decoding) -> Completion:
        ended = bool(decoding.tokens) and decoding.tokens[-1] == self.encoder.end_of_turn
        text = self.encoder.text(decoding.tokens)
        return Completion(text, tuple(decoding.tokens), tuple(decoding.logprobs), "stop" if ended else "length")


def _with_draft(prompt: Branch, draft: list[int]) -> Branch:
    if not draft:
        return prompt
    keys = np.concatenate([prompt.keys, draft])
    return Branch(keys, extend(prompt.positions, len(keys)), prompt.pictures)


def load_policy(
    path: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    *,
    adapter: str | Path | None = None,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    max_prompt_tokens: int = 12288,
    max_batch: int = 64,
    sharing: Sharing | None = None,
    features: Path | None = None,
    name: str | None = None,
) -> LocalPolicy:
    """A policy from a folder or hub name. `path` may be a PEFT adapter folder; its base model is then loaded first.

    device "auto": a GPU when there is one. dtype "auto": the checkpoint's on a GPU, float32 on a CPU. features: a folder
    for vision features, shared with other processes and with other checkpoints that have the same tower. Raises SetupError
    as `load_encoder`, `load_model` and `with_adapter` do.
    """
    name = name or Path(path).name
    path = base = shipped(path)
    if adapter is None and (Path(path) / "adapter_config.json").is_file():
        adapter, base = path, adapter_base(path)
    model = load_model(base, device, dtype)
    fast_windows(model, model.device)
    if adapter is not None:
        model = with_adapter(model, adapter, base)
    encoder = load_encoder(
        path if (Path(path) / "preprocessor_config.json").is_file() else base,
        max_pixels=max_pixels,
        min_pixels=min_pixels,
        max_prompt_tokens=max_prompt_tokens,
    )
    sharing = sharing or Sharing()
    store = VisionStore(encoder, folder=features, on=sharing.share_vision)
    return LocalPolicy(model.eval(), encoder, name, max_batch=max_batch, sharing=sharing, store=store)
