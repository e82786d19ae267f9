"""guiderail data from-runs, from-review: what people corrected and answered, as recordings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from guiderail.agent.errors import SetupError
from guiderail.launch import show
from guiderail.launch.going_on import then
from guiderail.launch.options import DataFolder, Json
from guiderail.rl.rollout.worlds import OURS
from guiderail.rl.runs.corrections import recordings_of
from guiderail.rl.runs.log import read_record

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders")]


def from_runs(runs: Runs, out: DataFolder, as_json: Json = False) -> None:
    """Live attempts that a person corrected, as recordings: the person's steps are learned, the agent's are their history."""
    for run in runs:
        known = OURS.get((read_record(run).about.world or {}).get("name", ""))
        if known is not None and known.unrecorded:
            raise SetupError(f"{run}: {known.unrecorded}")
    made = recordings_of(runs, out)
    show.result(made, as_json, show.pairs("recorded", made))
    folder = shlex.quote(str(out))
    then(
        f"guiderail gate {folder}",
        f"guiderail train tiny_sft model.path=tiny-sft data.train={folder} --out runs/corrected",
    )


def from_review(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option(help="JSONL to write; default: reviewed.jsonl in the folder of the recordings")
    ] = None,
    data: Annotated[str | None, typer.Option(help="where the recordings are now, if they moved")] = None,
    as_json: Json = False,
) -> None:
    """Recordings with the actions that people accepted in the review queue beside the expert's."""
    from guiderail.launch.byhand.review import reviewed

    source = read_record(runs[0]).about.data
    if source is None:
        raise SetupError(f"{runs[0]} was not made along recordings; give a run that was")
    place = Path(data or source.path)
    target = out or (place if place.is_dir() else place.parent) / "reviewed.jsonl"
    made = {"written": str(target), **reviewed(runs, target, data)}
    show.result(made, as_json, show.pairs("", made))
    then(f"guiderail gate {shlex.quote(str(target))}")
