"""A policy behind an OpenAI-compatible chat server: vLLM, SGLang, llama.cpp or any other."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from PIL import Image

from agent.errors import EnvCrashed, SetupError
from agent.policy import Request, Sampling
from agent.screen import Vision
from agent.types import Completion, Message, Picture

T = TypeVar("T")

_PASSING = {408, 409, 425, 429}  # with every 5xx: worth another try
_CONNECT_SECONDS = 10.0
_UNREACHABLE_SECONDS = 30.0


class ServedPolicy:
    """Asks a chat server, `concurrency` requests at a time over all callers.

    base_url: usually ends with "/v1". model: the id the server lists. api_key_env: the variable that holds the key;
    unset means a server without keys. timeout: seconds without an answer. retries: further tries after a time-out, a
    lost connection, HTTP 408/409/425/429/5xx or an answer that is no chat completion, with exponential back-off
    starting at `backoff` seconds. want_tokens: ask for sampled token ids and log-probabilities.

    extensions: also send the fields that vLLM, SGLang and llama.cpp add to OpenAI's. Without them these servers fill
    in their own or the checkpoint's top-k, min-p and repetition penalty, and the answers come from another distribution
    than `Sampling` says. Switch it off for a server that refuses unknown fields.

    Errors: SetupError for a server that cannot be reached (within a minute) or refuses the request; EnvCrashed for a
    request that keeps failing while the server is there. The key appears in no message.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        vision: Vision,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 3,
        *,
        backoff: float = 0.5,
        want_tokens: bool = False,
        extensions: bool = True,
        picture_bytes: int = 256 * 2**20,
    ):
        if concurrency < 1 or retries < 0 or not timeout > 0:
            raise SetupError(
                f"served model: concurrency must be at least 1, retries at least 0, timeout above 0; "
                f"got {concurrency}, {retries}, {timeout}; correct them"
            )
        self.name = model
        self.vision = vision
        self.url = _shown(base_url)
        self._key_env = api_key_env
        self._key = _key(api_key_env)
        self._retries, self._backoff = retries, backoff
        self._want_tokens, self._extensions = want_tokens, extensions
        limits = openai_module().Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS))
        self._client: Any = openai_module().OpenAI(
            base_url=base_url, api_key=self._key or "none", timeout=limits, max_retries=0
        )
        self._probe_seconds = min(timeout, _CONNECT_SECONDS)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="served")
        self._pictures = PictureCache(picture_bytes)
        self._jitter = random.Random()  # its own: the global stream belongs to whoever seeded it

    def __repr__(self) -> str:
        return f"ServedPolicy({self.name!r} at {self.url})"

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion per request, in order. The first failure cancels what has not started."""
        if sampling.top_k > 0 and not self._extensions:
            raise SetupError("top_k is not one of OpenAI's own fields; set top_k to 0 or extensions to true")
        stop = threading.Event()
        futures = [self._pool.submit(self._answer, request, sampling, stop) for request in requests]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
            return [future.result() for future in futures]
        finally:
            stop.set()
            for future in futures:
                future.cancel()

    def check(self) -> tuple[str, ...]:
        """The ids the server lists. SetupError if it cannot be reached or does not list the model."""
        try:
            served = self._call(self._listed, threading.Event())
        except EnvCrashed as error:
            raise SetupError(f"{error}; look at the server's log, or correct base_url") from None
        if self.name not in served:
            listed = ", ".join(map(repr, served[:20])) or "nothing"
            raise SetupError(
                f"{self.url} does not serve {self.name!r}; it serves {self._safe(listed)}; set `model` to one of these"
            )
        return served

    def payload(self, request: Request, sampling: Sampling) -> dict[str, object]:
        """The body of a chat request, as keyword arguments of the openai client."""
        extra: dict[str, object] = {}
        if self._extensions:
            extra = {"top_k": sampling.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0}
            if self._want_tokens:
                extra["return_token_ids"] = True
        # top_logprobs stays away: vLLM answers an explicit null with nothing, llama.cpp a 0.
        return {
            "model": self.name,
            "messages": [self._said(message) for message in request.prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": request.seed % 2**31,
            **({"logprobs": True} if self._want_tokens else {}),
            "extra_body": extra,
        }

    def _said(self, message: Message) -> dict[str, object]:
        if not any(isinstance(part, Picture) for part in message.parts):
            return {"role": message.role, "content": _utf8("".join(map(str, message.parts)))}
        parts: list[dict[str, object]] = [
            {"type": "image_url", "image_url": {"url": self._pictures.url(part)}}
            if isinstance(part, Picture)
            else {"type": "text", "text": _utf8(part)}
            for part in message.parts
        ]
        return {"role": message.role, "content": parts}

    def _answer(self, request: Request, sampling: Sampling, stop: threading.Event) -> Completion:
        payload = self.payload(request, sampling)

        def ask() -> Completion:
            raw = self._client.chat.completions.with_raw_response.create(**payload)
            return read_completion(_json(raw.content), self._want_tokens)

        return self._call(ask, stop)

    def _listed(self) -> tuple[str, ...]:
        raw = self._client.models.with_raw_response.list(timeout=self._probe_seconds)
        answer = _json(raw.content)
        models = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(models, list):
            raise _BadAnswer("its list of models has no `data`")
        return tuple(str(m["id"]) for m in models if isinstance(m, dict) and "id" in m)

    def _call(self, send: Callable[[], T], stop: threading.Event) -> T:
        """`send()` with retries; every failure leaves as SetupError or EnvCrashed, without the client's own error."""
        openai = openai_module()
        unreachable_since: float | None = None  # start of the first try in a row that found nobody there
        for attempt in range(self._retries + 1):
            began, pause = time.monotonic(), 0.0
            try:
                return send()
            except openai.APIStatusError as error:
                status = error.status_code
                said = self._safe(error.response.text)
                if status < 500 and status not in _PASSING:
                    raise self._refused(status, said) from None
                trouble, unreachable_since = f"HTTP {status}: {said}", None
                pause = _seconds(error.response.headers.get("retry-after"))
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                trouble = self._safe(f"{type(cause).__name__}: {cause}")
                no_connection = type(cause).__name__ in ("ConnectError", "ConnectTimeout")
                unreachable_since = (unreachable_since or began) if no_connection else None
            except _BadAnswer as error:
                trouble, unreachable_since = self._safe(str(error)), None
            if unreachable_since and time.monotonic() - unreachable_since > _UNREACHABLE_SECONDS:
                break
            if attempt < self._retries:
                pause = max(pause, min(8.0, self._backoff * 2**attempt) * self._jitter.uniform(0.5, 1.0))
                if stop.wait(pause):
                    break
        if unreachable_since:
            raise SetupError(
                f"cannot reach a model server at {self.url} ({trouble}); start it, for example with "
                f"`vllm serve {self.name}`, or correct base_url"
            )
        raise EnvCrashed(f"{self.url}: request failed {attempt + 1} times, the last one with {trouble}")

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
        """One short line of the server's words, without the key."""
        text = text.replace(self._key, "***") if self._key else text
        line = " ".join(text.split())
        return line if len(line) <= 300 else line[:300] + "..."


class PictureCache:
    """Data URLs of resized screenshots, each encoded once, the least recently used dropped beyond `limit` bytes."""

    def __init__(self, limit: int):
        self._limit, self._held = limit, 0
        self._urls: OrderedDict[tuple[str, int, int], str] = OrderedDict()
        self._lock = threading.Lock()
        self._encoding = [threading.Lock() for _ in range(16)]

    def url(self, picture: Picture) -> str:
        key = (picture.screenshot.digest, picture.width, picture.height)
        with self._encoding[hash(key) % 16]:  # who shows the same screen waits for one encoding, others go on
            with self._lock:
                if key in self._urls:
                    self._urls.move_to_end(key)
                    return self._urls[key]
            url = encode(picture)
            with self._lock:
                self._urls[key] = url
                self._held += len(url)
                while self._held > self._limit and len(self._urls) > 1:
                    self._held -= len(self._urls.popitem(last=False)[1])
            return url


def encode(picture: Picture) -> str:
    """A data URL of the screenshot at the model's size. Resized here, because a server that resizes by its own bounds
    would move every coordinate; on this size the model's own resize changes nothing."""
    image, size = picture.screenshot.image(), (picture.width, picture.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class _BadAnswer(Exception):
    """The server answered something that is no chat completion."""


def read_completion(answer: object, want_tokens: bool) -> Completion:
    """The first choice of a chat completion as JSON.

    Thoughts that the server split off (a reasoning parser) are put back in front as a think block. Tokens are kept only
    if ids and log-probabilities both came, one for one; vLLM reports log-probabilities at temperature 1 by default.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise _BadAnswer("an answer without choices")
    message, finish = choice["message"], choice.get("finish_reason")
    if finish in ("abort", "error", "content_filter"):
        raise _BadAnswer(f"an answer that ended with {finish!r}")
    thought = message.get("reasoning_content") or message.get("reasoning")
    text = message.get("content")
    if text is None and isinstance(thought, str):
        text = ""
    if not isinstance(text, str):
        raise _BadAnswer("an answer without text")
    if isinstance(thought, str):
        text = f"<think>\n{thought.strip()}\n</think>\n{text.lstrip()}"
    ids, logprobs = _tokens(choice) if want_tokens else ((), ())
    ended: Literal["stop", "length"] = "length" if finish == "length" else "stop"
    return Completion(_utf8(text), ids, logprobs, ended)


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    told = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(ids, list) or not isinstance(told, list) or len(ids) != len(told):
        return (), ()
    try:
        return tuple(int(i) for i in ids), tuple(float(entry["logprob"]) for entry in told)
    except (TypeError, ValueError, KeyError):
        raise _BadAnswer("token ids or log-probabilities that are no numbers") from None


def _json(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _BadAnswer(f"an answer that is no JSON: {content[:80].decode('utf-8', 'replace')!r}") from None


def _utf8(text: str) -> str:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _seconds(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), 30.0)
    except ValueError:
        return 0.0


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SetupError(f"${variable} holds characters that no HTTP header can carry; set it to the plain key")
    return key


def _shown(base_url: str) -> str:
    """base_url as messages show it: without user, password and query."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host:
        raise SetupError("base_url: expected something like http://127.0.0.1:8000/v1, got no such address; correct it")
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def openai_module() -> Any:
    """The openai package, imported when first needed."""
    try:
        import openai
    except ImportError:
        raise SetupError("served models need the openai client; run pip install 'guiderail[served]'") from None
    return openai
