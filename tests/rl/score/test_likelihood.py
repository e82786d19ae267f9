"""Scoring without generating: the same numbers as sampling tells, whoever shares the pass, split where the action begins."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

import torch

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.local.policy import LocalPolicy, load_policy
from guiderail.agent.policy import Request, Sampling
from guiderail.agent.screen import Vision
from guiderail.agent.types import Episode
from guiderail.launch.cli import app
from guiderail.rl.score.likelihood import (
    Question,
    expected_return,
    expert_question,
    likelihood_row,
    own_questions,
    score,
    summary,
    teacher_forced,
)
from guiderail.rl.tiny.model import build_tiny
from tests.agent.local.test_policy import TEXTS, prompt, screenshot


@pytest.fixture(scope="module", params=("qwen3_vl", "qwen2_5_vl"))
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalPolicy:
    folder = tmp_path_factory.mktemp("likelihood") / request.param
    return load_policy(build_tiny(folder, TEXTS, request.param, layers=2, width=64))


@pytest.fixture
def recorded(episode: Episode) -> Episode:
    steps = [replace(step, screenshot=screenshot(i, 160, 288)) for i, step in enumerate(episode.steps)]
    return replace(episode, steps=(*steps[:3], replace(steps[3], thought=None)))


def questions(episode: Episode, policy: LocalPolicy, images: int = 2, **more: bool) -> list[Question]:
    dialogue = Dialogue(policy.vision, images=images)
    made = [expert_question(episode, t, dialogue, **more) for t in range(len(episode.steps))]
    return [question for question in made if question is not None]


def test_the_numbers_are_those_that_sampling_tells(policy):
    requests = [Request(prompt(policy.vision, i, screens=1 + i % 3), seed=i) for i in range(5)]
    said = policy.complete(requests, Sampling(max_new_tokens=9))
    rows = [(policy.encoder.prompt(r.prompt), torch.tensor(c.token_ids)) for r, c in zip(requests, said, strict=True)]
    for (logps, _), completion in zip(teacher_forced(policy, rows), said, strict=True):
        assert logps.tolist() == pytest.approx(completion.logprobs, abs=1e-5)


def test_greedy_says_whether_decoding_would_repeat_the_answer(policy):
    request = Request(prompt(policy.vision, 3))
    [said] = policy.complete([request], Sampling(temperature=0, max_new_tokens=6))
    encoded, ids = policy.encoder.prompt(request.prompt), torch.tensor(said.token_ids)
    [(_, best)] = teacher_forced(policy, [(encoded, ids)])
    other = ids.clone()
    other[2] = (other[2] + 1) % 100
    [(_, changed)] = teacher_forced(policy, [(encoded, other)])
    assert best.all()
    assert changed[:2].all()
    assert not changed[2]


def test_neighbours_do_not_change_a_number(policy, recorded):
    asked = questions(recorded, policy)
    together = score(policy, asked)
    for question, one in zip(asked, together, strict=True):
        [alone] = score(policy, [question])
        assert alone.logp_action == pytest.approx(one.logp_action, abs=1e-5)
        assert alone.logp_thought == pytest.approx(one.logp_thought, abs=1e-5)
        assert alone.action_tokens == one.action_tokens


def test_thought_and_action_add_up_to_the_turn(policy, recorded):
    asked = questions(recorded, policy)
    for question, one in zip(asked, score(policy, asked), strict=True):
        row = (policy.encoder.prompt(question.prompt), policy.encoder.target(question.text))
        [(logps, _)] = teacher_forced(policy, [row])
        assert one.action_tokens + one.thought_tokens == len(row[1])
        assert one.logp_action + (one.logp_thought or 0.0) == pytest.approx(float(logps.sum()), abs=1e-4)
        ids = row[1].tolist()
        assert question.opening.startswith(policy.encoder.text(ids[: one.thought_tokens]))
        assert question.text.removeprefix(question.opening) in policy.encoder.text(ids[one.thought_tokens :])
        assert policy.encoder.text(ids[one.thought_tokens + 1 :]) in question.text.removeprefix(question.opening)
    assert one.logp_thought is None
    assert one.thought_tokens == 0


def test_without_thoughts_the_turn_is_its_action(policy, recorded):
    asked = questions(recorded, policy, thoughts=False)
    assert all(question.opening == "" and "<think>" not in question.text for question in asked)
    assert all(one.logp_thought is None for one in score(policy, asked))


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_splits_its_turn(name, episode):
    """The thought is in the opening; what follows it depends on the action alone."""
    dialogue = Dialogue(Vision(32, 1024, 10**7), DIALECTS[name])
    rest = set()
    for thought in (episode.steps[0].thought, "because"):
        step = replace(episode.steps[0], thought=thought)
        question = expert_question(replace(episode, steps=(step,)), 0, dialogue)
        assert thought in question.opening
        rest.add(question.text.removeprefix(question.opening))
    [action] = rest
    assert any(letter.isdigit() for letter in action)


def test_own_history_is_the_recorded_one(policy, recorded):
    dialogue = Dialogue(policy.vision)
    turns = [{"index": 0, "text": "my own words<|im_end|>"}, {"index": 1, "text": "x", "repair": {"text": "mended"}}]
    row = {"unit": "e1", "sample": 3, "turns": [*turns, {"index": 2, "text": "y"}]}
    asked = [*own_questions([row], {"e1": recorded}, dialogue)]
    said = [m.parts[0] for m in asked[2].prompt.messages if m.role == "assistant"]
    assert said == ["my own words", "mended"]
    assert [(q.index, q.sample, q.history) for q in asked] == [(0, 3, "own"), (1, 3, "own"), (2, 3, "own")]
    single = {"unit": "e1", "sample": 0, "turns": [{"index": 2, "text": "y"}]}
    with pytest.raises(SetupError, match="whole walks"):
        list(own_questions([single], {"e1": recorded}, dialogue))
    begun = {"unit": "e1", "sample": 0, "start": 1, "turns": [{"index": 1, "text": "x"}, {"index": 2, "text": "y"}]}
    with pytest.raises(SetupError, match=r"e1 was asked for step 1 .* step 0: .*method\.start=any"):
        list(own_questions([begun], {"e1": recorded}, dialogue))


def test_words_that_filled_the_budget_are_unscored(policy, recorded):
    turns = [{"index": 0, "text": "tap " * 200}, {"index": 1, "text": "y"}]
    asked = [*own_questions([{"unit": "e1", "sample": 0, "turns": turns}], {"e1": recorded}, Dialogue(policy.vision))]
    limit = len(policy.encoder.prompt(asked[0].prompt).ids)
    before, policy.encoder.max_prompt_tokens = policy.encoder.max_prompt_tokens, limit
    try:
        told = score(policy, asked)
    finally:
        policy.encoder.max_prompt_tokens = before
    assert told[0] is not None
    assert told[1] is None
    result = summary(asked, told)
    assert (result["n"], result["unscored"]) == (1, 1)
    assert likelihood_row(asked[1], None)["p_action"] is None


def test_the_summary_is_the_mean_of_its_rows(policy, recorded):
    asked = questions(recorded, policy)
    told = score(policy, asked)
    result = summary(asked, told)
    ps = [one.p_action for one in told]
    assert result["p"] == pytest.approx(sum(ps) / 4)
    assert result["p_geometric"] == pytest.approx(math.prod(ps) ** (1 / 4))
    assert result["by_action"]["click"]["n"] == 1
    assert result["n"] == 4
    assert result["above_half"] == sum(p > 0.5 for p in ps) / 4


def test_expected_return_counts_exact_steps_up_to_the_first_mismatch():
    assert expected_return([1.0, 1.0, 1.0], 0.5) == 1.0
    assert expected_return([0.25], 0.5) == 0.25
    assert expected_return([0.5, 0.0, 1.0], 0.5) == pytest.approx(0.5 / 1.75)
    assert expected_return([], 0.5) == 0.0


def test_the_command_writes_a_row_per_step_and_scores_a_run_in_its_own_history(tmp_path: Path):
    def call(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.stdout

    call("record", "pocket", "--episodes", 3, "--out", tmp_path / "data")
    call("init", "tiny", tmp_path / "data", "--out", tmp_path / "tiny")
    where = (tmp_path / "data", "--model", tmp_path / "tiny", "--json")
    told = json.loads(call("evaluate", "likelihood", *where, "--out", tmp_path / "expert"))
    rows = [json.loads(line) for line in (tmp_path / "expert" / "likelihood.jsonl").read_text().splitlines()]
    assert told["n"] == len(rows)
    assert told["steps_per_second"] > 0
    assert json.loads((tmp_path / "expert" / "metrics.json").read_text())["p"] == told["p"]
    call("evaluate", "sop", *where, "--out", tmp_path / "sop")
    own = json.loads(call("evaluate", "likelihood", *where, "--history", tmp_path / "sop", "--out", tmp_path / "own"))
    assert own["n"] == 3  # a random model errs at once, so each walk has one step
    first = {row["unit"]: row["p_action"] for row in rows if row["index"] == 0}
    own_rows = [json.loads(line) for line in (tmp_path / "own" / "likelihood.jsonl").read_text().splitlines()]
    assert {row["unit"]: row["p_action"] for row in own_rows} == pytest.approx(first, rel=1e-4)
