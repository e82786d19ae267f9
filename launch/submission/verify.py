"""Everything that can be checked with nothing but the bundle. A problem names its place; after MOST_PROBLEMS the search ends.

Any file of 50 MB is answered within 10 seconds and 300 MB: what is read is bounded before it is built (`archive`, `schema`), and
rows are reduced to what counts (`facts`) one by one.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from guiderail.launch.submission import archive, format1, scores
from guiderail.launch.submission.facts import Facts, facts
from guiderail.launch.submission.schema import (
    MOST_ROW_VALUES,
    MOST_TURNS,
    Attempt,
    Claim,
    Manifest,
    load,
    parse,
    validate,
    values_in,
)
from guiderail.launch.submission.signature import signer

EXACT, RESAMPLED = 1e-9, 0.02
"""How far a claimed number may be from the rows': rounding, and for bootstrapped intervals another library's draws."""
MOST_PROBLEMS = 50
_MOST_LINE = 2**22


@dataclass(frozen=True)
class Problem:
    place: str
    what: str


@dataclass(frozen=True)
class Checked:
    """A bundle as read. problems: empty for a sound one; there may be more than the MOST_PROBLEMS listed. attempts: those that
    were read before the search ended. signed_by: the public key, hex, of a valid signature."""

    path: Path
    root: str
    manifest: Manifest | None
    attempts: list[Facts]
    screenshots: frozenset[str]
    problems: list[Problem]
    signed_by: str | None = None


def verify(path: Path) -> Checked:
    """Reads and checks; raises `archive.Refused` for what is not even an archive of the right kind."""
    found = archive.read(path)
    shots = frozenset(m[1] for name in found.digests if (m := archive.SCREENSHOT.fullmatch(name)))
    rows: list[Facts] = []
    manifest: Manifest | None = None
    signed_by, unsigned = signer(found)
    forms = [Problem(archive.SIGNATURE, unsigned)] if unsigned is not None else []
    try:
        manifest, read = _manifest(found.texts[archive.MANIFEST])
    except ValueError as error:
        forms.append(Problem(archive.MANIFEST, str(error)))

    def search() -> Iterator[Problem]:
        yield from (Problem(place, what) for place, what in archive.wrong_sums(found))
        yield from (Problem(name, what) for name, what in found.wrong.items())
        yield from forms
        if manifest is not None:
            yield from _contents(manifest, found.texts[archive.ATTEMPTS], read, rows, shots)

    return Checked(path, found.root, manifest, rows, shots, list(islice(search(), MOST_PROBLEMS)), signed_by)


def first_answers(checked: Checked) -> Iterator[str]:
    """What the model said in the first turn of each attempt of a sound bundle, "" without a turn."""
    found = archive.read(checked.path)
    _, read = _manifest(found.texts[archive.MANIFEST])
    for line in found.texts[archive.ATTEMPTS].splitlines():
        turns = read(line).turns
        yield turns[0].text if turns else ""


Read = Callable[[bytes], Attempt]


def _manifest(data: bytes) -> tuple[Manifest, Read]:
    """The manifest, and how its lines are read: format 1 had other names. Raises ValueError."""
    content = load(data)
    if isinstance(content, dict) and content.get("format") == format1.FORMAT1:
        manifest = format1.manifest(content)
        return manifest, lambda line: format1.attempt(manifest.kind, load(line))
    return validate(Manifest, content), lambda line: parse(Attempt, line)


def _contents(
    manifest: Manifest, lines: bytes, read: Read, rows: list[Facts], shots: frozenset[str]
) -> Iterator[Problem]:
    """Everything about manifest and attempts. rows: filled on the way."""
    yield from _tasks(manifest)
    yield from _rows(lines, manifest, read, rows)
    yield from _complete(manifest, rows)
    yield from _screens(rows, shots)
    if len(rows) == len(manifest.attempts):
        yield from _numbers(manifest, rows)


def _tasks(manifest: Manifest) -> Iterator[Problem]:
    """Declared once, also to the eye: a name may not differ from another in how it is encoded, or in what is not visible."""
    seen: dict[str, str] = {}
    for task in manifest.tasks:
        looks = "".join(c for c in unicodedata.normalize("NFC", task) if not _invisible(c))
        if (before := seen.get(looks)) is not None:
            what = "a task is declared twice" if before == task else "two tasks look alike"
            yield Problem(f"{archive.MANIFEST} tasks", f"{what}: {task[:80]!a}")
        seen[looks] = task


def _invisible(c: str) -> bool:
    """Control and format characters, and variation selectors."""
    return unicodedata.category(c) in ("Cc", "Cf") or "\ufe00" <= c <= "\ufe0f" or c == "\u034f"


def _rows(data: bytes, manifest: Manifest, read: Read, rows: list[Facts]) -> Iterator[Problem]:
    """Each line against its hash in the manifest, the schema, the seed, the budget and its own verdicts."""
    count = data.count(b"\n")
    if data[-1:] not in (b"\n", b"") or count != len(manifest.attempts):
        yield Problem(archive.ATTEMPTS, f"{count} lines, the manifest lists {len(manifest.attempts)}")
    turns = values = position = 0
    for number, claim in enumerate([*manifest.attempts, None], 1):
        if position >= len(data):
            return
        end = data.find(b"\n", position) % (len(data) + 1)
        line, position = data[position:end], end + 1
        where = f"{archive.ATTEMPTS}:{number}"
        try:
            values += values_in(line)
            if len(line) > _MOST_LINE:
                raise ValueError(f"a line of {len(line)} bytes, at most {_MOST_LINE} are allowed")
            if values > MOST_ROW_VALUES:
                raise ValueError(f"more than {MOST_ROW_VALUES} values in all attempts")
            attempt = read(line)
        except ValueError as error:
            yield Problem(where, str(error))
            continue
        turns += len(attempt.turns)
        if turns > MOST_TURNS:
            yield Problem(where, f"more than {MOST_TURNS} turns in all attempts; the rest is not read")
            return
        rows.append(row := facts(attempt))
        yield from _row(where, manifest, row, attempt, claim, line)


def _row(
    where: str, manifest: Manifest, row: Facts, attempt: Attempt, claim: Claim | None, line: bytes
) -> Iterator[Problem]:
    what = attempt.words
    if claim is None:
        yield Problem(where, f"{what} is not listed in the manifest")
    elif not claim.same(attempt):
        yield Problem(where, f"{what}; the manifest lists {claim.words}")
    elif hashlib.sha256(line).hexdigest() != claim.sha256:
        yield Problem(where, f"{what}: edited after the manifest was written")
    if row.seed != manifest.seed:
        yield Problem(f"{where} seed", f"{what}: {row.seed}, the manifest declares {manifest.seed}")
    if row.budget is not None and len(row.turns) > row.budget:
        yield Problem(f"{where} turns", f"{what}: {len(row.turns)} turns, the budget is {row.budget}")
    loose = (manifest.rules or {}).get("loose") is True
    if (said := scores.contradiction(manifest.kind, row, loose)) is not None:
        yield Problem(f"{where} outcome", f"{what}: {said}")
    yield from _numbered(where, manifest.kind, attempt)


def _numbered(where: str, kind: str, row: Attempt) -> Iterator[Problem]:
    """Only single steps start inside a recording, and a crashed one may have lost which it was."""
    if (row.start is not None) != (kind == "offline") and row.ended != "crashed":
        expected = (
            "a single step names its step" if kind == "offline" else "only a single step of a recording has a start"
        )
        yield Problem(f"{where} start", f"{row.words}: {expected}")
        return
    first = row.start or 0
    if any(turn.index != i for i, turn in enumerate(row.turns, first)):
        yield Problem(f"{where} turns", f"{row.words}: turns are not numbered {first}, {first + 1}, {first + 2}, ...")


def _complete(manifest: Manifest, rows: Sequence[Facts]) -> Iterator[Problem]:
    """Declared tasks x samples, each once. Never more pairs are made than there are attempts, and problems."""
    tasks = set(manifest.tasks)
    seen: set[tuple[str, int]] = set()
    for number, row in enumerate(rows, 1):
        key, words = (row.task, row.sample), f"{row.task[:80]!r} sample {row.sample}"
        if key in seen:
            yield Problem(f"{archive.ATTEMPTS}:{number}", f"second attempt at {words}")
        elif row.task not in tasks or row.sample >= manifest.samples:
            yield Problem(f"{archive.ATTEMPTS}:{number}", f"{words} is not declared")
        seen.add(key)
    for task in sorted(tasks):
        for sample in range(manifest.samples):
            if (task, sample) not in seen:
                yield Problem(archive.ATTEMPTS, f"no attempt at {task[:80]!r} sample {sample}, which is declared")


def _screens(rows: Sequence[Facts], shots: frozenset[str]) -> Iterator[Problem]:
    """A bundle brings all the screenshots its turns name, or none; and none that no turn names."""
    named = {turn.screenshot for row in rows for turn in row.turns if turn.screenshot is not None}
    yield from (Problem(f"screenshots/{one}.png", "no turn shows it") for one in sorted(shots - named))
    for number, row in enumerate(rows, 1):
        for index, turn in enumerate(row.turns if shots else (), row.start or 0):
            if turn.screenshot is not None and turn.screenshot not in shots:
                where = f"{archive.ATTEMPTS}:{number} turns.{index}.screenshot"
                yield Problem(where, f"{turn.screenshot} is not in the bundle")


def _numbers(manifest: Manifest, rows: Sequence[Facts]) -> Iterator[Problem]:
    try:
        rules = scores.match_rules(manifest.kind, manifest.rules)
    except ValueError as error:
        yield Problem(f"{archive.MANIFEST} rules", str(error))
        return
    found = json.loads(json.dumps(scores.numbers(manifest.kind, rows, rules)))
    yield from _compare(f"{archive.MANIFEST} scores", manifest.scores, found)


def _compare(place: str, said: Any, found: Any, near: float = EXACT) -> Iterator[Problem]:
    if isinstance(said, dict) and isinstance(found, dict):
        for key in [*found, *(k for k in said if k not in found)]:
            yield from _entry(place, key, said, found)
    elif isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        for i, (a, b) in enumerate(zip(said, found, strict=True)):
            yield from _compare(f"{place}.{i}", a, b, near)
    elif not _equal(said, found, near):
        yield Problem(place, f"claimed {str(said)[:80]}, the attempts give {str(found)[:80]}")


def _equal(said: Any, found: Any, near: float) -> bool:
    """true is not 1."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in (said, found)):
        return bool(said == found or abs(said - found) <= near)
    return type(said) is type(found) and bool(said == found)


def _entry(place: str, key: str, said: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Problem]:
    if key not in said or key not in found:
        yield Problem(f"{place}.{key[:80]}", "missing" if key not in said else "not a number of this kind of run")
    else:
        resampled = key == "interval" or key.endswith("_interval")
        yield from _compare(f"{place}.{key[:80]}", said[key], found[key], RESAMPLED if resampled else EXACT)
