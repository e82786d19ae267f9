"""A dead or lying server ends what waits for it, within the deadline and with the cause."""

from __future__ import annotations

import resource
import threading
import time
from typing import Any

import pytest

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import GREEDY, Request
from guiderail.agent.screen import Vision
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.served.waiting import Health
from guiderail.agent.types import Completion, Message, Prompt
from tests.agent.served.faults import CAUSES, FAULTS, GOOD, answer, faulty

for module in ("openai", "tenacity"):
    pytest.importorskip(module, reason="needs the extra served")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(autouse=True)
def _good(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(client: Any) -> None:
        time.sleep(0.5)
        client.sendall(answer(GOOD))

    monkeypatch.setitem(FAULTS, "good", lambda client: client.sendall(answer(GOOD)))
    monkeypatch.setitem(FAULTS, "slow", slow)


def ask(seed: int = 0, until: float | None = None) -> Request:
    return Request(Prompt((Message("user", ("go",)),)), seed, until)


def policy(url: str, **changes: Any) -> ServedPolicy:
    return ServedPolicy(url, "m", Vision(), **{"deadline": 0.8, "retries": 2, "backoff": 0.01, **changes})


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_ends_within_the_deadline_with_its_cause(fault: str) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with faulty(fault) as server:
        asking = policy(server.url)
        assert asking.check() == ("m",)
        began = time.monotonic()
        with pytest.raises(SetupError, match=f"does not answer: .*{CAUSES[fault]}.*has answered no request so far"):
            asking.complete([ask(seed) for seed in range(3)], GREEDY)
        assert time.monotonic() - began < 2.5
        asking.close()
        patience = time.monotonic() + 1
        while server.open and time.monotonic() < patience:
            time.sleep(0.01)
        assert not server.open  # every connection was closed, not left to read on
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 150_000  # kB; three answers of at most 8 MiB


def test_one_bad_request_of_64_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, seen = threading.Lock(), []

    def one_hangs(client: Any) -> None:
        with lock:
            seen.append(client)
            first = len(seen) == 1
        FAULTS["hang"](client) if first else client.sendall(answer(GOOD))

    monkeypatch.setitem(FAULTS, "one hangs", one_hangs)
    with faulty("one hangs") as server:
        answers = policy(server.url).complete([ask(seed) for seed in range(64)], GREEDY)
        assert sum(answer == Completion("hello") for answer in answers) == 63
        [crash] = [answer for answer in answers if isinstance(answer, EnvCrashed)]
        assert "no answer within 0.8 s" in str(crash)
        assert server.asked == 64


def test_a_request_ends_with_the_attempt_that_waits_for_it() -> None:
    with faulty("hang") as server:
        asking = policy(server.url, deadline=30.0)
        began = time.monotonic()
        late, over = asking.complete([ask(until=began + 0.3), ask(until=began - 1)], GREEDY)
        assert time.monotonic() - began < 2
        assert "no answer within 0.3 s, all that was left for the attempt" in str(late)
        assert "the time for the attempt is over" in str(over)
        assert server.asked == 1


def test_short_attempts_do_not_hide_a_server_that_answers_nonsense() -> None:
    with faulty("500") as server:
        asking = policy(server.url, deadline=30.0, retries=0)
        with pytest.raises(SetupError, match=r"does not answer: .*HTTP 500"):
            asking.complete([ask(seed, until=time.monotonic() + 3) for seed in range(3)], GREEDY)


def test_a_server_that_dies_in_the_run_is_noticed_once() -> None:
    """Answered before, then silent: one deadline for the first request, half of one for the next, then the end."""
    with faulty("good") as server:
        asking = policy(server.url)
        asking.complete([ask()], GREEDY)
        server.fault = "hang"
        began = time.monotonic()
        [crash] = asking.complete([ask()], GREEDY)
        assert isinstance(crash, EnvCrashed)
        with pytest.raises(
            SetupError, match=r"does not answer: no answer within 0\.4 s; its last answer was \d+ s ago"
        ):
            asking.complete([ask()], GREEDY)
        assert time.monotonic() - began < 1.5 * 0.8 + 1.5
        server.fault = "good"
        assert asking.complete([ask()], GREEDY) == [Completion("hello")]


def test_more_requests_than_slots_do_not_wait_for_a_dead_server_in_turns() -> None:
    with faulty("hang") as server:
        began = time.monotonic()
        with pytest.raises(SetupError, match="does not answer"):
            policy(server.url, concurrency=2).complete([ask(seed) for seed in range(20)], GREEDY)
        assert time.monotonic() - began < 2.5
        assert server.asked == 2


def test_an_interrupted_wait_closes_its_connections() -> None:
    with faulty("hang") as server:
        asking = policy(server.url, deadline=30.0)
        waiting = threading.Thread(target=_quietly, args=(asking,))
        waiting.start()
        while server.asked < 3:
            time.sleep(0.01)
        asking.close()
        waiting.join(2)
        assert not waiting.is_alive()
        patience = time.monotonic() + 1
        while server.open and time.monotonic() < patience:
            time.sleep(0.01)
        assert not server.open


def _quietly(asking: ServedPolicy) -> None:
    with pytest.raises(EnvCrashed, match="closed while a request was under way"):
        asking.complete([ask(seed) for seed in range(3)], GREEDY)


def test_concurrency_follows_the_batch() -> None:
    """64 requests that each take 0.5 s take 0.5 s together."""
    with faulty("slow") as server:
        began = time.monotonic()
        policy(server.url, deadline=5.0).complete([ask(seed) for seed in range(64)], GREEDY)
        assert time.monotonic() - began < 3.0  # eight at a time: 4 s


class TestHealth:
    """events: (seconds, ok). Whether and when a server counts as gone, deadline 10 s."""

    @pytest.mark.parametrize(
        ("events", "settled", "gone"),
        [
            ([], True, None),
            ([(10, False)], True, "no request so far"),  # never answered, a whole deadline
            ([(1, False)], True, None),
            ([(1, False), (2, False), (3, False)], True, "no request so far"),
            ([(1, False), (2, False), (3, False)], False, None),  # others are under way, and may be answered
            ([(0, True), (10, False)], True, None),  # one request that hangs, after a good one
            ([(0, True), (10, False), (15, False)], False, "15 s ago"),
            ([(0, True), (10, False), (12, True), (15, False)], True, None),
        ],
    )
    def test_gone(self, events: list[tuple[float, bool]], settled: bool, gone: str | None) -> None:
        now = [0.0]
        health, began = Health(10.0, clock=lambda: now[0]), 0.0
        for at, ok in events:
            now[0] = at
            if ok:
                health.answered()
            else:
                health.failed(began, "boom")
            began = at
        why = health.gone(settled)
        assert why is None if gone is None else (why is not None and "boom" in why and gone in why)

    def test_a_silent_server_gets_half_the_time(self) -> None:
        now = [0.0]
        health = Health(10.0, clock=lambda: now[0])
        assert health.seconds == 10.0
        now[0] = 10.0
        health.failed(0.0, "boom")
        assert health.seconds == 5.0
        health.answered()
        assert health.seconds == 10.0
