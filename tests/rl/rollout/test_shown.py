"""The expert's turn of a recording, trained on behind the agent's own history."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.policy import Request, ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Click, Completion, Episode, Point, Prompt, Rollout, Screenshot, Step, Terminate, Turn
from guiderail.rl.config import Config
from guiderail.rl.rollout.from_config import recorded_plan
from guiderail.rl.rollout.generation import generation
from guiderail.rl.rollout.plan import Shown
from guiderail.rl.rollout.shown import shown_samples

DIALOGUE = Dialogue(ORIGINAL_SIZE, BRIEF, 1)
STEPS = (
    Step(Screenshot(200, 400, data=b"1"), Click(Point(0.5, 0.25)), thought="tap the shop"),
    Step(Screenshot(200, 400, data=b"2"), Click(Point(0.5, 0.75)), thought="tap milk"),
    Step(Screenshot(200, 400, data=b"3"), Terminate("success")),
)
EPISODE = Episode("e1", "buy milk", STEPS, "data.jsonl:1")


def config(**method: object) -> Config:
    method = {"groups": 1, "rollouts": 4, "patch_budget": "unlimited", **method}
    return Config.model_validate({"model": {"path": "x"}, "data": {"train": "y"}, "method": method})


def sampled(**method: object) -> list[tuple[int, str, float]]:
    """(step, what was said, advantage) of the samples of a generation of agents that say the right thing or nothing."""

    def script(request: Request) -> str:
        index = sum(message.role == "assistant" for message in request.prompt.messages)
        return DIALOGUE.say("mine", STEPS[index].action, STEPS[index].screenshot) if request.seed % 2 else "?"

    plan = recorded_plan(config(**method), [EPISODE], DIALOGUE, 0, tokens=lambda text: [len(text), 1])
    made = generation(plan, ScriptedPolicy(script, vision=ORIGINAL_SIZE), 0, 0)
    histories = {turn.prompt for r in made.groups[0].rollouts for turn in r.turns if turn.index == 1}
    assert len(histories) > 1, "it must part to be a test"
    found = [(s.index, s.completion.text, s.advantage) for s in made.samples]
    if method.get("shown"):
        assert sum(index == 1 for index, _, _ in found) == len(histories)
    return found


def expert(index: int) -> str:
    return DIALOGUE.say(STEPS[index].thought, STEPS[index].action, STEPS[index].screenshot)


def test_each_history_is_shown_the_experts_turn_once_where_it_has_a_thought() -> None:
    found = sampled(shown=0.5)
    assert {index for index, _, _ in found} == {0, 1}
    assert sum(index == 0 for index, _, _ in found) == 1  # all begin alike
    assert all(text == expert(index) and advantage == 0.5 for index, text, advantage in found)


def test_a_prompt_that_is_too_long_is_not_shown_an_answer() -> None:
    turns = [
        Turn(i, Prompt(()), Completion("", finish=f), None, None, shown="x") for i, f in enumerate(("budget", "stop"))
    ]
    group = [Rollout("e1", 0, tuple(turns), "ended")]
    for expert in (None, lambda unit, index: "y"):
        made = shown_samples(group, Shown(1.0, tokens=lambda text: [1], expert=expert))
        assert [sample.index for sample in made] == [1]


def test_off_shows_nothing() -> None:
    assert sampled() == []  # a scripted agent has no tokens


def test_it_is_of_semi_online_rl() -> None:
    with pytest.raises(ValidationError, match="is of semi-online RL"):
        config(algorithm="offline", shown=0.5)
