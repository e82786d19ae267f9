"""The recording as an environment, and the one loop that walks it.

SOP evaluation is `walk` with no patch at temperature 0; semi-online training is `walk` with a patch at temperature 1;
offline RL and single-step evaluation are `step_walk`. Nothing else in the project compares turns with recordings.

A walk is a coroutine: it yields a prompt, is sent the completion, and returns its Rollout. The caller decides how
many walks ask at once. A walk does not know whether a script, a local model or a server answers it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from guiderail.agent.codec import think_block
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import EnvCrashed, UnreadableAction
from guiderail.agent.types import Completion, Ended, Episode, Patch, Prompt, Rollout, Step, Turn
from guiderail.envs.recordings.match import GUIDERAIL, MatchRules, judge

Walk = Generator[Prompt, Completion, Rollout]


def walk(
    episode: Episode,
    *,
    dialogue: Dialogue,
    rules: MatchRules = GUIDERAIL,
    patch: Patch | None = None,
    sample: int = 0,
    past: Sequence[Turn] = (),
    begin: int = 0,
    thoughts: bool = True,
) -> Walk:
    """UI-S1 algorithm 1: the policy walks the recording with its own history.

    The next screenshot is the expert's as long as the policy's action matches. At a mismatch `patch` may repair the turn;
    without a patch, or when it declines, the walk ends there. The mismatching turn is part of the rollout. A mismatch at the
    last recorded step is never patched, because no later turn would read the repair. Steps that are history only are not
    asked for. EnvCrashed thrown into the walk ends it as "crashed" with the turns so far. past: turns already made, each
    exact or repaired; the walk continues after them. begin: so many of the asked steps are the expert's, with the expert's
    thoughts or without, and the policy begins behind them.
    """
    turns: list[Turn] = [*past]
    ended: Ended = "finished"
    told = [_retold(episode.steps[index], dialogue, thoughts) for index in episode.targets[:begin]]
    start = episode.targets[begin] if begin else 0
    for index in episode.targets[begin + len(turns) :]:
        said = told + [turn.history_text() for turn in turns]
        prompt = with_draft(own_prompt(episode, index, said, dialogue), episode, index, dialogue)
        try:
            turn = read_turn(
                episode, index, prompt, (yield prompt), dialogue, rules, sum(t.repair is not None for t in turns)
            )
            if not turn.exact and patch is not None and index != episode.targets[-1]:
                turn = yield from repair_turn(episode, turn, patch, dialogue)
        except EnvCrashed as crash:
            return Rollout(
                episode.id, sample, tuple(turns), "crashed", goal=episode.goal, reason=str(crash), start=start
            )
        turns.append(turn)
        if not turn.exact and turn.repair is None:
            ended = "mismatch"
            break
    return Rollout(episode.id, sample, tuple(turns), ended, goal=episode.goal, start=start)


def repair_turn(episode: Episode, turn: Turn, patch: Patch, dialogue: Dialogue) -> Generator[Prompt, Completion, Turn]:
    """The mismatching turn with its repair, or unchanged when the patch declines."""
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
        turn = read_turn(episode, index, prompt, (yield prompt), dialogue, rules, 0)
    except EnvCrashed as crash:
        return Rollout(episode.id, sample, (), "crashed", goal=episode.goal, reason=str(crash), start=index)
    return Rollout(
        episode.id, sample, (turn,), "finished" if turn.exact else "mismatch", goal=episode.goal, start=index
    )


def own_prompt(episode: Episode, index: int, said: Sequence[str], dialogue: Dialogue) -> Prompt:
    """The prompt of step `index` in a rollout. said: its turns as text, one for each earlier step that is not history only."""
    told = iter(said)
    history = [_retold(step, dialogue) if step.history else next(told) for step in episode.steps[:index]]
    return dialogue.prompt(episode.goal, [step.screenshot for step in episode.steps[: index + 1]], history)


def _retold(step: Step, dialogue: Dialogue, thoughts: bool = True) -> str:
    """The recorded turn for the history. An agent's own turn keeps its thought, since the agent did have it."""
    return dialogue.retell(step.thought if thoughts or step.history else None, step.action, step.screenshot)


def expert_prompt(episode: Episode, index: int, dialogue: Dialogue, thoughts: bool = True) -> Prompt:
    """The prompt of step `index` when all earlier turns are the recorded ones, with the expert's thoughts or without."""
    history = [_retold(step, dialogue, thoughts) for step in episode.steps[:index]]
    return dialogue.prompt(episode.goal, [step.screenshot for step in episode.steps[: index + 1]], history)


def expert_turn(episode: Episode, index: int, dialogue: Dialogue, thoughts: bool = True) -> tuple[Prompt, str]:
    """What SFT learns from step `index`: the expert's turn as text, after the expert's history."""
    step = episode.steps[index]
    said = dialogue.say(step.thought if thoughts else None, step.action, step.screenshot)
    return expert_prompt(episode, index, dialogue, thoughts), said


def with_draft(prompt: Prompt, episode: Episode, index: int, dialogue: Dialogue) -> Prompt:
    """The prompt with the expert's turn as a draft, for policies that can verify one. It does not change the answer."""
    step = episode.steps[index]
    if not dialogue.dialect.says(step.action):
        return prompt
    return replace(prompt, draft=dialogue.say(step.thought, step.action, step.screenshot))


def read_turn(
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
    verdict = judge(episode.steps[index], reply, rules)
    return Turn(index, prompt, completion, reply.thought, reply.action, verdict, repairs_before)
