"""From a run folder to a bundle. The same run, the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.disk import held
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.shipped import shipped
from guiderail.agent.types import Episode, Screenshot
from guiderail.agent.untrusted import is_file, read_file
from guiderail.envs.recordings.match import MatchRules
from guiderail.launch import parts
from guiderail.launch.submission import archive, scores
from guiderail.launch.submission.facts import facts
from guiderail.launch.submission.redact import Redactor
from guiderail.launch.submission.schema import (
    FORMAT,
    KINDS,
    MOST_ATTEMPTS,
    MOST_TURNS,
    Attempt,
    Claim,
    Declarations,
    Kind,
    Manifest,
    Turn,
    canonical,
    validate,
)
from guiderail.launch.submission.signature import sign
from guiderail.rl.runs.log import read_json, read_record, read_rollouts, reading
from guiderail.rl.runs.record import RunRecord

_TOLERANCE = 1e-9
UNSHOWN = ("mobilegym",)
"""Worlds whose screens show what others have rights in: their screenshots stay where they were made."""
_WEIGHTS = (".safetensors", ".json", ".jinja", ".txt", ".model")
WORLD = (
    "split",
    "language",
    "seeds",
    "size",
    "style",
    "suite",
    "scale",
    "max_steps",
    "device",
    "list",
    "task_seed",
    "combinations",
    "commit",
    "without_data",
)
"""What of a world's description a bundle keeps, as its settings."""


def build(
    run: Path, declared: Declarations, name: str | None = None, key: Path | None = None, data: str | None = None
) -> dict[str, bytes]:
    """The members of the bundle of a finished run. data: the recordings it was scored on, to bring their screenshots.

    Raises SetupError for what cannot be submitted, DataError where the run's own numbers are not those of its rows.
    """
    with held(run), reading(run):
        return _members(run, declared, name, key, data)


def _members(
    run: Path, declared: Declarations, name: str | None, key: Path | None, data: str | None
) -> dict[str, bytes]:
    record, metrics = read_record(run), read_json(run / "metrics.json")
    about, kind = record.about, record.kind
    if kind not in KINDS:
        raise SetupError(f"{run} is a {kind} run; submit one of guiderail evaluate, written with --out")
    if not isinstance(metrics, dict):
        raise DataError(f"{run / 'metrics.json'}:1", f"a JSON {type(metrics).__name__}, expected one object")
    clean = Redactor()
    known, shots = _known(record), _recorded_screens(record, data) if data is not None else {}
    rows = sorted((_attempt(row, record, known, shots, clean) for row in read_rollouts(run)), key=_place)
    if not rows:
        raise SetupError(f"{run} holds no attempts; run the evaluation again")
    if len(rows) > MOST_ATTEMPTS or sum(len(row.turns) for row in rows) > MOST_TURNS:
        raise SetupError(f"{run} has more than {MOST_ATTEMPTS} attempts or {MOST_TURNS} turns; split the run")
    lines = [canonical(row.model_dump(exclude_none=False)) for row in rows]
    found = scores.numbers(kind, [facts(row) for row in rows], _rules(run, record))
    check_run(run, kind, metrics, found)
    manifest = Manifest(
        format=FORMAT,
        name=clean.everything(name or about.model or "agent")[:200],
        kind=cast(Kind, kind),
        tasks=sorted(known or {row.task for row in rows}),
        samples=about.repeats or 1,
        seed=about.seed or 0,
        attempts=[Claim.of(row, _sha(line)) for row, line in zip(rows, lines, strict=True)],
        scores=found,
        rules=about.rules if kind in scores.RECORDINGS else None,
        provenance=clean.everything(_provenance(record, rows)),
        declarations=Declarations.model_validate(clean.everything(declared.model_dump())),
        redactions={},
    )
    manifest = manifest.model_copy(update={"redactions": dict(sorted(clean.counts.items()))})
    members = {
        archive.MANIFEST: (
            json.dumps(manifest.model_dump(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        ).encode(),
        archive.ATTEMPTS: "".join(line + "\n" for line in lines).encode(),
        **({} if kind in UNSHOWN else _screenshots(run, rows) if data is None else _shown(rows, shots)),
    }
    members[archive.SUMS] = archive.sums(archive.digests(members))
    if key is not None:
        members[archive.SIGNATURE] = sign(archive.root(members), key)
    return members


def _rules(run: Path, record: RunRecord) -> MatchRules | None:
    try:
        return scores.match_rules(record.kind, record.about.rules if record.kind in scores.RECORDINGS else None)
    except ValueError as error:
        raise DataError(f"{run / 'run.json'}:1", f"rules: {error}") from None


def check_run(run: Path, kind: str, metrics: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """The run's own headline and counts against those of its rows."""
    for name in (scores.headline(kind), "n", "unscored"):
        said, rows_give = metrics.get(name), found[name]
        if said != rows_give and not (said and rows_give and abs(said - rows_give) < _TOLERANCE):
            raise DataError(
                f"{run / 'metrics.json'}:1",
                f"{name} is {said}, its rollouts give {rows_give}; run the evaluation again",
            )


def _place(row: Attempt) -> tuple[str, int, int]:
    return row.unit, row.start or 0, row.sample


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- rows


def _known(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Task -> what its rows do not say: the budget (Pocket) or the cell (ScreenSpot); empty where
    the world does not list its tasks."""
    world, data = record.about.world or {}, record.about.data
    if record.kind == "pocket":
        from guiderail.envs.pocket.tasks import tasks

        chosen = tasks(int(world["tasks"]), record.about.seed or 0, world["split"], True, world["style"])
        return {task.id: {"budget": task.max_steps} for task in chosen}
    if record.kind == "screenspot" and data is not None:
        from guiderail.rl.score.screenspot import cell

        return {episode.id: {"group": " ".join(cell(episode))} for episode in _recordings(record, data.path)}
    return {}


def _recordings(record: RunRecord, path: str) -> Sequence[Episode]:
    source = record.about.data
    if source is None:
        raise SetupError("this run was not scored on recordings; leave --data out")
    return parts.dataset_of(source, path).episodes


def _recorded_screens(record: RunRecord, path: str) -> dict[tuple[str, int], Screenshot]:
    """(episode, step) -> what was shown there."""
    return {(e.id, t): step.screenshot for e in _recordings(record, path) for t, step in enumerate(e.steps)}


def _shown(rows: Sequence[Attempt], shots: Mapping[tuple[str, int], Screenshot]) -> dict[str, bytes]:
    """The recordings' screenshots that the rows name; none where they are not all PNG."""
    wanted = {turn.screenshot for row in rows for turn in row.turns}
    found = {f"screenshots/{shot.digest}.png": shot.encoded() for shot in shots.values() if shot.digest in wanted}
    return found if all(archive.picture_problem(data) is None for data in found.values()) else {}


def _attempt(
    row: Mapping[str, Any],
    record: RunRecord,
    known: Mapping[str, Mapping[str, Any]],
    shots: Mapping[tuple[str, int], Screenshot],
    clean: Redactor,
) -> Attempt:
    """A line of the run as one of the bundle. Raises DataError for a line that is not one."""
    kind, unit, world = record.kind, row["unit"], record.about.world or {}
    live = kind not in scores.RECORDINGS
    turns = [turn | {"screenshot": shots[unit, turn["index"]].digest} if shots else turn for turn in row["turns"]]
    content = {
        "unit": unit,
        "start": row.get("start", 0) if kind == "offline" else None,
        "sample": row["sample"],
        "ended": row["ended"],
        "goal": clean.secrets(row.get("goal", "")),
        "outcome": clean.everything(row.get("outcome")),
        "reason": clean.everything(row.get("reason", "")),
        "steps": row.get("steps"),
        "seed": record.about.seed or 0,
        "budget": row["steps"] if kind == "sop" else world.get("max_steps") or None if live else 1,
        "group": row.get("template"),
        "turns": [_turn(turn, clean) for turn in turns],
    }
    try:
        return validate(Attempt, content | dict(known.get(unit, {})))
    except ValueError as error:
        raise DataError(f"rollouts.jsonl, {unit!r} sample {row['sample']}", str(error)) from None


def _turn(turn: Mapping[str, Any], clean: Redactor) -> Turn:
    written = ("text", "thought", "action", "note")
    row = {
        name: clean.secrets(turn[name]) if name in written else turn[name] for name in Turn.model_fields if name in turn
    }
    return validate(Turn, row)


def _screenshots(run: Path, rows: Sequence[Attempt]) -> dict[str, bytes]:
    """The run's images that its rows name. All or none: a partial set would look like a whole one."""
    folder = run / "images"
    wanted = sorted({turn.screenshot for row in rows for turn in row.turns if turn.screenshot})
    if not folder.is_dir():
        return {}
    found = {}
    for digest in wanted:
        file = folder / f"{digest}.png"
        if not is_file(file):
            raise DataError(str(file), "the screenshot of a recorded turn is missing; restore it or remove images/")
        found[f"screenshots/{digest}.png"] = read_file(file, str(file))
    return found


# ---------------------------------------------------------------------------------------------------------- provenance


def _provenance(record: RunRecord, rows: Sequence[Attempt]) -> dict[str, Any]:
    """commit: the one of all legs. dirty: whether any of them had local changes."""
    about, world, legs = record.about, record.about.world or {}, record.legs
    voice = about.voice or {}
    dialect = DIALECTS.get(voice.get("dialect", ""))
    commits = {leg.commit for leg in legs}
    settings = {"world": world["name"]} if "name" in world else {}
    settings |= {name: world[name] for name in WORLD if name in world}
    how = {"repeats": about.repeats, "options": about.options, "temperature": about.temperature, "voice": about.voice}
    return {
        "commit": commits.pop() if len(commits) == 1 else None,
        "dirty": any(leg.dirty for leg in legs),
        "legs": [leg.model_dump(mode="json", exclude={"about"}) for leg in legs],
        "started": record.started,
        "config_sha256": _sha(canonical({"kind": record.kind, "about": about.model_dump(mode="json")})),
        "settings": settings | {name: value for name, value in how.items() if value is not None},
        "model": about.model,
        "weights": _weights(Path(shipped(about.model))) if about.model else None,
        "dialect": voice.get("dialect"),
        "prompt_sha256": _sha(dialect.system) if dialect is not None else None,
        "data": about.data and about.data.model_dump(mode="json"),
        "parts": about.parts or {},
        "judge": _judge(record),
        "resolutions": sorted({"x".join(map(str, turn.screen)) for row in rows for turn in row.turns}),
        "environment": {"platform": legs[-1].versions.get("platform")},
    }


def _judge(record: RunRecord) -> dict[str, Any]:
    """What decided about success. Of a judge model not its server, which is somebody's own."""
    about, asked = record.about, (record.about.world or {}).get("judge")
    if about.rules:
        return {"rules": about.rules.get("name")}
    if isinstance(asked, dict):
        return {"model": asked.get("model"), "mode": asked.get("mode")}
    return {"check": "state of the device"}


def _weights(model: Path) -> dict[str, str] | None:
    """SHA-256 of a local model's files; None for a server, a hub id or a script."""
    if not model.is_dir():
        return None
    files = sorted(file for file in model.iterdir() if file.suffix in _WEIGHTS and file.is_file())
    hashes = {}
    for file in files:
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
