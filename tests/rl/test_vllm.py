"""Training through vLLM's protocol samples what the in-process policy samples, and a server that keeps old weights is caught."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from peft import LoraConfig
from typer.testing import CliRunner

from agent.errors import EnvCrashed, SetupError
from agent.local import load_policy
from agent.policy import GREEDY, Request, Sampling
from agent.tiny import build_tiny
from agent.types import Completion
from agent.vllm import ServerEngine, VLLMPolicy, place
from launch.cli import app
from rl.config import Rollout
from rl.engine import make_training_args
from rl.metrics import METRICS
from rl.samples import StepSample
from rl.trainer import SemiOnlineTrainer
from rl.vllm import Probe, VLLMTrainer, check
from tests.agent.test_local import TEXTS, prompt
from tests.rl.fake_vllm import FakeLLM, FakeServer, free_port, pretend_vllm

SLOW = pytest.mark.slow
SMALL = {"layers": 2, "vision_layers": 2, "width": 64, "vision_width": 64}


GREEDY_SHORT = replace(GREEDY, max_new_tokens=6)


class Collect:
    """The same prompts every generation, so that what changes in the answers is the weights."""

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        self.heard: list[list[Completion]] = []

    def __call__(self, policy: Any, generation: int) -> list[StepSample]:
        requests = [Request(prompt(policy.vision, i, screens=1 + i % 2), seed=9 * generation + i) for i in range(3)]
        said = policy.complete(requests, self.sampling)
        self.heard.append(said)
        return [
            StepSample(f"e{i}", 0, i, r.prompt, c, 1, 1, 0, 0, (-1.0) ** i * 3)
            for i, (r, c) in enumerate(zip(requests, said, strict=True))
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("vllm") / "tiny", TEXTS, "qwen3_vl", **SMALL)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(key, "")  # TRL's colocate mode sets them for the whole process
        monkeypatch.delenv(key)
    pretend_vllm(monkeypatch)
    FakeLLM.lies = False
    return


@pytest.fixture
def server(folder: Path) -> Iterator[FakeServer]:
    made = FakeServer(folder)
    yield made
    made.close()


def settings(server: FakeServer | None, **more: Any) -> Rollout:
    where = {"engine": "vllm-colocate"} if server is None else {"engine": "vllm-server", "server": server.url}
    return Rollout(**{**where, "group_port": free_port(), "timeout": 1.0, "tolerance": 1e-3, **more})


def trained(folder: Path, out: Path, sampling: Sampling, rollout: Rollout | None, updates: int = 2, **more: Any) -> Any:
    rate = more.pop("rate", 2e-3)
    known = {"learning_rate": rate, "max_steps": updates, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    known |= {"save_strategy": "no", "report_to": [], "logging_steps": 1}
    args, collect = make_training_args(known, out), Collect(sampling)
    if rollout is None:
        trainer = SemiOnlineTrainer(folder, collect, args, **more)
    else:
        trainer = VLLMTrainer(folder, collect, args, rollout=rollout, max_new_tokens=16, **more)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("engine", "temperature"),
    [
        ("server", 0.0),
        pytest.param("server", 1.0, marks=SLOW),
        pytest.param("colocate", 0.0, marks=SLOW),
        ("colocate", 1.0),
    ],
)
def test_rollouts_and_weights_are_those_of_the_local_policy(engine, temperature, folder, server, tmp_path):
    sampling = Sampling(temperature, 6)
    local = trained(folder, tmp_path / "local", sampling, None)
    there = trained(folder, tmp_path / "there", sampling, settings(server if engine == "server" else None))
    ids = [[c.token_ids for c in said] for said in local.collect.heard]
    assert [[c.token_ids for c in said] for said in there.collect.heard] == ids
    assert [[c.text for c in said] for said in there.collect.heard] == [
        [c.text for c in s] for s in local.collect.heard
    ]
    if temperature == 0:
        assert ids[0] != ids[1]  # the weights moved far enough to be heard
    for ours, theirs in zip(local.collect.heard, there.collect.heard, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
            assert a.finish == b.finish
    for a, b in zip(local.model.parameters(), there.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)
    gaps = [row["logprob_gap/max"] for row in there.state.log_history if "logprob_gap/max" in row]
    assert len(gaps) == 2
    assert max(gaps) < 1e-4
    told = {key for row in there.state.log_history for key in row if key.startswith("vllm/")}
    assert told == {"vllm/probe_gap", "vllm/sync_seconds"} <= set(METRICS)
    if engine == "server":
        assert len(server.pushed) == server.resets == 2
    else:
        assert FakeLLM.made.resets == 2


@pytest.mark.slow
def test_lora_arrives_merged(folder, server, tmp_path):
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = trained(folder, tmp_path, Sampling(1.0, 6), settings(server), lora=lora)
    assert len(server.pushed) == 2
    assert not any("lora" in name for name in server.pushed[0])
    gaps = [row["vllm/probe_gap"] for row in trainer.state.log_history if "vllm/probe_gap" in row]
    assert max(gaps) < 1e-4


@pytest.mark.parametrize("engine", ["server", pytest.param("colocate", marks=SLOW)])
def test_an_engine_that_keeps_its_weights_stops_the_run(engine, folder, server, tmp_path):
    server.lies = FakeLLM.lies = True
    rollout = settings(server if engine == "server" else None, tolerance=1e-3)
    with pytest.raises(
        SetupError, match=r"disagree on the probe by .*log p -\d+\.\d+ by vLLM, -\d+\.\d+ by the trainer"
    ):
        trained(folder, tmp_path, GREEDY_SHORT, rollout)


def test_a_server_that_stands_still_is_caught_inside_the_tolerance(folder, server, tmp_path):
    """A tolerance wide enough for bf16 hides small updates; an answer that never changes does not hide."""
    server.lies = True
    with pytest.raises(SetupError, match=r"exactly as before .* moved by"):
        trained(folder, tmp_path, GREEDY_SHORT, settings(server, tolerance=0.2), updates=9, rate=2e-4)


@pytest.mark.slow
def test_a_server_with_another_model_is_caught_at_once(folder, tmp_path):
    other = FakeServer(build_tiny(tmp_path / "other", TEXTS, "qwen3_vl", seed=5, **SMALL))
    other.lies = True
    try:
        with pytest.raises(SetupError, match="does not have these weights"):
            trained(folder, tmp_path / "run", GREEDY_SHORT, settings(other, tolerance=0.1))
    finally:
        other.close()


def probe(ids: tuple[int, ...], there: list[float], here: list[float]) -> Probe:
    return Probe(ids, torch.tensor(there, dtype=torch.float64), torch.tensor(here, dtype=torch.float64))


def test_the_check_names_both_numbers_and_keeps_its_anchor():
    first = check(probe((1, 2), [-1.0, -2.0], [-1.0, -2.0]), None, 0.1)
    drifting = check(probe((1, 2), [-1.0, -2.0], [-1.005, -2.005]), first, 0.1)
    assert drifting is first  # half a hundredth may be rounding; the next comparison starts from the same place
    with pytest.raises(SetupError, match=r"moved by 0.011"):
        check(probe((1, 2), [-1.0, -2.0], [-1.011, -2.011]), drifting, 0.1)
    moved = check(probe((1, 2), [-1.001, -2.0], [-1.02, -2.02]), first, 0.1)
    assert moved is not first
    with pytest.raises(SetupError, match=r"log p -2.0000 by vLLM, -5.4000 by the trainer"):
        check(probe((1, 2), [-1.0, -2.0], [-1.1, -5.4]), None, 0.1)
    with pytest.raises(SetupError, match="disagree"):
        check(probe((1,), [float("nan")], [-1.0]), None, 0.1)


# ------------------------------------------------------------------------------------------------- what is set up wrong


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda server: setattr(server, "transfer", None), "weight-transfer engine"),
        (lambda server: setattr(server, "logprobs_mode", "processed_logits"), "tells processed_logits"),
    ],
)
def test_a_server_started_otherwise_is_named_with_the_command(break_it, words, folder, server, tmp_path):
    break_it(server)
    with pytest.raises(SetupError, match=words) as error:
        trained(folder, tmp_path, GREEDY, settings(server))
    assert "vllm serve" in str(error.value)


def test_nobody_there(folder, tmp_path):
    with pytest.raises(SetupError, match="vllm serve"):
        trained(folder, tmp_path, GREEDY, Rollout(engine="vllm-server", server="http://127.0.0.1:9", timeout=0.1))


def test_vllm_is_asked_for_only_when_chosen(folder, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(SetupError, match="pip install"):
        trained(folder, tmp_path, GREEDY, Rollout(engine="vllm-server"))


def served(folder: Path, server: FakeServer) -> VLLMPolicy:
    from trl.generation.vllm_client import VLLMClient

    local = load_policy(folder)
    return VLLMPolicy(ServerEngine(VLLMClient(base_url=server.url), local.encoder), local)


def test_prompts_travel_as_ids_with_seeds_and_bans(folder, server):
    policy = served(folder, server)
    asked = [Request(prompt(policy.vision, i, screens=2), seed=2**62 + i) for i in range(2)]
    policy.complete(asked, Sampling(0.7, 5))
    bodies = sorted(server.asked, key=lambda body: body["sampling_params"]["seed"])
    for body, request in zip(bodies, asked, strict=True):
        assert body["token_ids"] == policy.encoder.prompt(request.prompt).ids.tolist()
        given = body["sampling_params"]
        assert (given["seed"], given["temperature"], given["max_tokens"]) == (request.seed, 0.7, 5)
        banned = {int(token) for token in given["logit_bias"]}
        assert policy.encoder.image_pad in banned
        assert policy.encoder.end_of_turn not in banned
        assert given["stop_token_ids"] == [policy.encoder.end_of_turn]


def test_words_that_filled_the_budget_are_not_asked(folder, server):
    policy = served(folder, server)
    policy.encoder.max_prompt_tokens = 40
    [said] = policy.complete([Request(prompt(policy.vision, 1, screens=2, said="tap " * 50))], GREEDY)
    assert said == Completion("", finish="budget")
    assert server.asked == []


def test_a_server_that_resizes_pictures_is_refused(folder, server):
    server.pixels_lost = 1
    policy = served(folder, server)
    with pytest.raises(SetupError, match="pixel bounds"):
        policy.complete([Request(prompt(policy.vision, 1))], GREEDY)


def test_a_refusal_is_the_users_and_a_failure_the_machines(folder, server):
    policy = served(folder, server)
    server.inference_generate = lambda body: 1 / 0
    with pytest.raises(SetupError, match="ZeroDivisionError"):
        policy.complete([Request(prompt(policy.vision, 1))], GREEDY)
    server.inference_generate = lambda body: {
        "choices": [
            {
                "token_ids": [1],
                "logprobs": {"content": [{"token": "token_id:1", "logprob": float("nan"), "top_logprobs": []}]},
            }
        ]
    }
    with pytest.raises(EnvCrashed, match="NaN"):
        policy.complete([Request(prompt(policy.vision, 1))], GREEDY)


def test_places_are_found_in_the_prompt(folder):
    encoder = load_policy(folder).encoder
    pad = encoder.image_pad
    features = {"mm_placeholders": {"image": [{"offset": 0, "length": 2}, {"offset": 9, "length": 3}]}, "more": 1}
    placed = place(features, [5, pad, pad, 6, 7, pad, pad, pad, 8], encoder)
    assert placed == {
        "mm_placeholders": {"image": [{"offset": 1, "length": 2}, {"offset": 5, "length": 3}]},
        "more": 1,
    }


@pytest.mark.slow
def test_the_train_command_goes_through_the_server(tmp_path):
    def call(*words: object) -> None:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"

    call("record", "pocket", "--episodes", 4, "--out", tmp_path / "data")
    call("init", "tiny", tmp_path / "data", "--out", tmp_path / "tiny")
    config = Path(__file__).parents[2] / "launch" / "configs" / "tiny_semi_online.yaml"
    small = ["method.groups=1", "method.rollouts=2", "method.spread_of=none", "method.tries=1", "training.max_steps=1"]
    small += ["training.gradient_accumulation_steps=1", "training.steps_per_generation=1", "model.max_new_tokens=4"]
    runs = {}
    for engine in ("local", "vllm-server"):
        server = FakeServer(tmp_path / "tiny")
        where = [f"rollout.engine={engine}", f"rollout.server={server.url}", f"rollout.group_port={free_port()}"]
        data = [f"model.path={tmp_path / 'tiny'}", f"data.train={tmp_path / 'data'}"]
        call("train", config, *data, *small, *where, "--out", tmp_path / engine)
        lines = (tmp_path / engine / "rollouts.jsonl").read_text().splitlines()
        runs[engine] = [[turn["token_ids"] for turn in json.loads(line)["turns"]] for line in lines]
        server.close()
    assert runs["vllm-server"] == runs["local"]
