"""guiderail explain, replay, whatif: where an advantage came from, whether a rollout comes out again, what a patch is worth."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from agent.errors import SetupError
from envs.match import RULES
from launch import parts, show
from launch.evaluate import Json
from patch.base import PATCHES, build
from rl.config import Config, nearest
from rl.explain import Comparison, Explanation, batch_of, explain, find
from rl.runlog import read_json, read_rollouts
from rl.whatif import Lab, budget, effect, forks

if TYPE_CHECKING:
    from agent.policy import Policy
    from launch.train import Scene
    from rl.collect import Collector

Run = Annotated[Path, typer.Argument(help="run folder of guiderail train")]
EpisodeId = Annotated[str, typer.Option("--episode", help="episode id")]
RolloutNumber = Annotated[int, typer.Option("--rollout", help="which of the group's rollouts, from 0")]
Generation = Annotated[int | None, typer.Option(help="default: the first that fits")]
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
    as_json: Json = False,
) -> None:
    """The advantage of one turn, computed again: reward terms, return and where it was cut, both comparisons, filter,
    weight."""
    record, config = _trained(run)
    row, rows = find(read_rollouts(run), episode, rollout, step, generation, visit)
    found = explain(row, rows, step, config, int(config.training.get("seed", 0)), int(record.get("processes", 1)))
    if token is not None:
        turn = next(turn for turn in row["turns"] if turn["index"] == step)
        if not 0 <= token < turn["tokens"]:
            raise SetupError(f"--token {token}: this turn has {turn['tokens']} tokens, counted from 0")
    if as_json:
        show.result(asdict(found) | {"token": token}, True, Table())
    else:
        show.out.print("\n".join(lines(found, token)), markup=False, highlight=False, soft_wrap=True)
    if not found.agrees:
        raise typer.Exit(1)


def lines(found: Explanation, token: int | None = None) -> list[str]:
    """The explanation as text; numbers with all their digits."""
    terms = " + ".join(f"{value!r} {name}" for name, value in found.terms) or "0 (not readable, or out of format)"
    sums = " + ".join(f"{link.factor!r} x {link.reward!r} (step {link.step})" for link in found.chain)
    text = [
        f"generation {found.generation}, visit {found.visit}, unit {found.unit}: "
        f"episode {found.episode_id}, rollout {found.sample}, step {found.step}",
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
    if (weight := found.weight) is None:
        text.append("  weight    0: the group was dropped, nothing was learned from this turn")
    elif weight.row == 0:
        text.append("  weight    0: the turn told no tokens, or more rows than max_rows fell into its update")
    else:
        which = "each token" if token is None else f"token {token}"
        text.append(
            f"  weight    {which} of {weight.tokens}: {weight.per_token!r} = advantage x {weight.row!r} / {weight.items!r} "
            f"(update {weight.window} of the generation), times the clipped probability ratio"
        )
    said = "the same, to the last digit" if found.agrees else f"DIFFERENT: {found.recorded}"
    return [*text, f"  recorded  {said}"]


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
    as_json: Json = False,
) -> None:
    """Sample one rollout again, in the batch it was sampled in, and compare prompts, tokens, texts, rewards, advantages."""
    record, config = _trained(run, data, model)
    row, rows = find(read_rollouts(run), episode, rollout, None, generation, visit)
    with rebuilt(run, record, config, int(row["generation"])) as (scene, collector, policy):
        from launch.train import group_rows

        visits = batch_of(rows, int(row["visit"]), collector.groups, len(collector.units), record.get("processes", 1))
        sampled = collector.sample([(v, collector.unit_at(v)) for v in visits], policy, int(row["generation"]))
        lengths = {one.id: len(one.steps) for one in scene.data.episodes}
        fresh = [
            line for g in sampled for line in group_rows(g, lengths[g.rollouts[0].episode_id] if g.rollouts else 0)
        ]
    again = {(line["visit"], line["sample"]): line for line in fresh}
    differences = _differences("", dict(row), again.get((row["visit"], row["sample"]), {}))
    others = [line for line in rows if line["visit"] in visits]
    equal = sum(again.get((line["visit"], line["sample"])) == line for line in others)
    result = {
        "episode": episode,
        "rollout": rollout,
        "generation": row["generation"],
        "turns": len(row["turns"]),
        "equal": not differences,
        "differences": differences,
        "batch": {"rollouts": len(others), "equal": equal},
    }
    table = Table("replayed", "", title_justify="left", show_header=False)
    table.add_row(
        "rollout", f"{rollout} of episode {episode}, generation {row['generation']}, {len(row['turns'])} turns"
    )
    table.add_row("equal bit for bit", "yes" if not differences else f"no: {len(differences)} differences")
    for line in differences[:20]:
        table.add_row("", line)
    table.add_row("its whole batch", f"{equal} of {len(others)} rollouts equal")
    show.result(result, as_json, table)
    if differences:
        raise typer.Exit(1)


def _differences(place: str, was: Any, now: Any) -> list[str]:
    """Where two JSON values differ, each with its path."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = [*was, *(key for key in now if key not in was)]
        return [line for key in keys for line in _differences(f"{place}.{key}", was.get(key), now.get(key))]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [
            line for i, (a, b) in enumerate(zip(was, now, strict=True)) for line in _differences(f"{place}[{i}]", a, b)
        ]
    return [] if was == now else [f"{place.lstrip('.')}: recorded {str(was)[:80]}, now {str(now)[:80]}"]


# -------------------------------------------------------------------------------------------------------------- whatif


def whatif(
    run: Run,
    patch: Annotated[str, typer.Option(help=f"one of {', '.join(PATCHES)}")],
    episode: Annotated[str | None, typer.Option(help="episode id; default: the whole run")] = None,
    step: Annotated[int | None, typer.Option(help="step with the mismatch; default: all")] = None,
    against: Annotated[str | None, typer.Option(help="compare with this patch; default: the run's, else none")] = None,
    generation: Annotated[int | None, typer.Option(help="default: the last one whose weights are still there")] = None,
    draws: Annotated[int, typer.Option(min=1, help="suffixes walked per mismatch and arm")] = 4,
    limit: Annotated[int, typer.Option(min=1, help="most mismatches looked at; more are drawn from at random")] = 64,
    seed: Annotated[int, typer.Option()] = 0,
    data: Data = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Walk only what follows a mismatch again, under another patch and the same seeds: the effect with its interval."""
    record, config = _trained(run, data, model)
    method = config.method
    if method.algorithm != "semi-online":
        raise SetupError(f"{run} is a run of {method.algorithm}, where nothing is repaired; give a semi-online run")
    other = against or (method.patch if method.patch != patch else "none")
    for name in (patch, other):
        if name not in PATCHES:
            raise SetupError(f"unknown patch {name!r}{nearest(name, PATCHES)}")
    chosen = generation if generation is not None else max(replayable(run, config))
    with rebuilt(run, record, config, chosen) as (scene, _, policy):
        rules = RULES[method.rules]
        rows = [r for r in read_rollouts(run) if r["generation"] == chosen and episode in (None, r["episode_id"])]
        known = {one.id: one for one in scene.data.episodes}
        places = forks(rows, known, scene.dialogue, rules, lambda _, t: step in (None, t))
        if not places:
            elsewhere = sorted({(f.episode.id, f.step) for f in forks(rows, known, scene.dialogue, rules)})[:8]
            raise SetupError(
                f"generation {chosen} has no repairable mismatch there; it has some at (episode, step) {elsewhere}; "
                "choose one of them, or another --generation"
            )
        places = random.Random(seed).sample(places, limit) if len(places) > limit else places
        sampling = parts.sampling(scene.voice, method.temperature)
        lab = Lab(policy, scene.dialogue, sampling, rules, method.credit_rules().reward, seed, draws, method.width)
        thoughts = _thoughts(config)
        arms = [build(name, None, scene.dialogue.dialect.integrate, thoughts) for name in (patch, other)]
        first, second = (lab.walk(places, arm, further=episode is None) for arm in arms)
    result = {"patch": patch, "against": other, "generation": chosen, "outcome": "share of the remaining steps matched"}
    result |= effect(first, second)
    if episode is None:
        result["budget"] = budget(first if patch != "none" else second)
    show.result(result, as_json, _effects(result))


def _thoughts(config: Config) -> Any:
    from patch.off_policy import load_thoughts

    return load_thoughts(Path(config.method.thought_store)) if config.method.thought_store else None


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
        table.caption = f"matched with so many repairs: {shares}; suggested budget {result['budget']['suggested']}"
    return table


# ------------------------------------------------------------------------------------------------- the run, built again


def _trained(run: Path, data: str | None = None, model: str | None = None) -> tuple[dict[str, Any], Config]:
    """run.json and its config, with what moved in its new place."""
    record = read_json(run / "run.json")
    if record.get("kind") != "train" or "config" not in record:
        raise SetupError(f"{run} is not a training run; give the --out folder of guiderail train")
    config = Config.model_validate(record["config"])
    if data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"train": data})})
    if model is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": model})})
    if config.method.algorithm == "sft":
        raise SetupError(f"{run} is stage one (SFT), which samples nothing; give an offline or semi-online run")
    return record, config


def replayable(run: Path, config: Config) -> dict[int, Path | None]:
    """Generation -> the folder with the weights that sampled it; None for the model the run started from."""
    training = config.training
    accumulate = int(training.get("gradient_accumulation_steps", 4))
    steps = int(training.get("steps_per_generation") or accumulate)
    cycle = steps // accumulate * int(training.get("num_iterations", 1))
    found: dict[int, Path | None] = {0: None}
    for marker in run.glob("checkpoint-*/complete.json"):
        update = marker.parent.name.split("-")[-1]
        if update.isdigit() and int(update) % cycle == 0:
            found[int(update) // cycle] = marker.parent
    recorded = {int(row["generation"]) for row in read_rollouts(run)}
    return {generation: folder for generation, folder in sorted(found.items()) if generation in recorded}


@contextmanager
def rebuilt(
    run: Path, record: Mapping[str, Any], config: Config, generation: int
) -> Iterator[tuple[Scene, Collector, Policy]]:
    """The scene, collector and policy that sampled a generation. SetupError when its weights or data are gone."""
    parts.require("torch", "train")
    ready = replayable(run, config)
    if generation not in ready:
        raise SetupError(
            f"generation {generation} cannot be sampled again: no checkpoint of the weights it was sampled with "
            f"(training.save_total_limit keeps the last ones); give --generation {_or(list(ready))}"
        )
    from launch.train import rl_trainer, set_scene

    here = {
        "training": {k: v for k, v in config.training.items() if k != "deepspeed"},
        "rollout": config.rollout.model_copy(update={"engine": "local"}),
    }
    config = config.model_copy(update=here)
    scene = set_scene(config)
    if scene.data.digest != record["data"]["digest"]:
        raise SetupError(f"{config.data.train} is not the data of this run any more; give the right file with --data")
    with tempfile.TemporaryDirectory() as folder:
        trainer = rl_trainer(scene, Path(folder), None)
        if (weights := ready[generation]) is not None:
            trainer._load_from_checkpoint(str(weights))
        with trainer.current_policy() as policy:
            collector: Any = trainer.collect
            yield scene, collector, policy


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers)) or "(none is left)"
