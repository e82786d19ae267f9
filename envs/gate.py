"""Two checks before any training or evaluation, in seconds and without pixels.

The oracle gate puts every expert action through dialect, parser and judge; whatever is not 100 % is a defect of the data,
the dialect or the rule, and would otherwise be learned or reported as the policy's. The blind probes are agents that do
not look at the screen; what they score is what a number is worth at its bottom end.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from agent.dialogue import Dialogue, transform
from agent.errors import UnreadableAction
from agent.types import Action, Click, Completion, Episode, LongPress, Point, Rollout, Step, Type, Wait
from envs.episodes import Dataset
from envs.match import GUIDERAIL, MatchRules, judge
from envs.replay import walk

Agent = Callable[[Episode, int], Action]
"""Says an action for step `index` of an episode, knowing no more than what its probe allows."""


def oracle_gate(
    dataset: Dataset, dialogue: Dialogue, rules: MatchRules = GUIDERAIL, examples: int = 3
) -> dict[str, Any]:
    """Each expert action said in the dialect, read back and judged against itself.

    {steps, exact, PG, TSR, by_action: {name: {steps, exact, failures}}}; counts of steps, PG and TSR as fractions of 1 from
    the walk. failures: up to `examples` of {episode, step, source, said, why} per action.
    """
    by_action: dict[str, dict[str, Any]] = {}
    for episode in dataset.episodes:
        for index, step in enumerate(episode.steps):
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

    wait, click_center and type_empty always do that; most_frequent always does the recordings' most frequent action;
    repeat_last is given the first step's action and repeats it (steps after the first, of episodes that have any).
    """
    frequent = Counter(step.action for episode in dataset.episodes for step in episode.steps).most_common(1)[0][0]
    constant: dict[str, Action] = {
        "wait": Wait(),
        "click_center": Click(Point(0.5, 0.5)),
        "type_empty": Type(""),
        "most_frequent": frequent,
    }
    result = {name: sop(dataset, dialogue, rules, _always(action)) for name, action in constant.items()}
    return result | {"repeat_last": sop(dataset, dialogue, rules, _first_again, given=1)}


def click_acceptance(
    dataset: Dataset, rules: MatchRules = GUIDERAIL, seed: int = 0, per_step: int = 3
) -> dict[str, float]:
    """Share of uniformly random clicks that `rules` would call right at the expert's click and long-press steps, by what
    boxes they use: {"smallest", "any", "none" (distance only)}; the same clicks for all three. 0 without such steps."""
    rng = random.Random(seed)
    targets = [s for e in dataset.episodes for s in e.steps if isinstance(s.action, Click | LongPress)]
    clicks = [(step, Point(rng.random(), rng.random())) for step in targets for _ in range(per_step)]
    variants = [replace(rules, boxes=boxes) for boxes in ("smallest", "any", "none")]
    return {
        variant.boxes: sum(judge(step, _like(step, point), variant).exact for step, point in clicks)
        / max(1, len(clicks))
        for variant in variants
    }


def sop(dataset: Dataset, dialogue: Dialogue, rules: MatchRules, agent: Agent, given: int = 0) -> dict[str, float]:
    """PG and TSR (UI-S1 section 3.5) of an agent that needs no model. given: leading steps that are not counted; episodes
    without further steps are left out."""
    episodes = [episode for episode in dataset.episodes if len(episode.steps) > given]
    progress = [_progress(episode, dialogue, rules, agent, given) for episode in episodes]
    n = max(1, len(progress))
    return {"PG": sum(progress) / n, "TSR": sum(share == 1.0 for share in progress) / n}


def _progress(episode: Episode, dialogue: Dialogue, rules: MatchRules, agent: Agent, given: int) -> float:
    verdicts = [turn.verdict for turn in _rollout(episode, dialogue, rules, agent).turns]
    if rules.error_zeroes_progress and not all(v.readable and v.judgeable for v in verdicts):
        return 0.0
    return max(0, sum(v.exact for v in verdicts) - given) / (len(episode.steps) - given)


def _rollout(episode: Episode, dialogue: Dialogue, rules: MatchRules, agent: Agent) -> Rollout:
    asking = walk(episode, dialogue=dialogue, rules=rules)
    next(asking)
    index = 0
    while True:
        said = dialogue.retell(None, agent(episode, index), episode.steps[index].screenshot)
        try:
            asking.send(Completion(said))
        except StopIteration as stop:
            return cast(Rollout, stop.value)
        index += 1


def _always(action: Action) -> Agent:
    return lambda episode, index: action


def _expert(episode: Episode, index: int) -> Action:
    return episode.steps[index].action


def _first_again(episode: Episode, index: int) -> Action:
    return episode.steps[0].action


def _heard(text: str, step: Step, dialogue: Dialogue) -> Action | UnreadableAction:
    try:
        return dialogue.dialect.read(text, transform(dialogue.vision.picture(step.screenshot))).action
    except UnreadableAction as error:
        return error


def _like(step: Step, point: Point) -> Action:
    return LongPress(point) if isinstance(step.action, LongPress) else Click(point)
