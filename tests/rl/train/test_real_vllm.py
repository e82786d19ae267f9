"""With the real vLLM on the CPU, in an environment of its own: $GUIDERAIL_VLLM, made by `guiderail setup vllm --cpu`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from peft import LoraConfig, get_peft_model

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.local.policy import LocalPolicy, load_policy
from guiderail.agent.local.vision import VisionStore
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.served.vllm.client import Server
from guiderail.agent.served.vllm.policy import VLLMPolicy
from guiderail.agent.served.vllm.servers import ServerEngine
from guiderail.agent.served.vllm.setting_up import environment, versions_in
from guiderail.agent.shipped import SHIPPED
from guiderail.envs.pocket.record import record
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.score.likelihood import teacher_forced
from guiderail.rl.sections import Rollout
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.train.arguments import make_training_args
from guiderail.rl.train.vllm_probe import Inspector
from guiderail.rl.train.vllm_trainer import VLLMTrainer
from guiderail.rl.train.weights_out import write_adapter, write_weights
from tests.agent.local.test_policy import TEXTS, prompt
from tests.launch.evaluate.test_adapters import adapter
from tests.rl.train.real_vllm import PROGRAM, serving, started

ROOT = Path(__file__).parents[3]
SMALL = {"layers": 2, "vision_layers": 2, "width": 64, "vision_width": 64}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PROGRAM.is_file(), reason="needs vLLM: guiderail setup vllm --cpu, then export GUIDERAIL_VLLM=FOLDER"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untied(tmp_path_factory.mktemp("real") / "tiny")


def untied(folder: Path) -> Path:
    """A tiny model whose output layer is not tied to the embeddings. On a CPU, vLLM 0.31 copies a tied layer once, at the start,
    and new weights never reach the copy. On a GPU it makes no copy."""
    build_tiny(folder, TEXTS, "qwen3_vl", **SMALL)  # type: ignore[arg-type]
    model = load_model(folder, "cpu", "float32")
    for config in (model.config, model.config.text_config):
        config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vllm(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes] | None, str]]:
    with serving(folder, tmp_path_factory.mktemp("log") / "vllm.log", "GUIDERAIL_VLLM_SERVER") as both:
        yield both


@pytest.fixture
def url(vllm: tuple[subprocess.Popen[bytes] | None, str]) -> str:
    return vllm[1]


@pytest.fixture
def ours(folder: Path, url: str, tmp_path: Path) -> LocalPolicy:
    """The trainer's side; the server has its weights."""
    local = unstored(folder)
    load(local, url, tmp_path / "base")
    return local


def unstored(folder: Path) -> LocalPolicy:
    """Its tower sees every picture anew, as a trained one does."""
    local = load_policy(folder)
    local.store = VisionStore(local.encoder, on=False)
    return local


def load(local: LocalPolicy, url: str, folder: Path) -> None:
    """As a sync does it."""
    write_weights(local.model, folder, True, None)
    server = Server(url)
    with server.paused():
        server.load_weights(str(folder))
        server.forget()


def policy_on(url: str, local: LocalPolicy, deadline: float = 100.0) -> VLLMPolicy:
    engine = ServerEngine([Server(url, deadline)], local.encoder)
    return VLLMPolicy(engine, local.encoder, "m", local.model.get_input_embeddings().weight.shape[0])


def requests_of(policy: Any) -> list[Request]:
    return [Request(prompt(policy.vision, i, screens=1 + i % 3), seed=i) for i in range(4)]


def gap(policy: VLLMPolicy, local: LocalPolicy) -> float:
    """Largest difference of a sampled token's log-probability, over answers to one to three pictures."""
    asked = requests_of(policy)
    rows = [row for row in map(policy.encode, asked) if row is not None]
    answers = policy.engine.sample(rows, Sampling(1.0, 12), policy.stop)
    return scored(local, asked, answers)


def scored(local: LocalPolicy, asked: list[Request], answers: Any) -> float:
    special, worst = set(local.encoder.special_ids), 0.0
    local.model.eval()
    for request, answer in zip(asked, answers, strict=True):
        assert not isinstance(answer, EnvCrashed), answer
        ids, logprobs = answer
        ids = ids[: next((i for i, token in enumerate(ids) if token in special), len(ids))]
        if not ids:
            continue
        with torch.no_grad():
            [(here, _)] = teacher_forced(local, [(local.encoder.prompt(request.prompt), torch.tensor(ids))])
        worst = max(worst, *(abs(a - b) for a, b in zip(here.tolist(), logprobs[: len(ids)], strict=True)))
    return worst


@torch.no_grad()
def perturb(model: Any, share: float, part: str = "") -> None:
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if part in name:
            weight.mul_(1 + share * torch.randn_like(weight))


def test_a_prompt_with_pictures_is_read_as_the_trainer_reads_it(ours: LocalPolicy, url: str) -> None:
    policy = policy_on(url, ours)
    assert gap(policy, ours) < 1e-4
    again = policy_on(url, ours)  # a client that has sent no picture yet, to a server that knows them
    assert gap(again, ours) < 1e-4


def test_new_weights_arrive(ours: LocalPolicy, url: str, tmp_path: Path) -> None:
    policy, inspector = policy_on(url, ours), Inspector(1e-3)
    inspector.inspect(policy, ours)
    perturb(ours.model, 0.3)
    assert gap(policy, ours) > 1e-2
    load(ours, url, tmp_path / "new")
    assert gap(policy, ours) < 1e-4
    assert inspector.inspect(policy, ours)["probe_gap"] < 1e-4


def test_updates_move_the_weights_of_both(folder: Path, url: str, tmp_path: Path) -> None:
    from tests.rl.train.test_vllm_trainer import trained

    rollout, encoder = Rollout(engine="vllm-server", server=url), load_encoder(folder, max_prompt_tokens=3000)
    trainer = trained(folder, tmp_path, Sampling(1.0, 6), rollout, updates=3, encoder=encoder)
    rows = [row for row in trainer.state.log_history if "vllm/probe_gap" in row]
    assert len(rows) == 3
    assert max(row["vllm/probe_gap"] for row in rows) < 1e-4
    assert max(row["logprob_gap/max"] for row in trainer.state.log_history if "logprob_gap/max" in row) < 1e-3
    before, after = load_model(folder, "cpu", "float32"), trainer.model
    moved = [float((a - b).abs().max()) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert max(moved) > 1e-3


def test_a_lost_picture_is_sent_again(ours: LocalPolicy, url: str) -> None:
    policy = policy_on(url, ours)
    before = policy.complete(requests_of(policy), Sampling(1.0, 6))
    Server(url)._quick("POST", "/reset_mm_cache")
    assert policy.complete(requests_of(policy), Sampling(1.0, 6)) == before


def test_an_adapter_with_the_tower(folder: Path, tmp_path: Path) -> None:
    """Loading an adapter leaves features of the earlier one in the encoder's cache."""
    where = serving(folder, tmp_path / "vllm.log", "GUIDERAIL_VLLM_LORA_SERVER", rank=8, tower=True)
    with where as (_, url):
        _adapters(unstored(folder), url, tmp_path)


def _adapters(ours: LocalPolicy, url: str, tmp_path: Path) -> None:
    server, policy, inspector = Server(url), policy_on(url, ours), Inspector(1e-3)
    ours.model = get_peft_model(ours.model, LoraConfig(r=4, lora_alpha=16, target_modules="all-linear"))
    policy.engine.adapter = "trained"  # type: ignore[attr-defined]
    step = iter(range(100))

    def change(share: float, part: str = "lora_") -> None:
        torch.manual_seed(3)
        with torch.no_grad():
            for key, weight in ours.model.named_parameters():
                if "lora_" in key and part in key:
                    weight.add_(share * torch.randn_like(weight))
        write_adapter(ours.model, tmp_path / f"{(at := next(step))}", True)
        server.load_adapter("trained", str(tmp_path / f"{at}"))
        server._quick("POST", "/reset_prefix_cache")

    change(0.05)
    server.forget()
    assert gap(policy, ours) < 1e-3
    change(0.05)
    assert gap(policy, ours) > 1e-2  # features of the earlier adapter
    server.forget()
    assert gap(policy, ours) < 1e-3
    inspector.inspect(policy, ours)
    for share in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        inspector.fill(policy)
        change(share, "visual")
        try:
            inspector.inspect(policy, ours)
        except SetupError as error:
            print(f"seen at {share}: {error}")
            break
    else:
        pytest.fail("features of earlier weights were not seen")
    server.forget()
    inspector.inspect(policy, ours)


def test_a_server_that_hangs_ends_the_training(
    folder: Path, vllm: tuple[subprocess.Popen[bytes] | None, str], tmp_path: Path
) -> None:
    """Within one and a half deadlines, also in the middle of a generation."""
    from tests.rl.train.test_vllm_trainer import Collect

    process, url = vllm
    if process is None:
        pytest.skip("the server was started by somebody else")
    stopped: list[float] = []

    class Stopping(Collect):
        def __call__(self, policy: Any, generation: int) -> list[StepSample]:
            if generation == 1:
                process.send_signal(signal.SIGSTOP)
                stopped.append(time.monotonic())
            return super().__call__(policy, generation)

    known = {"learning_rate": 1e-3, "max_steps": 3, "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    args = make_training_args({**known, "save_strategy": "no", "report_to": []}, tmp_path)
    rollout, encoder = (
        Rollout(engine="vllm-server", server=url, deadline=8),
        load_encoder(folder, max_prompt_tokens=3000),
    )
    collect = Stopping(Sampling(1.0, 6))
    trainer = VLLMTrainer(folder, collect, args, rollout=rollout, max_new_tokens=16, encoder=encoder)
    try:
        with pytest.raises(SetupError, match=r"no vLLM server is left \(http.*no answer within 8 s.*resume the run"):
            trainer.train()
        assert time.monotonic() - stopped[0] < 1.5 * 8 + 3
        assert len(collect.heard) == 1
    finally:
        process.send_signal(signal.SIGCONT)


def call(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "guiderail.launch.cli", *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_many_adapters_on_one_server_that_then_hangs(tmp_path: Path) -> None:
    base = SHIPPED["tiny-sft"]
    for seed, settings in enumerate(({"r": 2, "exclude_modules": r".*\bvisual\b.*"}, {"r": 4})):
        adapter(tmp_path / "run" / f"checkpoint-{seed + 1}", seed, **settings)
    record(tmp_path / "data", episodes=6, seed=5, split="test")
    score = ["evaluate", "sop", tmp_path / "data", "--json", "--adapters", tmp_path / "run"]
    with started(base, tmp_path / "vllm.log", rank=8, tower=True) as (process, url):
        there = ["--server", f"{url}/v1", "--served-model", base]
        rows = json.loads(call(*score, *there, "--out", tmp_path / "there"))["adapters"]
        assert rows == json.loads(call(*score, "--out", tmp_path / "here"))["adapters"]
        assert [*rows] == ["run-checkpoint-1", "run-checkpoint-2"]
        assert said(tmp_path / "there" / "run-checkpoint-1") != said(tmp_path / "there" / "run-checkpoint-2")
        for name in rows:
            assert said(tmp_path / "there" / name) == said(tmp_path / "here" / name)
        assert [row["id"] for row in Server(url).models()] == [str(base)]

        policy = policy_on(url, local := load_policy(base), deadline=4)
        policy.complete(requests_of(local)[:1], Sampling(1.0, 6))
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(SetupError, match=r"vLLM server at .* does not answer: .*no answer within \d"):
            policy.complete(requests_of(local), Sampling(1.0, 6))
        assert time.monotonic() - began < 1.5 * 4 + 2
        words = [*score, *there, "--request-timeout", 4]
        done = subprocess.run(
            [sys.executable, "-m", "guiderail.launch.cli", *map(str, words)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 2
        assert "cannot be asked for its models" in done.stderr
        assert "no answer within 4 s" in done.stderr


def said(run: Path) -> list[list[str]]:
    rows = map(json.loads, (run / "rollouts.jsonl").read_text().splitlines())
    return [[turn["text"] for turn in row["turns"]] for row in sorted(rows, key=lambda row: str(row["unit"]))]


@pytest.mark.parametrize("method", ["ngram", "suffix"])
def test_a_server_that_drafts(folder: Path, tmp_path: Path, method: str) -> None:
    """It takes no bias, and reports the log-probabilities of what it accepted."""
    if method == "suffix" and "arctic-inference" not in versions_in(environment()):
        pytest.skip("needs arctic-inference in vLLM's environment (docs/vllm.md)")
    local = unstored(folder)
    with started(folder, tmp_path / "vllm.log", speculation=method) as (_, url):
        assert Server(url).settings()["speculative_config"]["method"] == method
        policy = VLLMPolicy(
            ServerEngine([Server(url)], local.encoder), local.encoder, "m", local._banned.shape[0], drafting=True
        )
        asked = requests_of(policy)
        for sampling in (Sampling(1.0, 24), Sampling(0.0, 24)):
            answers = policy.complete(asked, sampling)
            banned = set(local.encoder.special_ids) - {local.encoder.end_of_turn}
            assert not banned & {token for answer in answers for token in answer.token_ids}  # type: ignore[union-attr]
            assert scored(local, asked, [(answer.token_ids, answer.logprobs) for answer in answers]) < 1e-4  # type: ignore[union-attr]
        assert [answer.token_ids for answer in answers] == [  # type: ignore[union-attr]
            answer.token_ids for answer in local.complete(asked, sampling)
        ]
        with pytest.raises(SetupError, match="logit_bias"):
            policy_on(url, local).complete(asked, sampling)


def test_a_training_run_through_the_command_line(folder: Path, url: str, tmp_path: Path) -> None:
    assert max(gaps(folder, tmp_path, "rollout.engine=vllm-server", f"rollout.server={url}")) < 1e-4


def gaps(folder: Path, out: Path, *where: str) -> list[float]:
    """What the probe found in a training of two updates by the command line."""
    call("record", "pocket", "--episodes", 4, "--out", out / "data")
    model = [f"model.path={folder}", f"data.train={out / 'data'}", "model.max_new_tokens=8"]
    small = ["method.groups=2", "method.rollouts=2", "method.spread_of=none", "method.tries=1", "training.max_steps=2"]
    small += ["training.gradient_accumulation_steps=1", "training.steps_per_generation=1", "model.freeze_vision=false"]
    small += ["model.max_prompt_tokens=3000", "training.learning_rate=1e-3"]
    call("train", "tiny_semi_online", *model, *small, *where, "--out", out / "run")
    lines = (out / "run" / "rollouts.jsonl").read_text().splitlines()
    assert any(turn["token_ids"] for line in lines for turn in json.loads(line)["turns"])
    rows = json.loads((out / "run" / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    found = [row["vllm/probe_gap"] for row in rows if "vllm/probe_gap" in row]
    assert len(found) == 2
    return found
