"""guiderail init tiny, pretrain tiny: small models to start from; guiderail evaluate grounding: does a model read screens?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Table

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.processor import checkpoint_vision
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Episode
from guiderail.envs.recordings.sources import recordings_file
from guiderail.launch import parts, show
from guiderail.launch.agents import AgentSpec, Voice, build_agent
from guiderail.launch.before import check_out
from guiderail.launch.going_on import going_on
from guiderail.launch.options import DataArg, Fixed, Json, Out, Seed, Width, one_of, parse_size, spread
from guiderail.launch.screens import other_screens, sizes_of
from guiderail.rl.runs.log import run_log

if TYPE_CHECKING:
    from guiderail.rl.tiny.recorded_screens import RecordedScreen

init_app = typer.Typer(no_args_is_help=True, help="Create a small model with random weights.")
app = typer.Typer(no_args_is_help=True, help="Teach a small model to read screens and to point, before it is an agent.")

VOICE = Voice("brief", images=1, max_new_tokens=32, max_prompt_tokens=1024)
"""How a tiny model is prompted."""

ModelFolder = Annotated[Path, typer.Option("--out", help="model folder to write")]


@init_app.callback()
@app.callback()
def _group() -> None:
    """Keeps `tiny` a sub-command while it is the only one."""


@init_app.command("tiny")
def init_tiny(
    data: DataArg,
    out: ModelFolder,
    family: Annotated[str, typer.Option(help="qwen3_vl or qwen2_5_vl")] = "qwen3_vl",
    seed: Seed = 0,
    merge: Annotated[
        int, typer.Option(help="patches per image token and side: 1 shows more detail, 2 is 1.7 times as fast")
    ] = 2,
) -> None:
    """A randomly initialised vision-language model of 1 to 2 M parameters. Its tokenizer is trained on the data's words."""
    parts.require("torch", "train")
    build_tiny_for(data, out, family, seed, merge)
    show.err.print(f"tiny {family} in {out}", highlight=False)


def build_tiny_for(data: str, out: Path, family: str, seed: int, merge: int = 2) -> None:
    """Write the model folder of `init tiny`, for screens of the size of the first recorded one."""
    parts.quiet()
    from guiderail.rl.tiny import model

    kind = one_of("--family", family, get_args(model.Family))
    episodes = parts.dataset(data, None, "detect", False, None).episodes
    shot = episodes[0].steps[0].screenshot
    model.build_tiny(out, _texts(episodes), kind, seed, screen=(shot.width, shot.height), merge=merge)
    _save_voice(out, sizes_of(episodes))


def _save_voice(out: Path, screens: tuple[tuple[int, int], ...] | None) -> None:
    replace(VOICE, vision=checkpoint_vision(str(out)), screens=screens).save(out)


def _texts(episodes: Sequence[Episode]) -> Iterator[str]:
    """Goals and the expert's turns in the model's dialect: the words its tokenizer is trained on."""
    dialogue = Dialogue(ORIGINAL_SIZE, parts.dialect(VOICE.dialect), VOICE.images)
    for episode in episodes:
        yield episode.goal
        for step in episode.steps:
            yield dialogue.say(step.thought, step.action, step.screenshot)


@app.command()
def tiny(
    out: ModelFolder,
    minutes: Annotated[
        float | None, typer.Option(help="training time; the learning rate follows the clock [default: 30]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="updates, instead of a time: same options, same bytes")] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="continue from the last state saved in --out")] = False,
    every: Annotated[int, typer.Option(help="steps between two states that are saved and scored")] = 100,
    recordings: Annotated[
        str | None, typer.Option(help="go on with --base on the screens of these, and learn the experts' turns")
    ] = None,
    base: Annotated[str, typer.Option(help="tiny model to go on with, beside --recordings")] = "tiny-base",
) -> None:
    """Train a 1.7 M-parameter Qwen3-VL to read words, find elements and see states on small screens: drawn ones, or those of
    recordings."""
    parts.require("torch", "train")
    parts.quiet()
    from guiderail.rl.tiny.pretrain import ON_RECORDINGS, Recipe, pretrain
    from guiderail.rl.tiny.screens import SIZE

    if minutes is None and steps is None:
        minutes = 30.0
    episodes = () if recordings is None else parts.dataset(recordings, None, "detect", False, None).episodes
    row = pretrain(
        out,
        replace(Recipe() if recordings is None else ON_RECORDINGS, seed=seed),
        base=None if recordings is None else base,
        recorded=() if recordings is None else _recorded(recordings, episodes, base),
        steps=steps,
        minutes=minutes,
        device=device,
        resume=resume,
        every=every,
        report=lambda row: show.err.print(_line(row), highlight=False, soft_wrap=True),
    )
    _save_voice(out, sizes_of(episodes) if recordings else (SIZE,))
    show.err.print(f"pretrained in {row['minutes']:.1f} min, {row['step']} steps: {out}", highlight=False)


def _recorded(recordings: str, episodes: Sequence[Episode], base: str) -> list[RecordedScreen]:
    from guiderail.rl.tiny.recorded_screens import elements_of, recorded_screens

    dialogue = Dialogue(checkpoint_vision(base), parts.dialect(VOICE.dialect), VOICE.images)
    return recorded_screens(episodes, dialogue, elements_of(recordings_file(recordings)))


def _line(row: dict[str, Any]) -> str:
    """ "step 300, 4.1 min, loss .52: where .91/.97, state .88/.93, ...": accuracy on generic and on Pocket screens, or "turns .81"
    on held-out recorded ones."""
    losses = sum(value for key, value in row.items() if key.startswith("loss_"))
    kinds = dict.fromkeys(key.partition("_")[2] for key in row if key.startswith(("generic_", "pocket_")))
    scores = (f"{kind} {row.get(f'generic_{kind}', 0):.2f}/{row.get(f'pocket_{kind}', 0):.2f}" for kind in kinds)
    said = f"turns {row['recorded_step']:.2f}" if "recorded_step" in row else ", ".join(scores)
    return f"step {row['step']}, {row['minutes']:.1f} min, loss {losses:.2f}: {said}"


@spread
def grounding(
    who: Annotated[AgentSpec, Fixed("agent", "images", "max_new_tokens")] = AgentSpec("tiny-base", images=1),
    seed: Seed = 0,
    screens: Annotated[int, typer.Option(help="random screens, and as many Pocket screens", min=1)] = 300,
    style: Annotated[str, typer.Option(help="style of the Pocket screens: easy or free")] = "easy",
    size: Annotated[str, typer.Option(help="screens in pixels, WxH")] = "160x288",
    width: Width = 64,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Does the model point at named elements and name their states? On random screens and on Pocket screens."""
    from guiderail.rl.tiny.grounding import evaluate_grounding

    check_out(out, None)
    one_of("--style", style, ("easy", "free"))
    drawn = parse_size("--size", size)
    if not 80 <= drawn[0] <= 2048 or not 1.4 <= drawn[1] / drawn[0] <= 4:
        raise SetupError(f"--size {size}: expected a width of 80 to 2048 pixels and a height of 1.4 to 4 times as many")
    actor = build_agent(replace(who, model=None) if who.server else who)
    other_screens(actor.model, actor.voice, [drawn])
    world = {"name": "grounding", "screens": screens, "style": style, "size": list(drawn)}
    details = {"model": actor.model, "voice": asdict(actor.voice), "seed": seed, "world": world}
    with (
        going_on(out),
        run_log(out, "grounding", details, resume=None) as log,
        show.bar("screens", 2 * screens) as tick,
    ):
        result = evaluate_grounding(
            actor.policy, actor.dialogue, seed=seed, screens=screens, style=style, size=drawn, width=width, tick=tick
        )
        if log is not None:
            log.finish(show.strict(result))
    show.result(result, as_json, _table(f"grounding, {actor.model}, seed {seed}", result))


def _table(title: str, result: dict[str, Any]) -> Table:
    table = Table("", "element %", "state %", "n", "same place always %", title=title, title_justify="left")
    for source, probe in result["probe"].items():
        rates = [result[source][what] for what in ("element", "state")]
        cells = [show.percent(rate["accuracy"], rate["interval"]) for rate in rates]
        table.add_row(source, *cells, " + ".join(str(r["n"]) for r in rates), show.percent(probe["accuracy"]))
    return table
