"""Waiting for servers, in one place: a request has one deadline and one size limit, and it ends for real.

Requests are coroutines on an event loop in a thread of its own. A coroutine can be cancelled wherever it waits: for a name,
a connection, headers that trickle, a body without end. Cancelling it closes the connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from guiderail.agent.errors import EnvCrashed, SetupError

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

CONNECT_SECONDS = 10.0
_CLOSING_SECONDS = 5.0
_LONGEST_PAUSE = 8.0  # seconds, unless the server asks for more
_LONGEST_REQUESTED_PAUSE = 30.0
_ENOUGH_FAILURES = 3
_PASSING = {408, 409, 425, 429}  # with every 5xx: worth another try
_JITTER = random.Random()  # its own: the global stream belongs to whoever seeded it


@dataclass(frozen=True, slots=True)
class Budget:
    """What one request may cost. deadline: seconds for all its tries and pauses together. retries: further tries after a
    failure that may pass. backoff: the first pause in seconds; it doubles. most_bytes: of an answer."""

    deadline: float = 60.0
    retries: int = 5
    backoff: float = 0.5
    most_bytes: int = 8 * 2**20

    def __post_init__(self) -> None:
        if not self.deadline > 0 or self.retries < 0 or self.most_bytes < 1:
            raise SetupError(
                "requests: the deadline must be above 0 s, retries at least 0, most_bytes at least 1; "
                f"got {self.deadline}, {self.retries}, {self.most_bytes}; correct them"
            )


class Failed(Exception):
    """A try failed, and another one may succeed. pause: seconds the server asked to wait. unreachable: nobody is there.
    late: the time was over."""

    def __init__(self, trouble: str, pause: float = 0.0, unreachable: bool = False, late: bool = False):
        super().__init__(trouble)
        self.pause, self.unreachable, self.late = pause, unreachable, late


class TooLarge(Exception):
    """An answer is larger than its limit, or compressed, so that its size is unknown."""


async def retried(send: Callable[[], Awaitable[T]], budget: Budget, seconds: float) -> T:
    """`send()` until it answers, at most `seconds`, pauses included. Raises Failed with the last cause."""
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, stop_before_delay, wait_exponential

    backoff, last = wait_exponential(budget.backoff, max=_LONGEST_PAUSE), ""

    def pause(state: RetryCallState) -> float:
        asked = _failure(state).pause
        return max(asked, backoff(state) * _JITTER.uniform(0.5, 1.0))

    def remember(state: RetryCallState) -> None:
        nonlocal last
        last = str(_failure(state))

    async def once() -> T:
        return await send()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Failed),
        stop=stop_after_attempt(budget.retries + 1) | stop_before_delay(seconds),
        wait=pause,
        before_sleep=remember,
        reraise=True,
    )
    try:
        async with asyncio.timeout(seconds):
            return await retrying(once)
    except TimeoutError:
        before = f"; the try before it: {last}" if last else ""
        raise Failed(f"no answer within {round(seconds, 1):g} s{before}", late=True) from None
    except Failed as failed:
        tries = retrying.statistics["attempt_number"]
        last_one = "1 time, with" if tries == 1 else f"{tries} times, the last one with"
        raise Failed(f"request failed {last_one} {failed}", unreachable=failed.unreachable) from None


def _failure(state: RetryCallState) -> Failed:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, Failed)
    return error


def may_pass(status: int) -> bool:
    """Whether another try of a request with this HTTP status may succeed."""
    return status >= 500 or status in _PASSING


def requested_pause(retry_after: str | None) -> float:
    """Seconds of a Retry-After header; 0 for a date or none."""
    try:
        seconds = float(retry_after or 0)
    except ValueError:
        return 0.0
    return min(seconds, _LONGEST_REQUESTED_PAUSE) if seconds > 0 else 0.0  # NaN is not above 0


@dataclass
class Health:
    """Whether a server answers at all, over all requests of one client. One that does not is noticed once.

    A request that was given less than half the deadline says nothing about the server when it runs out of time.
    """

    deadline: float
    clock: Callable[[], float] = time.monotonic
    _failures: int = 0
    _since: float = 0.0
    _answered_at: float | None = None
    _cause: str = field(default="", repr=False)

    @property
    def seconds(self) -> float:
        """What the next request may take: half the deadline once a whole one passed without an answer."""
        return self.deadline / 2 if self._silent else self.deadline

    @property
    def _silent(self) -> bool:
        return self._failures > 0 and self.clock() - self._since >= self.deadline

    def answered(self) -> None:
        self._failures, self._answered_at = 0, self.clock()

    def failed(self, began: float, cause: str) -> None:
        """A request that began at `began` failed, after all its tries."""
        self._since = min(self._since, began) if self._failures else began
        self._failures, self._cause = self._failures + 1, cause

    def gone(self, settled: bool) -> str | None:
        """Why the server counts as gone; None while it does not. settled: no request is under way.

        Gone: three requests in a row failed, or a whole deadline passed without an answer. A single request that runs out
        of time does not stop a server that has answered before.
        """
        several = self._failures >= (1 if self._answered_at is None else 2)
        if not (several and self._silent) and not (settled and self._failures >= _ENOUGH_FAILURES):
            return None
        self._failures = 0
        if self._answered_at is None:
            return f"{self._cause}; it has answered no request so far"
        return f"{self._cause}; its last answer was {self.clock() - self._answered_at:.0f} s ago"


class Loop:
    """An event loop in a thread. close() cancels what is under way there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="served", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. It is cancelled when this call is interrupted (Ctrl-C, an alarm)."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise EnvCrashed("the connection was closed while a request was under way") from None
        finally:
            future.cancel()

    def close(self, last: Callable[[], Awaitable[object]]) -> None:
        """last: closes what the requests have used."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._end(last), self._loop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSING_SECONDS)

    async def _end(self, last: Callable[[], Awaitable[object]]) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        try:
            await last()
        finally:
            self._loop.stop()


def limited(most_bytes: int) -> Callable[[Any], Awaitable[None]]:
    """A response hook of an httpx client: reading the body raises TooLarge after `most_bytes`.

    Compressed answers are refused: 10 MB of gzip can hold 10 GB. Ask for `Accept-Encoding: identity`.
    """

    async def limit(response: Any) -> None:
        coding = response.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise TooLarge(f"an answer compressed with {coding[:20]!r}, which was not asked for")
        library = type(response).__module__.partition(".")[0]
        response.encoding = "utf-8"  # Python knows charsets such as "zlib" and "hex", which a server may name
        response.stream = _limited_stream(library)(response.stream, most_bytes)

    return limit


@cache
def _limited_stream(library: str) -> Any:
    """The class for one httpx library: openai moved from httpx to httpx2."""
    base = importlib.import_module(library).AsyncByteStream

    class LimitedStream(base):  # type: ignore[misc, valid-type]
        def __init__(self, stream: Any, most_bytes: int):
            self._stream, self._most_bytes = stream, most_bytes

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for piece in self._stream:
                size += len(piece)
                if size > self._most_bytes:
                    raise TooLarge(f"an answer of more than {self._most_bytes / 2**20:g} MiB")
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    return LimitedStream
