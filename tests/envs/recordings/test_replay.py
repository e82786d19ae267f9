"""The walk: whose words are remembered, where it stops, what a patch changes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed
from guiderail.agent.types import Completion, Episode, Prompt, Rollout, clean_turn
from guiderail.envs.recordings.match import GUIDERAIL
from guiderail.envs.recordings.replay import Walk, expert_prompt, expert_turn, step_walk, walk
from guiderail.patch.base import build
from guiderail.patch.off_policy import with_thoughts
from guiderail.rl.score.sop import Scored, score

WAIT = '<think>let me wait</think>\n<action>\n{"action": "wait", "time": 1}\n</action>'


def run(going: Walk, answers: list[str]) -> tuple[Rollout, list[Prompt]]:
    """Drive a walk with the given answers; returns the rollout and every prompt it put."""
    prompts = [next(going)]
    for answer in answers:
        try:
            prompts.append(going.send(Completion(answer)))
        except StopIteration as stop:
            return stop.value, prompts
    raise AssertionError("the walk wants more answers")


def oracle(episode: Episode, dialogue: Dialogue) -> list[str]:
    return [dialogue.say(f"own {i}", s.action, s.screenshot) for i, s in enumerate(episode.steps)]


def words(prompt: Prompt, role: str) -> list[str]:
    return ["".join(p for p in m.parts if isinstance(p, str)) for m in prompt.messages if m.role == role]


def test_agreeing_all_the_way_finishes_in_the_policys_own_words(episode, dialogue):
    answers = oracle(episode, dialogue)
    rollout, prompts = run(walk(episode, dialogue=dialogue), answers)
    assert rollout.ended == "finished"
    assert [turn.verdict.exact for turn in rollout.turns] == [True] * 4
    assert words(prompts[-1], "assistant") == answers[:3]
    assert "own 1" in words(prompts[-1], "assistant")[1]


def test_only_the_last_pictures_stay_and_the_goal_is_said_once(episode, dialogue):
    _, prompts = run(walk(episode, dialogue=dialogue), oracle(episode, dialogue))
    last = prompts[-1]
    assert [picture.screenshot for picture in last.pictures] == [s.screenshot for s in episode.steps[2:]]
    assert sum("add milk" in text for text in words(last, "user")) == 1
    assert len(words(last, "user")) == 4
    one = Dialogue(dialogue.vision, dialogue.dialect, images=1)
    _, prompts = run(walk(episode, dialogue=one), oracle(episode, one))
    assert [len(prompt.pictures) for prompt in prompts] == [1, 1, 1, 1]


def test_no_patch_stops_at_the_first_mismatch_and_keeps_that_turn(episode, dialogue):
    answers = oracle(episode, dialogue)
    rollout, _ = run(walk(episode, dialogue=dialogue), [answers[0], WAIT])
    assert rollout.ended == "mismatch"
    assert [turn.verdict.exact for turn in rollout.turns] == [True, False]
    assert rollout.turns[1].completion.text == WAIT


@pytest.mark.parametrize(("limit", "turns"), [(0, 1), (1, 2), (2, 3), (None, 4)])
def test_a_budget_of_k_ends_at_mismatch_k_plus_one(episode, dialogue, limit, turns):
    patch = build("thought-free", limit, dialogue.dialect.integrate)
    rollout, _ = run(walk(episode, dialogue=dialogue, patch=patch), [WAIT] * 4)
    assert len(rollout.turns) == turns
    assert rollout.ended == "mismatch"
    assert sum(turn.repair is not None for turn in rollout.turns) == turns - 1


def test_a_repaired_turn_replaces_the_own_words_in_history_only(episode, dialogue):
    patch = build("thought-free", 1, dialogue.dialect.integrate)
    answers = oracle(episode, dialogue)
    rollout, prompts = run(walk(episode, dialogue=dialogue, patch=patch), [answers[0], WAIT, *answers[2:]])
    assert rollout.ended == "finished"
    assert rollout.turns[1].completion.text == WAIT
    history = words(prompts[-1], "assistant")
    assert "let me wait" not in history[1]
    assert '"milk"' in history[1]
    assert "<think>" not in history[1]
    assert (history[0], history[2]) == (answers[0], answers[2])


def test_released_thought_free_writes_the_empty_block(episode, dialogue):
    patch = build("thought-free-released", None, dialogue.dialect.integrate)
    rollout, _ = run(walk(episode, dialogue=dialogue, patch=patch), [WAIT] * 4)
    assert rollout.turns[0].repair.text.startswith("<think></think>")


def test_off_policy_takes_the_store_then_the_recording(episode, dialogue):
    patch = build("off-policy", None, dialogue.dialect.integrate)
    (told,) = with_thoughts([episode], {("e1", 0): "from the store"})
    rollout, _ = run(walk(told, dialogue=dialogue, patch=patch), [WAIT] * 4)
    assert rollout.turns[0].repair.text.startswith("<think>from the store</think>")
    assert rollout.turns[1].repair.text.startswith("<think>write milk</think>")


def test_on_policy_asks_only_at_mismatches_with_hint_and_own_history(episode, dialogue):
    patch = build("on-policy", None, dialogue.dialect.integrate)
    answers = oracle(episode, dialogue)
    said = [answers[0], WAIT, "<think>I should write milk</think>", *answers[2:]]
    rollout, prompts = run(walk(episode, dialogue=dialogue, patch=patch), said)
    assert len(prompts) == 5
    question = prompts[2]
    assert "add milk" in words(question, "system")[0]
    assert '"milk"' in words(question, "user")[-1]
    assert words(question, "assistant") == [answers[0]]
    assert question.screen == prompts[1].screen
    assert rollout.turns[1].repair.text.startswith("<think>I should write milk</think>")
    assert rollout.turns[1].completion.text == WAIT


def test_the_last_step_is_never_patched(episode, dialogue):
    patch = build("on-policy", None, dialogue.dialect.integrate)
    answers = oracle(episode, dialogue)
    rollout, prompts = run(walk(episode, dialogue=dialogue, patch=patch), [*answers[:3], WAIT])
    assert rollout.ended == "mismatch"
    assert len(prompts) == 4
    assert rollout.turns[-1].repair is None


def test_unreadable_answers_are_mismatches_with_a_reason(episode, dialogue):
    rollout, _ = run(walk(episode, dialogue=dialogue), ["<think>hm</think> click there"])
    turn = rollout.turns[0]
    assert (turn.action, turn.thought, turn.verdict.readable) == (None, "hm", False)
    assert "no <action>" in turn.verdict.why


def test_a_filled_prompt_budget_is_a_mismatch_with_its_reason(episode, dialogue):
    going = walk(episode, dialogue=dialogue)
    next(going)
    with pytest.raises(StopIteration) as stop:
        going.send(Completion("", finish="budget"))
    turn = stop.value.value.turns[0]
    assert not turn.verdict.readable
    assert "longer than the limit" in turn.verdict.why


def test_a_crash_ends_the_walk_as_crashed_with_what_was_done(episode, dialogue):
    going = walk(episode, dialogue=dialogue)
    next(going)
    going.send(Completion(oracle(episode, dialogue)[0]))
    with pytest.raises(StopIteration) as stop:
        going.throw(EnvCrashed("server fell over"))
    assert stop.value.value.ended == "crashed"
    assert len(stop.value.value.turns) == 1


@given(st.text(), st.sampled_from(["<|im_end|>", "<|endoftext|>", "<|vision_start|>"]), st.text())
def test_history_ends_where_the_turn_ended(before, marker, after):
    cleaned = clean_turn(before + marker + after)
    assert marker not in cleaned
    assert before.strip().startswith(cleaned)


def test_history_holds_no_special_or_pad_tokens(episode, dialogue):
    answers = oracle(episode, dialogue)
    padded = [answers[0] + "<|im_end|>" + "<|endoftext|>" * 50, *answers[1:]]
    _, prompts = run(walk(episode, dialogue=dialogue), padded)
    assert words(prompts[-1], "assistant")[0] == answers[0]


def test_step_walk_shows_the_experts_past(episode, dialogue):
    rollout, prompts = run(step_walk(episode, 2, dialogue=dialogue), [WAIT])
    assert rollout.turns[0].index == 2
    assert rollout.ended == "mismatch"
    assert "write milk" in words(prompts[0], "assistant")[1]
    assert "write milk" not in str(expert_prompt(episode, 2, dialogue, thoughts=False).messages)


def test_the_experts_turn_with_and_without_thoughts(episode, dialogue):
    thought = episode.steps[2].thought
    told, said = expert_turn(episode, 2, dialogue)
    untold, action = expert_turn(episode, 2, dialogue, thoughts=False)
    assert told.messages == expert_prompt(episode, 2, dialogue).messages
    assert thought in said
    assert untold.messages == expert_prompt(episode, 2, dialogue, thoughts=False).messages
    assert action
    assert action == said[-len(action) :]
    assert thought not in action


def test_a_parse_error_at_step_k_keeps_progress_k(episode, dialogue):
    answers = oracle(episode, dialogue)
    rollout, _ = run(walk(episode, dialogue=dialogue), [*answers[:3], "garbage"])
    matched = sum(turn.verdict.exact for turn in rollout.turns)
    assert matched == 3
    assert score([Scored("e1", 4, matched)], GUIDERAIL)["PG"] == 0.75


# ------------------------------------------------------------------------------------------- steps that are history only


def corrected(episode: Episode, *own: int) -> Episode:
    """The episode, of which an agent took these steps."""
    steps = tuple(replace(step, history=i in own) for i, step in enumerate(episode.steps))
    return replace(episode, steps=steps)


def test_a_step_that_is_history_only_is_shown_and_neither_asked_for_nor_judged(episode, dialogue):
    answers, mixed = oracle(episode, dialogue), corrected(episode, 0, 2)
    rollout, prompts = run(walk(mixed, dialogue=dialogue), [answers[1], answers[3]])
    assert (rollout.ended, [turn.index for turn in rollout.turns]) == ("finished", [1, 3])
    assert words(prompts[-1], "assistant") == [
        dialogue.say("tap shop", episode.steps[0].action, episode.steps[0].screenshot),
        answers[1],
        dialogue.say("look further down", episode.steps[2].action, episode.steps[2].screenshot),
    ]
    assert [picture.screenshot for picture in prompts[-1].pictures] == [s.screenshot for s in episode.steps[2:]]


def test_repairs_and_past_turns_find_their_place_between_the_agents_steps(episode, dialogue):
    patch, answers = build("thought-free", 1, dialogue.dialect.integrate), oracle(episode, dialogue)
    mixed = corrected(episode, 1)
    rollout, prompts = run(walk(mixed, dialogue=dialogue, patch=patch), [WAIT, answers[2], WAIT])
    assert [(turn.index, turn.repair is None) for turn in rollout.turns] == [(0, False), (2, True), (3, True)]
    assert "let me wait" not in words(prompts[-1], "assistant")[0]
    _, again = run(walk(mixed, dialogue=dialogue, past=rollout.turns[:2]), [answers[3]])
    assert again[0] == prompts[-1]


def test_an_agents_step_keeps_its_thought_where_the_experts_thoughts_are_left_out(episode, dialogue):
    history = words(expert_prompt(corrected(episode, 1), 3, dialogue, thoughts=False), "assistant")
    assert ["<think>" in turn for turn in history] == [False, True, False]


def test_the_walk_of_an_episode_without_such_steps_is_as_ever(episode, dialogue):
    assert episode.targets == (0, 1, 2, 3)
    assert corrected(episode, 0, 2).targets == (1, 3)
