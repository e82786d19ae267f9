"""guiderail explain, replay, whatif: where an advantage came from, whether a rollout comes out again, what a patch is worth."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from guiderail.agent.errors import SetupError
from guiderail.launch import parts, show
from guiderail.launch.agents import sampling
from guiderail.launch.options import Json, Seed, TrustFiles
from guiderail.patch.base import PATCHES
from guiderail.rl.config import Config, validated
from guiderail.rl.rollout.generation import patch_of
from guiderail.rl.rollout.groups import groups_of
from guiderail.rl.runs.explain import Comparison, Explanation, explain, find
from guiderail.rl.runs.generations import group_rows, lesson, passed_over
from guiderail.rl.runs.log import read_record, read_rollouts, reading
from guiderail.rl.runs.record import RunRecord
from guiderail.rl.runs.replay import batch_of, checkpoints, differences, remembers, replayable
from guiderail.rl.runs.whatif import Lab, budget, effect, forks

if TYPE_CHECKING:
    from guiderail.agent.policy import Policy
    from guiderail.launch.train import TrainingSetup
    from guiderail.rl.rollout.plan import Plan

Run = Annotated[Path, typer.Argument(help="run folder of guiderail train", metavar="RUN")]
EpisodeId = Annotated[str, typer.Option("--episode", help="episode id")]
RolloutNumber = Annotated[int, typer.Option("--rollout", help="which of the group's rollouts, from 0")]
Generation = Annotated[
    int | None, typer.Option(help="which generation, from 0; default: the first that sampled the episode")
]
Visit = Annotated[int | None, typer.Option(help="which visit, where an episode was visited twice in a generation")]
Data = Annotated[str | None, typer.Option(help="where the recordings are now, if they moved")]
Model = Annotated[str | None, typer.Option(help="where the model it started from is now, if it moved")]


# ------------------------------------------------------------------------------------------------------------- explain


def explain_(
    run: Run,
    episode: EpisodeId,
    step: Annotated[int, typer.Option(help="step of the recording, from 0")],
    rollout: RolloutNumber = 0,
    generation: Generation = None,
    visit: Visit = None,
    token: Annotated[int | None, typer.Option(help="a sampled token of the turn, from 0")] = None,
    trust_files: TrustFiles = False,
    as_json: Json = False,
) -> None:
    """How the advantage of one turn came about, term by term: reward, return, comparisons in the group, filter, weight."""
    record, config = _trained(run, trust_files)
    with reading(run):
        row, rows = find(read_rollouts(run), episode, rollout, step, generation, visit)
        found = explain(row, rows, step, config, record.about.processes or 1)
        turn = next(turn for turn in row["turns"] if turn["index"] == step)
        taught = lesson(run, found.generation, turn, episode, rollout)
    if token is not None and not 0 <= token < turn["tokens"]:
        raise SetupError(f"--token {token}: this turn has {turn['tokens']} tokens, counted from 0")
    if as_json:
        show.result(asdict(found) | {"token": token} | _taught(taught), True, Table())
    else:
        text = [*lines(found, token), *_lesson(taught, config)]
        show.out.print("\n".join(text), markup=False, highlight=False, soft_wrap=True)
    if not found.agrees:
        raise typer.Exit(1)


def lines(found: Explanation, token: int | None = None) -> list[str]:
    """The explanation as text; numbers with all their digits."""
    terms = " + ".join(f"{value!r} {name}" for name, value in found.terms) or "0 (no term applies)"
    sums = " + ".join(f"{link.factor!r} x {link.reward!r} (step {link.step})" for link in found.chain)
    text = [
        f"generation {found.generation}, visit {found.visit}: "
        f"episode {found.unit}, rollout {found.sample}, step {found.step}",
        f"  said      {found.text!r}",
        f"  verdict   {found.why}" + (f"; repaired to {found.repair!r}" if found.repair else ""),
        f"  reward    {found.reward!r} = {terms}",
        f"  return    {found.ret!r} = {sums}",
        f"            gamma {found.gamma!r}; {found.cut}",
        *_compared("step      ", found.steps),
        *_compared("episode   ", found.episodes),
        f"  advantage {found.advantage!r} = {found.episode_weight!r} x {found.episodes.advantage!r} "
        f"+ {found.step_weight!r} x {found.steps.advantage!r}",
        f"  filter    {_filter(found)}: {found.signal}",
    ]
    if (weight := found.weight) is None and found.signal == "kept":
        text.append("  weight    not computed: answers of the expert shared its update, and no line holds them")
    elif weight is None:
        text.append("  weight    0: the group was dropped, nothing was learned from this turn")
    elif weight.row == 0:
        text.append("  weight    0: the turn has no recorded tokens, or more rows than max_rows fell into its update")
    else:
        which = "each token" if token is None else f"token {token}"
        text.append(
            f"  weight    {which} of {weight.tokens}: {weight.per_token!r} = advantage x {weight.row!r} / {weight.items!r} "
            f"(update {weight.window} of the generation), times the clipped probability ratio"
        )
    said = "the same, to the last digit" if found.agrees else f"DIFFERENT: {found.recorded}"
    return [*text, f"  recorded  {said}"]


def _taught(line: Mapping[str, Any]) -> dict[str, Any]:
    """Of a line of lessons.jsonl, what the explanation has no word of."""
    return {"lesson": line["tokens"], "teacher_answer": line.get("answer")} if line else {}


def _lesson(taught: Mapping[str, Any], config: Config) -> list[str]:
    if not taught:
        out = "  taught    not: a gate of method.hindsight kept this turn out, or it was not trained on"
        return [out] if config.method.hindsight is not None else []
    text = ["  taught    the sampled token, its probability by student and teacher, and the teacher's own choice"]
    for one in taught["tokens"]:
        mine, other = ("     ?" if one[who] is None else f"{one[who]:6.3f}" for who in ("student", "teacher"))
        text.append(f"            {one['text']!r:<14} {mine} {other}   {one['best']!r} {one['best_p']:.3f}")
    if taught.get("answer"):
        text.append(f"  teacher   would have said {taught['answer']!r}")
    return text


def _filter(found: Explanation) -> str:
    if found.spread_of == "none":
        return "off, every group of two or more"
    return f"spread of {found.spread_of.replace('_', ' ')}s {found.spread!r}, eta {found.eta!r}"


def _compared(name: str, one: Comparison) -> list[str]:
    members = ", ".join(f"{who} {value!r}" for who, value in one.members)
    return [
        f"  {name}{one.advantage!r}: {one.mine!r} against mean {one.mean!r}, deviation {one.deviation!r}",
        f"            of {members}",
    ]


# -------------------------------------------------------------------------------------------------------------- replay


def replay(
    run: Run,
    episode: EpisodeId,
    rollout: RolloutNumber = 0,
    generation: Generation = None,
    visit: Visit = None,
    data: Data = None,
    model: Model = None,
    trust_files: TrustFiles = False,
    as_json: Json = False,
) -> None:
    """Sample one recorded rollout again, in the same batch, and say whether everything comes out the same."""
    record, config = _trained(run, trust_files, data, model)
    row, rows = find(read_rollouts(run), episode, rollout, None, generation, visit)
    generation = int(row["generation"])
    with rebuilt(run, record, config, generation) as (setup, plan, policy):
        passed = passed_over(run, generation)
        processes = record.about.processes or 1
        visits = batch_of(rows, int(row["visit"]), config, len(plan.units), processes, passed)
        lengths = {one.id: len(one.steps) for one in setup.episodes}
        fresh = [line for group in groups_of(plan, policy, generation, visits) for line in group_rows(group, lengths)]
    if not any("shown" in line for line in rows):  # of a version that did not write it
        fresh = [{key: value for key, value in line.items() if key != "shown"} for line in fresh]
    again = {(line["visit"], line["sample"]): line for line in fresh}
    found = differences("", dict(row), again.get((row["visit"], row["sample"]), {}))
    others = [line for line in rows if line["visit"] in visits]
    equal = sum(again.get((line["visit"], line["sample"])) == line for line in others)
    result = {
        "episode": episode,
        "rollout": rollout,
        "generation": generation,
        "turns": len(row["turns"]),
        "equal": not found,
        "differences": found,
        "batch": {"rollouts": len(others), "equal": equal},
    }
    table = Table("replayed", "", title_justify="left", show_header=False)
    table.add_row("rollout", f"{rollout} of episode {episode}, generation {generation}, {len(row['turns'])} turns")
    table.add_row("equal bit for bit", "yes" if not found else f"no: {len(found)} differences")
    for line in found[:20]:
        table.add_row("", line)
    table.add_row("its whole batch", f"{equal} of {len(others)} rollouts equal")
    show.result(result, as_json, table)
    if found:
        raise typer.Exit(1)


# -------------------------------------------------------------------------------------------------------------- whatif


def whatif(
    run: Run,
    patch: Annotated[str, typer.Option(help=f"one of {', '.join(PATCHES)}, or path/to/file.py:NAME")],
    episode: Annotated[str | None, typer.Option(help="episode id; default: the whole run")] = None,
    step: Annotated[int | None, typer.Option(help="step with the mismatch; default: all")] = None,
    against: Annotated[str | None, typer.Option(help="compare with this patch; default: the run's, else none")] = None,
    generation: Annotated[int | None, typer.Option(help="default: the last one whose weights are still there")] = None,
    draws: Annotated[int, typer.Option(min=1, help="rollouts sampled after each mismatch, per patch")] = 4,
    limit: Annotated[int, typer.Option(min=1, help="mismatches looked at; drawn at random where there are more")] = 64,
    seed: Seed = 0,
    data: Data = None,
    model: Model = None,
    trust_files: TrustFiles = False,
    as_json: Json = False,
) -> None:
    """What another patch would have changed: sample again what follows each mismatch, with the same seeds."""
    record, config = _trained(run, trust_files, data, model)
    method = config.method
    if method.algorithm != "semi-online":
        raise SetupError(f"{run} is a run of {method.algorithm}, where nothing is repaired; give a semi-online run")
    other = against or (method.patch if method.patch != patch else "none")
    for name in (patch, other):
        PATCHES.find(name)
    chosen = generation if generation is not None else max(replayable(run, config))
    with rebuilt(run, record, config, chosen) as (setup, _, policy):
        rules = parts.rules(method.rules)
        rows = [r for r in read_rollouts(run) if r["generation"] == chosen and episode in (None, r["unit"])]
        known = {one.id: one for one in setup.episodes}
        thoughts = method.expert_thoughts
        places = forks(rows, known, setup.dialogue, rules, lambda _, t: step in (None, t), thoughts)
        if not places:
            elsewhere = sorted({(f.episode.id, f.step) for f in forks(rows, known, setup.dialogue, rules)})[:8]
            raise SetupError(
                f"generation {chosen} has no repairable mismatch there; it has some at (episode, step) {elsewhere}; "
                "choose one of them, or another --generation"
            )
        places = random.Random(seed).sample(places, limit) if len(places) > limit else places
        drawn = sampling(setup.voice, method.temperature)
        reward = method.credit_rules().reward
        lab = Lab(policy, setup.dialogue, drawn, rules, reward, seed, draws, method.width, thoughts)
        arms = [patch_of(method, setup.dialogue, name, None) for name in (patch, other)]
        first, second = (lab.walk(places, arm, further=episode is None) for arm in arms)
    result = {"patch": patch, "against": other, "generation": chosen, "outcome": "share of the remaining steps matched"}
    result |= effect(first, second)
    if episode is None:
        result["budget"] = budget(first if patch != "none" else second)
    show.result(result, as_json, _effects(result))


def _effects(result: Mapping[str, Any]) -> Table:
    title = f"{result['patch']} against {result['against']}, generation {result['generation']}: {result['outcome']}"
    table = Table("", result["patch"], result["against"], "difference", "mismatches", title=title, title_justify="left")
    rows = [("all", result)]
    rows += [(f"{by}: {key}", row) for by in ("position", "action") for key, row in result[f"by_{by}"].items()]
    for name, row in rows:
        if row["n"]:
            cells = (show.percent(row["first"]), show.percent(row["second"]), row["words"], str(row["forks"]))
            table.add_row(name, *cells)
    if "budget" in result and result["budget"]["suggested"] is not None:
        shares = ", ".join(f"{b}: {100 * share:.0f} %" for b, share in enumerate(result["budget"]["matched"]))
        table.caption = (
            f"share matched by number of repairs: {shares}; suggested budget {result['budget']['suggested']}"
        )
    return table


# ------------------------------------------------------------------------------------------------- the run, built again


def _trained(
    run: Path, trust_files: bool, data: str | None = None, model: str | None = None
) -> tuple[RunRecord, Config]:
    """run.json and its config, with what moved in its new place. Prints which parts are not what they were in the run."""
    record = read_record(run)
    if record.kind != "train" or record.about.config is None:
        raise SetupError(f"{run} is not a training run; give the --out folder of guiderail train")
    config = validated(record.about.config, run / "run.json", made=True)
    parts.trusted(run, [name for _, name in config.parts().values()], trust_files)
    now = config.origins().get("parts", {})
    for kind, origin in (record.about.parts or {}).items():
        if now.get(kind) != origin:
            show.err.print(f"not the {kind} of this run: recorded {origin}, now {now.get(kind)}", markup=False)
    if data is not None:
        config = config.model_copy(update={"data": config.recordings.model_copy(update={"train": data})})
    if model is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": model})})
    if config.method.algorithm == "sft":
        raise SetupError(f"{run} is stage one (SFT), which samples nothing; give an offline or semi-online run")
    return record, config


@contextmanager
def rebuilt(
    run: Path, record: RunRecord, config: Config, generation: int
) -> Iterator[tuple[TrainingSetup, Plan, Policy]]:
    """The setup, plan and policy that sampled a generation. SetupError when its weights or data are gone."""
    parts.require("torch", "train")
    ready = replayable(run, config)
    if generation not in ready:
        raise SetupError(
            f"generation {generation} cannot be sampled again: no checkpoint of the weights it was sampled with "
            f"(training.save_total_limit keeps the last ones); give --generation {_or(list(ready))}"
        )
    from guiderail.launch.train import open_world, rl_trainer, set_up

    here = {
        "training": {k: v for k, v in config.training.items() if k != "deepspeed"},
        "rollout": config.rollout.model_copy(update={"engine": "local"}),
        "online": config.online.model_copy(update={"ahead": 0}),
    }
    if config.world is not None:
        here["world"] = config.world.model_copy(update={"workers": 0})
    config = config.model_copy(update=here)
    setup = set_up(config)
    if setup.data is not None and (record.about.data is None or setup.data.digest != record.about.data.digest):
        raise SetupError(
            f"{config.recordings.train} is not the data of this run any more; give the right file with --data"
        )
    with tempfile.TemporaryDirectory() as folder, open_world(setup) as live:
        trainer = rl_trainer(setup, live, Path(folder), None)
        if (weights := ready[generation]) is not None:
            trainer._load_from_checkpoint(str(weights))
        collector: Any = trainer.collect
        if remembers(config) and (before := checkpoints(run, config)[generation]) is not None:
            # All processes remember the same.
            collector.load_state_dict(json.loads((before / "progress-0.json").read_text()))
            (Path(folder) / "images").symlink_to((run / "images").resolve())  # of kept successes
        with trainer.current_policy() as policy:
            yield setup, collector.plan, policy


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers)) or "(none is left)"
