"""Rollouts that begin anywhere along a recording: behind the expert's turns, a whole group at one step."""

from collections import Counter

import pytest

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Completion
from guiderail.envs.recordings.replay import expert_prompt, walk
from guiderail.rl.config import validated
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.uis1 import CreditRules
from guiderail.rl.rollout.generation import Collector, units_of
from guiderail.rl.rollout.plan import Plan
from guiderail.rl.sections import Method
from tests.rl.rollout.test_generation import SAMPLING, Dice, episodes, sampled

__all__ = ["episodes"]


def asked(episode, dialogue, begin, **more):
    """The prompts of a walk in which every answer is right, and its rollout."""
    policy, prompts = Dice(dialogue, [episode], skill=1.0), []
    one = walk(episode, dialogue=dialogue, begin=begin, **more)
    prompt = next(one)
    while True:
        prompts.append(prompt)
        step = policy.expert[id(prompt.screen.screenshot)]
        try:
            prompt = one.send(Completion(dialogue.say("mine", step.action, step.screenshot), (1,), (-0.5,)))
        except StopIteration as stop:
            return prompts, stop.value


@pytest.mark.parametrize("thoughts", [True, False])
def test_the_history_is_the_experts_up_to_the_first_own_turn(episodes, brief, thoughts):
    episode = max(episodes, key=lambda e: len(e.steps))
    for begin in range(1, len(episode.steps)):
        prompts, rollout = asked(episode, brief, begin, thoughts=thoughts)
        expected = expert_prompt(episode, begin, brief, thoughts)
        assert (prompts[0].messages, prompts[0].screen) == (expected.messages, expected.screen)
        assert [turn.index for turn in rollout.turns] == [*range(begin, len(episode.steps))]
        assert (rollout.start, rollout.ended) == (begin, "finished")
    assert asked(episode, brief, 0)[1].start == 0


def collected(episodes, dialogue, **more):
    units = units_of(Method(start="any", eta=0, **more), episodes, dialogue)
    seen = []
    plan = Plan(units, credit_named("ui-s1", CreditRules(eta=0)), 9, 6, SAMPLING, tries=1)
    return Collector(plan, record=seen.append), seen


def test_a_group_begins_at_one_step_and_all_steps_are_drawn(episodes, brief):
    collect, seen = collected(episodes, brief)
    policy = Dice(brief, episodes)
    for number in range(30):
        collect(policy, number)
    starts = Counter()
    for group in sampled(seen):
        (start,) = {rollout.start for rollout in group.rollouts}
        starts[group.unit, start] += 1
        assert len({rollout.turns[0].prompt for rollout in group.rollouts}) == 1
    assert set(starts) == {(e.id, t) for e in episodes for t in range(len(e.steps))}


def test_the_same_generation_draws_the_same_steps(episodes, brief):
    both = []
    for _ in range(2):
        collect, seen = collected(episodes, brief)
        collect(Dice(brief, episodes), 4)
        both.append(sampled(seen))
    assert both[0] == both[1]


def test_it_is_of_walks_along_recordings(tmp_path):
    for algorithm in ("offline", "sft"):
        with pytest.raises(SetupError, match=r"method\.start=any is of semi-online RL"):
            validated(
                {
                    "model": {"path": "m", "dialect": "brief"},
                    "data": {"train": "d"},
                    "method": {"algorithm": algorithm, "start": "any"},
                },
                tmp_path,
            )
