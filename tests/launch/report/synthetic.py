"""Runs made without a model, through the real loops: an agent that follows the recording and errs now and then."""

import random
from pathlib import Path

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue, transform
from guiderail.agent.policy import GREEDY, Request, Sampling, ScriptedPolicy
from guiderail.agent.scripted import ORIGINAL_SIZE, random_action
from guiderail.agent.types import Click, Episode, Point
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.match import GUIDERAIL
from guiderail.envs.recordings.replay import walk
from guiderail.patch.base import build
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.uis1 import CreditRules
from guiderail.rl.rollout.generation import Collector, episode_units
from guiderail.rl.rollout.plan import Generation, Plan
from guiderail.rl.runs.generations import log_generation
from guiderail.rl.runs.log import RunLog
from guiderail.rl.runs.rows import rollout_row
from guiderail.rl.score.steps import evaluate_sop

DIALOGUE = Dialogue(ORIGINAL_SIZE, BRIEF, 1)


def fallible(episodes: tuple[Episode, ...], errs: float, thought: str = "as I see it") -> ScriptedPolicy:
    """Mostly the expert; else a click a little or far off, another action, or nothing that can be read."""
    steps = {id(step.screenshot): step for episode in episodes for step in episode.steps}

    def say(request: Request) -> str:
        rng = random.Random(request.seed)
        picture = request.prompt.screen
        action = steps[id(picture.screenshot)].action
        if rng.random() < errs:
            kind = rng.random()
            if kind < 0.15:
                return "<think>let me see"
            if isinstance(action, Click) and rng.random() < 0.6:
                x, y = (min(0.99, abs(v + rng.gauss(0, 0.1))) for v in (action.point.x, action.point.y))
                action = Click(Point(x, y))
            else:
                action = random_action(rng)
            while not BRIEF.says(action):
                action = random_action(rng)
        return BRIEF.say(f"{thought} {rng.randrange(100)}", action, transform(picture))

    return ScriptedPolicy(say, "fallible", ORIGINAL_SIZE)


def details(data: Path, digest: str, **more: object) -> dict[str, object]:
    return {"data": {"path": str(data), "digest": digest, "swipes": "finger", "notes": []}, **more}


def sop_run(data: Path, out: Path, errs: float = 0.15, **more: object) -> Path:
    loaded = load_episodes(data)
    rules = {"name": "guiderail"}
    log = RunLog(out, "sop", details(data, loaded.digest, model=f"errs {errs}", rules=rules, seed=0) | more)
    lengths = {episode.id: len(episode.steps) for episode in loaded.episodes}
    policy = fallible(loaded.episodes, errs)
    result = evaluate_sop(
        loaded.episodes,
        policy,
        DIALOGUE,
        GUIDERAIL,
        sampling=GREEDY,
        seed=int(100 * errs),
        record=lambda rollout: log.line(rollout_row(rollout, steps=lengths[rollout.unit])),
    )
    log.finish(result)
    return out


def training_run(data: Path, out: Path, generations: int = 6, groups: int = 6, finish: bool = True) -> Path:
    """Semi-online generations of an agent that errs less and less."""
    loaded = load_episodes(data)
    method = {"algorithm": "semi-online", "gamma": 0.5, "returns": "paper", "rules": "guiderail"}
    log = RunLog(out, "train", details(data, loaded.digest, config={"method": method, "model": {"path": "scripted"}}))
    lengths = {episode.id: len(episode.steps) for episode in loaded.episodes}
    patch = build("thought-free", 1, BRIEF.integrate, None)

    def record(made: Generation) -> None:
        log_generation(log, made, lengths)

    units = episode_units(
        loaded.episodes,
        lambda episode, i: walk(episode, dialogue=DIALOGUE, rules=GUIDERAIL, patch=patch, sample=i),
    )
    credit = credit_named("ui-s1", CreditRules())
    collector = Collector(Plan(units, credit, groups, 8, Sampling(), tries=2), record=record)
    for generation in range(generations):
        errs = 0.45 * (1 - generation / generations)
        collector(fallible(loaded.episodes, errs), generation)
    if finish:
        log.finish({"seconds": 12.0, "updates": generations, "sampled_turns": collector.sampled_turns, "loss": 0.0})
    return out
