"""Which turns hindsight teaches, what its teacher sees, and that a run with it is recorded, explained and resumed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, PromptTooLong
from guiderail.agent.policy import Request, Sampling, ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Click, Completion, Episode, Picture, Point, Prompt, Screenshot, Step, Terminate
from guiderail.envs.recordings.match import GUIDERAIL
from guiderail.envs.recordings.replay import own_prompt
from guiderail.rl.config import Config
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.sections import Hindsight
from guiderail.rl.train.hindsight import SCREEN, THOUGHT, HindsightTeacher

DIALOGUE = Dialogue(ORIGINAL_SIZE, BRIEF, 1)
EPISODE = Episode(
    "e1",
    "buy milk",
    (
        Step(Screenshot(200, 400, data=b"1"), Click(Point(0.5, 0.25)), thought="tap the shop"),
        Step(Screenshot(200, 400, data=b"2"), Click(Point(0.5, 0.75)), thought="tap milk"),
        Step(Screenshot(200, 400, data=b"3"), Terminate("success")),
    ),
    "data.jsonl:1",
)
WRONG = '<think>x</think>\n<action>\n{"action": "wait", "time": 2}\n</action>'


class AnyLength:
    """An encoder that only measures."""

    limit = 10**6

    def prompt(self, prompt: Prompt) -> None:
        if sum(len(m.parts) for m in prompt.messages) > self.limit:
            raise PromptTooLong("too long", 9)


def expert(index: int) -> str:
    step = EPISODE.steps[index]
    return DIALOGUE.say(step.thought, step.action, step.screenshot)


def sample(index: int, text: str = WRONG, ret: float = 0.1, unit: str = "e1") -> StepSample:
    prompt = own_prompt(EPISODE, index, ["before"] * index, DIALOGUE)
    return StepSample(unit, 0, index, prompt, Completion(text, (1, 2), (-0.1, -0.2)), 0.1, ret, 0, 0, 1.0)


def teacher(**settings: Any) -> HindsightTeacher:
    return HindsightTeacher(Hindsight(**settings), [EPISODE], DIALOGUE, AnyLength(), GUIDERAIL, 32)  # type: ignore[arg-type]


class Knows(ScriptedPolicy):
    """Says what the expert says, at any step whose teacher is not to fail."""

    def __init__(self, fails: tuple[int, ...] = ()):
        self.asked: list[Prompt] = []
        super().__init__(lambda request: self._say(request, fails), vision=ORIGINAL_SIZE)

    def complete(self, requests: Any, sampling: Sampling) -> Any:
        assert sampling.temperature == 0
        self.asked += [request.prompt for request in requests]
        return super().complete(requests, sampling)

    def _say(self, request: Request, fails: tuple[int, ...]) -> str:
        index = sum(message.role == "assistant" for message in request.prompt.messages)
        return WRONG if index in fails else expert(index)


def taught(one: HindsightTeacher, policy: Any, samples: list[StepSample]) -> list[int]:
    return [i for i, prompt in enumerate(one.prompts(policy, samples, 0)) if prompt is not None]


def test_the_teacher_sees_the_next_screen_behind_the_current_one() -> None:
    mine = sample(1)
    shown = teacher(thoughts=True).shown(mine)
    assert shown is not None
    assert shown.messages[:-1] == mine.prompt.messages[:-1]
    parts = shown.messages[-1].parts
    assert parts[:-3] == mine.prompt.messages[-1].parts
    assert parts[-3] == SCREEN
    assert isinstance(parts[-2], Picture)
    assert parts[-2].screenshot == EPISODE.steps[2].screenshot
    assert parts[-1] == THOUGHT + "tap milk"


def test_nothing_to_see_and_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert teacher().shown(sample(2)) is None  # the last step has no next screen
    assert teacher(screen=False, thoughts=True).shown(sample(2)) is None  # and no thought
    assert teacher(screen=False, thoughts=True).shown(sample(1)) is not None
    monkeypatch.setattr(AnyLength, "limit", 3)
    assert teacher().shown(sample(0)) is None


def test_gates_and_their_shares() -> None:
    samples = [
        sample(0),
        sample(0, expert(0)),  # agrees with the expert
        sample(1, ret=1.6),  # earns enough
        sample(1),
        sample(2),  # nothing comes after it
        sample(0, unit="a live task"),
    ]
    one, policy = teacher(), Knows(fails=(1,))
    assert taught(one, policy, samples) == [0]
    assert one.counts == {
        "hindsight/mismatches": (4, 5),
        "hindsight/below": (3, 4),
        "hindsight/shown": (2, 3),
        "hindsight/recovered": (1, 2),
        "hindsight/taught": (1, 5),
    }


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        ({"mismatches": False}, [0, 1, 4]),
        ({"below": None}, [0, 2, 4]),
        ({"recovers": False}, [0, 3, 4]),
        ({"below": 0.05}, []),
    ],
)
def test_each_gate_has_a_switch(off: dict[str, Any], expected: list[int]) -> None:
    samples = [sample(0), sample(0, expert(0)), sample(0, ret=1.6), sample(1), sample(0)]
    assert taught(teacher(**off), Knows(fails=(1,)), samples) == expected


def test_equal_prompts_are_asked_once_and_a_lost_answer_teaches_nothing() -> None:
    policy = Knows()
    assert taught(teacher(), policy, [sample(0)] * 3) == [0, 1, 2]
    assert len(policy.asked) == 1
    assert policy.asked[0].draft == expert(0)

    class Gone(Knows):
        def complete(self, requests: Any, sampling: Sampling) -> Any:
            return [EnvCrashed("gone")] * len(requests)

    assert taught(teacher(), Gone(), [sample(0)]) == []


def test_a_live_turn_of_the_same_name_is_not_of_the_recording() -> None:
    other = Screenshot(200, 400, data=b"live")
    prompt = DIALOGUE.prompt("buy milk", [other], [])
    assert taught(teacher(), Knows(), [dataclasses.replace(sample(0), prompt=prompt)]) == []


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"algorithm": "offline", "hindsight": {}}, "needs turns along recordings"),
        ({"hindsight": {"screen": False}}, "would see no more than the policy"),
    ],
)
def test_what_a_config_may_not_ask_for(method: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config.model_validate({"model": {"path": "x"}, "data": {"train": "y"}, "method": method})
    assert Config.model_validate({"model": {"path": "x"}, "data": {"train": "y"}}).method.hindsight is None


def test_sft_adds_every_step_with_the_teachers_prompt() -> None:
    from guiderail.launch.train import expert_turns
    from guiderail.rl.sections import Method

    plain = expert_turns(Method(algorithm="sft"), [EPISODE], DIALOGUE)
    both = expert_turns(Method(algorithm="sft", hindsight=Hindsight()), [EPISODE], DIALOGUE)
    assert both[:3] == plain
    assert [said for _, said in both[3:]] == [expert(0), expert(1)]  # the last step has no next screen
    assert all(prompt.messages[-1].parts[-2] == SCREEN for prompt, _ in both[3:])


# -------------------------------------------------------------------------------------------------------------- a run


def test_a_run_is_recorded_explained_and_resumed(tmp_path: Path) -> None:
    """On real recordings. The gate on the teacher is off: a fresh model recovers nothing."""
    from tests.launch.test_explain import CONFIG, SMALL, call

    call("record", "pocket", "--episodes", 4, "--out", tmp_path / "data")
    call("init", "tiny", tmp_path / "data", "--out", tmp_path / "tiny")
    words = [CONFIG, f"model.path={tmp_path / 'tiny'}", f"data.train={tmp_path / 'data'}", *SMALL]
    words += ["method.hindsight.recovers=false", "method.hindsight.top=5", "model.max_prompt_tokens=2048"]
    words += ["training.lr_scheduler_type=constant"]
    run, legs = tmp_path / "run", tmp_path / "legs"
    call("train", *words, "training.max_steps=2", "--out", run)
    state = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())
    logged = state["log_history"][0]
    assert logged["hindsight/mismatches"] > 0.9
    shown = logged["hindsight/mismatches"] * logged["hindsight/shown"]
    assert shown > 0
    assert logged["hindsight/taught"] == pytest.approx(shown)
    assert logged["teach/divergence"] > 0
    lessons = (run / "lessons.jsonl").read_text()
    said = [json.loads(line) for line in lessons.splitlines()]
    assert {line["generation"] for line in said} == {0, 1}
    one = said[0]
    assert len(one["tokens"]) == len(one["token_ids"])
    assert all(0 < token["student"] <= 1 and 0 < token["best_p"] <= 1 for token in one["tokens"])
    where = ["--episode", one["unit"], "--rollout", one["sample"], "--step", one["index"]]
    found = call("explain", run, *where, "--generation", one["generation"], "--json")
    assert found["lesson"] == one["tokens"]
    assert "  taught  " in call("explain", run, *where, "--generation", one["generation"])["text"]

    from tests.launch.report.test_lessons import shown_lessons

    pytest.importorskip("jinja2")
    everything = shown_lessons(run, tmp_path / "report")
    assert sorted(n for _, n, _ in everything) == sorted(len(line["tokens"]) for line in said)
    assert {kind for kind, _, _ in everything} == {"taught"}

    call("train", *words, "training.max_steps=1", "--out", legs)
    call("train", *words, "training.max_steps=2", "--out", legs, "--resume")
    assert (legs / "model" / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()
    assert (legs / "lessons.jsonl").read_text() == lessons
