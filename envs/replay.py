"""The recording as an environment, and the one loop that walks it.

SOP evaluation is `walk` with no patch at temperature 0; semi-online training is `walk` with a patch at temperature 1;
offline RL and single-step evaluation are `step_walk`. Nothing else in the project compares turns with recordings.

A walk is a coroutine: it yields a prompt, is sent the completion, and returns its Rollout. Whoever drives it decides how
many walks ask at once; the walk itself does not know whether its policy is a script, a local model or a server.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from agent.codec import think_block
from agent.dialogue import Dialogue
from agent.errors import EnvCrashed, UnreadableAction
from agent.types import Completion, Ended, Episode, Patch, Prompt, Rollout, Turn
from envs.match import GUIDERAIL, MatchRules, judge

Walk = Generator[Prompt, Completion, Rollout]


def walk(
    episode: Episode,
    *,
    dialogue: Dialogue,
    rules: MatchRules = GUIDERAIL,
    patch: Patch | None = None,
    sample: int = 0,
    past: Sequence[Turn] = (),
) -> Walk:
    """UI-S1 algorithm 1: the policy walks the recording in its own history.

    The next screenshot is the expert's as long as the policy's action matches. At a mismatch `patch` may repair the turn;
    with no patch, or when it declines, the walk ends there. The mismatching turn is part of the rollout. A mismatch at the
    last recorded step is never patched, since no later turn would read the repair. EnvCrashed thrown in ends the walk as
    "crashed" with the turns so far. past: turns already made, each exact or repaired; the walk goes on after them.
    """
    turns: list[Turn] = [*past]
    screenshots = [step.screenshot for step in episode.steps]
    ended: Ended = "finished"
    for index in range(len(turns), len(episode.steps)):
        history = [turn.history_text() for turn in turns]
        prompt = with_draft(dialogue.prompt(episode.goal, screenshots[: index + 1], history), episode, index, dialogue)
        try:
            turn = hear(
                episode, index, prompt, (yield prompt), dialogue, rules, sum(t.repair is not None for t in turns)
            )
            if not turn.verdict.exact and patch is not None and index + 1 < len(episode.steps):
                turn = yield from mend(episode, turn, patch, dialogue)
        except EnvCrashed:
            return Rollout(episode.id, sample, tuple(turns), "crashed")
        turns.append(turn)
        if not turn.verdict.exact and turn.repair is None:
            ended = "mismatch"
            break
    return Rollout(episode.id, sample, tuple(turns), ended)


def mend(episode: Episode, turn: Turn, patch: Patch, dialogue: Dialogue) -> Generator[Prompt, Completion, Turn]:
    """The mismatching turn with its repair, or as it was when the patch declines."""
    repair = patch(episode, turn)
    if repair is None:
        return turn
    if repair.question is not None:
        thought = think_block((yield repair.question).text)
        repair = replace(repair, thought=thought or "")
    text = dialogue.retell(repair.thought, repair.action, episode.steps[turn.index].screenshot)
    return replace(turn, repair=replace(repair, text=text))


def step_walk(
    episode: Episode,
    index: int,
    *,
    dialogue: Dialogue,
    rules: MatchRules = GUIDERAIL,
    thoughts: bool = True,
    sample: int = 0,
) -> Walk:
    """One step under the expert's history (offline RL, single-step accuracy). A rollout of one turn."""
    prompt = with_draft(expert_prompt(episode, index, dialogue, thoughts), episode, index, dialogue)
    try:
        turn = hear(episode, index, prompt, (yield prompt), dialogue, rules, 0)
    except EnvCrashed:
        return Rollout(episode.id, sample, (), "crashed")
    return Rollout(episode.id, sample, (turn,), "finished" if turn.verdict.exact else "mismatch")


def expert_prompt(episode: Episode, index: int, dialogue: Dialogue, thoughts: bool = True) -> Prompt:
    """The prompt of step `index` when all earlier turns are the expert's, with recorded thoughts or without."""
    past = episode.steps[:index]
    history = [dialogue.retell(step.thought if thoughts else None, step.action, step.screenshot) for step in past]
    return dialogue.prompt(episode.goal, [step.screenshot for step in episode.steps[: index + 1]], history)


def expert_turn(episode: Episode, index: int, dialogue: Dialogue, thoughts: bool = True) -> tuple[Prompt, str]:
    """What SFT learns from step `index`: the expert's turn as text, after the expert's history."""
    step = episode.steps[index]
    said = dialogue.say(step.thought if thoughts else None, step.action, step.screenshot)
    return expert_prompt(episode, index, dialogue, thoughts), said


def with_draft(prompt: Prompt, episode: Episode, index: int, dialogue: Dialogue) -> Prompt:
    """The prompt with the expert's turn as a draft, for policies that can verify one. It changes no answer."""
    step = episode.steps[index]
    if not dialogue.dialect.says(step.action):
        return prompt
    return replace(prompt, draft=dialogue.say(step.thought, step.action, step.screenshot))


def hear(
    episode: Episode,
    index: int,
    prompt: Prompt,
    completion: Completion,
    dialogue: Dialogue,
    rules: MatchRules,
    repairs_before: int = 0,
) -> Turn:
    """Read and judge one completion against recorded step `index`."""
    try:
        reply = dialogue.read(completion, prompt.screen)
    except UnreadableAction as error:
        verdict = judge(episode.steps[index], error, rules)
        return Turn(index, prompt, completion, error.thought, None, verdict, repairs_before)
    verdict = judge(episode.steps[index], reply.action, rules)
    return Turn(index, prompt, completion, reply.thought, reply.action, verdict, repairs_before)
