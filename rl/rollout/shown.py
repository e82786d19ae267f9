"""What the world's expert would have said, as samples: imitation in the states that the agent itself comes to.

Where no sampled answer of a group is right, comparing them teaches nothing. A world whose expert can be asked about any state
(`envs.live.attempts.Teaching`) shows the right one there. With the advantage w, the policy gradient of an answer that was not
sampled is w times that of its log-likelihood: supervised learning on the agent's own states, which is DAgger (Ross et al. 2011,
arXiv 1011.0686), in the update that the agent's own answers have their advantages in. It uses nothing but what
the expert is asked for anyway, to judge turns.

Along a recording the expert's turn is there already, with its thought. It is shown behind the agent's own history, where SFT
and offline RL show it behind the expert's. Rollouts that have said the same so far are shown it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.types import Completion, Episode, Prompt, Rollout, Turn
from guiderail.rl.credit.samples import StepSample
from guiderail.rl.rollout.plan import Shown


def shown_samples(group: Sequence[Rollout], shown: Shown) -> tuple[StepSample, ...]:
    """One sample for each turn at which the expert was asked, and for each prompt of a recording at which it has a thought.
    Prompts that are too long cannot be trained on."""
    fitting = [(r, turn) for r in group for turn in r.turns if turn.completion.finish != "budget"]
    if shown.expert is None:
        return tuple(_sample(r, turn, turn.shown, shown) for r, turn in fitting if turn.shown)
    first: dict[Prompt, tuple[Rollout, Turn]] = {}
    for rollout, turn in fitting:
        first.setdefault(turn.prompt, (rollout, turn))
    said = [(rollout, turn, shown.expert(rollout.unit, turn.index)) for rollout, turn in first.values()]
    return tuple(_sample(rollout, turn, text, shown) for rollout, turn, text in said if text)


def told(episodes: Sequence[Episode], dialogue: Dialogue) -> Callable[[str, int], str]:
    """`Shown.expert` of these recordings: the expert's turns that have a thought. The dialect's words for an action without one
    would teach the agent not to think."""
    steps = {episode.id: episode.steps for episode in episodes}

    def expert(unit: str, index: int) -> str:
        step = steps[unit][index]
        if step.thought is None or not dialogue.dialect.says(step.action):
            return ""
        return dialogue.say(step.thought, step.action, step.screenshot)

    return expert


def _sample(rollout: Rollout, turn: Turn, text: str, shown: Shown) -> StepSample:
    weight = shown.weight
    said = Completion(text, tuple(shown.tokens(text)))
    return StepSample(
        rollout.unit,
        rollout.sample,
        turn.index,
        turn.prompt,
        said,
        reward=0.0,
        ret=0.0,
        advantage_episode=0.0,
        advantage_step=weight,
        advantage=weight,
    )
