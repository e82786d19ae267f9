"""guiderail data think: a large model writes the thoughts that recordings lack."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Sampling
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Episode
from guiderail.launch import parts, show
from guiderail.launch.going_on import NOTHING_SCORED, going_on, then
from guiderail.launch.options import DataArg, Json
from guiderail.patch.examples import Examples, examples_of
from guiderail.patch.off_policy import load_thoughts
from guiderail.patch.think import Cost, Filled, Store, cost, fill, missing
from guiderail.rl.score.statistics import wilson


def think(
    data: DataArg,
    server: Annotated[str, typer.Option(help="OpenAI-compatible URL, such as http://127.0.0.1:8000/v1")],
    model: Annotated[str, typer.Option(help="id of the model on the server that writes the thoughts")],
    out: Annotated[Path, typer.Option(help="thought store to write, a JSONL file; what it holds is not asked again")],
    dialect: Annotated[str, typer.Option(help="in which each thought must stand before its action")] = "guiderail",
    limit: Annotated[int | None, typer.Option(min=1, help="only the first episodes")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer, in tokens")] = 160,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 is greedy; a refused thought is asked for once more")
    ] = 0.7,
    concurrency: Annotated[int, typer.Option(min=1, help="requests at once")] = 16,
    request_timeout: Annotated[float, typer.Option(help="seconds for one answer, all tries")] = 120.0,
    examples: Annotated[
        int, typer.Option(min=0, help="thoughts of the most similar steps, shown with each request")
    ] = 0,
    examples_from: Annotated[
        Path | None,
        typer.Option(help="thought store of these recordings that holds the examples; by default --out itself"),
    ] = None,
    control: Annotated[
        float, typer.Option(min=0, max=1, help="share of the steps asked without examples, to see what they do")
    ] = 0.1,
    price_in: Annotated[float | None, typer.Option(min=0, help="price of a million tokens read")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="price of a million tokens written")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="ask; without it only the cost is told")] = False,
    as_json: Json = False,
) -> None:
    """Write a thought for each step from goal, screens and action. Tells the cost first; run it again to go on."""
    loaded = parts.dataset(data, None, "detect", True, limit)
    talk = Dialogue(ORIGINAL_SIZE, parts.dialect(dialect))
    store = Store(out, model)
    held = store.held()
    places = missing(loaded.episodes, talk, held)
    similar = _examples(loaded.episodes, data, out, examples, examples_from)
    expected = cost(places, max_new_tokens, examples)
    said = _said(expected, price_in, price_out)
    result: dict[str, Any] = {"held": len(held), "to_ask": len(places), "tokens_read": expected.read}
    result |= {"tokens_written_at_most": expected.written}
    if price_in is not None or price_out is not None:
        result["price_at_most"] = expected.price(price_in or 0.0, price_out or 0.0)
    show.err.print(f"{out} holds {len(held)} thoughts; {said}", markup=False, highlight=False, soft_wrap=True)
    if places and not yes:
        show.result(result | {"asked": False}, as_json, show.pairs("", result))
        then("the same command with --yes, to ask")
        return
    from guiderail.agent.served.openai import ServedPolicy

    policy = ServedPolicy(server, model, ORIGINAL_SIZE, concurrency=concurrency, deadline=request_timeout)
    if places:
        policy.check()
    out.parent.mkdir(parents=True, exist_ok=True)
    with going_on(out), show.bar("thoughts", len(places)) as done:
        made = fill(
            store,
            places,
            policy,
            talk,
            Sampling(temperature, max_new_tokens),
            at_once=4 * concurrency,
            examples=similar,
            control=control,
            done=done,
        )
    result |= {"asked": True, "written": made.written, "failed": made.failed, "refused": dict(made.refused)}
    result |= _effect(made) if examples else {}
    show.result(result, as_json, show.pairs("", result))
    if places and not made.written:
        raise typer.Exit(NOTHING_SCORED)
    flags = f"method.patch=off-policy method.thought_store={shlex.quote(str(out))}"
    then(f"guiderail train CONFIG data.train={shlex.quote(data)} {flags}")


def _examples(episodes: Sequence[Episode], data: str, out: Path, count: int, source: Path | None) -> Examples | None:
    if source is not None and not count:
        raise SetupError("--examples-from is given without --examples; say how many, such as --examples 3")
    if not count:
        return None
    if source is not None and not source.is_file():
        raise SetupError(f"--examples-from {source}: no such file; give a thought store, or nothing for --out itself")
    own = source is None or source.resolve() == out.resolve()
    place = out if own else source
    assert place is not None
    made = examples_of(episodes, load_thoughts(place) if place.is_file() else {}, count, own)
    if not own and not len(made):
        raise SetupError(
            f"--examples-from {source} holds no thought of a step of {data}; give a store of these recordings"
        )
    return made


def _effect(made: Filled) -> dict[str, Any]:
    """How many requests had examples, how similar these were, and what became of the first answers with and without."""
    asked = made.shown.answers + made.bare.answers
    found: dict[str, Any] = {"share_with_examples": made.shown.answers / asked if asked else 0.0}
    found["mean_similarity"] = fmean(made.similarities) if made.similarities else None
    for name, first in (("with", made.shown), ("without", made.bare)):
        low, high = (round(end, 3) for end in wilson(first.refused, first.answers))
        found[f"refused_at_first_{name}"] = {"refused": first.refused, "of": first.answers, "low": low, "high": high}
    return found


def _said(expected: Cost, price_in: float | None, price_out: float | None) -> str:
    if not expected.requests:
        return "nothing is missing"
    text = (
        f"{expected.requests} requests are to be made, with about {expected.read:,} tokens to read and at most "
        f"{expected.written:,} to write"
    )
    if price_in is None and price_out is None:
        return text
    return f"{text}; at these prices at most about {expected.price(price_in or 0.0, price_out or 0.0):.2f}"
