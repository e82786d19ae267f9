"""A policy behind an OpenAI-compatible chat server: vLLM, SGLang, llama.cpp or any other."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.origin import install
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.screen import Vision
from guiderail.agent.served.completion import BadAnswer, parse_json, read_completion, utf8
from guiderail.agent.served.pictures import PictureCache
from guiderail.agent.served.waiting import (
    CONNECT_SECONDS,
    Budget,
    Failed,
    Health,
    Loop,
    TooLarge,
    limited,
    may_pass,
    requested_pause,
    retried,
)
from guiderail.agent.types import Completion, Message, Picture

T = TypeVar("T")

_CHECK_SECONDS = 20.0


class ServedPolicy:
    """Sends prompts to a chat server, `concurrency` requests at a time over all callers.

    base_url: usually ends with "/v1". model: the id the server lists. vision: how the served model resizes
    (`agent.processor`); its own resize then changes nothing, and coordinates mean what they meant in training. api_key_env:
    the variable that holds the key; unset means a server without keys. concurrency: the bound; a smaller batch is asked at once.
    deadline: seconds for one request, all tries and pauses together. retries: further tries after a lost connection, HTTP
    408/409/425/429/5xx or an answer that is not a chat completion, with exponential back-off that starts at `backoff`
    seconds. most_bytes: of one answer. want_tokens: ask for sampled token ids and log-probabilities. picture_bytes: bound of
    the cache of encoded pictures.

    extensions: also send the fields that vLLM, SGLang and llama.cpp add to OpenAI's. Without them these servers fill in
    their own or the checkpoint's top-k, min-p and repetition penalty, and the answers do not come from the distribution that
    `Sampling` describes. Switch it off for a server that refuses unknown fields.

    A request that keeps failing while others are answered costs itself: its place holds an EnvCrashed. SetupError for a
    server that cannot be reached, that refuses a request, or that answers nothing any more (`waiting.Health`): within 1.5
    deadlines. The key appears in no message.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        vision: Vision,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 64,
        *,
        deadline: float = 60.0,
        retries: int = 5,
        backoff: float = 0.5,
        most_bytes: int = 8 * 2**20,
        want_tokens: bool = False,
        extensions: bool = True,
        picture_bytes: int = 256 * 2**20,
    ):
        if concurrency < 1:
            raise SetupError(f"served model: concurrency must be at least 1, got {concurrency}; correct it")
        self.name = model
        self.vision = vision
        self.url = _shown(base_url)
        self._key_env = api_key_env
        self._key = _key(api_key_env)
        self._budget = Budget(deadline, retries, backoff, most_bytes)
        self._health = Health(deadline)
        self._slots = asyncio.Semaphore(concurrency)
        self._want_tokens, self._extensions = want_tokens, extensions
        self._client = _client(base_url, self._key, most_bytes)
        self._pictures = PictureCache(picture_bytes)
        self._loop = Loop()
        self._finalizer = weakref.finalize(self, self._loop.close, self._client.close)

    def __repr__(self) -> str:
        return f"ServedPolicy({self.name!r} at {self.url})"

    def close(self) -> None:
        """Cancel all requests and close all connections. It happens by itself when the policy is garbage collected, and at exit."""
        self._finalizer()

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion | EnvCrashed]:
        """As `Policy.complete`. A SetupError of one request cancels the others."""
        if sampling.top_k > 0 and not self._extensions:
            raise SetupError("top_k is not one of OpenAI's own fields; set top_k to 0 or extensions to true")
        return self._loop.run(self._all([self._answer(request, sampling) for request in requests]))

    def ask(self, payloads: Sequence[dict[str, object]], read: Callable[[object], T]) -> list[T | EnvCrashed]:
        """Chat requests with these bodies, and their answers as `read` makes them of JSON; it raises BadAnswer. Otherwise as
        `complete`."""

        async def one(payload: dict[str, object]) -> T | EnvCrashed:
            async with self._slots:
                return await self._sent(payload, read, None)

        return self._loop.run(self._all([one(payload) for payload in payloads]))

    async def _all(self, requests: Sequence[Coroutine[Any, Any, T | EnvCrashed]]) -> list[T | EnvCrashed]:
        asked = [asyncio.ensure_future(request) for request in requests]
        try:
            answers = await asyncio.gather(*asked)
        finally:
            for one in asked:
                one.cancel()
        self._stop_if_gone(settled=True)
        return answers

    def check(self) -> tuple[str, ...]:
        """The ids the server lists. SetupError if it cannot be reached or does not list the model."""
        seconds = min(self._budget.deadline, _CHECK_SECONDS)
        try:
            served = self._loop.run(retried(lambda: self._try(self._listed), self._budget, seconds))
        except Failed as failed:
            if failed.unreachable:
                raise self._unreachable(failed) from None
            raise SetupError(
                f"{self.url}: {self._safe(str(failed))}; look at the server's log, or correct base_url"
            ) from None
        if self.name not in served:
            listed = ", ".join(map(repr, served[:20])) or "nothing"
            raise SetupError(
                f"{self.url} does not serve {self.name!r}; it serves {self._safe(listed)}; set `model` to one of these"
            )
        return served

    def payload(self, request: Request, sampling: Sampling) -> dict[str, object]:
        """The body of a chat request, as keyword arguments of the openai client. Raises DataError for a broken picture."""
        extra: dict[str, object] = {}
        if self._extensions:
            extra = {"top_k": sampling.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0}
            if self._want_tokens:
                extra["return_token_ids"] = True
        # No top_logprobs: vLLM answers an explicit null without log-probabilities, llama.cpp refuses a 0.
        return {
            "model": self.name,
            "messages": [self._as_json(message) for message in request.prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": request.seed % 2**31,
            **({"logprobs": True} if self._want_tokens else {}),
            "extra_body": extra,
        }

    def _as_json(self, message: Message) -> dict[str, object]:
        if not any(isinstance(part, Picture) for part in message.parts):
            return {"role": message.role, "content": utf8("".join(map(str, message.parts)))}
        parts: list[dict[str, object]] = [
            {"type": "image_url", "image_url": {"url": self._pictures.url(part)}}
            if isinstance(part, Picture)
            else {"type": "text", "text": utf8(part)}
            for part in message.parts
        ]
        return {"role": message.role, "content": parts}

    async def _answer(self, request: Request, sampling: Sampling) -> Completion | EnvCrashed:
        """One request, in its turn. Raises SetupError where the server refuses it, cannot be reached, or is gone."""
        async with self._slots:
            self._stop_if_gone(settled=False)
            payload = await asyncio.to_thread(self.payload, request, sampling)
            return await self._sent(payload, lambda answer: read_completion(answer, self._want_tokens), request.until)

    async def _sent(
        self, payload: dict[str, object], read: Callable[[object], T], until: float | None
    ) -> T | EnvCrashed:
        """until: time.monotonic() at which the attempt is over; None: never."""
        began = time.monotonic()
        left = float("inf") if until is None else until - began
        seconds = min(self._health.seconds, left)
        if seconds <= 0:
            return EnvCrashed(f"{self.url}: not asked, because the time for the attempt is over")

        async def ask() -> T:
            raw = await self._client.chat.completions.with_raw_response.create(**payload)
            return read(parse_json(raw.content))

        try:
            answer = await retried(lambda: self._try(ask), self._budget, seconds)
        except Failed as failed:
            if failed.unreachable:
                raise self._unreachable(failed) from None
            trouble = self._safe(str(failed))
            if failed.late and seconds == left:
                trouble += ", all that was left for the attempt"
            if not failed.late or seconds >= self._budget.deadline / 2:
                self._health.failed(began, trouble)
            return EnvCrashed(f"{self.url}: {trouble}")
        self._health.answered()
        return answer

    async def _listed(self) -> tuple[str, ...]:
        raw = await self._client.models.with_raw_response.list()
        answer = parse_json(raw.content)
        models = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(models, list):
            raise BadAnswer("its list of models has no `data`")
        return tuple(str(m["id"]) for m in models if isinstance(m, dict) and "id" in m)

    async def _try(self, send: Callable[[], Awaitable[T]]) -> T:
        """One try. Raises Failed where another one may help, SetupError where the server refuses; the client's own errors,
        which hold the key, stay here."""
        openai = openai_module()
        try:
            return await send()
        except openai.APIStatusError as error:
            status, said = error.status_code, error.response.text
            if not may_pass(status):
                raise self._refused(status, self._safe(said)) from None
            pause = requested_pause(error.response.headers.get("retry-after"))
            raise Failed(f"HTTP {status}: {said}", pause=pause) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            nobody = type(cause).__name__ in ("ConnectError", "ConnectTimeout")
            raise Failed(f"{type(cause).__name__}: {cause}", unreachable=nobody) from None
        except (BadAnswer, TooLarge) as error:
            raise Failed(str(error)) from None

    def _stop_if_gone(self, settled: bool) -> None:
        """Raises SetupError when the server answers nothing any more."""
        if (why := self._health.gone(settled)) is not None:
            raise SetupError(
                f"the model server at {self.url} does not answer: {why}; look at its log, start it again, and run the same "
                "command (a slow server: a longer --request-timeout)"
            )

    def _unreachable(self, failed: Failed) -> SetupError:
        return SetupError(
            f"cannot reach a model server at {self.url} ({self._safe(str(failed))}); start it, for example with "
            f"`vllm serve {self.name}`, or correct base_url"
        )

    def _refused(self, status: int, said: str) -> SetupError:
        head = f"{self.url} refuses the request (HTTP {status}: {said})"
        if status in (401, 403):
            state = "does not hold" if self._key else "is unset; it must hold"
            return SetupError(f"{head}; ${self._key_env} {state} a key that this server accepts: correct it")
        if status == 404:
            return SetupError(
                f"{head}; no model {self.name!r} or no such path: compare with `curl {self.url}/models`, "
                "then correct `model` or base_url (which usually ends with /v1)"
            )
        return SetupError(
            f"{head}; check the server's limits on context length and images (vLLM: --max-model-len, "
            "--limit-mm-per-prompt); for a server that knows OpenAI's own fields only, set extensions to false"
        )

    def _safe(self, text: str) -> str:
        """The server's words as one short line, without the key."""
        text = text.replace(self._key, "***") if self._key else text
        line = " ".join(text.split())
        return line if len(line) <= 300 else line[:300] + "..."


def _client(base_url: str, key: str, most_bytes: int) -> Any:
    """Without retries and deadlines of its own: both belong to `waiting`."""
    openai = openai_module()
    timeout = openai.Timeout(None, connect=CONNECT_SECONDS)
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=key or "none",
        max_retries=0,
        timeout=timeout,
        default_headers={"Accept-Encoding": "identity"},
        http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, event_hooks={"response": [limited(most_bytes)]}),
    )


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SetupError(f"${variable} holds characters that an HTTP header cannot carry; set it to the plain key")
    return key


def _shown(base_url: str) -> str:
    """base_url as messages show it: without user, password and query."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host:
        raise SetupError("base_url: expected an address such as http://127.0.0.1:8000/v1; correct it")
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def openai_module() -> Any:
    """The openai package, imported when first needed. Raises SetupError where the extra `served` is missing."""
    try:
        import openai
        import tenacity  # noqa: F401
    except ImportError:
        raise SetupError(f"served models need openai and tenacity; run: {install('served')}") from None
    return openai
