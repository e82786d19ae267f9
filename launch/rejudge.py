"""guiderail rejudge: recorded answers under other rules and protocols, and two runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agent.dialects import DIALECTS
from agent.errors import SetupError
from launch import parts, show
from launch.evaluate import Json, Out
from rl.profiles import PROFILES, Answers, Kind, Profile, compare, profile, read_steps, recorded, rescore
from rl.runlog import RunLog, read_json, read_rollouts


def rejudge(
    run: Annotated[Path, typer.Argument(help="run folder of evaluate sop or evaluate offline")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[RULES]...", help="further rules")] = None,
    rules: Annotated[list[str], typer.Option("--rules", help="rules or profiles: --rules A B C, or all")] = [],  # noqa: B006
    against: Annotated[Path | None, typer.Option(help="another run on the same data, to compare with")] = None,
    steps: Annotated[Path | None, typer.Option(help="list of the steps that count, for androidcontrol-7708")] = None,
    data: Annotated[str | None, typer.Option(help="where the recordings are now, if they moved")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Score a run's recorded answers under other rules and protocols, or compare two runs; needs no model."""
    names = [*rules, *(more or ())]
    if not names:
        raise SetupError("rejudge needs --rules NAME [NAME ...], or --rules all")
    listed = read_steps(steps) if steps else None
    chosen = [p for p in PROFILES.values() if listed or not p.listed] if names == ["all"] else list(map(profile, names))
    kind, answers, source = _answers(run, data)
    rows = {one.name: rescore(kind, answers, one, listed) for one in chosen}
    result: dict[str, Any] = dict(rows)
    if against is not None:
        other_kind, other, other_source = _answers(against, data)
        if (other_kind, other_source["digest"]) != (kind, source["digest"]):
            raise SetupError(f"{run} and {against} are not runs of one kind on the same data; compare two that are")
        paired = {one.name: compare(kind, answers, other, one, listed) for one in chosen}
        result = {"profiles": rows, "against": paired}
    if out is not None:
        RunLog(out, "rejudge", {"of": str(run), "data": source, "rules": list(rows)}).finish(show.strict(result))
    for one in chosen:
        _remarks(one, rows[one.name])
    keys = ("PG", "TSR", "Score") if kind == "sop" else ("TM", "GR", "SR", "hit")
    show.result(result, as_json, show.scores(f"{run} rejudged", rows, keys))
    if against is not None and not as_json:
        show.out.print(show.differences(f"{run} against {against}", result["against"]))


def _answers(run: Path, data: str | None) -> tuple[Kind, list[Answers], dict[str, Any]]:
    """What a run recorded, checked against the data it was recorded on; and where that data is."""
    record = read_json(run / "run.json")
    kind, source = record.get("kind"), record.get("data")
    if kind not in ("sop", "offline"):
        raise SetupError(f"{run} is a {kind} run; rejudge reads runs of evaluate sop and evaluate offline")
    loaded = parts.dataset(data or source["path"], source["screen"], source["swipes"], True, None)
    if loaded.digest != source["digest"]:
        raise SetupError(
            f"{data or source['path']} is not the data of this run (digest {loaded.digest[:12]}, expected "
            f"{source['digest'][:12]}); give the right file with --data"
        )
    dialect = DIALECTS[record["voice"]["dialect"]]
    return kind, recorded(kind, read_rollouts(run), loaded.episodes, dialect), source


def _remarks(one: Profile, row: dict[str, Any]) -> None:
    """What keeps this row from being the number others publish."""
    if row.get("open_ended"):
        show.err.print(
            f"{one.name}: {row['open_ended']} walks stopped where it would have gone on; PG and TSR are lower bounds"
        )
    if one.steps is not None and row["steps"] != one.steps:
        show.err.print(f"{one.name}: {row['steps']} steps here, {one.steps} in the whole protocol")
