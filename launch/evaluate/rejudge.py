"""guiderail rejudge: recorded answers scored under other rules and protocols, and two runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import origins
from guiderail.envs.recordings.match import ALL_RULES
from guiderail.launch import parts, show
from guiderail.launch.before import check_out
from guiderail.launch.going_on import going_on
from guiderail.launch.options import Json, Out, TrustFiles
from guiderail.rl.runs.log import read_record, read_rollouts, reading, run_log
from guiderail.rl.runs.record import Data
from guiderail.rl.score.profiles import (
    PROFILES,
    Answers,
    Kind,
    Profile,
    compare,
    profile,
    read_steps,
    recorded,
    rescore,
)

KINDS: dict[str, Kind] = {"sop": "sop", "offline": "offline"}


def rejudge(
    run: Annotated[Path, typer.Argument(help="run folder of evaluate sop or evaluate offline", metavar="RUN")],
    more: Annotated[list[str] | None, typer.Argument(metavar="RULES", help="further rules")] = None,
    rules: Annotated[
        list[str],
        typer.Option(
            "--rules", help="rules or profiles, also path/to/file.py:NAME: --rules A B C, or all", metavar="RULES"
        ),
    ] = [],  # noqa: B006
    against: Annotated[Path | None, typer.Option(help="another run on the same data, to compare with")] = None,
    steps: Annotated[
        Path | None, typer.Option(help="file that lists the steps to count, for androidcontrol-7708")
    ] = None,
    data: Annotated[str | None, typer.Option(help="where the recordings are now, if they moved")] = None,
    trust_files: TrustFiles = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Score a run's recorded answers under other rules and protocols, or compare two runs. Needs no model."""
    names = [*rules, *(more or ())]
    if not names:
        raise SetupError("rejudge needs --rules NAME [NAME ...], or --rules all")
    check_out(out, None)
    listed = read_steps(steps) if steps else None
    chosen = [p for p in PROFILES.values() if listed or not p.listed] if names == ["all"] else list(map(profile, names))
    with reading(run):
        kind, answers, source = _answers(run, data, trust_files)
        rows = {one.name: rescore(kind, answers, one, listed) for one in chosen}
    result: dict[str, Any] = dict(rows)
    if against is not None:
        with reading(against):
            other_kind, other, other_source = _answers(against, data, trust_files)
        if (other_kind, other_source.digest) != (kind, source.digest):
            raise SetupError(f"{run} and {against} differ in kind or data; give two runs of one kind on the same data")
        paired = {one.name: compare(kind, answers, other, one, listed) for one in chosen}
        result = {"profiles": rows, "against": paired}
    if out is not None:
        about = {"of": str(run), "data": source, "profiles": list(rows)}
        about |= origins(*((ALL_RULES, name) for name in rows if name not in PROFILES))
        with going_on(out), run_log(out, "rejudge", about, resume=None) as log:
            if log is not None:
                log.finish(show.strict(result))
    for one in chosen:
        _remarks(one, rows[one.name])
    keys = ("PG", "TSR", "Score") if kind == "sop" else ("TM", "GR", "SR", "hit")
    show.result(result, as_json, show.scores(f"{run} rejudged", rows, keys))
    if against is not None and not as_json:
        show.out.print(show.differences(f"{run} against {against}", result["against"]))


def _answers(run: Path, data: str | None, trust_files: bool) -> tuple[Kind, list[Answers], Data]:
    """(kind, answers, data) of a run. Raises SetupError when the data is not what the run was made on."""
    record = read_record(run)
    kind, source, voice = KINDS.get(record.kind), record.about.data, record.about.voice
    if kind is None or source is None or voice is None:
        raise SetupError(f"{run} is a {record.kind} run; rejudge reads runs of evaluate sop and evaluate offline")
    loaded = parts.dataset_of(source, data)
    parts.trusted(run, [voice["dialect"]], trust_files)
    dialect = parts.dialect(voice["dialect"])
    return kind, recorded(kind, read_rollouts(run), loaded.episodes, dialect), source


def _remarks(one: Profile, row: dict[str, Any]) -> None:
    """Print why this row is not yet comparable with published numbers."""
    if row.get("open_ended"):
        show.err.print(
            f"{one.name}: {row['open_ended']} rollouts stopped at a turn that agrees under these rules; "
            "PG and TSR are lower bounds"
        )
    if one.steps is not None and row["steps"] != one.steps:
        show.err.print(f"{one.name}: {row['steps']} steps here, {one.steps} in the whole protocol")
