"""A served policy against a real HTTP server on 127.0.0.1 that says what each test scripts."""

from __future__ import annotations

import base64
import builtins
import gc
import io
import json
import math
import random
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

import guiderail.agent.served.pictures as pictures_module
from guiderail.agent.errors import DataError, EnvCrashed, SetupError
from guiderail.agent.origin import install
from guiderail.agent.policy import GREEDY, Request, Sampling
from guiderail.agent.screen import Vision
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.served.pictures import PictureCache, encode
from guiderail.agent.types import Completion, Message, Picture, Prompt, Screenshot

for module in ("openai", "tenacity"):
    pytest.importorskip(module, reason="needs the extra: pip install 'guiderail[served]'")

KEY = "sk-very-secret-4711"
VISION = Vision(max_pixels=100 * 28 * 28)


def said(text: str | None = "hello", finish: str = "stop", **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": finish, **choice}]}


Reply = tuple[int, Any]


@dataclass
class Server:
    """`reply(body)` gives status and body (bytes go out as they are); requests are kept in order of arrival."""

    reply: Callable[[dict[str, Any]], Reply] = lambda body: (200, said())
    models: Reply = (200, {"data": [{"id": "m"}, {"id": "other"}]})
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    busy: int = 0
    peak: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(*state.models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.keys.append(self.headers["Authorization"])
                state.busy += 1
                state.peak = max(state.peak, state.busy)
            try:
                status, answer = state.reply(body)
            finally:
                with state.lock:
                    state.busy -= 1
            self.send(status, answer)

        def send(self, status: int, answer: Any) -> None:
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **state.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client gave up waiting
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        state.url = f"http://127.0.0.1:{http.server_port}/v1"
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield state
        http.shutdown()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def policy(url: str, **changes: Any) -> ServedPolicy:
    return ServedPolicy(url, changes.pop("model", "m"), VISION, **{"backoff": 0.01, "deadline": 20.0, **changes})


def crash(asking: ServedPolicy, request: Request | None = None) -> EnvCrashed:
    """What stands in the place of the answer to a request that keeps failing."""
    asking._health._answered_at = (
        time.monotonic()
    )  # as if others were answered: a single failure is then not the server's
    (answer,) = asking.complete([request or ask()], GREEDY)
    assert isinstance(answer, EnvCrashed)
    return answer


def screen(width: int = 60, height: int = 90, colour: tuple[int, int, int] = (200, 30, 30)) -> Screenshot:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return Screenshot(width, height, data=buffer.getvalue())


def ask(text: str = "go", seed: int = 0) -> Request:
    messages = (
        Message("system", ("be ", "brief")),
        Message("user", (text, VISION.picture(screen(colour=(9, 9, 9))))),
        Message("assistant", ("tap",)),
        Message("user", ("next", VISION.picture(screen(700, 1400)))),
    )
    return Request(Prompt(messages), seed)


def picture_of(part: dict[str, Any]) -> Image.Image:
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


# ------------------------------------------------------------------------------------------------- what goes over the wire


def test_payload_holds_roles_order_pictures_and_sampling(server: Server) -> None:
    sampling = Sampling(temperature=0.7, max_new_tokens=33, top_p=0.9, top_k=5)
    assert policy(server.url).complete([ask("find it", seed=2**31 + 7)], sampling) == [Completion("hello")]
    body = server.bodies[0]
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][0]["content"] == "be brief"
    assert body["messages"][1]["content"][0] == {"type": "text", "text": "find it"}
    assert body["messages"][2]["content"] == "tap"
    assert {k: body[k] for k in ("model", "temperature", "top_p", "max_tokens", "seed", "top_k")} == {
        "model": "m",
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 33,
        "seed": 7,
        "top_k": 5,
    }
    assert "logprobs" not in body
    assert "return_token_ids" not in body
    for message, original in ((body["messages"][1], screen()), (body["messages"][3], screen(700, 1400))):
        expected = VISION.picture(original)
        assert picture_of(message["content"][1]).size == (expected.width, expected.height) != (0, 0)
    assert picture_of(body["messages"][1]["content"][1]).getpixel((5, 5)) == (9, 9, 9)
    assert server.keys == [f"Bearer {KEY}"]


def test_untruncated_sampling_overrides_what_the_server_would_fill_in(server: Server) -> None:
    policy(server.url).complete([ask()], Sampling())
    body = server.bodies[0]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"], body["top_p"]) == (-1, 0.0, 1.0, 1.0)


def test_without_extensions_only_openai_fields_are_sent(server: Server) -> None:
    plain = policy(server.url, extensions=False, want_tokens=True)
    plain.complete([ask()], GREEDY)
    known = {"model", "messages", "temperature", "top_p", "max_tokens", "seed", "logprobs"}
    assert set(server.bodies[0]) == known
    with pytest.raises(SetupError, match="top_k"):
        plain.complete([ask()], Sampling(top_k=3))


def test_a_picture_of_the_right_size_keeps_its_pixels_exactly() -> None:
    noise = Image.frombytes("RGB", (56, 84), random.Random(0).randbytes(56 * 84 * 3))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    url = encode(Picture(Screenshot(56, 84, data=buffer.getvalue()), 56, 84))
    assert picture_of({"image_url": {"url": url}}).tobytes() == noise.tobytes()


def test_each_picture_is_encoded_once_per_size(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[tuple[int, int]] = []

    def counting(picture: Picture) -> str:
        time.sleep(0.02)
        encoded.append((picture.width, picture.height))
        return encode(picture)

    monkeypatch.setattr(pictures_module, "encode", counting)
    policy(server.url).complete([ask(seed=s) for s in range(8)], Sampling())
    assert len(encoded) == 2  # two different screenshots in each of eight prompts
    cache = PictureCache(2**20)
    shot = screen()
    assert cache.url(Picture(shot, 28, 28)) != cache.url(Picture(shot, 56, 56))
    assert encoded[2:] == [(28, 28), (56, 56)]


def test_picture_cache_is_bounded_and_drops_the_least_recently_used(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def counting(picture: Picture) -> str:
        encoded.append(picture.width)
        return "x" * 100

    monkeypatch.setattr(pictures_module, "encode", counting)
    cache, shot = PictureCache(250), screen()
    for width in (1, 2, 1, 3, 1, 2):  # 3 pushes out 2, because 1 was used after it
        cache.url(Picture(shot, width, 1))
    assert encoded == [1, 2, 3, 2]


def test_a_picture_that_cannot_be_read_fails_every_time() -> None:
    cache, lost = PictureCache(100), Picture(Screenshot(10, 10, data=b"no image"), 28, 28)
    for _ in range(2):
        with pytest.raises(DataError, match="cannot be decoded"):
            cache.url(lost)


# ---------------------------------------------------------------------------------------------------------- what comes back


def test_results_come_in_request_order(server: Server) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        time.sleep(0.02 * (5 - body["seed"]))  # the first asked answers last
        return 200, said(str(body["seed"]))

    server.reply = reply
    answers = policy(server.url).complete([ask(seed=s) for s in range(6)], Sampling())
    assert [a.text for a in answers] == list("012345")
    assert policy(server.url).complete([], Sampling()) == []


def test_concurrency_is_used_and_never_exceeded_over_all_callers(server: Server) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        time.sleep(0.05)
        return 200, said()

    server.reply = reply
    shared = policy(server.url, concurrency=3)
    callers = [
        threading.Thread(target=shared.complete, args=([ask(seed=s) for s in range(6)], GREEDY)) for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (server.peak, len(server.bodies)) == (3, 12)


def test_tokens_when_wanted_and_told(server: Server) -> None:
    told: dict[str, Any] = {
        "token_ids": [5, 9],
        "logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": 0}]},
    }
    server.reply = lambda body: (200, said(**told))
    (answer,) = policy(server.url, want_tokens=True).complete([ask()], Sampling())
    assert (answer.token_ids, answer.logprobs) == ((5, 9), (-0.5, 0.0))
    assert server.bodies[0]["logprobs"] is True
    assert server.bodies[0]["return_token_ids"] is True
    (answer,) = policy(server.url).complete([ask()], Sampling())
    assert (answer.token_ids, answer.logprobs) == ((), ())


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"token_ids": [5, 9]},
        {"token_ids": [5, 9], "logprobs": {"content": [{"logprob": -1.0}]}},
        {"logprobs": None},
    ],
)
def test_tokens_stay_empty_unless_ids_and_logprobs_match(server: Server, choice: dict[str, Any]) -> None:
    server.reply = lambda body: (200, said(**choice))
    (answer,) = policy(server.url, want_tokens=True).complete([ask()], Sampling())
    assert answer == Completion("hello")


def test_finish_reasons(server: Server) -> None:
    server.reply = lambda body: (200, said("cut", "length"))
    assert policy(server.url).complete([ask()], GREEDY)[0].finish == "length"
    server.reply = lambda body: (200, said("half", "abort"))
    assert "abort" in str(crash(policy(server.url, retries=1)))


def test_thoughts_split_off_by_the_server_are_put_back(server: Server) -> None:
    message = {"content": "<action>\n{}\n</action>", "reasoning_content": "the button is red\n"}
    server.reply = lambda body: (200, {"choices": [{"message": message, "finish_reason": "stop"}]})
    (answer,) = policy(server.url).complete([ask()], GREEDY)
    assert answer.text == "<think>\nthe button is red\n</think>\n<action>\n{}\n</action>"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("nothing", ["", "\n", None])
def test_a_server_that_split_nothing_off_leaves_the_thought_in_the_text(
    server: Server, key: str, nothing: str | None
) -> None:
    message = {"content": "<think>why</think>\n<action>\n{}\n</action>", key: nothing}
    server.reply = lambda body: (200, {"choices": [{"message": message, "finish_reason": "stop"}]})
    (answer,) = policy(server.url).complete([ask()], GREEDY)
    assert answer.text == message["content"]


def test_huge_and_odd_text(server: Server) -> None:
    huge = "ü" * 1_000_000
    server.reply = lambda body: (200, said(huge))
    assert policy(server.url).complete([ask()], GREEDY)[0].text == huge
    server.reply = lambda body: (200, b'{"choices": [{"message": {"content": "a\\ud800b"}}]}')
    assert policy(server.url).complete([ask("\ud800")], GREEDY)[0].text == "a?b"
    assert server.bodies[-1]["messages"][1]["content"][0]["text"] == "?"


# ------------------------------------------------------------------------------------------------------- when things break


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_retry_then_success(server: Server, status: int) -> None:
    server.reply = lambda body: (status, {"error": "busy"}) if len(server.bodies) < 3 else (200, said("at last"))
    assert policy(server.url).complete([ask()], GREEDY) == [Completion("at last")]
    assert len(server.bodies) == 3


def test_retry_after_is_respected(server: Server) -> None:
    server.headers = {"Retry-After": "0.4"}
    server.reply = lambda body: (429, {}) if len(server.bodies) < 2 else (200, said())
    began = time.monotonic()
    policy(server.url).complete([ask()], GREEDY)
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500, {"error": "boom"}), "HTTP 500.*boom"),
        ((200, b'{"choices": [{"mess'), "not JSON"),
        ((200, b"[" * 100_000), "not JSON"),
        ((200, b"\xff\xfe"), "not JSON"),
        ((200, {"choices": []}), "without choices"),
        ((200, {"choices": [None]}), "without choices"),
        ((200, ["hello"]), "without choices"),
        ((200, {"choices": [{"message": {"content": None}}]}), "without text"),
        ((200, {"choices": [{"message": {"content": 7}}]}), "without text"),
    ],
)
def test_a_server_that_keeps_failing_is_a_crash_never_an_answer(server: Server, answer: Reply, why: str) -> None:
    server.reply = lambda body: answer
    assert re.search(f"failed 3 times.*{why}", str(crash(policy(server.url, retries=2))))
    assert len(server.bodies) == 3


def test_logprobs_that_are_not_numbers_are_a_crash(server: Server) -> None:
    server.reply = lambda body: (200, said(token_ids=[1], logprobs={"content": [{"logprob": "high"}]}))
    assert "not numbers" in str(crash(policy(server.url, retries=0, want_tokens=True)))
    server.reply = lambda body: (200, said(token_ids=[math.inf], logprobs={"content": [{"logprob": 0}]}))
    assert "not numbers" in str(crash(policy(server.url, retries=0, want_tokens=True)))


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf, 0.5, 1e300])
def test_a_number_that_is_no_log_probability_costs_its_request_alone(server: Server, logprob: float) -> None:
    def reply(body: dict[str, Any]) -> Any:
        bad = "bad" in str(body["messages"])
        return 200, said(token_ids=[1], logprobs={"content": [{"logprob": logprob if bad else -0.5}]})

    server.reply = reply
    ask = policy(server.url, retries=0, want_tokens=True)
    asked = [Request(Prompt((Message("user", (text,)),))) for text in ("good", "bad")]
    good, bad = ask.complete(asked, Sampling())
    assert isinstance(good, Completion)
    assert good.logprobs == (-0.5,)
    assert isinstance(bad, EnvCrashed)
    assert f"a log-probability of {logprob}, expected a finite number" in str(bad)


def test_a_certain_token_may_be_rounded_above_0(server: Server) -> None:
    server.reply = lambda body: (200, said(token_ids=[1], logprobs={"content": [{"logprob": 1e-6}]}))
    ask = policy(server.url, retries=0, want_tokens=True)
    [answer] = ask.complete([Request(Prompt((Message("user", ("go",)),)))], Sampling())
    assert isinstance(answer, Completion)
    assert answer.logprobs == (1e-6,)


def test_all_tries_of_a_request_share_one_deadline(server: Server) -> None:
    done = threading.Event()
    server.reply = lambda body: (500, {"error": "busy"}) if len(server.bodies) < 3 else (done.wait(5), (200, said()))[1]
    began = time.monotonic()
    why = str(crash(policy(server.url, retries=50, deadline=0.7)))
    assert re.search(r"no answer within 0\.7 s; the try before it: HTTP 500.*busy", why)
    assert time.monotonic() - began < 1.5
    done.set()


def test_a_pause_past_the_deadline_is_not_waited_for(server: Server) -> None:
    server.headers = {"Retry-After": "20"}
    server.reply = lambda body: (429, {"error": "busy"})
    began = time.monotonic()
    assert re.search("failed 1 time, with HTTP 429.*busy", str(crash(policy(server.url, deadline=2.0))))
    assert time.monotonic() - began < 1


def test_a_failure_ends_the_pauses_of_the_other_requests(server: Server) -> None:
    """One request is refused while the other waits for its next try: that try never comes."""
    server.headers = {"Retry-After": "0.5"}
    server.reply = lambda body: (time.sleep(0.2), (400, {}))[1] if body["seed"] else (429, {})
    asking = policy(server.url)
    with pytest.raises(SetupError, match="HTTP 400"):
        asking.complete([ask(seed=0), ask(seed=1)], GREEDY)
    time.sleep(0.7)
    assert len(server.bodies) == 2


def test_clients_are_closed(server: Server) -> None:
    asking = policy(server.url)
    asking.complete([ask()], GREEDY)
    asking.close()
    assert asking._client.is_closed()
    forgotten = policy(server.url)
    forgotten.complete([ask()], GREEDY)
    client, thread = forgotten._client, forgotten._loop._thread
    del forgotten
    gc.collect()
    assert client.is_closed()
    assert not thread.is_alive()


def test_nobody_there_is_a_setup_error_and_fast() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        began = time.monotonic()
        lost = policy(url, backoff=0.1, retries=3)
        for call in (lambda: lost.complete([ask(seed=s) for s in range(30)], GREEDY), lost.check):
            with pytest.raises(SetupError, match=rf"cannot reach.*{url}.*base_url"):
                call()
        assert time.monotonic() - began < 5


def test_an_unknown_host_is_a_setup_error() -> None:
    with pytest.raises(SetupError, match=r"cannot reach.*http://nowhere\.invalid/v1"):
        policy("http://nowhere.invalid/v1", retries=0).complete([ask()], GREEDY)


def test_unreachability_is_not_retried_past_its_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(SetupError, match="cannot reach"):
        policy("http://127.0.0.1:1/v1", retries=10_000, deadline=0.2).check()
    assert time.monotonic() - began < 4


def test_a_server_that_dies_during_the_run_is_a_setup_error(server: Server) -> None:
    serving = policy(server.url, retries=2)
    assert serving.complete([ask()], GREEDY) == [Completion("hello")]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        serving._client.base_url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(SetupError, match="cannot reach"):
            serving.complete([ask()], GREEDY)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, r"\$OPENAI_API_KEY does not hold a key"),
        (403, r"\$OPENAI_API_KEY does not hold a key"),
        (404, "no model 'm' or no such path.*/v1/models"),
        (400, "--max-model-len.*extensions"),
        (422, "--max-model-len.*extensions"),
    ],
)
def test_a_refusal_is_a_setup_error_at_once(server: Server, status: int, why: str) -> None:
    server.reply = lambda body: (status, {"error": {"message": f"no, {KEY}"}})
    with pytest.raises(SetupError, match=f"HTTP {status}.*no, .*{why}"):
        policy(server.url, concurrency=1).complete([ask(seed=s) for s in range(20)], GREEDY)
    time.sleep(0.1)
    assert len(server.bodies) <= 3  # one failed, what was already on its way may follow, the rest is cancelled


def test_an_unset_key_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server.reply = lambda body: (401, {})
    with pytest.raises(SetupError, match=r"\$OPENAI_API_KEY is unset"):
        policy(server.url).complete([ask()], GREEDY)


@pytest.mark.parametrize("status", [401, 500])
def test_the_key_never_leaks(server: Server, status: int) -> None:
    server.reply = lambda body: (status, {"error": {"message": f"bad key {KEY}"}})
    secret = policy(server.url.replace("://", "://user:pass-word@"), retries=0)
    with pytest.raises(SetupError) as caught:
        secret.complete([ask()] * 3, GREEDY)
    shown = "".join(traceback.format_exception(caught.value)) + repr(secret) + str(caught.value)
    assert "bad key ***" in shown
    assert KEY not in shown
    assert "pass-word" not in shown


def test_a_key_that_no_header_can_carry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-\nabc")
    with pytest.raises(SetupError, match=r"\$MY_KEY holds characters") as caught:
        policy(server.url, api_key_env="MY_KEY")
    assert "abc" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------------- set-up


def test_check_lists_what_is_served(server: Server) -> None:
    assert policy(server.url).check() == ("m", "other")
    with pytest.raises(SetupError, match=r"does not serve 'mine'; it serves 'm', 'other'"):
        policy(server.url, model="mine").check()
    server.models = (200, {"data": []})
    with pytest.raises(SetupError, match="it serves nothing"):
        policy(server.url).check()


@pytest.mark.parametrize("models", [(500, {}), (404, {}), (200, b"<html>"), (200, {"data": None}), (200, [])])
def test_check_of_something_that_is_not_a_model_server(server: Server, models: Reply) -> None:
    server.models = models
    with pytest.raises(SetupError, match="base_url"):
        policy(server.url, retries=1).check()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000/v1", "file:///etc/passwd", "http://", "http://[bad", "http://h:x/v1"]
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(SetupError, match="base_url"):
        policy(url)


@pytest.mark.parametrize(
    "changes", [{"concurrency": 0}, {"retries": -1}, {"most_bytes": 0}, {"deadline": math.nan}, {"deadline": 0.0}]
)
def test_bad_numbers(changes: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match="at least 1"):
        policy("http://127.0.0.1:1/v1", **changes)


@pytest.mark.parametrize("missing", ["openai", "tenacity"])
def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == missing:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(SetupError, match=re.escape(install("served"))):
        policy("http://127.0.0.1:1/v1")


def test_the_global_random_stream_is_left_alone(server: Server) -> None:
    random.seed(3)
    before = random.getstate()
    server.reply = lambda body: (500, {}) if len(server.bodies) < 3 else (200, said())
    policy(server.url).complete([ask()], GREEDY)
    assert random.getstate() == before
