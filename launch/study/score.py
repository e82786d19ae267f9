"""Score one checkpoint: one line per live task and per recorded episode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from guiderail.agent.types import Episode, Rollout
from guiderail.envs.pocket.expert import VAGUE
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import demonstrate, task
from guiderail.envs.pocket.templates import TEMPLATES
from guiderail.envs.pocket.world import PocketTasks
from guiderail.envs.recordings.match import RULES
from guiderail.launch import agents, parts
from guiderail.launch.study.plan import Plan
from guiderail.launch.study.records import Line
from guiderail.rl.live.jobs import Images, Job, JobQueue, Row
from guiderail.rl.live.worker import Worker
from guiderail.rl.runs.rows import success
from guiderail.rl.score.sop import touches
from guiderail.rl.score.steps import evaluate_offline, evaluate_sop

WIDTH = 64

_FILLERS = frozenset(["done", "now", "code", "is", "undo", "too", "much"])
_TEMPLATES = {template.name: template for template in TEMPLATES}


def examine(plan: Plan, exam: str, model: str, data: Path) -> Iterator[Line]:
    """The lines of one checkpoint. data: the folder with one recording per world. Kinds that end in "_sampled" are sampled
    at temperature 1, the others are greedy.

    kind "sop": the first `matched` of `of` recorded steps agree with the expert. "steps": of `n` steps under the expert's
    history, `type` have the right kind of action and `exact` agree in full; of the `touch` steps that point, `hit` agree.
    "live": ok is 1, 0, or null when the machine failed. popups: whether some come. claimed: the agent said that it was done.
    told: turns whose thought says something (`tells`). due: turns at which a careful expert notes what later screens will
    not show, such as a code; noted: those of them whose thought names all of it.
    """
    chosen = plan.exams[exam]
    actor = agents.build_agent(agents.AgentSpec(model=model))
    rules = RULES["guiderail"]
    for kind, wanted in (("sop", chosen.sop), ("sop_sampled", chosen.sop_sampled), ("steps", chosen.steps)):
        run = evaluate_offline if kind == "steps" else evaluate_sop
        sampling = agents.sampling(actor.voice, _temperature(kind))
        for world, count in wanted.items():
            episodes = parts.dataset(str(data / world), None, "finger", False, count).episodes
            walks: list[Rollout] = []
            run(episodes, actor.policy, actor.dialogue, rules, sampling=sampling, width=WIDTH, record=walks.append)
            by_episode: dict[str, list[Rollout]] = {}
            for rollout in walks:
                by_episode.setdefault(rollout.unit, []).append(rollout)
            for episode in episodes:
                row = {"kind": kind, "world": world, "task": _key(episode), "memory": int(bool(episode.meta["memory"]))}
                found = by_episode[episode.id]
                yield row | (_steps(episode, found) if kind == "steps" else _walk(episode, found[0], plan, world))
    for kind, wanted in (("live", chosen.live), ("live_sampled", chosen.live_sampled)):
        for world, count in wanted.items():
            yield from _live(plan, world, count, actor, kind)


def _temperature(kind: str) -> float:
    return 1.0 if kind.endswith("_sampled") else 0.0


def _key(episode: Episode) -> str:
    return f"{episode.meta['template']}-{episode.meta['seed']}"


def _walk(episode: Episode, rollout: Rollout, plan: Plan, world: str) -> Line:
    if rollout.ended == "crashed":
        return {"of": len(episode.targets), "matched": None}
    matched = next((i for i, turn in enumerate(rollout.turns) if not turn.exact), len(rollout.turns))
    thoughts = [turn.thought for turn in rollout.turns]
    due = notes(episode, plan.worlds[world].style, plan.size)
    asked = [(words, thought or "") for words, thought in zip(due, thoughts, strict=False) if words]
    return {
        "of": len(episode.targets),
        "matched": matched,
        "turns": len(thoughts),
        "told": sum(map(tells, thoughts)),
        "due": len(asked),
        "noted": sum(words <= set(thought.split()) for words, thought in asked),
    }


def _steps(episode: Episode, rollouts: Iterable[Rollout]) -> Line:
    turns = [rollout.turns[0] for rollout in rollouts if rollout.turns]
    touch = [turn for turn in turns if touches(episode.steps[turn.index])]
    return {
        "n": len(turns),
        "type": sum(turn.verdict is not None and turn.verdict.type_ok for turn in turns),
        "exact": sum(turn.exact for turn in turns),
        "touch": len(touch),
        "hit": sum(turn.exact for turn in touch),
    }


def _live(plan: Plan, world: str, count: int, actor: agents.Agent, kind: str) -> Iterator[Line]:
    """All attempts share one batch of up to WIDTH. Screenshots are not kept."""
    place = plan.worlds[world]
    tasks = PocketTasks(count, place.seed, place.split, place.style, plan.size)
    drawn = tasks.drawn()
    rows: dict[str, Row] = {}

    def keep(row: Row, images: Images) -> None:
        rows[row["unit"]] = row

    queue = JobQueue([Job(name) for name in drawn], 1, keep)
    session = tasks.open(0)
    try:
        sampling = agents.sampling(actor.voice, _temperature(kind))
        Worker(session, actor.dialogue, actor.policy, sampling, 0, WIDTH).work(queue, queue.done)
    finally:
        session.close()
    made = {name: task(*one, place.split, place.style, live=True).start() for name, one in drawn.items()}
    for name, (template, seed) in drawn.items():
        row, turns = rows[name], rows[name]["turns"]
        yield {
            "kind": kind,
            "world": world,
            "task": f"{template}-{seed}",
            "memory": int(_TEMPLATES[template].memory),
            "popups": int(bool(made[name].popups)),
            "ok": None if (ok := success(row)) is None else int(ok),
            "claimed": int(row["ended"] == "finished"),
            "turns": len(turns),
            "told": sum(tells(turn["thought"]) for turn in turns),
        }


def tells(thought: str | None) -> bool:
    """Whether a thought says something: it is not empty, and not one of the phrases with which experts say nothing."""
    return bool(thought) and thought not in VAGUE


def notes(episode: Episode, style: str, size: tuple[int, int]) -> list[frozenset[str]]:
    """Per recorded step, the words that a careful expert notes there: what is done already, what was read."""
    meta = episode.meta
    template = _TEMPLATES[str(meta["template"])]
    made = task(template.name, int(str(meta["seed"])), str(meta["split"]), style, live=bool(meta["disturbed"]))
    phone = Phone(made.start(), *size)
    found = []
    for _ in demonstrate(made, phone):
        want = template.want(phone.state, made.params, ())
        found.append(frozenset(want.say.split()) - _FILLERS if want else frozenset())
    return found
