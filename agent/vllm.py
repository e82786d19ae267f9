"""A policy that generates on vLLM: a server beside the trainer, or an engine in this process.

vLLM only samples. Prompts travel as the token ids that `agent.encode` makes, never as text to be tokenised again, so the
rows that are trained on are the rows that were asked; pictures travel at the model's size, so no other resize rule can
move a coordinate; ids and log-probabilities come back as sampled.

Each request carries its own seed, which vLLM honours per request. That makes a run repeatable only as far as vLLM's kernels
are: another batch composition may round differently and turn a draw. Exact replay is the in-process policy's promise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from agent.encode import Encoder
from agent.errors import EnvCrashed, PromptTooLong, SetupError
from agent.local import LocalPolicy
from agent.policy import Request, Sampling
from agent.screen import Vision
from agent.types import Completion, Picture

Answer = tuple[list[int], list[float]]
"""Sampled ids, the end of turn included, and the log-probability of each."""


@dataclass(frozen=True, eq=False)
class Asked:
    """ids: the prompt, image pads expanded. pictures: what the pads stand for, in order."""

    ids: list[int]
    pictures: tuple[Picture, ...]
    seed: int


class Engine(Protocol):
    """Samples one answer per row, in order. extra: further vLLM sampling parameters. Raises SetupError and EnvCrashed."""

    def answer(self, rows: Sequence[Asked], sampling: Sampling, extra: dict[str, Any]) -> list[Answer]: ...


class VLLMPolicy:
    """Asks `engine`. local: the trainer's own weights, whose encoder is used and against which answers can be checked."""

    def __init__(self, engine: Engine, local: LocalPolicy, name: str | None = None):
        self.engine, self.local, self.encoder = engine, local, local.encoder
        self.name = name or local.name
        rows = local.model.get_input_embeddings().weight
        vocabulary = getattr(rows, "ds_shape", rows.shape)[0]
        # vLLM adds at most 100 to a logit; -100 leaves e^-100 of a token's chance.
        self._banned = {
            token: -100.0
            for token in (*self.encoder.special_ids, *range(len(self.encoder.tokenizer), vocabulary))
            if token != self.encoder.end_of_turn
        }

    @property
    def vision(self) -> Vision:
        return self.encoder.vision

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """As `LocalPolicy.complete`: special tokens are banned, over-long conversations are answered with "budget"."""
        results = [Completion("", finish="budget")] * len(requests)
        rows = {i: row for i, request in enumerate(requests) if (row := self.asked(request)) is not None}
        answers = self.engine.answer([*rows.values()], sampling, {"logit_bias": self._banned, **self.stop})
        for i, (ids, logprobs) in zip(rows, answers, strict=True):
            ended = bool(ids) and ids[-1] == self.encoder.end_of_turn
            text = self.encoder.text(ids)
            results[i] = Completion(text, tuple(ids), tuple(logprobs), "stop" if ended else "length")
        return results

    @property
    def stop(self) -> dict[str, Any]:
        return {"stop_token_ids": [self.encoder.end_of_turn]}

    def asked(self, request: Request) -> Asked | None:
        """None for a prompt that its own conversation has made too long."""
        try:
            encoded = self.encoder.prompt(request.prompt)
        except PromptTooLong:
            if any(message.role == "assistant" for message in request.prompt.messages):
                return None
            raise
        return Asked(encoded.ids.tolist(), encoded.pictures, request.seed % 2**63)


class ServerEngine:
    """Through TRL's `VLLMClient`, `concurrency` requests at a time. A group's pictures are sent once per call."""

    def __init__(self, client: Any, encoder: Encoder, concurrency: int = 64):
        self.client, self.encoder = client, encoder
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="vllm")

    def answer(self, rows: Sequence[Asked], sampling: Sampling, extra: dict[str, Any]) -> list[Answer]:
        shown = [*dict.fromkeys(row.pictures for row in rows if row.pictures)]
        features = dict(zip(shown, self._pool.map(self._features, shown), strict=True))

        def ask(row: Asked) -> Answer:
            placed = [place(features[row.pictures], row.ids, self.encoder)] if row.pictures else None
            told = self._call(
                lambda: self.client.generate(
                    [row.ids],
                    features=placed,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k,
                    max_tokens=sampling.max_new_tokens,
                    logprobs=0,
                    generation_kwargs={"seed": row.seed, **extra},
                )
            )
            [ids], [logprobs] = told["completion_ids"], told["logprobs"]
            return ids, [_number(entry[0]) for entry in logprobs]

        return [*self._pool.map(ask, rows)]

    def _features(self, pictures: tuple[Picture, ...]) -> dict[str, Any]:
        [features] = self._call(lambda: self.client.image_features([[resized(picture) for picture in pictures]]))
        places = features["mm_placeholders"]["image"]
        for picture, shown in zip(pictures, places, strict=True):
            if shown["length"] != self.encoder.image_tokens(picture):
                raise SetupError(
                    f"vLLM turns a picture of {picture.width}x{picture.height} px into {shown['length']} tokens, the "
                    f"trainer into {self.encoder.image_tokens(picture)}; start the server with the same model folder and "
                    "the trainer's pixel bounds (--mm-processor-kwargs)"
                )
        return dict(features)

    def _call(self, send: Callable[[], Any]) -> Any:
        """TRL's client raises `requests` errors where nobody answers and a plain Exception for an HTTP status."""
        from requests.exceptions import ConnectionError as Unreachable

        where = self.client.base_url
        try:
            return send()
        except Unreachable as error:
            raise SetupError(f"the vLLM server at {where} is gone ({type(error).__name__}); start it again") from None
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            if said.startswith("Request failed: 4") or isinstance(error, RuntimeError):
                raise SetupError(
                    f"the vLLM server at {where} refuses the request ({said}); check its --max-model-len, "
                    "--limit-mm-per-prompt and version"
                ) from None
            raise EnvCrashed(f"vLLM at {where}: {type(error).__name__}: {said}") from None


class ColocatedEngine:
    """`vllm.LLM` in this process. Its log-probabilities are told after banned tokens left (TRL starts it that way), so
    they lie above the trainer's by the log of the mass that banned tokens had: next to nothing for a trained model."""

    def __init__(self, llm: Any):
        self.llm = llm

    def answer(self, rows: Sequence[Asked], sampling: Sampling, extra: dict[str, Any]) -> list[Answer]:
        from vllm import SamplingParams

        images = {picture: resized(picture) for row in rows for picture in row.pictures}
        prompts = [
            {"prompt_token_ids": row.ids}
            | ({"multi_modal_data": {"image": [images[picture] for picture in row.pictures]}} if row.pictures else {})
            for row in rows
        ]
        settings = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_new_tokens,
                logprobs=0,
                seed=row.seed,
                **extra,
            )
            for row in rows
        ]
        told = [one.outputs[0] for one in self.llm.generate(prompts, sampling_params=settings, use_tqdm=False)]
        return [
            ([*one.token_ids], [_number(at[i].logprob) for i, at in zip(one.token_ids, one.logprobs, strict=True)])
            for one in told
        ]


def place(features: dict[str, Any], ids: Sequence[int], encoder: Encoder) -> dict[str, Any]:
    """The features with their places in this prompt: the server only knows where they stood in a conversation of its own."""
    places, start = [], 0
    for picture in features["mm_placeholders"]["image"]:
        start = ids.index(encoder.image_pad, start)
        places.append({"offset": start, "length": picture["length"]})
        start += picture["length"]
    return {**features, "mm_placeholders": {**features["mm_placeholders"], "image": places}}


def resized(picture: Picture) -> Image.Image:
    """The screenshot at the model's size, as `Encoder.pixels` resizes it."""
    image, size = picture.screenshot.image(), (picture.width, picture.height)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _number(logprob: float | None) -> float:
    if logprob is None:
        raise EnvCrashed("vLLM told NaN for a sampled token's log-probability")
    return float(logprob)
