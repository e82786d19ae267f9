"""guiderail data think against a stand-in server, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("openai")

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Completion, Prompt, Turn
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch.cli import app
from guiderail.launch.study.plan import CONFIGS
from guiderail.launch.train import set_up
from guiderail.patch.off_policy import load_thoughts, off_policy, with_thoughts
from guiderail.rl.config import load_config
from tests.agent.served.test_openai import Server, said, server

__all__ = ["server"]


def call(*words: object, code: int = 0) -> dict:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return json.loads(result.stdout)


def test_the_cost_is_told_then_a_store_is_filled_and_gone_on_with(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    data, store = tmp_path / "data", tmp_path / "deep" / "thoughts.jsonl"
    CliRunner().invoke(app, ["record", "pocket", "--episodes", "3", "--out", str(data)], catch_exceptions=False)
    episodes = load_episodes(data).episodes
    steps = sum(len(episode.steps) for episode in episodes)
    words = ["data", "think", data, "--server", server.url, "--model", "m", "--out", store, "--json"]

    told = call(*words, "--price-in", 2, "--price-out", 10)
    assert (told["to_ask"], told["asked"]) == (steps, False)
    assert told["price_at_most"] == pytest.approx((2 * told["tokens_read"] + 10 * 160 * steps) / 1e6)
    assert not server.bodies
    assert not store.exists()

    answered: set[str] = set()

    def reply(body: dict) -> tuple[int, dict]:  # a step's first answer is empty, whatever order the requests come in
        question = json.dumps(body["messages"])
        with server.lock:
            again = question in answered
            answered.add(question)
        return 200, said("I tap it" if again else "<think></think>")

    server.reply = reply
    first = call(*words, "--limit", 1, "--yes")
    assert first["written"] == first["to_ask"] == len(episodes[0].steps)
    assert len(server.bodies) == 2 * first["to_ask"]
    pictures = [sum(p["type"] == "image_url" for p in body["messages"][1]["content"]) for body in server.bodies]
    assert sorted(pictures) == [1] * 2 + [2] * (len(pictures) - 2)  # the last screen has none after it
    server.reply = lambda body: (200, said("I tap it"))
    asked = len(server.bodies)
    rest = call(*words, "--yes")
    assert (rest["held"], rest["written"]) == (first["written"], steps - first["written"])
    assert len(server.bodies) == asked + rest["to_ask"]
    assert len(load_thoughts(store)) == steps
    assert call(*words, "--yes")["to_ask"] == 0
    assert len(server.bodies) == asked + rest["to_ask"]

    turn = Turn(0, Prompt(()), Completion(""), None, None)
    assert off_policy()(with_thoughts(episodes, load_thoughts(store))[0], turn).thought == "I tap it"  # type: ignore[union-attr]


def test_refused_thoughts_are_counted_and_nothing_written_is_an_ending_of_its_own(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    CliRunner().invoke(app, ["record", "pocket", "--episodes", "1", "--out", str(tmp_path / "data")])
    server.reply = lambda body: (200, said("a </think> b"))
    words = [
        "data",
        "think",
        tmp_path / "data",
        "--server",
        server.url,
        "--out",
        tmp_path / "t.jsonl",
        "--json",
        "--yes",
    ]
    found = call(*words, "--model", "m", code=4)
    assert found["refused"] == {"not read back as it is": found["to_ask"]}
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--model", "nobody"]])
    assert isinstance(result.exception, SetupError)
    assert "does not serve 'nobody'" in str(result.exception)


def test_thoughts_of_similar_steps_are_shown_and_their_effect_is_told(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    data, large = tmp_path / "data", tmp_path / "large.jsonl"
    CliRunner().invoke(app, ["record", "pocket", "--episodes", "4", "--out", str(data)], catch_exceptions=False)
    episodes = load_episodes(data).episodes
    lines = [{"episode_id": e.id, "step": t, "thought": f"{e.id} at {t}"} for e in episodes for t in e.targets]
    large.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def reply(body: dict) -> tuple[int, dict]:
        shown = "Example from another task" in json.dumps(body["messages"])
        return 200, said("I go on" if shown else "a </think> b")

    server.reply = reply
    words = ["data", "think", data, "--server", server.url, "--model", "m", "--out", tmp_path / "t.jsonl", "--json"]
    words += ["--examples", 2, "--examples-from", large]
    plain = call(*words[:-4])
    assert call(*words)["tokens_read"] > plain["tokens_read"]
    found = call(*words, "--control", 0.5, "--yes")
    with_, without = found["refused_at_first_with"], found["refused_at_first_without"]
    assert with_["refused"] == 0
    assert without["refused"] == without["of"] > 0
    assert with_["of"] + without["of"] == len(lines) == found["to_ask"]
    assert found["share_with_examples"] == with_["of"] / len(lines)
    assert 0 < found["mean_similarity"] < 1
    assert found["written"] == with_["of"]

    large.write_text('{"episode_id": "of another data set", "step": 0, "thought": "x"}\n')
    for given, message in (([], "holds no thought of a step of"), (["--examples", 0], "say how many")):
        result = CliRunner().invoke(app, [str(word) for word in [*words, *given]])
        assert isinstance(result.exception, SetupError)
        assert message in str(result.exception)


def test_every_training_reads_the_store_before_the_recording(tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "thoughts.jsonl"
    record(data, 1)
    store.write_text('{"episode_id": "0", "step": 0, "thought": "mine"}\n')
    words = [f"data.train={data}", f"method.thought_store={store}"]
    for name in ("tiny_sft.yaml", "tiny_offline.yaml", "tiny_semi_online.yaml"):
        first, *others = set_up(load_config(CONFIGS / name, words)).episodes[0].steps
        assert first.thought == "mine"
        assert [step.thought for step in others] == [step.thought for step in load_episodes(data).episodes[0].steps[1:]]
