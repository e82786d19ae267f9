"""A model scores the same whether it runs in this process or behind a server: pictures and coordinates mean the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import GREEDY
from guiderail.agent.screen import Vision
from guiderail.agent.served.openai import ServedPolicy
from guiderail.agent.shipped import SHIPPED
from guiderail.agent.types import Episode, Rollout
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.match import GUIDERAIL
from guiderail.launch import agents
from guiderail.launch.agents import Agent, AgentSpec, build_agent
from guiderail.rl.score.steps import evaluate_sop
from tests.agent.served.transformers_server import Served, serving

for module in ("openai", "tenacity"):
    pytest.importorskip(module, reason="needs the extra served")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def scored(agent: Agent, episodes: list[Episode]) -> tuple[dict[str, Any], list[list[str]]]:
    walks: list[Rollout] = []
    result = evaluate_sop(
        episodes,
        agent.policy,
        agent.dialogue,
        rules=GUIDERAIL,
        sampling=agents.sampling(agent.voice, GREEDY.temperature),
        record=walks.append,
    )
    by_episode = sorted(walks, key=lambda walk: walk.unit)
    return result, [[turn.completion.text for turn in walk.turns] for walk in by_episode]


def compared(tmp_path: Path, count: int) -> None:
    folder = SHIPPED["tiny-sft"]
    record(tmp_path / "data", episodes=count, seed=5, split="test")
    episodes = load_episodes(tmp_path / "data").episodes
    local, said = scored(build_agent(AgentSpec(model="tiny-sft"), episodes), episodes)
    served = Served(folder)
    with serving(served, "phone-agent") as url:
        agent = build_agent(AgentSpec(server=url, served_model="phone-agent", processor=str(folder)), episodes)
        remote, remote_said = scored(agent, episodes)
        assert served.sizes == {((160, 288), (160, 288))}
        assert remote_said == said
        assert remote == local
        assert local["PG"] > 0.5
        # What was assumed of every server before: Qwen2.5-VL's factor. Coordinates then miss.
        wrong = ServedPolicy(url, "phone-agent", Vision())
        moved, _ = scored(Agent(wrong, Dialogue(Vision(), agent.dialogue.dialect, 1), agent.voice, "wrong"), episodes)
        assert ((168, 280), (160, 288)) in served.sizes
        assert moved["PG"] < local["PG"]


@pytest.mark.slow
def test_same_score_in_this_process_and_behind_a_server(tmp_path: Path) -> None:
    compared(tmp_path, 15)
