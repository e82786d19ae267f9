"""guiderail model ...: merge an adapter, read the card of a run, push a model to the Hub."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from guiderail.launch import parts, show
from guiderail.launch.going_on import going_on, then
from guiderail.launch.options import Json

app = typer.Typer(no_args_is_help=True, help="Merge adapters; describe trained models and push them to the Hub.")

Run = Annotated[Path, typer.Argument(help="run folder of a training", metavar="RUN")]
Model = Annotated[Path | None, typer.Option(help="model folder, where it is not RUN/model: one that was merged")]
Scores = Annotated[
    list[Path] | None, typer.Option("--scores", help="run folder of an evaluation of this model; can be repeated")
]


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="adapter folder, such as RUN/model", metavar="ADAPTER")],
    out: Annotated[Path, typer.Option(help="model folder to write")],
    base: Annotated[str | None, typer.Option(help="model to merge into, if not the one that the adapter names")] = None,
    dtype: Annotated[str, typer.Option(help="of the weights: auto (the base's own), float32, bfloat16")] = "auto",
    as_json: Json = False,
) -> None:
    """Add a LoRA adapter into its base model: a folder that transformers and vLLM load as it is."""
    from guiderail.launch.hub import share

    with going_on(out):
        made = share.merge(adapter, out, base=base, dtype=dtype)
    written = {"written": str(made)}
    show.result(written, as_json, show.pairs("", written))
    then(f"guiderail evaluate sop DATA --model {shlex.quote(str(made))}")


@app.command()
def card(run: Run, model: Model = None, scores: Scores = None) -> None:
    """Print the card that a push would write."""
    from guiderail.launch.hub.model_card import model_card, trained

    show.out.print(Text(model_card(trained(run, model), scores or [])), soft_wrap=True)


@app.command()
def push(
    run: Run,
    repo: Annotated[str, typer.Option(help="NAME or OWNER/NAME on the Hub", metavar="NAME")],
    model: Model = None,
    scores: Scores = None,
    private: Annotated[bool, typer.Option("--private", help="make a new repository private")] = False,
    as_json: Json = False,
) -> None:
    """Upload a trained model with a card filled from its run: data digest, rules, scores with intervals, commands."""
    from guiderail.launch.hub import share

    parts.require("huggingface_hub", "train")
    with going_on():
        url = share.push(run, repo, model=model, scores=scores or [], private=private)
    written = {"pushed": str(model or run / "model"), "to": url}
    show.result(written, as_json, show.pairs("", written))
