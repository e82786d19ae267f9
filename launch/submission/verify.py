"""Everything that can be checked with nothing but the bundle. A problem names its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch import parts
from launch.submission import archive, scores
from launch.submission.schema import Attempt, Manifest, parse

EXACT, RESAMPLED = 1e-9, 0.02
"""How far a claimed number may be from the rows': rounding, and for bootstrapped intervals another library's draws."""
_MOST_LINE = 2**24
_SHOWN = 100


@dataclass(frozen=True)
class Problem:
    place: str
    what: str


@dataclass(frozen=True)
class Checked:
    """A bundle as read. problems: empty for a sound one. signed_by: the public key, hex, of a valid signature."""

    path: Path
    root: str
    manifest: Manifest | None
    attempts: list[Attempt]
    screenshots: frozenset[str]
    problems: list[Problem]
    signed_by: str | None = None


def verify(path: Path) -> Checked:
    """Reads and checks; raises `archive.Refused` for what is not even an archive of the right kind."""
    members = archive.read(path)
    shots = frozenset(m[1] for name in members if (m := archive.SCREENSHOT.fullmatch(name)))
    problems = [Problem(place, what) for place, what in archive.wrong_sums(members)]
    problems += _pictures(members)
    signed_by, wrong = _signature(members)
    problems += wrong
    manifest: Manifest | None = None
    try:
        manifest = parse(Manifest, members[archive.MANIFEST])
    except ValueError as error:
        problems.append(Problem(archive.MANIFEST, str(error)))
    rows: list[Attempt] = []
    if manifest is not None:
        rows, wrong = _rows(members[archive.ATTEMPTS], manifest)
        problems += wrong + _complete(manifest, rows)
        problems += _screens(rows, shots)
        if len(rows) == len(manifest.attempts):
            problems += _numbers(manifest, rows)
    return Checked(path, archive.root(members), manifest, rows, shots, problems, signed_by)


def _pictures(members: Mapping[str, bytes]) -> list[Problem]:
    found = []
    for name, data in members.items():
        if (match := archive.SCREENSHOT.fullmatch(name)) is None:
            continue
        if hashlib.sha256(data).hexdigest() != match[1]:
            found.append(Problem(name, "its bytes are not those its name stands for"))
        elif (what := archive.picture_problem(data)) is not None:
            found.append(Problem(name, what))
    return found


def _rows(data: bytes, manifest: Manifest) -> tuple[list[Attempt], list[Problem]]:
    """Each line against its hash in the manifest, the schema, the seed, the budget and its own verdicts."""
    rows: list[Attempt] = []
    problems: list[Problem] = []
    lines = data.split(b"\n")
    if lines.pop() != b"" or len(lines) != len(manifest.attempts):
        problems.append(Problem(archive.ATTEMPTS, f"{len(lines)} lines, the manifest lists {len(manifest.attempts)}"))
    for number, line in enumerate(lines, 1):
        where = f"{archive.ATTEMPTS}:{number}"
        try:
            if len(line) > _MOST_LINE:
                raise ValueError(f"a line of {len(line)} bytes, at most {_MOST_LINE} are allowed")
            row = parse(Attempt, line)
        except ValueError as error:
            problems.append(Problem(where, str(error)))
            continue
        rows.append(row)
        what = f"task {row.task[:80]!r} trial {row.trial}"
        claim = manifest.attempts[number - 1] if number <= len(manifest.attempts) else None
        if claim is not None and (claim.task, claim.trial) != (row.task, row.trial):
            problems.append(Problem(where, f"{what}; the manifest lists {claim.task[:80]!r} trial {claim.trial}"))
        elif claim is not None and hashlib.sha256(line).hexdigest() != claim.sha256:
            problems.append(Problem(where, f"{what}: edited after the manifest was written"))
        if row.seed != manifest.seed:
            problems.append(Problem(f"{where} seed", f"{what}: {row.seed}, the manifest declares {manifest.seed}"))
        if row.budget is not None and len(row.turns) > row.budget:
            problems.append(Problem(f"{where} turns", f"{what}: {len(row.turns)} turns, the budget is {row.budget}"))
        if (said := scores.outcome(manifest.kind, row)) is not None:
            problems.append(Problem(f"{where} success", f"{what}: {said}"))
        if manifest.kind != "offline" and [turn.index for turn in row.turns] != list(range(len(row.turns))):
            problems.append(Problem(f"{where} turns", f"{what}: turns are not numbered 0, 1, 2, ..."))
    return rows, problems[:_SHOWN]


def _complete(manifest: Manifest, rows: Sequence[Attempt]) -> list[Problem]:
    """Declared tasks x trials, each once."""
    declared = {(task, trial) for task in manifest.tasks for trial in range(manifest.trials)}
    seen: set[tuple[str, int]] = set()
    problems = []
    if len(set(manifest.tasks)) < len(manifest.tasks):
        problems.append(Problem(f"{archive.MANIFEST} tasks", "a task is declared twice"))
    for number, row in enumerate(rows, 1):
        if (row.task, row.trial) in seen:
            problems.append(
                Problem(f"{archive.ATTEMPTS}:{number}", f"second attempt at {row.task[:80]!r} trial {row.trial}")
            )
        elif (row.task, row.trial) not in declared:
            problems.append(
                Problem(f"{archive.ATTEMPTS}:{number}", f"{row.task[:80]!r} trial {row.trial} is not declared")
            )
        seen.add((row.task, row.trial))
    for task, trial in sorted(declared - seen)[:_SHOWN]:
        problems.append(Problem(f"{archive.ATTEMPTS}", f"no attempt at {task[:80]!r} trial {trial}, which is declared"))
    return problems[:_SHOWN]


def _screens(rows: Sequence[Attempt], shots: frozenset[str]) -> list[Problem]:
    """A bundle brings all the screenshots its turns name, or none; and none that no turn names."""
    named = {turn.screenshot for row in rows for turn in row.turns if turn.screenshot is not None}
    problems = [Problem(f"screenshots/{one}.png", "no turn shows it") for one in sorted(shots - named)]
    for number, row in enumerate(rows, 1):
        for turn in row.turns if shots else ():
            if turn.screenshot is not None and turn.screenshot not in shots:
                where = f"{archive.ATTEMPTS}:{number} turns.{turn.index}.screenshot"
                problems.append(Problem(where, f"{turn.screenshot} is not in the bundle"))
    return problems[:_SHOWN]


def _numbers(manifest: Manifest, rows: Sequence[Attempt]) -> list[Problem]:
    try:
        found = json.loads(json.dumps(scores.numbers(manifest.kind, rows, manifest.rules)))
    except (TypeError, ValueError, ArithmeticError) as error:
        return [Problem(f"{archive.MANIFEST} rules", f"the numbers cannot be computed with these: {error}")]
    return _compare(f"{archive.MANIFEST} scores", manifest.scores, found)


def _compare(place: str, said: Any, found: Any) -> list[Problem]:
    if isinstance(said, dict) and isinstance(found, dict):
        return [p for key in [*found, *(k for k in said if k not in found)] for p in _entry(place, key, said, found)]
    if isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        return [p for i, (a, b) in enumerate(zip(said, found, strict=True)) for p in _compare(f"{place}.{i}", a, b)]
    near = RESAMPLED if "interval" in place else EXACT
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (said, found))
    if said == found or (numbers and abs(said - found) <= near):
        return []
    return [Problem(place, f"claimed {str(said)[:80]}, the attempts give {str(found)[:80]}")]


def _entry(place: str, key: str, said: Mapping[str, Any], found: Mapping[str, Any]) -> list[Problem]:
    if key not in said or key not in found:
        return [Problem(f"{place}.{key[:80]}", "missing" if key not in said else "not a number of this kind of run")]
    return _compare(f"{place}.{key}", said[key], found[key])


def _signature(members: Mapping[str, bytes]) -> tuple[str | None, list[Problem]]:
    """(public key of a valid signature, problems)."""
    if archive.SIGNATURE not in members:
        return None, []
    parts.require("cryptography", "submit")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        content = json.loads(members[archive.SIGNATURE])
        public, signature = str(content["public_key"]), bytes.fromhex(str(content["signature"]))
        if content["algorithm"] != "Ed25519" or content["root"] != archive.root(members):
            raise ValueError("it signs another bundle")
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, archive.root(members).encode())
    except InvalidSignature:
        return None, [Problem(archive.SIGNATURE, "the signature is not valid")]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return None, [Problem(archive.SIGNATURE, f"not a signature of this bundle: {error}")]
    return public, []
