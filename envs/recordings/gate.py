"""Two checks before any training or evaluation, in seconds and without pixels.

The oracle gate puts every expert action through dialect, parser and judge. All of them must match: each that does not shows
a defect of the data, the dialect or the rules, which would otherwise be learned, or reported as a fault of the policy. The
blind probes are agents that do not look at the screen. Their scores are the floor: a policy that scores no higher has shown
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from guiderail.agent.codec import Reply
from guiderail.agent.dialogue import Dialogue, transform
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.scripted import answer
from guiderail.agent.types import Action, Click, Episode, Point, Rollout, Step, Type, Wait
from guiderail.envs.recordings.episodes import Dataset
from guiderail.envs.recordings.match import GUIDERAIL, MatchRules, judge
from guiderail.envs.recordings.progress import agreed
from guiderail.envs.recordings.replay import walk

Script = Callable[[Episode, int], Action]
"""What is done at step `index` of an episode. A probe uses no more of the episode than its description says."""


def oracle_gate(
    dataset: Dataset, dialogue: Dialogue, rules: MatchRules = GUIDERAIL, examples: int = 3
) -> dict[str, Any]:
    """Each expert action written in the dialect, read back and judged against itself.

    Returns {steps, exact, PG, TSR, by_action: {name: {steps, exact, failures}}}: counts of steps; PG and TSR of the walk, as
    fractions of 1. failures: up to `examples` of {episode, step, source, said, why} per action.
    """
    by_action: dict[str, dict[str, Any]] = {}
    for episode in dataset.episodes:
        for index in episode.targets:
            step = episode.steps[index]
            row = by_action.setdefault(step.action.name, {"steps": 0, "exact": 0, "failures": []})
            said = dialogue.retell(step.thought, step.action, step.screenshot)
            verdict = judge(step, _heard(said, step, dialogue), rules)
            row["steps"] += 1
            row["exact"] += verdict.exact
            if not verdict.exact and len(row["failures"]) < examples:
                place = {"episode": episode.id, "step": index, "source": episode.source}
                row["failures"].append(place | {"said": said, "why": verdict.why})
    totals = {key: sum(row[key] for row in by_action.values()) for key in ("steps", "exact")}
    return totals | sop(dataset, dialogue, rules, _expert) | {"by_action": by_action}


def blind_probes(dataset: Dataset, dialogue: Dialogue, rules: MatchRules = GUIDERAIL) -> dict[str, dict[str, float]]:
    """{probe: {PG, TSR}} of agents that do not look, fractions of 1.

    wait, click_center and type_empty always do what their name says; most_frequent always does the most frequent action of
    the recordings. repeat_last is given the first step's action and repeats it; scored are the steps after the first, of
    episodes that have any.
    """
    actions = (episode.steps[i].action for episode in dataset.episodes for i in episode.targets)
    frequent = Counter(actions).most_common(1)[0][0]
    constant: dict[str, Action] = {
        "wait": Wait(),
        "click_center": Click(Point(0.5, 0.5)),
        "type_empty": Type(""),
        "most_frequent": frequent,
    }
    result = {name: sop(dataset, dialogue, rules, _always(action)) for name, action in constant.items()}
    return result | {"repeat_last": sop(dataset, dialogue, rules, _first_again, given=1)}


def sop(dataset: Dataset, dialogue: Dialogue, rules: MatchRules, agent: Script, given: int = 0) -> dict[str, float]:
    """PG and TSR (UI-S1 section 3.5) of an agent without a model. given: the first steps, which are not counted; episodes
    without further steps are left out."""
    episodes = [episode for episode in dataset.episodes if len(episode.targets) > given]
    progress = [_progress(episode, dialogue, rules, agent, given) for episode in episodes]
    n = max(1, len(progress))
    return {"PG": sum(progress) / n, "TSR": sum(share == 1.0 for share in progress) / n}


def _progress(episode: Episode, dialogue: Dialogue, rules: MatchRules, agent: Script, given: int) -> float:
    done, wiped = agreed((turn.verdict for turn in _rollout(episode, dialogue, rules, agent).turns), rules)
    return 0.0 if wiped else max(0, done - given) / (len(episode.targets) - given)


def _rollout(episode: Episode, dialogue: Dialogue, rules: MatchRules, agent: Script) -> Rollout:
    turns = (dialogue.retell(None, agent(episode, i), episode.steps[i].screenshot) for i in episode.targets)
    return answer(walk(episode, dialogue=dialogue, rules=rules), lambda prompt: next(turns))


def _always(action: Action) -> Script:
    return lambda episode, index: action


def _expert(episode: Episode, index: int) -> Action:
    return episode.steps[index].action


def _first_again(episode: Episode, index: int) -> Action:
    return episode.steps[episode.targets[0]].action


def _heard(text: str, step: Step, dialogue: Dialogue) -> Reply | UnreadableAction:
    try:
        return dialogue.dialect.read(text, transform(dialogue.vision.picture(step.screenshot)))
    except UnreadableAction as error:
        return error
