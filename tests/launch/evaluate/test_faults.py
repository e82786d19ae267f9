"""A server that fails ends `guiderail evaluate`, within the seconds that the user gave and with the cause."""

import json
import re
import time

import pytest
from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.launch.cli import app
from tests.agent.served.faults import CAUSES, FAULTS, GOOD, answer, faulty

for module in ("openai", "tenacity", "android_env"):
    pytest.importorskip(module, reason="needs the extras served and android")

WORLDS = {
    "sop": ["sop", "DATA"],
    "pocket": ["pocket", "--tasks", "3", "--width", "3"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    result = CliRunner().invoke(app, ["record", "pocket", "--episodes", "3", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def evaluate(world, data, server, *more, seconds=0.5):
    words = [str(data) if word == "DATA" else word for word in WORLDS[world]]
    who = ["--server", server.url, "--served-model", "m", "--request-timeout", str(seconds)]
    who += ["--dialect", "brief", "--processor", "tiny-sft"]
    return CliRunner().invoke(app, ["evaluate", *words, *who, *more])


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    "fault", [f if f in ("hang", "endless stream", "429") else pytest.param(f, marks=pytest.mark.slow) for f in FAULTS]
)
def test_every_fault_ends_the_command_with_its_cause(world, fault, data):
    """A fault that comes at once has time to be seen on a busy machine; one that makes us wait ends with the deadline."""
    seconds = 0.5 if "no answer" in CAUSES[fault] else 3.0
    with faulty(fault) as server:
        began = time.monotonic()
        result = evaluate(world, data, server, seconds=seconds)
        assert time.monotonic() - began < 6 + seconds
    assert isinstance(result.exception, SetupError)
    assert re.search(f"does not answer: .*{CAUSES[fault]}", str(result.exception))


@pytest.mark.parametrize("world", WORLDS)
def test_one_bad_request_costs_its_own_rollout_and_says_why(world, data, monkeypatch):
    bad = []

    def one_hangs(client):
        bad.append(client)
        FAULTS["hang"](client) if len(bad) == 1 else client.sendall(answer(GOOD))

    monkeypatch.setitem(FAULTS, "one hangs", one_hangs)
    with faulty("one hangs") as server:
        more = [] if world == "sop" else ["--retries", "0"]
        result = evaluate(world, data, server, "--json", *more, seconds=2.0)  # a good answer has time on a busy machine
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert (found["n"], found["unscored"]) == (2, 1)
    assert "no answer within 2 s" in " ".join(result.stderr.split())


def test_the_time_of_an_attempt_ends_the_request_under_way(data, monkeypatch):
    """The attempt has 1 s, a request 60 s; the server never answers the second turn."""
    asked = []

    def second_hangs(client):
        asked.append(client)
        client.sendall(answer(GOOD)) if len(asked) == 1 else FAULTS["hang"](client)

    monkeypatch.setitem(FAULTS, "second hangs", second_hangs)
    with faulty("second hangs") as server:
        began = time.monotonic()
        words = ["--attempt-timeout", "1", "--retries", "0", "--tasks", "1", "--json"]
        result = evaluate("pocket", data, server, *words, seconds=60)
        assert time.monotonic() - began < 6
    assert result.exit_code == 4, result.exception  # nothing was scored
    [unscored] = json.loads(result.stdout)["unscored_attempts"]
    assert "all that was left for the attempt" in unscored["reason"]
