"""Training through vLLM's protocol samples what the in-process policy samples, and a server that keeps old weights is caught."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from peft import LoraConfig
from typer.testing import CliRunner

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.local.policy import load_policy
from guiderail.agent.policy import GREEDY, Request, Sampling
from guiderail.agent.served.vllm.client import Server
from guiderail.agent.served.vllm.policy import VLLMPolicy, one_pad_each
from guiderail.agent.served.vllm.servers import ServerEngine
from guiderail.agent.served.vllm.setting_up import check_one_environment
from guiderail.agent.types import Completion
from guiderail.launch.cli import app
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.runs.metrics import METRICS
from guiderail.rl.sections import Rollout
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.arguments import make_training_args
from guiderail.rl.train.trainer import SemiOnlineTrainer
from guiderail.rl.train.vllm_probe import Probe, check
from guiderail.rl.train.vllm_trainer import VLLMTrainer
from tests.agent.local.test_policy import TEXTS, prompt
from tests.agent.served.faults import faulty
from tests.rl.train.fake_vllm import FakeLLM, FakeServer, pretend_vllm

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
    FakeLLM.lie = FakeLLM.keep = False
    return


@pytest.fixture
def server(folder: Path) -> Iterator[FakeServer]:
    made = FakeServer(folder)
    yield made
    made.close()


def settings(server: FakeServer | None, **more: Any) -> Rollout:
    where = {"engine": "vllm-colocate"} if server is None else {"engine": "vllm-server", "server": server.url}
    return Rollout(**{**where, "timeout": 1.0, **more})


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
    assert told == {"vllm/probe_gap", "vllm/probe_stale", "vllm/sync_seconds"} <= set(METRICS)
    made = server if engine == "server" else FakeLLM.made
    assert made.resets == {"prefix": 2, "encoder": 2}
    assert not [*tmp_path.rglob("*.safetensors")]


@pytest.mark.parametrize("engine", ["server", pytest.param("colocate", marks=SLOW)])
def test_an_adapter_arrives_as_an_adapter(engine, folder, server, tmp_path):
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    server.lora_config = {"max_lora_rank": 16}
    rollout = settings(server if engine == "server" else None)
    trainer = trained(folder, tmp_path, Sampling(1.0, 6), rollout, lora=lora, rate=2e-2)
    gaps = [row["vllm/probe_gap"] for row in trainer.state.log_history if "vllm/probe_gap" in row]
    assert max(gaps) < 1e-4
    if engine == "server":
        assert len(server.pushed) == 2
        assert all("lora_" in name for name in server.pushed[0])
        assert {body["model"] for body in server.asked[-3:]} == {"trained"}


@pytest.mark.parametrize("engine", ["server", pytest.param("colocate", marks=SLOW)])
def test_vllm_sleeps_during_updates(engine, folder, server, tmp_path):
    server.model_config["enable_sleep_mode"] = True
    rollout = settings(server if engine == "server" else None, sleep=True)
    there = trained(folder, tmp_path / "there", GREEDY_SHORT, rollout)
    made = server if engine == "server" else FakeLLM.made
    first = ["load", "generate", "sleep"]
    assert made.did == [*first, "wake weights", "load", "wake kv_cache", *first[1:], "wake weights", "wake kv_cache"]
    plain = trained(folder, tmp_path / "plain", GREEDY_SHORT, settings(server if engine == "server" else None))
    assert there.collect.heard == plain.collect.heard


def test_a_server_that_was_left_asleep_is_woken(folder, server, tmp_path):
    server.model_config["enable_sleep_mode"] = True
    server.awake.clear()
    trained(folder, tmp_path, GREEDY_SHORT, settings(server, sleep=True), updates=1)
    assert server.did[:3] == ["wake weights", "wake kv_cache", "load"]
    assert len(server.awake) == 2


@pytest.mark.parametrize(
    ("asked", "config", "why"),
    [
        ({"sleep": True}, None, r"cannot sleep.*--enable-sleep-mode"),
        (
            {"speculation": "ngram"},
            None,
            r"its speculation is off, this run's is ngram.*--speculative-config .*prompt_lookup",
        ),
        ({"speculation": "off"}, {"method": "suffix"}, "its speculation is suffix, this run's is off"),
    ],
)
def test_a_server_that_was_started_otherwise(asked, config, why, folder, server, tmp_path):
    server.speculative_config = config
    with pytest.raises(SetupError, match=why):
        trained(folder, tmp_path, GREEDY_SHORT, settings(server, **asked))


def test_a_server_that_drafts_is_asked_without_a_bias(folder, server, tmp_path):
    """vLLM refuses a bias beside speculation."""
    server.speculative_config = {"method": "ngram"}
    trainer = trained(folder, tmp_path, GREEDY_SHORT, settings(server), updates=1)
    encoder = trainer.encoder
    asked = [body["sampling_params"]["bad_words"] for body in server.asked if "bad_words" in body["sampling_params"]]
    assert asked
    for words in asked:
        ids = {token for word in words for token in encoder.tokenizer.encode(word, add_special_tokens=False)}
        assert ids == set(encoder.special_ids) - {encoder.end_of_turn}


def test_colocated_drafts(folder, tmp_path):
    trained(folder, tmp_path, GREEDY_SHORT, settings(None, speculation="ngram"), updates=1)
    assert FakeLLM.made.settings["speculative_config"]["method"] == "ngram"


@pytest.mark.parametrize("engine", ["server", pytest.param("colocate", marks=SLOW)])
def test_an_engine_that_keeps_its_weights_stops_the_run(engine, folder, server, tmp_path):
    server.lies = FakeLLM.lie = True
    rollout = settings(server if engine == "server" else None)
    with pytest.raises(
        SetupError, match=r"disagree on the probe by .*log p -\d+\.\d+ by vLLM, -\d+\.\d+ by the trainer"
    ):
        trained(folder, tmp_path, GREEDY_SHORT, rollout)


def test_a_server_that_stands_still_is_caught_inside_the_tolerance(folder, server, tmp_path):
    """A tolerance wide enough for bf16 hides small updates; an answer that never changes does not hide."""
    server.lies = True
    with pytest.raises(SetupError, match=r"exactly as before .* moved by"):
        trained(folder, tmp_path, GREEDY_SHORT, settings(server, tolerance=0.2), updates=9, rate=3e-5)


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
        (lambda server: server.model_config.update(logprobs_mode="processed_logits"), "reports processed_logits"),
        (lambda server: server.model_config.update(max_model_len=64), "takes 64 tokens, the longest .* have 12304"),
        (lambda server: setattr(server, "vllm", "0.29.1"), r"runs vLLM 0\.29\.1, this trainer speaks with 0\.31"),
        (lambda server: setattr(server, "vllm", "0.33.0"), "guiderail setup vllm"),
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


def test_colocate_is_refused_with_versions_before_the_model_loads(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("guiderail.rl.train.vllm_trainer.check_one_environment", check_one_environment)
    began = time.monotonic()
    where = "guiderail.agent.served.vllm.setting_up"
    versions = {"transformers": "5.23.0"}
    monkeypatch.setattr(f"{where}._installed", versions.get)
    with pytest.raises(SetupError, match=r"has transformers 5\.23\.0 and no vLLM; pip install .*guiderail setup vllm"):
        trained(folder, tmp_path, GREEDY, Rollout(engine="vllm-colocate"))
    versions["vllm"] = "0.31.0"
    monkeypatch.setattr(f"{where}._wants", lambda package, name: "<5.18.0,>=5.10.4")
    with pytest.raises(
        SetupError, match=r"vLLM 0\.31\.0 wants transformers <5\.18\.0,>=5\.10\.4, this .* has 5\.23\.0"
    ):
        trained(folder, tmp_path, GREEDY, Rollout(engine="vllm-colocate"))
    assert time.monotonic() - began < 1
    versions["transformers"] = "5.17.0"
    check_one_environment()


def served(folder: Path, *servers: FakeServer, **more: Any) -> VLLMPolicy:
    local = load_policy(folder)
    deadline = more.pop("deadline", 100.0)
    engine = ServerEngine([Server(server.url, deadline) for server in servers], local.encoder, **more)
    return VLLMPolicy(engine, local.encoder, "m", local.model.get_input_embeddings().weight.shape[0])


def test_prompts_travel_as_ids_with_seeds_and_bans(folder, server):
    policy = served(folder, server)
    asked = [Request(prompt(policy.vision, i, screens=2), seed=2**62 + i) for i in range(2)]
    policy.complete(asked, Sampling(0.7, 5))
    bodies = sorted(server.asked, key=lambda body: body["sampling_params"]["seed"])
    for body, request in zip(bodies, asked, strict=True):
        assert body["token_ids"].count(policy.encoder.image_pad) == 2
        whole = policy.encoder.prompt(request.prompt).ids.tolist()
        assert server.expand(body["token_ids"], [server.pictures[p["uuid"]] for p in body["content_parts"]]) == whole
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
    [crash] = policy.complete([Request(prompt(policy.vision, 1))], GREEDY)
    assert isinstance(crash, EnvCrashed)
    assert "NaN" in str(crash)
    server.inference_generate = lambda body: {"choices": [{"token_ids": 7}]}
    [crash] = policy.complete([Request(prompt(policy.vision, 1))], GREEDY)
    assert "TypeError" in str(crash)


def test_a_server_that_hangs_ends_the_run_within_its_deadline(folder, server):
    policy = served(folder, server, deadline=0.5)
    done = threading.Event()
    server.inference_generate = lambda body: done.wait(20)
    began = time.monotonic()
    with pytest.raises(SetupError, match=r"does not answer: .*no answer within 0\.5 s"):
        policy.complete([Request(prompt(policy.vision, i)) for i in range(3)], GREEDY)
    assert time.monotonic() - began < 2
    done.set()


@pytest.mark.parametrize("fault", ["hang", "slow body", "500"])
def test_a_server_that_hangs_at_the_start(fault, folder, tmp_path):
    with faulty(fault) as server:
        server.fault_of_get = True
        rollout = Rollout(engine="vllm-server", server=server.url.removesuffix("/v1"), timeout=0.5)
        began = time.monotonic()
        with pytest.raises(SetupError, match=r"does not answer.*vllm serve"):
            trained(folder, tmp_path, GREEDY, rollout)
        assert time.monotonic() - began < 5


def test_one_pad_each():
    assert one_pad_each([5, 9, 9, 6, 9, 9, 9, 8], [2, 3], 9) == [5, 9, 6, 9, 8]
    assert one_pad_each([5, 9, 9, 9, 8], [1, 2], 9) == [5, 9, 9, 8]
    assert one_pad_each([5, 6], [], 9) == [5, 6]


def test_a_picture_is_sent_once_and_again_when_the_server_has_lost_it(folder, server):
    policy = served(folder, server)
    asked = [Request(prompt(policy.vision, 1, screens=2), seed=seed) for seed in range(4)]
    first = policy.complete(asked, Sampling(1.0, 4))
    assert len(server.sent) == len(set(server.sent)) == 2
    assert max(len(json.dumps(body)) for body in server.asked) < 12_000  # mostly the bans
    server.pictures.clear()
    server.sent.clear()
    assert policy.complete(asked, Sampling(1.0, 4)) == first
    assert set(server.sent) == set(server.pictures)
    assert len(server.pictures) == 2


def test_features_of_old_weights_are_seen(folder, server, tmp_path):
    """Both caches are asked to forget; a server that says yes and forgets nothing stops the run."""
    server.keeps_features = True
    with pytest.raises(SetupError, match="features or keys and values of earlier weights"):
        trained(folder, tmp_path, GREEDY_SHORT, settings(server, tolerance=0.05), updates=9, rate=1e-5)


def test_a_group_stays_on_one_server_and_groups_are_spread(folder, server):
    other = FakeServer(folder)
    try:
        policy = served(folder, server, other)
        groups = [prompt(policy.vision, 1, goal=f"Goal: open {i}") for i in range(4)]
        asked = [Request(group, seed) for group in groups for seed in range(3)]
        policy.complete(asked, Sampling(1.0, 3))
        ours, theirs = (_goals(one) for one in (server, other))
        assert len(ours) == len(theirs) == 2
        assert not ours & theirs
        longer = prompt(policy.vision, 1, goal="Goal: open 2", screens=2)
        policy.complete([Request(longer, seed) for seed in range(3)], Sampling(1.0, 3))
        assert (ours, theirs) == (_goals(server), _goals(other))
    finally:
        other.close()


def _goals(server: FakeServer) -> set[tuple[int, ...]]:
    pad = server.policy.encoder.image_pad
    return {tuple(body["token_ids"][: body["token_ids"].index(pad)]) for body in server.asked}


def test_others_answer_for_a_server_that_is_gone(folder, server):
    other = FakeServer(folder)
    policy = served(folder, server, other)
    asked = [Request(prompt(policy.vision, 1, goal=f"Goal: open {i}")) for i in range(4)]
    before = policy.complete(asked, GREEDY_SHORT)
    other.close()
    assert policy.complete(asked, GREEDY_SHORT) == before
    server.close()
    with pytest.raises(SetupError, match=r"no vLLM server is left \(http.*ConnectError.*resume the run"):
        policy.complete(asked, GREEDY_SHORT)


def test_a_server_that_was_started_again_is_left_out_until_the_next_sync(folder, server):
    other = FakeServer(folder)
    try:
        policy = served(folder, server, other)
        server.version = other.version = "w1"
        policy.engine.settle("w1", [server.url, other.url], None)
        other.version = None
        policy.complete([Request(prompt(policy.vision, i)) for i in range(4)], GREEDY_SHORT)
        assert len(server.asked) == 4
        assert not other.asked
        policy.engine.settle("w1", [server.url, other.url], None)
        server.version = "of another run"
        with pytest.raises(SetupError, match="serves another run"):
            policy.complete([Request(prompt(policy.vision, 1))], GREEDY)
    finally:
        other.close()


@pytest.mark.slow
def test_training_goes_on_with_the_servers_that_are_left(folder, server, tmp_path):
    other = FakeServer(folder)

    class Closing(Collect):
        def __call__(self, policy: Any, generation: int) -> list[StepSample]:
            if generation == 1:
                other.close()
            return super().__call__(policy, generation)

    rollout = settings(server, server=[server.url, other.url])
    known = {"learning_rate": 2e-3, "max_steps": 3, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    args = make_training_args({**known, "save_strategy": "no", "report_to": []}, tmp_path)
    collect = Closing(GREEDY_SHORT)
    VLLMTrainer(folder, collect, args, rollout=rollout, max_new_tokens=16).train()
    assert len(collect.heard) == len(server.pushed) == 3
    assert len(other.pushed) == 2
    assert all(isinstance(answer, Completion) for said in collect.heard for answer in said)


@pytest.mark.slow
def test_the_train_command_goes_through_the_server(tmp_path):
    def call(*words: object) -> None:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"

    call("record", "pocket", "--episodes", 4, "--out", tmp_path / "data")
    call("init", "tiny", tmp_path / "data", "--out", tmp_path / "tiny")
    config = Path(__file__).parents[3] / "launch" / "configs" / "tiny_semi_online.yaml"
    small = ["method.groups=1", "method.rollouts=2", "method.spread_of=none", "method.tries=1", "training.max_steps=1"]
    small += ["training.gradient_accumulation_steps=1", "training.steps_per_generation=1", "model.max_new_tokens=4"]
    runs = {}
    for engine in ("local", "vllm-server"):
        server = FakeServer(tmp_path / "tiny")
        where = [f"rollout.engine={engine}", f"rollout.server={server.url}"]
        data = [f"model.path={tmp_path / 'tiny'}", f"data.train={tmp_path / 'data'}"]
        call("train", config, *data, *small, *where, "--out", tmp_path / engine)
        lines = (tmp_path / engine / "rollouts.jsonl").read_text().splitlines()
        runs[engine] = [[turn["token_ids"] for turn in json.loads(line)["turns"]] for line in lines]
        server.close()
    assert runs["vllm-server"] == runs["local"]
