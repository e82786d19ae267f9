"""Several vLLM servers as one engine: a group stays on one of them, pictures are sent once, and the others step in for one
that is gone."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import Sampling
from guiderail.agent.served.pictures import encode
from guiderail.agent.served.vllm.client import Refused, Server
from guiderail.agent.served.vllm.policy import EncodedRequest, Sampled, check_prompt, number
from guiderail.agent.served.waiting import Failed, Health
from guiderail.agent.types import Picture

if TYPE_CHECKING:
    from guiderail.agent.local.encode import Encoder

_REMEMBERED = 4096
"""Pictures and groups whose server is remembered. A picture that is sent again costs time only."""


class ServerEngine:
    """vLLM servers, `concurrency` requests at a time over all of them.

    A picture is sent to a server once, in a request of its own, and by its name from then on; a server that says that it has
    lost one gets it again. So no request holds more than one picture. first: where a process begins to deal out groups, so
    that processes do not all begin with the same server.

    expected: the version of the weights that a server must report before it is asked (`Server.weights`); a server that was
    started again has the old ones and is left out until the next sync. None asks any.
    """

    def __init__(self, servers: Sequence[Server], encoder: Encoder, concurrency: int = 64, first: int = 0):
        self.servers, self.encoder, self.first = list(servers), encoder, first
        self.expected: str | None = None
        self.adapter: str | None = None
        self._models: dict[str, str] = {}
        self._gone: dict[str, str] = {}
        self._kept = {server.url: _Once() for server in servers}
        self._homes: OrderedDict[int, Server] = OrderedDict()
        self._health = Health(max(server.deadline for server in servers))
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="vllm")

    @property
    def alive(self) -> list[Server]:
        """Raises SetupError where none is left, with what happened to each."""
        alive = [server for server in self.servers if server.url not in self._gone]
        if not alive:
            said = "; ".join(f"{url}: {why}" for url, why in self._gone.items())
            raise SetupError(
                f"no vLLM server is left ({said}); look at their logs, start them again, and resume the run"
            )
        return alive

    def lose(self, server: Server, why: str) -> None:
        """Ask this server no more."""
        if server.url not in self._gone:
            _log.warning("vLLM at %s is left out: %s", server.url, why)
            self._gone[server.url] = why

    def settle(self, version: str, urls: Sequence[str], adapter: str | None) -> None:
        """Ask the servers at `urls`, and no others, for answers of these weights. adapter: its name there, if it is one."""
        self.expected, self.adapter = version, adapter
        for server in self.servers:
            if server.url in urls:
                self._gone.pop(server.url, None)
            else:
                self.lose(server, "it did not take the last weights")

    def sample(
        self,
        rows: Sequence[EncodedRequest],
        sampling: Sampling,
        extra: dict[str, Any],
        only: Server | None = None,
    ) -> list[Sampled | EnvCrashed]:
        """As `Engine.sample`. only: the server to ask. Raises SetupError also for prompts that a server reads as other tokens."""
        began = time.monotonic()
        if only is None:
            self._ask_for_weights()
        homes = self._deal(rows) if only is None else [only] * len(rows)

        def answer(row: EncodedRequest, home: Server) -> Sampled | EnvCrashed:
            return self._answer(row, home, sampling, extra, began)

        answers = [*self._pool.map(answer, rows, homes)]
        self._take_note(answers, began)
        return answers

    # ------------------------------------------------------------------------------------------------- which server

    def _ask_for_weights(self) -> None:
        if self.expected is None:
            return
        for server in self.alive:
            try:
                found = server.weights()
            except (Failed, Refused) as failed:
                self.lose(server, str(failed))
                continue
            if found != self.expected:
                self.lose(
                    server,
                    f"it has the weights {found!r}, not {self.expected!r}: it was started again, or serves another run",
                )

    def _deal(self, rows: Sequence[EncodedRequest]) -> list[Server]:
        """A server for each row: the one that its group has had, else the one with the fewest rows."""
        alive = self.alive
        order = [alive[(i + self.first) % len(alive)] for i in range(len(alive))]
        load = {server.url: 0 for server in order}
        homes = []
        for row in rows:
            home = self._homes.pop(row.group, None)
            if home is None or home.url not in load:
                home = min(order, key=lambda server: load[server.url])
            self._homes[row.group] = home
            load[home.url] += 1
            homes.append(home)
        while len(self._homes) > _REMEMBERED:
            self._homes.popitem(last=False)
        return homes

    # ---------------------------------------------------------------------------------------------------- one answer

    def _answer(
        self, row: EncodedRequest, home: Server, sampling: Sampling, extra: dict[str, Any], began: float
    ) -> Sampled | EnvCrashed:
        """From `home`, or from another server where nobody is there any more."""
        server = home
        while True:
            try:
                return self._ask(server, row, sampling, extra, began)
            except Failed as failed:
                if not failed.unreachable:
                    return EnvCrashed(f"vLLM at {server.url}: {failed}")
                self.lose(server, str(failed))
            except EnvCrashed as crash:
                return crash
            alive = self.alive
            server = alive[row.group % len(alive)]

    def _ask(
        self, server: Server, row: EncodedRequest, sampling: Sampling, extra: dict[str, Any], began: float
    ) -> Sampled:
        try:
            self._show(server, row)
            said = self._generate(server, row, sampling, extra, began)
        except Refused as refused:
            if not row.names or refused.status == 404:
                raise self._refusal(server, refused) from None
            # Whatever the words: a server that lost a picture is given it again, and asked once more.
            self._kept[server.url].forget(row.names)
            try:
                self._show(server, row)
                said = self._generate(server, row, sampling, extra, began)
            except Refused as again:
                raise self._refusal(server, again) from None
        return self._read(server, row, said)

    def _generate(
        self, server: Server, row: EncodedRequest, sampling: Sampling, extra: dict[str, Any], began: float
    ) -> dict[str, Any]:
        settings = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_new_tokens,
            "logprobs": 0,
            "seed": row.seed,
            **extra,
        }
        body = {"token_ids": row.ids, "return_token_ids": True, "sampling_params": settings}
        body |= self._model(server)
        if row.names:
            body["content_parts"] = [{"type": "image_url", "url": None, "uuid": name} for name in row.names]
        return server.generate(body, max(0.1, server.deadline - (time.monotonic() - began)))

    def _show(self, server: Server, row: EncodedRequest) -> None:
        """Give the server the pictures that it has not had. The answer of one token also fills its cache of features."""
        for name, picture in zip(row.names, row.pictures, strict=True):
            self._kept[server.url].do(name, lambda name=name, picture=picture: self._send(server, name, picture))  # type: ignore[misc]

    def _send(self, server: Server, name: str, picture: Picture) -> None:
        pad, tokens = self.encoder.image_pad, self.encoder.image_tokens(picture)
        row = EncodedRequest([pad], [pad] * tokens, (picture,), (name,), 0)
        part = {"type": "image_url", "url": encode(picture), "uuid": name}
        body = {"token_ids": row.ids, "return_token_ids": True, "content_parts": [part]}
        body |= {"sampling_params": {"max_tokens": 1, "temperature": 0.0}, **self._model(server)}
        check_prompt(row, server.generate(body).get("prompt_token_ids"), self.encoder)

    def _model(self, server: Server) -> dict[str, str]:
        """What the server samples from: the adapter that was sent, else the model that it lists."""
        if self.adapter is not None:
            return {"model": self.adapter}
        if server.url not in self._models:
            self._models[server.url] = server.model()
        return {"model": self._models[server.url]}

    def _read(self, server: Server, row: EncodedRequest, said: dict[str, Any]) -> Sampled:
        try:
            [choice] = said["choices"]
            ids = [int(token) for token in choice["token_ids"]]
            found = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            seen = said.get("prompt_token_ids")
            if len(ids) != len(found):
                raise ValueError(f"{len(ids)} tokens with {len(found)} log-probabilities")
        except (KeyError, TypeError, ValueError) as error:
            raise EnvCrashed(f"vLLM at {server.url}: {type(error).__name__}: {str(error)[:200]}") from None
        check_prompt(row, seen, self.encoder)
        return ids, [number(logprob) for logprob in found]

    def _refusal(self, server: Server, refused: Refused) -> Exception:
        if refused.status >= 500:
            return EnvCrashed(f"vLLM at {server.url}: {refused}")
        hint = "--enable-scale-out" if refused.status == 404 else "--max-model-len and --limit-mm-per-prompt"
        return SetupError(f"the vLLM server at {server.url} refuses the request ({refused}); check its {hint}")

    def _take_note(self, answers: Sequence[Sampled | EnvCrashed], began: float) -> None:
        """Raises SetupError when no server answers anything any more."""
        failures = [answer for answer in answers if isinstance(answer, EnvCrashed)]
        if len(failures) < len(answers):
            self._health.answered()
            return
        for failure in failures:
            self._health.failed(began, str(failure))
        if (why := self._health.gone(settled=True)) is not None:
            where = ", ".join(server.url for server in self.servers)
            raise SetupError(
                f"the vLLM server at {where} does not answer: {why}; look at its log, start it again, and resume the run (a "
                "slow server: more seconds in rollout.deadline)"
            )


@dataclass(frozen=True)
class OneServer:
    """One server of an engine, as an engine."""

    engine: ServerEngine
    server: Server

    def sample(
        self, rows: Sequence[EncodedRequest], sampling: Sampling, extra: dict[str, Any]
    ) -> list[Sampled | EnvCrashed]:
        """As `Engine.sample`."""
        return self.engine.sample(rows, sampling, extra, self.server)


class _Once:
    """Does something once per name; who comes meanwhile waits for it. What failed is tried again by the next one."""

    def __init__(self) -> None:
        self._done: OrderedDict[str, Future[None]] = OrderedDict()
        self._lock = threading.Lock()

    def do(self, name: str, work: Callable[[], None]) -> None:
        with self._lock:
            found = self._done.get(name)
            if found is None:
                mine = self._done[name] = Future()
                while len(self._done) > _REMEMBERED:
                    self._done.popitem(last=False)
        if found is not None:
            found.result()
            return
        try:
            work()
            mine.set_result(None)
        except BaseException as error:
            mine.set_exception(error)
            self.forget((name,))  # which leaves what is not done
            raise

    def forget(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                if (known := self._done.get(name)) is None or known.done():
                    self._done.pop(name, None)


_log = logging.getLogger(__name__)
