"""The run folder: everything needed to re-compute a number without the model.

    run.json         what the run is about, and per leg: command, versions, commit, times (rl/runs/record.py)
    rollouts.jsonl   one line per rollout: every turn's text, verdict, repair, reward, advantage (rl/runs/rows.py)
    likelihood.jsonl one line per scored expert turn (guiderail evaluate likelihood)
    passed_over.jsonl one line per group that was not sampled because of its expected difficulty
    lessons.jsonl    one line per turn that a teacher scored: the probability of each token (rl/train/lessons.py)
    metrics.json     the result; its presence says that the run is finished

Lines are keyed by unit and sample, never by order.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from guiderail.agent import origin
from guiderail.agent.disk import append_whole, cut_torn_line, locked, write_whole
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Prompt
from guiderail.agent.untrusted import is_file, read_file
from guiderail.rl.runs import record, rows, schema
from guiderail.rl.runs.record import VERSION, About, Leg, MayChange, RunRecord, nothing, refuse_changes

LINES = ("rollouts.jsonl", "likelihood.jsonl", "passed_over.jsonl", "lessons.jsonl")


MARK_EVERY = 10.0
"""Seconds between two notes in run.json of how long a leg has run."""


class RunLog:
    """Writes one run folder, alone: it is locked until `close`. See `run_log`, which closes it."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        about: About | Mapping[str, Any],
        *,
        resume: bool | None = False,
        may_change: MayChange = nothing,
    ):
        made = about if isinstance(about, About) else About.model_validate(dict(about))
        self.folder = folder
        self._lock = ExitStack()
        self._lock.enter_context(locked(folder))
        try:
            legs = _legs(folder, kind, made, resume, may_change)
            if not legs:
                for name in LINES:
                    (folder / name).unlink(missing_ok=True)
            self._started = self._marked = time.monotonic()
            self.record = RunRecord(kind=kind, legs=(*legs, _leg(made)))
            write_json(folder / "run.json", self.record.content())
        except BaseException:
            self._lock.close()
            raise

    @property
    def seconds(self) -> float:
        """Of all legs so far; of a killed one, until its last line or checkpoint."""
        *earlier, _ = self.record.legs
        return sum(leg.seconds or 0.0 for leg in earlier) + time.monotonic() - self._started

    def line(self, row: Mapping[str, Any], name: str = "rollouts.jsonl") -> None:
        """Append one line, which is whole or absent after a full disk. After a crash the last one may be torn: the next leg
        removes it."""
        self._unfinished()
        append_whole(self.folder / name, _encoded(row) + b"\n")
        if time.monotonic() - self._marked > MARK_EVERY:
            self.mark()

    def mark(self) -> None:
        """Note in run.json how long this leg has run, for the case that it is killed."""
        self._unfinished()
        *legs, leg = self.record.legs
        self._marked = time.monotonic()
        done = leg.model_copy(update={"seconds": round(self._marked - self._started, 3)})
        self.record = self.record.model_copy(update={"legs": (*legs, done)})
        write_json(self.folder / "run.json", self.record.content())

    def _unfinished(self) -> None:
        """A leg that adds to a finished run makes it unfinished."""
        (self.folder / "metrics.json").unlink(missing_ok=True)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write the seconds of this leg into run.json, then the result."""
        self.mark()
        write_json(self.folder / "metrics.json", dict(metrics))

    def close(self) -> None:
        """Let others write. A run that left nothing to go on from leaves no record either."""
        if not holds_results(self.folder):
            (self.folder / "run.json").unlink(missing_ok=True)
        self._lock.close()


@contextmanager
def run_log(
    folder: Path | None,
    kind: str,
    about: About | Mapping[str, Any],
    *,
    resume: bool | None = False,
    may_change: MayChange = nothing,
) -> Iterator[RunLog | None]:
    """The log of a run, open inside the `with`; None without a folder.

    about: an `About`, or its fields. resume: True goes on with what the folder holds, or starts where it holds nothing.
    False starts, and is refused where there is something to go on with. None: a kind of run that cannot be resumed; only a
    finished one is in its way. may_change: see `rl.runs.record.refuse_changes`. Raises SetupError.
    """
    if folder is None:
        yield None
        return
    log = RunLog(folder, kind, about, resume=resume, may_change=may_change)
    try:
        yield log
    finally:
        log.close()


def holds_results(folder: Path) -> bool:
    """Whether a run has left anything to read or to go on from."""
    lines = any((folder / name).is_file() and (folder / name).stat().st_size for name in LINES)
    return lines or (folder / "metrics.json").exists() or any(folder.glob("checkpoint-*/complete.json"))


def refuse_filled(folder: Path, resume: bool | None) -> None:
    """Raises SetupError where a run must not start since it would write over another. resume: as for `run_log`."""
    if not (folder / "run.json").exists():
        return
    if resume is None and (folder / "metrics.json").exists():
        raise SetupError(f"{folder} already holds a finished run; give another --out")
    if resume is False and holds_results(folder):
        raise SetupError(f"{folder} already holds a run; give another --out, or --resume to go on with it")


def _leg(about: About) -> Leg:
    commit, dirty = origin.commit()
    return Leg(
        command=tuple(sys.argv[1:]),
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=None,
        versions=origin.versions(),
        commit=commit,
        dirty=dirty,
        about=about,
    )


def _legs(folder: Path, kind: str, about: About, resume: bool | None, may_change: MayChange) -> tuple[Leg, ...]:
    """The legs of the run that this one goes on with. Raises SetupError where it must not be written over or gone on with."""
    refuse_filled(folder, resume)
    if not resume or not (folder / "run.json").exists():
        return ()
    before = read_record(folder)
    if before.kind != kind:
        raise SetupError(f"{folder} holds a {before.kind} run, not a {kind} run; give another --out")
    refuse_changes(folder, before.about, about, may_change)
    upgrade(folder)
    return before.legs


def prompt_digest(prompt: Prompt) -> str:
    """SHA-256, hex, of everything the policy was shown: roles, texts, pictures by content and size."""
    shown = [
        [m.role, *(p if isinstance(p, str) else [p.screenshot.digest, p.width, p.height] for p in m.parts)]
        for m in prompt.messages
    ]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------- reading


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Around what computes with a run folder: lines that keep to the schema may still contradict each other or the record, and
    the folder may come from somebody else. Raises DataError for that."""
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        StopIteration,
        RecursionError,
    ) as error:
        reason = f"{type(error).__name__} {error}"[:300]
        raise DataError(
            str(folder), f"its files contradict each other, so this cannot be computed: {reason}"
        ) from error


def read_record(folder: Path) -> RunRecord:
    """run.json of any version as the present model. Raises SetupError for no such run or one of a later version, DataError
    for what is not a record."""
    path = folder / "run.json"
    content = read_json(path)
    try:
        return RunRecord.model_validate(record.convert(content) if version(folder) < VERSION else content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}:1", f"{place}: {first['msg']}, got {str(first['input'])[:80]!r}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}:1", f"not a run record of version 1: {type(error).__name__} {error}") from None


def version(folder: Path) -> int:
    """The schema version of a run folder; 1 where run.json names none. Raises SetupError for a later one than this reads."""
    path = folder / "run.json"
    if not path.is_file():
        return VERSION
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}:1", f"a JSON {type(content).__name__}, expected one object")
    found = content.get("version", 1)
    if isinstance(found, bool) or not isinstance(found, int) or found not in range(1, VERSION + 1):
        raise SetupError(f"{path} has version {found!r}, this Guiderail reads up to {VERSION}; install a newer one")
    return int(found)


def read_rollouts(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's rollouts.jsonl in the present schema (rl/runs/rows.py). Raises SetupError for no such run,
    DataError for a broken line."""
    old = version(folder) < VERSION
    for number, row in enumerate(read_lines(folder, "rollouts.jsonl"), 1):
        where = f"{folder / 'rollouts.jsonl'}:{number}"
        try:
            row = rows.convert(row) if old else row
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(where, f"not a rollout of version 1: {type(error).__name__} {error}") from None
        try:
            schema.check(row)
        except ValueError as error:
            raise DataError(where, f"not a rollout: {error}") from None
        yield row


def read_lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file of a run. Raises SetupError for no such run, DataError for a broken line."""
    path = folder / name
    if not path.is_file():
        raise SetupError(f"{folder} is not a run folder: no {name} in it")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}", f"not JSON: {error}"[:300]) from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}", f"a JSON {type(row).__name__}, expected one object per line")
            yield row


# ------------------------------------------------------------------------------------------------------------- resuming


def upgrade(folder: Path) -> None:
    """Make a run folder one that can be gone on with, in place: without a last line that a kill has torn, and in the
    present version, since a resumed run must not mix two schemas. run.json comes last, and lines that are converted already
    stay as they are, so an upgrade that was interrupted can be done again."""
    for name in LINES:
        cut_torn_line(folder / name)
    if version(folder) == VERSION:
        return
    content = read_record(folder).content()
    if (folder / "rollouts.jsonl").exists():
        _write_lines(folder / "rollouts.jsonl", [*read_rollouts(folder)])
    write_json(folder / "run.json", content)


def drop_lines(folder: Path, stale: Callable[[Mapping[str, Any]], bool], name: str = "rollouts.jsonl") -> None:
    """Remove lines that a resumed run is about to write again. The folder is upgraded first, so that `stale` sees lines of
    the present schema."""
    upgrade(folder)
    if (folder / name).exists():
        _write_lines(folder / name, [row for row in read_lines(folder, name) if not stale(row)])


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Whole or not at all."""
    write_whole(path, b"".join(_encoded(line) + b"\n" for line in lines))


# --------------------------------------------------------------------------------------------------------------- files


def read_json(path: Path) -> Any:
    if not is_file(path):
        raise SetupError(f"{path} is not there; is {path.parent} a run folder?")
    try:
        return json.loads(read_file(path, f"{path}:1", "file"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:1", f"not JSON: {error}"[:300]) from None


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    write_whole(path, _encoded(content, indent=2) + b"\n")


def _encoded(content: Any, indent: int | None = None) -> bytes:
    """JSON in UTF-8. Half of a surrogate pair, which a server's text may hold, stays JSON's own escape."""
    return json.dumps(content, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace")
