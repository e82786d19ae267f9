"""One vLLM server over HTTP, without vLLM in this environment.

Besides generation these are vLLM's routes for reinforcement learning, which it opens with VLLM_SERVER_DEV_MODE=1: its own
`reload_weights` through /collective_rpc, resets of its caches, and the version of its weights.
"""

from __future__ import annotations

import importlib
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.origin import install
from guiderail.agent.served.waiting import CONNECT_SECONDS, Budget, Failed, Loop, TooLarge, limited, retried

SLOW_SECONDS = 600.0
"""For what may load a whole model: weights and adapters."""
_QUICK_SECONDS = 20.0
_MOST_BYTES = 64 * 2**20
_BUSY = {408, 409, 425, 429, 502, 503, 504}


class Refused(Exception):
    """The server answered with an error. status: HTTP. Its text is what the server said, on one line."""

    def __init__(self, status: int, said: str):
        super().__init__(f"HTTP {status}: {' '.join(said.split())[:400]}")
        self.status = status


class Server:
    """A vLLM server at `url`. deadline: seconds for one generation, all tries together. key: of its --api-key.

    Every call raises `waiting.Failed` where no answer came in time, and Refused for an HTTP error that another try would not
    change. `Failed.unreachable`: nobody listens there.
    """

    def __init__(self, url: str, deadline: float = 100.0, key: str = ""):
        self.url, self.deadline = url.rstrip("/"), deadline
        if find_spec("tenacity") is None:
            raise SetupError(f"vLLM servers need tenacity; run: {install('served')}")
        http = _http()
        self._loop = Loop()
        self._client = http.AsyncClient(
            timeout=http.Timeout(None, connect=CONNECT_SECONDS),
            limits=http.Limits(max_connections=None),
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            event_hooks={"response": [limited(_MOST_BYTES)]},
        )
        self._errors: type[Exception] = http.HTTPError
        self._finalizer = weakref.finalize(self, self._loop.close, self._client.aclose)

    def close(self) -> None:
        """Cancel all requests. It happens by itself when this object is garbage collected."""
        self._finalizer()

    # ------------------------------------------------------------------------------------------------------- questions

    def wait_until_up(self, seconds: float) -> None:
        """Until the server says that it is healthy. Raises Failed after `seconds`."""
        self._call("GET", "/health", None, Budget(seconds, retries=1_000_000), {*_BUSY, 500})

    def version(self) -> str:
        """Of vLLM, such as "0.31.0"."""
        return str(self._quick("GET", "/version")["version"])

    def model(self) -> str:
        """The id under which the server lists its model."""
        return str(self.models()[0]["id"])

    def models(self) -> list[dict[str, Any]]:
        """What it lists: {"id", "root": the folder or hub id of the weights, "parent": of an adapter, its base's id}."""
        return [dict(row) for row in self._quick("GET", "/v1/models")["data"]]

    def settings(self) -> dict[str, Any]:
        """vLLM's whole configuration, as JSON."""
        # Its first answer looks at the whole machine: some seconds.
        return dict(self._call("GET", "/server_info?config_format=json", None, Budget(60.0))["vllm_config"])

    def weights(self) -> str | None:
        """What `name_weights` said last; None for a server that was started since."""
        said = self._quick("GET", "/weight_info").get("weight_version")
        return None if said is None else str(said)

    def generate(self, body: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """One answer of /inference/v1/generate. seconds: less than the deadline."""
        budget = Budget(min(self.deadline, seconds or self.deadline), most_bytes=_MOST_BYTES)
        return dict(self._call("POST", "/inference/v1/generate", body, budget))

    # --------------------------------------------------------------------------------------------------------- weights

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Requests of others wait meanwhile: one that comes between new weights and `forget` would get features that are no
        longer there, and end the server (vLLM 0.31)."""
        self._quick("POST", "/pause?mode=wait")
        try:
            yield
        finally:
            self._quick("POST", "/resume")

    def sleep(self) -> None:
        """Give the memory of weights and caches back. Nothing is answered until `wake("kv_cache")`. Needs --enable-sleep-mode."""
        self._call("POST", "/sleep?level=1&mode=wait", None, Budget(SLOW_SECONDS, retries=0))

    def sleeping(self) -> bool:
        """Whether it sleeps: a run that was stopped may have left it so."""
        return bool(self._quick("GET", "/is_sleeping").get("is_sleeping"))

    def wake(self, what: str) -> None:
        """what: "weights", so that they can be loaded, or "kv_cache", after which it answers again."""
        self._call("POST", f"/wake_up?tags={what}", None, Budget(SLOW_SECONDS, retries=0))

    def load_weights(self, folder: str) -> None:
        """Replace the weights by the safetensors in `folder`, which the server reads itself."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": folder}, "timeout": SLOW_SECONDS}
        self._call("POST", "/collective_rpc", body, Budget(SLOW_SECONDS, retries=0))

    def load_adapter(self, name: str, folder: str, in_place: bool = True) -> None:
        """Load a PEFT adapter. in_place: it may take the place of the one that had this name."""
        body = {"lora_name": name, "lora_path": folder, "load_inplace": in_place}
        self._call("POST", "/v1/load_lora_adapter", body, Budget(SLOW_SECONDS, retries=0))

    def drop_adapter(self, name: str) -> None:
        """Forget the adapter of this name."""
        self._quick("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def forget(self) -> None:
        """Drop everything that was computed with earlier weights: the prefix cache's keys and values, and vision features.

        Processed pictures stay, they do not depend on weights. Raises Failed where the prefix cache stays in use.
        """
        end = time.monotonic() + _QUICK_SECONDS
        while not self._quick("POST", "/reset_prefix_cache").get("success"):
            if time.monotonic() > end:
                raise Failed("its prefix cache is in use and cannot be reset")
            time.sleep(0.2)
        self._quick("POST", "/reset_encoder_cache")

    def name_weights(self, version: str) -> None:
        """Say what the weights are called. The name is lost when the server ends."""
        self._quick("POST", "/update_weight_version", {"new_version": version})

    # ------------------------------------------------------------------------------------------------------------ HTTP

    def _quick(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, path, body, Budget(min(_QUICK_SECONDS, self.deadline), retries=2))

    def _call(self, method: str, path: str, body: Any, budget: Budget, again: set[int] = _BUSY) -> Any:
        return self._loop.run(retried(lambda: self._try(method, path, body, again), budget, budget.deadline))

    async def _try(self, method: str, path: str, body: Any, again: set[int]) -> Any:
        try:
            answer = await self._client.request(method, self.url + path, json=body)
        except TooLarge as error:
            raise Failed(str(error)) from None
        except self._errors as error:
            nobody = type(error).__name__ in ("ConnectError", "ConnectTimeout")
            raise Failed(f"{type(error).__name__}: {error}", unreachable=nobody) from None
        if answer.status_code in again:
            raise Failed(f"HTTP {answer.status_code}: {answer.text[:300]}")
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.text)
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            return {"text": answer.text}


def _http() -> Any:
    """The httpx library that huggingface_hub brings: httpx2, or httpx before it."""
    try:
        return importlib.import_module("httpx2")
    except ImportError:
        return importlib.import_module("httpx")
