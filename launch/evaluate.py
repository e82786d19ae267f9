"""guiderail evaluate ...: scoring on recordings. Live worlds are in launch/live.py."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent.dialects import DIALECTS
from agent.errors import SetupError
from agent.types import Rollout
from envs.episodes import Dataset
from envs.match import SCREENSPOT
from launch import parts, show
from rl.evaluate import evaluate_offline, evaluate_sop
from rl.runlog import RunLog, read_json, read_rollouts, rollout_row
from rl.screenspot import KINDS, evaluate_screenspot

if TYPE_CHECKING:
    from rl.likelihood import Question

app = typer.Typer(no_args_is_help=True, help="Score an agent on recordings or live.")

DataArg = Annotated[str, typer.Argument(help="standard JSONL, or the folder that holds episodes.jsonl")]
Model = Annotated[str | None, typer.Option(help="model or adapter folder, or hub id")]
Adapter = Annotated[str | None, typer.Option(help="PEFT adapter folder on top of --model")]
Server = Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")]
Served = Annotated[str | None, typer.Option("--served-model", help="model id on the server")]
Agent = Annotated[str | None, typer.Option(help="expert or random, in place of a model")]
Dialect = Annotated[str | None, typer.Option(help=f"one of {', '.join(DIALECTS)}; default: as the model was trained")]
Images = Annotated[int | None, typer.Option(help="screenshots per prompt, the current one included")]
Tokens = Annotated[int | None, typer.Option("--max-new-tokens")]
Temperature = Annotated[float, typer.Option(help="0 is greedy")]
Seed = Annotated[int, typer.Option()]
Width = Annotated[int, typer.Option(help="episodes under way at once")]
RulesOption = Annotated[str, typer.Option("--rules", help="how two actions are compared; see the README")]
Screen = Annotated[str | None, typer.Option(help="WxH or infer: recordings without images")]
Swipes = Annotated[str, typer.Option(help="how the file stores vertical swipes: detect, finger, inverted")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="drop broken episodes and list them")]
Limit = Annotated[int | None, typer.Option(help="only the first so many episodes")]
Out = Annotated[Path | None, typer.Option(help="run folder to write")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output, nothing else there")]


def ask(
    model: str | None,
    adapter: str | None,
    server: str | None,
    served: str | None,
    agent: str | None,
    dialect: str | None,
    images: int | None,
    tokens: int | None,
) -> parts.Ask:
    if agent not in (None, "expert", "random"):
        raise SetupError(f"--agent {agent!r}: expected expert or random")
    return parts.Ask(model, adapter, server, served, agent, dialect, images, tokens)  # type: ignore[arg-type]


def _recorded(
    kind: Literal["sop", "offline"],
    data: Dataset,
    source: str,
    screen: str | None,
    who: parts.Ask,
    rules: str,
    temperature: float,
    seed: int,
    width: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Both evaluations on recordings: build, run with a bar, write the run folder, print."""
    chosen = parts.rules(rules)
    actor = parts.acting(who, data.episodes)
    details = {
        "model": actor.model,
        "voice": asdict(actor.voice),
        "data": {"path": source, "digest": data.digest, "screen": screen, "swipes": data.swipes, "notes": data.notes},
        "rules": asdict(chosen),
        "temperature": temperature,
        "seed": seed,
    }
    log = RunLog(out, kind, details) if out else None
    lengths = {episode.id: len(episode.steps) for episode in data.episodes}
    total = len(data.episodes) if kind == "sop" else sum(lengths.values())
    with show.bar(kind, total) as tick:

        def record(rollout: Rollout) -> None:
            tick()
            if log is not None:
                where: dict[str, Any] = {"index": rollout.turns[0].index} if kind == "offline" and rollout.turns else {}
                log.rollout(rollout_row(rollout, lengths[rollout.episode_id], **where))

        run = evaluate_sop if kind == "sop" else evaluate_offline
        result = run(
            data.episodes,
            actor.policy,
            actor.dialogue,
            chosen,
            sampling=parts.sampling(actor.voice, temperature),
            seed=seed,
            width=width,
            record=record,
        )
    if log is not None:
        log.finish(show.strict(result))
    notes(data)
    unsayable = Counter(
        s.action.name for e in data.episodes for s in e.steps if not actor.dialogue.dialect.says(s.action)
    )
    for name, count in unsayable.items():
        show.err.print(
            f"{actor.voice.dialect} has no word for {count} of the recorded steps ({name}): they cannot be right"
        )
    keys = ("PG", "TSR", "Score") if kind == "sop" else ("TM", "GR", "SR")
    title = f"{kind} on {source}, rules {rules}"
    show.result(result, as_json, show.scores(title, {actor.model: result}, keys))


def notes(data: Dataset) -> None:
    """What the loader decided or dropped, for people."""
    for line in (*data.notes, *(f"dropped {message}" for message in data.dropped)):
        show.err.print(line, style="dim", markup=False, highlight=False)


@app.command()
def sop(
    data: DataArg,
    model: Model = None,
    adapter: Adapter = None,
    server: Server = None,
    served: Served = None,
    agent: Agent = None,
    dialect: Dialect = None,
    images: Images = None,
    tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    width: Width = 64,
    rules: RulesOption = "guiderail",
    screen: Screen = None,
    swipes: Swipes = "detect",
    skip_bad: SkipBad = False,
    limit: Limit = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Semi-online performance: walk each recording in the agent's own history until it disagrees (PG, TSR, Score)."""
    who = ask(model, adapter, server, served, agent, dialect, images, tokens)
    loaded = parts.dataset(data, screen, swipes, skip_bad, limit)
    _recorded("sop", loaded, data, screen, who, rules, temperature, seed, width, out, as_json)


@app.command()
def offline(
    data: DataArg,
    model: Model = None,
    adapter: Adapter = None,
    server: Server = None,
    served: Served = None,
    agent: Agent = None,
    dialect: Dialect = None,
    images: Images = None,
    tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    width: Width = 64,
    rules: RulesOption = "guiderail",
    screen: Screen = None,
    swipes: Swipes = "detect",
    skip_bad: SkipBad = False,
    limit: Limit = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Single steps under the expert's history: type match TM, grounding GR, step success SR."""
    who = ask(model, adapter, server, served, agent, dialect, images, tokens)
    loaded = parts.dataset(data, screen, swipes, skip_bad, limit)
    _recorded("offline", loaded, data, screen, who, rules, temperature, seed, width, out, as_json)


@app.command()
def screenspot(
    data: DataArg,
    model: Model = None,
    adapter: Adapter = None,
    server: Server = None,
    served: Served = None,
    agent: Agent = None,
    dialect: Dialect = None,
    tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    width: Width = 64,
    screen: Screen = None,
    skip_bad: SkipBad = False,
    limit: Limit = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Clicks inside the annotated box, by cell: ScreenSpot-v2 (platform, text or icon) and Pro (group, text or icon)."""
    loaded = parts.dataset(data, screen, "finger", skip_bad, limit)
    actor = parts.acting(ask(model, adapter, server, served, agent, dialect, 1, tokens), loaded.episodes)
    details = {
        "model": actor.model,
        "voice": asdict(actor.voice),
        "data": {"path": data, "digest": loaded.digest, "screen": screen, "swipes": loaded.swipes},
        "rules": asdict(SCREENSPOT),
        "temperature": temperature,
        "seed": seed,
    }
    log = RunLog(out, "screenspot", details) if out else None
    with show.bar("screenspot", len(loaded.episodes)) as tick:

        def record(rollout: Rollout) -> None:
            tick()
            if log is not None:
                log.rollout(rollout_row(rollout, 1, index=0))

        sampling = parts.sampling(actor.voice, temperature)
        result = evaluate_screenspot(
            loaded.episodes,
            actor.policy,
            actor.dialogue,
            sampling=sampling,
            seed=seed,
            width=width,
            record=record,
        )
    if log is not None:
        log.finish(show.strict(result))
    notes(loaded)
    show.result(result, as_json, show.cells(f"screenspot on {data}, {actor.model}", result, KINDS))


@app.command()
def likelihood(
    data: DataArg,
    model: Model = None,
    adapter: Adapter = None,
    dialect: Dialect = None,
    images: Images = None,
    history: Annotated[
        Path | None, typer.Option(help="run folder whose walks are the history; default: the expert's own")
    ] = None,
    thoughts: Annotated[
        bool, typer.Option(help="the expert's turn with its recorded thought, or the action alone")
    ] = True,
    swipes: Swipes = "detect",
    skip_bad: SkipBad = False,
    limit: Limit = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """How likely each expert action is, in one pass without generating: a dense score per checkpoint in seconds."""
    parts.require("torch", "train")
    from agent.local import LocalPolicy
    from rl.likelihood import likelihood_row, score, summary

    loaded = parts.dataset(data, None, swipes, skip_bad, limit)
    actor = parts.acting(ask(model, adapter, None, None, None, dialect, images, None))
    if not isinstance(actor.policy, LocalPolicy):
        raise SetupError("likelihoods need the weights in this process; give --model")
    asked, unsayable = _asked(loaded, actor, history, thoughts)
    details = {
        "model": actor.model,
        "voice": asdict(actor.voice),
        "data": {"path": data, "digest": loaded.digest, "swipes": loaded.swipes, "notes": loaded.notes},
        "history": str(history or "expert"),
        "thoughts": thoughts,
    }
    log = RunLog(out, "likelihood", details) if out else None
    started = time.perf_counter()
    with show.bar("likelihood", len(asked)) as tick:
        told = score(actor.policy, asked, lambda *_: tick())
    seconds = time.perf_counter() - started
    result = summary(asked, told) | {
        "unsayable": unsayable,
        "seconds": seconds,
        "steps_per_second": len(asked) / seconds,
    }
    if log is not None:
        for question, one in zip(asked, told, strict=True):
            log.rollout(likelihood_row(question, one), "likelihood.jsonl")
        log.finish(show.strict(result))
    notes(loaded)
    if unsayable:
        show.err.print(f"{actor.voice.dialect} has no word for {unsayable} of the expert's actions: they are left out")
    title = f"p(expert's action) on {data}, history: {history or 'expert'}"
    show.result(result, as_json, show.likelihoods(title, result))


def _asked(loaded: Dataset, actor: parts.Acting, history: Path | None, thoughts: bool) -> tuple[list[Question], int]:
    """What to score, and how many expert actions the dialect has no word for."""
    from rl.likelihood import expert_question, own_questions

    episodes = {episode.id: episode for episode in loaded.episodes}
    if history is None:
        steps = [(episode, t) for episode in loaded.episodes for t in range(len(episode.steps))]
        made = [expert_question(episode, t, actor.dialogue, thoughts) for episode, t in steps]
    else:
        record = read_json(history / "run.json")
        spoken = record.get("voice") or record.get("config", {}).get("model", {})
        if spoken.get("dialect") != actor.voice.dialect:
            raise SetupError(
                f"{history} speaks {spoken.get('dialect')}, the model {actor.voice.dialect}; give --dialect or another run"
            )
        rows = [*read_rollouts(history)]
        missing = next((row["episode_id"] for row in rows if row["episode_id"] not in episodes), None)
        if missing is not None:
            raise SetupError(
                f"episode {missing!r} of {history} is not in these recordings; give the data it was run on"
            )
        made = [*own_questions(rows, episodes, actor.dialogue, thoughts)]
    asked = [question for question in made if question is not None]
    return asked, len(made) - len(asked)
