"""From a run folder to a bundle. The same run, the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.dialects import DIALECTS
from agent.errors import DataError, SetupError
from agent.types import Episode, Screenshot
from launch import parts
from launch.submission import archive, scores
from launch.submission.redact import Redactor
from launch.submission.schema import Attempt, Claim, Declarations, Manifest, Turn, canonical
from rl.runlog import read_json, read_rollouts

_TOLERANCE = 1e-9
_WEIGHTS = (".safetensors", ".json", ".jinja", ".txt", ".model")
_SETTINGS = ("world", "split", "size", "style", "suite", "scale", "max_steps", "repeats", "how", "temperature", "voice")


def build(
    run: Path, declared: Declarations, name: str | None = None, key: Path | None = None, data: str | None = None
) -> dict[str, bytes]:
    """The members of the bundle of a finished run. data: the recordings it was scored on, to bring their screenshots.

    Raises SetupError for what cannot be submitted, DataError where the run's own numbers are not those of its rows.
    """
    record, metrics = read_json(run / "run.json"), read_json(run / "metrics.json")
    kind = record["kind"]
    if kind in ("train", "gate", "rejudge"):
        raise SetupError(f"{run} is a {kind} run; submit one of guiderail evaluate, written with --out")
    clean = Redactor()
    about, shots = _about(record, kind), _recorded_screens(record, data) if data is not None else {}
    rows = sorted((_attempt(row, kind, record, about, shots, clean) for row in read_rollouts(run)), key=_place)
    if not rows:
        raise SetupError(f"{run} holds no attempts; run the evaluation again")
    lines = [canonical(row.model_dump(exclude_none=False)) for row in rows]
    found = scores.numbers(kind, rows, record.get("rules"))
    check_run(run, kind, metrics, found)
    manifest = Manifest(
        format="guiderail-submission/1",
        name=clean.everything(name or str(record.get("model") or "agent"))[:200],
        kind=kind,
        tasks=_tasks(record, kind, rows, about),
        trials=int(record.get("repeats", 1)),
        seed=int(record.get("seed", 0)),
        attempts=[
            Claim(task=row.task, trial=row.trial, sha256=_sha(line)) for row, line in zip(rows, lines, strict=True)
        ],
        scores=found,
        rules=record.get("rules"),
        provenance=clean.everything(_provenance(run, record, metrics, rows)),
        declarations=Declarations.model_validate(clean.everything(declared.model_dump())),
        redactions={},
    )
    manifest = manifest.model_copy(update={"redactions": dict(sorted(clean.counts.items()))})
    members = {
        archive.MANIFEST: (
            json.dumps(manifest.model_dump(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        ).encode(),
        archive.ATTEMPTS: "".join(line + "\n" for line in lines).encode(),
        **(_screenshots(run, rows) if data is None else _shown(rows, shots)),
    }
    members[archive.SUMS] = archive.sums(members)
    if key is not None:
        members[archive.SIGNATURE] = sign(archive.root(members), key)
    return members


def check_run(run: Path, kind: str, metrics: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """The run's own headline and counts against those of its rows."""
    for name in (scores.headline(kind), "n", "unscored"):
        said, rows_give = metrics.get(name), found[name]
        if said != rows_give and not (said and rows_give and abs(said - rows_give) < _TOLERANCE):
            raise DataError(
                f"{run / 'metrics.json'}:1",
                f"{name} is {said}, its rollouts give {rows_give}; run the evaluation again",
            )


def _place(row: Attempt) -> tuple[str, int]:
    return row.task, row.trial


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- rows


def _about(record: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Task -> what its rows do not say: the budget (Pocket) or the cell (ScreenSpot)."""
    if kind == "pocket":
        from envs.pocket.tasks import tasks

        chosen = tasks(int(record["tasks"]), int(record["seed"]), record["split"], True, record["style"])
        return {task.id: {"budget": task.max_steps} for task in chosen}
    if kind == "screenspot":
        from rl.screenspot import cell

        episodes = _recordings(record, record["data"]["path"])
        return {episode.id: {"group": " ".join(cell(episode))} for episode in episodes}
    return {}


def _recordings(record: Mapping[str, Any], path: str) -> Sequence[Episode]:
    source = record.get("data")
    if not isinstance(source, dict) or "digest" not in source:
        raise SetupError("this run was not scored on recordings; leave --data out")
    data = parts.dataset(path, source["screen"], source["swipes"], True, None)
    if data.digest != source["digest"]:
        raise SetupError(f"{path} is not the data of this run; give the same file with --data")
    return data.episodes


def _recorded_screens(record: Mapping[str, Any], path: str) -> dict[tuple[str, int], Screenshot]:
    """(episode, step) -> what was shown there."""
    return {(e.id, t): step.screenshot for e in _recordings(record, path) for t, step in enumerate(e.steps)}


def _shown(rows: Sequence[Attempt], shots: Mapping[tuple[str, int], Screenshot]) -> dict[str, bytes]:
    """The recordings' screenshots that the rows name; none where they are not all PNG."""
    wanted = {turn.screenshot for row in rows for turn in row.turns}
    found = {f"screenshots/{shot.digest}.png": shot.encoded() for shot in shots.values() if shot.digest in wanted}
    return found if all(archive.picture_problem(data) is None for data in found.values()) else {}


def _tasks(record: Mapping[str, Any], kind: str, rows: Sequence[Attempt], about: Mapping[str, Any]) -> list[str]:
    """What was to be attempted: the tasks of the world where it tells, else those that were."""
    return sorted(about or {row.task for row in rows})


def _attempt(
    row: Mapping[str, Any],
    kind: str,
    record: Mapping[str, Any],
    about: Mapping[str, Any],
    shots: Mapping[tuple[str, int], Screenshot],
    clean: Redactor,
) -> Attempt:
    seed = int(record.get("seed", 0))
    if kind not in scores.RECORDINGS:
        known = {"budget": row.get("max_steps") or record.get("max_steps")} | about.get(row["task"], {})
        return Attempt(
            task=row["task"],
            trial=int(row.get("trial", 0)),
            seed=seed,
            group=row.get("template"),
            goal=clean.secrets(row["goal"]),
            ending=row["ending"],
            success=row["success"],
            reason=clean.everything(row["reason"]),
            turns=[_turn(turn, clean) for turn in row["turns"]],
            **known,
        )
    crashed, name = row["ended"] == "crashed", row["episode_id"]
    seen = [shots[name, turn["index"]].digest if shots else None for turn in row["turns"]]
    turns = [_turn({**turn, "screenshot": shot}, clean) for turn, shot in zip(row["turns"], seen, strict=True)]
    one = Attempt(
        task=f"{name}/{row['index']}" if kind == "offline" and "index" in row else name,
        trial=int(row.get("sample", 0)),
        seed=seed,
        ending=row["ended"],
        success=None if crashed else False,
        budget=row["steps"] if kind == "sop" else 1,
        steps=row["steps"],
        turns=turns,
        **about.get(name, {}),
    )
    right = scores.matched(one) == (row["steps"] if kind == "sop" else 1)
    return one.model_copy(update={"success": None if crashed else right})


def _turn(turn: Mapping[str, Any], clean: Redactor) -> Turn:
    return Turn.model_validate(
        {
            "index": turn["index"],
            "screenshot": turn.get("screenshot"),
            "screen": turn["screen"],
            "text": clean.secrets(turn["text"]),
            "thought": clean.secrets(turn["thought"]),
            "action": clean.secrets(turn["action"]),
            "note": clean.secrets(turn.get("note", "")),
            "tokens": turn.get("tokens"),
            "verdict": turn.get("verdict"),
        }
    )


def _screenshots(run: Path, rows: Sequence[Attempt]) -> dict[str, bytes]:
    """The run's images that its rows name. All or none: a partial set would look like a whole one."""
    folder = run / "images"
    wanted = sorted({turn.screenshot for row in rows for turn in row.turns if turn.screenshot})
    if not folder.is_dir():
        return {}
    found = {}
    for digest in wanted:
        file = folder / f"{digest}.png"
        if not file.is_file():
            raise DataError(str(file), "the screenshot of a recorded turn is missing; restore it or remove images/")
        found[f"screenshots/{digest}.png"] = file.read_bytes()
    return found


# ---------------------------------------------------------------------------------------------------------- provenance


def _provenance(
    run: Path, record: Mapping[str, Any], metrics: Mapping[str, Any], rows: Sequence[Attempt]
) -> dict[str, Any]:
    voice = record.get("voice") or {}
    dialect = DIALECTS.get(voice.get("dialect", ""))
    configuration = {key: value for key, value in record.items() if key not in ("started", "versions", "command")}
    versions = dict(record.get("versions", {}))
    return {
        "commit": versions.pop("commit", None),
        "versions": versions,
        "command": record.get("command"),
        "config_sha256": _sha(canonical(configuration)),
        "settings": {key: record[key] for key in _SETTINGS if key in record},
        "model": record.get("model"),
        "weights": _weights(Path(str(record.get("model", "")))),
        "dialect": voice.get("dialect"),
        "prompt_sha256": _sha(dialect.system) if dialect is not None else None,
        "data": record.get("data"),
        "judge": {"rules": record["rules"]["name"]} if record.get("rules") else {"check": "state of the device"},
        "resolutions": sorted({"x".join(map(str, turn.screen)) for row in rows for turn in row.turns}),
        "environment": record.get("environment") or {"platform": versions.get("platform")},
        "started": record.get("started"),
        "seconds": metrics.get("seconds"),
    }


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


# ----------------------------------------------------------------------------------------------------------- signature


def sign(root: str, key: Path) -> bytes:
    """SIGNATURE.json. key: an Ed25519 private key in PEM, as `openssl genpkey -algorithm ed25519` writes it."""
    parts.require("cryptography", "submit")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"{key}: {error}; make a key with: openssl genpkey -algorithm ed25519 -out {key}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise SetupError(f"{key} is no Ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out key.pem")
    public = private.public_key().public_bytes_raw().hex()
    content = {
        "algorithm": "Ed25519",
        "public_key": public,
        "root": root,
        "signature": private.sign(root.encode()).hex(),
    }
    return (canonical(content) + "\n").encode()
