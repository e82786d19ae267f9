"""One checkpoint sits its exam: one line per live task and per recorded episode, and nothing that is not needed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.types import Episode, Rollout
from envs.match import RULES
from envs.pocket.expert import VAGUE
from envs.pocket.live import PocketTasks
from envs.pocket.phone import Phone
from envs.pocket.tasks import demonstrate, task
from envs.pocket.templates import TEMPLATES
from launch import parts
from launch.study.plan import Plan
from launch.study.records import Line
from rl.evaluate import evaluate_offline, evaluate_sop
from rl.live import Bench, Board, Images, Job, Row, work
from rl.sop import touches

WIDTH = 64

_FILLERS = frozenset(["done", "now", "code", "is", "undo", "too", "much"])
_TEMPLATES = {template.name: template for template in TEMPLATES}


def examine(plan: Plan, exam: str, model: str, data: Path) -> Iterator[Line]:
    """The lines of one checkpoint. data: the folder that holds a recording per world. Greedy, except for
    the kinds that end in "_sampled".

    kind "sop": of t_i recorded steps, matched s_i; "steps": n steps under the expert's history, of these `type` of the
    right kind and `exact`, of `touch` pointing ones `hit`; "live": ok 1, 0, or null when the machine failed.
    told: turns whose thought is neither empty nor one of the vague phrases. noted of due: turns at which the careful
    expert would note what the screen will not show (what is done, a code read), and whose thought names all of it.
    """
    chosen = plan.exams[exam]
    actor = parts.acting(parts.Ask(model=model))
    rules = RULES["guiderail"]
    for kind, wanted in (("sop", chosen.sop), ("sop_sampled", chosen.sop_sampled), ("steps", chosen.steps)):
        run = evaluate_offline if kind == "steps" else evaluate_sop
        sampling = parts.sampling(actor.voice, _temperature(kind))
        for world, count in wanted.items():
            episodes = parts.dataset(str(data / world), None, "finger", False, count).episodes
            walks: list[Rollout] = []
            run(episodes, actor.policy, actor.dialogue, rules, sampling=sampling, width=WIDTH, record=walks.append)
            by_episode: dict[str, list[Rollout]] = {}
            for rollout in walks:
                by_episode.setdefault(rollout.episode_id, []).append(rollout)
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
        return {"of": len(episode.steps), "matched": None}
    matched = next((i for i, turn in enumerate(rollout.turns) if not turn.verdict.exact), len(rollout.turns))
    thoughts = [turn.thought for turn in rollout.turns]
    due = notes(episode, plan.worlds[world].style, plan.size)
    asked = [(words, thought or "") for words, thought in zip(due, thoughts, strict=False) if words]
    return {
        "of": len(episode.steps),
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
        "type": sum(turn.verdict.type_ok for turn in turns),
        "exact": sum(turn.verdict.exact for turn in turns),
        "touch": len(touch),
        "hit": sum(turn.verdict.exact for turn in touch),
    }


def _live(plan: Plan, world: str, count: int, actor: parts.Acting, kind: str) -> Iterator[Line]:
    """All attempts share one batch of WIDTH; screenshots are not kept."""
    place = plan.worlds[world]
    tasks = PocketTasks(count, place.seed, place.split, place.style, plan.size)
    drawn = tasks.drawn()
    rows: dict[str, Row] = {}

    def keep(row: Row, images: Images) -> None:
        rows[row["task"]] = row

    board = Board([Job(name) for name in drawn], 1, keep)
    site = tasks.open(0)
    try:
        sampling = parts.sampling(actor.voice, _temperature(kind))
        work(Bench(site, actor.dialogue, actor.policy, sampling, 0, WIDTH), board, board.done)
    finally:
        site.close()
    for name, (template, seed) in drawn.items():
        row, turns = rows[name], rows[name]["turns"]
        yield {
            "kind": kind,
            "world": world,
            "task": f"{template}-{seed}",
            "memory": int(_TEMPLATES[template].memory),
            "ok": None if row["success"] is None else int(row["success"]),
            "turns": len(turns),
            "told": sum(tells(turn["thought"]) for turn in turns),
        }


def tells(thought: str | None) -> bool:
    """Whether a thought says anything: neither empty nor one of the phrases that the experts use to say nothing."""
    return bool(thought) and thought not in VAGUE


def notes(episode: Episode, style: str, size: tuple[int, int]) -> list[frozenset[str]]:
    """Per recorded step the words a careful expert would note down then: what is done already, what was read."""
    meta = episode.meta
    template = _TEMPLATES[str(meta["template"])]
    made = task(template.name, int(str(meta["seed"])), str(meta["split"]), style, live=bool(meta["disturbed"]))
    phone = Phone(made.start(), *size)
    found = []
    for _ in demonstrate(made, phone):
        want = template.want(phone, made.params, ())
        found.append(frozenset(want.say.split()) - _FILLERS if want else frozenset())
    return found
