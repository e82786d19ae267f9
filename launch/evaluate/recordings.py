"""guiderail evaluate sop, offline, screenspot, likelihood, and guiderail gate: scores on recordings."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.registry import origins
from guiderail.agent.screen import Vision
from guiderail.agent.types import Rollout
from guiderail.envs.recordings.conventions import UNDETERMINED
from guiderail.envs.recordings.episodes import Dataset
from guiderail.envs.recordings.match import ALL_RULES, SCREENSPOT
from guiderail.launch import parts, show
from guiderail.launch.agents import Agent, AgentSpec, build_agent, sampling
from guiderail.launch.before import check_out
from guiderail.launch.evaluate.adapters import Adapters, below, entrants
from guiderail.launch.going_on import after_scoring, going_on, then
from guiderail.launch.options import DataArg, Fixed, Json, Out, Resume, Rules, Seed, Temperature, Width, spread
from guiderail.launch.parts import Reading
from guiderail.launch.screens import other_screens, sizes_of
from guiderail.rl.runs.log import drop_lines, read_record, read_rollouts, run_log
from guiderail.rl.runs.rows import rollout_of, rollout_row
from guiderail.rl.score.screenspot import KINDS, evaluate_screenspot
from guiderail.rl.score.steps import evaluate_offline, evaluate_sop

if TYPE_CHECKING:
    from guiderail.rl.score.likelihood import Question

MOST_REASONS = 5
Evaluate = Callable[..., dict[str, Any]]
"""`rl.score.steps.evaluate_sop` and its like."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How answers are sampled and compared, and where the result goes."""

    temperature: Temperature = 0.0
    seed: Seed = 0
    width: Width = 64
    rules: Rules = "guiderail"
    out: Out = None
    resume: Resume = False
    as_json: Json = False


@spread
def sop(data: DataArg, who: AgentSpec, reading: Reading, scoring: Scoring, many: Adapters) -> None:
    """Semi-online performance (SOP): follow each recording in the agent's own history up to its first mistake."""
    _agreement("sop", evaluate_sop, ("PG", "TSR", "Score"), data, who, reading, scoring, many)


@spread
def offline(data: DataArg, who: AgentSpec, reading: Reading, scoring: Scoring, many: Adapters) -> None:
    """Single steps under the expert's history: right kind of action (TM), clicks on target (GR), right steps (SR)."""
    _agreement("offline", evaluate_offline, ("TM", "GR", "SR"), data, who, reading, scoring, many)


@spread
def screenspot(
    data: DataArg,
    who: Annotated[AgentSpec, Fixed("images")] = AgentSpec(images=1),
    reading: Annotated[Reading, Fixed("swipes")] = Reading(swipes="finger"),
    scoring: Annotated[Scoring, Fixed("rules")] = Scoring(),
) -> None:
    """Clicks inside the annotated box, by cell: ScreenSpot-v2 (platform, text or icon) and Pro (group, text or icon)."""
    _check(scoring)
    loaded = reading.load(data)
    actor = build_agent(who, loaded.episodes)
    about = {"data": parts.describe(data, loaded, reading.screen), "rules": asdict(SCREENSPOT)}
    result, causes = _scored("screenspot", evaluate_screenspot, actor, loaded, about, scoring)
    show.result(result, scoring.as_json, show.cells(f"screenspot on {data}, {actor.model}", result, KINDS))
    after_scoring(result, scoring.out, causes)


def _agreement(
    kind: str,
    evaluate: Evaluate,
    keys: tuple[str, ...],
    data: str,
    who: AgentSpec,
    reading: Reading,
    scoring: Scoring,
    many: Adapters,
) -> None:
    """Score agreement with the expert under match rules. keys: the rates to show."""
    _check(scoring)
    rules, loaded = parts.rules(scoring.rules), reading.load(data)
    about = {"data": parts.describe(data, loaded, reading.screen), "rules": asdict(rules)}
    rows: dict[str, dict[str, Any]] = {}
    causes = Counter[str]()
    with entrants(who, many, loaded.episodes) as found:
        apart = {
            one.name: scoring if not one.name else replace(scoring, out=below(scoring.out, one.name)) for one in found
        }
        for own in apart.values():
            _check(own)
        for one in found:
            actor = one.make()
            result, why = _scored(kind, partial(evaluate, rules=rules), actor, loaded, about, apart[one.name])
            rows[one.name or actor.model] = result
            causes += why
            _inexpressible(actor, loaded)
    title = f"{kind} on {data}, rules {scoring.rules}"
    whole = {"adapters": rows} if many.adapters else result
    show.result(whole, scoring.as_json, show.scores(title, rows, keys))
    total = {key: sum(row[key] for row in rows.values()) for key in ("n", "unscored")}
    after_scoring(total, scoring.out, causes, found[-1].name)


def _check(scoring: Scoring) -> None:
    """Where the result goes. Raises SetupError."""
    if scoring.resume and scoring.out is None:
        raise SetupError("--resume continues the run in a folder; give the folder as --out")
    check_out(scoring.out, scoring.resume)


def _scored(
    kind: str, evaluate: Evaluate, actor: Agent, loaded: Dataset, about: Mapping[str, Any], scoring: Scoring
) -> tuple[dict[str, Any], Counter[str]]:
    """Evaluate with a progress bar, and write the run folder if there is one. about: data and rules, for the record.
    Returns the result, and why rollouts are unscored."""
    parts.notes(loaded)
    other_screens(actor.model, actor.voice, sizes_of(loaded.episodes))
    details = {"model": actor.model, "voice": asdict(actor.voice), **about}
    details |= {"temperature": scoring.temperature, "seed": scoring.seed}
    details |= origins((ALL_RULES, scoring.rules), (DIALECTS, actor.voice.dialect))
    unscored = Counter[str]()
    lengths = {episode.id: len(episode.steps) for episode in loaded.episodes}
    total = sum(len(e.targets) for e in loaded.episodes) if kind == "offline" else len(loaded.episodes)
    with (
        going_on(scoring.out, "--resume"),
        run_log(scoring.out, kind, details, resume=scoring.resume) as log,
        show.bar(kind, total) as tick,
    ):
        known = _made_already(log.folder) if log is not None else {}

        def record(rollout: Rollout) -> None:
            tick()
            if rollout.ended == "crashed":
                unscored[rollout.reason] += 1
            if log is not None:
                log.line(rollout_row(rollout, steps=lengths[rollout.unit]))

        for _ in known:
            tick()
        result = evaluate(
            loaded.episodes,
            actor.policy,
            actor.dialogue,
            sampling=sampling(actor.voice, scoring.temperature),
            seed=scoring.seed,
            width=scoring.width,
            record=record,
            known=known,
        )
        if log is not None:
            log.finish(show.strict(result))
    for reason, count in unscored.most_common(MOST_REASONS):
        show.err.print(f"{count} unscored: {reason}", markup=False, highlight=False)
    return result, unscored


def _made_already(folder: Path) -> dict[tuple[str, int], Rollout]:
    """What an interrupted run has made, but for what a machine failed on."""
    if not (folder / "rollouts.jsonl").exists():
        return {}
    drop_lines(folder, lambda row: row["ended"] == "crashed")
    made = map(rollout_of, read_rollouts(folder))
    return {(rollout.unit, rollout.start): rollout for rollout in made}


def _inexpressible(actor: Agent, loaded: Dataset) -> None:
    """Print which recorded actions the agent's dialect cannot express."""
    says = actor.dialogue.dialect.says
    counts = Counter(s.action.name for e in loaded.episodes for s in e.steps if not says(s.action))
    for name, count in counts.items():
        show.err.print(f"{actor.voice.dialect} cannot express {name}: {count} recorded steps cannot be right")


# ---------------------------------------------------------------------------------------------------------- likelihood


@spread
def likelihood(
    data: DataArg,
    reading: Annotated[Reading, Fixed("screen")] = Reading(),
    who: Annotated[AgentSpec, Fixed("server", "served_model", "agent", "max_new_tokens")] = AgentSpec(),
    history: Annotated[
        Path | None, typer.Option(help="run folder whose rollouts are the history; default: the expert's own")
    ] = None,
    thoughts: Annotated[
        bool, typer.Option(help="score the expert's turn with its recorded thought, or the action alone")
    ] = True,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """How likely each expert action is, in one pass without generating: a fine-grained score in seconds."""
    check_out(out, None)
    parts.require("torch", "train")
    from guiderail.agent.local.policy import LocalPolicy
    from guiderail.rl.score.likelihood import likelihood_row, score, summary

    loaded = reading.load(data)
    actor = build_agent(who)
    if not isinstance(actor.policy, LocalPolicy):
        raise SetupError("likelihoods need the weights in this process; give --model")
    other_screens(actor.model, actor.voice, sizes_of(loaded.episodes))
    questions, inexpressible = _questions(loaded, actor, history, thoughts)
    details = {
        "model": actor.model,
        "voice": asdict(actor.voice),
        "data": parts.describe(data, loaded, reading.screen),
        "history": str(history or "expert"),
        "thoughts": thoughts,
        **origins((DIALECTS, actor.voice.dialect)),
    }
    parts.notes(loaded)
    with going_on(out), run_log(out, "likelihood", details, resume=None) as log:
        started = time.perf_counter()
        with show.bar("likelihood", len(questions)) as tick:
            found = score(actor.policy, questions, lambda *_: tick())
        seconds = time.perf_counter() - started
        result = summary(questions, found) | {
            "unsayable": inexpressible,
            "seconds": seconds,
            "steps_per_second": len(questions) / seconds,
        }
        if log is not None:
            for question, one in zip(questions, found, strict=True):
                log.line(likelihood_row(question, one), "likelihood.jsonl")
            log.finish(show.strict(result))
    if inexpressible:
        show.err.print(f"{actor.voice.dialect} cannot express {inexpressible} of the expert's actions: left out")
    title = f"p(expert's action) on {data}, history: {history or 'expert'}"
    show.result(result, as_json, show.likelihoods(title, result))


def _questions(loaded: Dataset, actor: Agent, history: Path | None, thoughts: bool) -> tuple[list[Question], int]:
    """What to score, and the number of expert actions that the dialect cannot express."""
    from guiderail.rl.score.likelihood import expert_question, own_questions

    episodes = {episode.id: episode for episode in loaded.episodes}
    if history is None:
        steps = [(episode, t) for episode in loaded.episodes for t in episode.targets]
        made = [expert_question(episode, t, actor.dialogue, thoughts) for episode, t in steps]
    else:
        about = read_record(history).about
        spoken = about.voice or (about.config or {}).get("model", {})
        if spoken.get("dialect") != actor.voice.dialect:
            raise SetupError(
                f"{history} speaks {spoken.get('dialect')}, the model {actor.voice.dialect}; give --dialect or another run"
            )
        rows = [*read_rollouts(history)]
        missing = next((row["unit"] for row in rows if row["unit"] not in episodes), None)
        if missing is not None:
            raise SetupError(
                f"episode {missing!r} of {history} is not in these recordings; give the data it was run on"
            )
        made = [*own_questions(rows, episodes, actor.dialogue, thoughts)]
    questions = [question for question in made if question is not None]
    return questions, len(made) - len(questions)


# ---------------------------------------------------------------------------------------------------------------- gate


@spread
def gate(
    data: DataArg,
    reading: Reading,
    rules: Rules = "guiderail",
    dialect: Annotated[
        str, typer.Option(help="the dialect in which the expert answers: a name, or path/to/file.py:NAME")
    ] = "guiderail",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Check recordings and rules before use: the expert must score 100 % against itself, agents that do not look about 0."""
    from guiderail.envs.recordings.gate import blind_probes, oracle_gate

    check_out(out, None)
    loaded, chosen = reading.load(data), parts.rules(rules)
    parts.notes(loaded)
    dialogue = Dialogue(Vision(), parts.dialect(dialect))
    result: dict[str, Any] = {
        "oracle": oracle_gate(loaded, dialogue, chosen),
        "probes": blind_probes(loaded, dialogue, chosen),
        "rules": rules,
        "swipes": loaded.swipes,
    }
    if out is not None:
        about = {"data": parts.describe(data, loaded, reading.screen), "rules": asdict(chosen)}
        about |= origins((ALL_RULES, rules), (DIALECTS, dialect))
        with going_on(out), run_log(out, "gate", about, resume=None) as log:
            if log is not None:
                log.finish(result)
    show.result(result, as_json, _gate_table(data, result))
    if result["oracle"]["exact"] < result["oracle"]["steps"]:
        raise typer.Exit(1)
    then(f"guiderail train tiny_sft model.path=tiny-base data.train={shlex.quote(data)} --out runs/sft")


def _gate_table(data: str, result: dict[str, Any]) -> Table:
    table = Table("", "steps", "agree", title=f"gate on {data}, rules {result['rules']}", title_justify="left")
    oracle = result["oracle"]
    doubt = result["swipes"] == UNDETERMINED
    if doubt:
        table.caption = f"swipes {UNDETERMINED}: an expert agrees with itself either way, so the gate cannot see it"
    for name, row in [*sorted(oracle["by_action"].items()), ("every expert step", oracle)]:
        table.add_row(
            "swipe (undetermined)" if doubt and name == "swipe" else name,
            str(row["steps"]),
            f"{100 * row['exact'] / max(1, row['steps']):.1f} %",
        )
    table.add_section()
    for name, row in result["probes"].items():
        table.add_row(f"probe: {name}", "", f"PG {show.percent(row['PG'])}, TSR {show.percent(row['TSR'])}")
    return table
