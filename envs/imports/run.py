"""One import: units over processes, resumable, then joined into `episodes.jsonl` with its card."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from agent.errors import DataError, EnvCrashed, SetupError
from envs.imports.aitw import AITW
from envs.imports.androidcontrol import ANDROID_CONTROL
from envs.imports.card import card
from envs.imports.draft import Format, Options, Unit
from envs.imports.odyssey import ODYSSEY
from envs.imports.screenspot import SCREENSPOT_PRO, SCREENSPOT_V2
from envs.imports.uis1 import UIS1
from envs.imports.writer import Journal, join, journal_path, reason_of, write_unit, write_whole

VERSION = 1
FORMATS: dict[str, Format] = {
    form.name: form for form in (ANDROID_CONTROL, AITW, ODYSSEY, SCREENSPOT_V2, SCREENSPOT_PRO, UIS1)
}


@dataclass(frozen=True, slots=True)
class Progress:
    """done and total in bytes of the sources; resumed: bytes that an earlier run had finished."""

    done: int
    total: int
    resumed: int
    units: int
    units_done: int


def run_import(
    name: str,
    sources: Sequence[Path],
    out: Path,
    options: Options = Options(),  # noqa: B008 - frozen
    jobs: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Journal:
    """Import `sources` of format `name` into the folder `out`; returns the counts that the card shows.

    jobs: processes; 1 works in this one. Units finished by an earlier, interrupted run with the same arguments are kept.
    Raises SetupError when `out` is in use, complete or holds another import, DataError for the first broken unit, after
    all others are done, EnvCrashed when a worker process died.
    """
    form = FORMATS[name]
    units = form.units(sources, options)
    if (out / "episodes.jsonl").exists():
        raise SetupError(f"{out} already holds episodes.jsonl; choose another folder or delete it first")
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _same_import(form, units, out, options)
        todo = [index for index in range(len(units)) if not journal_path(out, index).exists()]
        watch = _Watch(units, todo, progress)
        errors = list(_alone(form, units, out, options, todo, watch) if jobs == 1 else [])
        if jobs > 1 and todo:
            errors = _together(form, units, out, options, todo, watch, jobs)
        if errors:
            raise _one_of(errors, len(todo))
        total = join(form, units, out, options)
        total["images"] = sum(1 for _ in out.glob("images/*/*"))
        if not total["episodes"]:
            raise DataError(f"{units[0].paths[0]}:1", f"no usable episode: {_reasons(total)}")
        _finish(form, units, out, options, total)
    return total


def _finish(form: Format, units: list[Unit], out: Path, options: Options, total: Journal) -> None:
    if total["dropped"]:
        rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in total["dropped"])
        write_whole(out / "dropped.jsonl", rows.encode())
    write_whole(out / "DATASET.md", card(form, units, options, total).encode())
    os.replace(out / "episodes.jsonl.part", out / "episodes.jsonl")
    for path in out.glob(".import*"):
        path.unlink()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    with (out / ".import.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupError(f"another import is writing to {out}; wait for it or choose another folder") from None
        yield


def _same_import(form: Format, units: list[Unit], out: Path, options: Options) -> None:
    """Refuse to mix two imports in a folder. `skip_bad` may differ: finished units had nothing bad in them."""
    wanted = {
        "version": VERSION,
        "format": form.name,
        "options": {k: str(v) for k, v in asdict(options).items() if k != "skip_bad"},
        "units": [[u.name, [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in u.paths]] for u in units],
    }
    plan = out / ".import.json"
    if plan.exists() and json.loads(plan.read_bytes()) != wanted:
        raise SetupError(
            f"{out} holds an unfinished import of other files or with other options; choose another folder or delete it"
        )
    write_whole(plan, json.dumps(wanted).encode())
    for leftover in (*out.glob(".import-*.part.jsonl"), *out.glob(".*.part"), *out.glob("images/*/.*.part")):
        leftover.unlink()


class _Watch:
    """Adds up what the units report."""

    def __init__(self, units: list[Unit], todo: list[int], report: Callable[[Progress], None]):
        self.sizes = [unit.size for unit in units]
        self.at = dict.fromkeys(todo, 0)
        self.resumed = sum(size for index, size in enumerate(self.sizes) if index not in self.at)
        self.finished = len(units) - len(todo)
        self.report = report
        self.tell()

    def tick(self, index: int, consumed: int) -> None:
        self.at[index] = min(consumed, self.sizes[index])
        self.tell()

    def end(self, index: int) -> None:
        self.finished += 1
        self.tick(index, self.sizes[index])

    def tell(self) -> None:
        done = self.resumed + sum(self.at.values())
        self.report(Progress(done, sum(self.sizes), self.resumed, len(self.sizes), self.finished))


def _alone(
    form: Format, units: list[Unit], out: Path, options: Options, todo: list[int], watch: _Watch
) -> Iterator[Exception]:
    for index in todo:
        try:
            write_unit(form, units[index], index, out, options, lambda consumed, i=index: watch.tick(i, consumed))  # type: ignore[misc]
            watch.end(index)
        except DataError as error:
            yield error


def _together(
    form: Format, units: list[Unit], out: Path, options: Options, todo: list[int], watch: _Watch, jobs: int
) -> list[Exception]:
    """One process per unit, `jobs` at a time. They are daemons: an interrupted parent takes them along."""
    context = multiprocessing.get_context("spawn")
    errors: list[Exception] = []
    waiting = list(reversed(todo))
    running: dict[Any, tuple[Any, int]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            index = waiting.pop()
            hear, tell = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(tell, form.name, units[index], index, out, options), daemon=True
            )
            process.start()
            tell.close()
            running[hear] = process, index
        ready = set(connection.wait(list(running)))
        for hear in [pipe for pipe in running if pipe in ready]:
            process, index = running[hear]
            try:
                said = hear.recv()
            except EOFError:
                raise EnvCrashed(
                    f"the process that read {units[index].name} died (killed, or out of memory); finished files are kept: "
                    "run the same command again, with fewer --jobs if memory is short"
                ) from None
            if isinstance(said, int):
                watch.tick(index, said)
                continue
            process.join()
            del running[hear]
            if isinstance(said, tuple):
                kind, where, reason = said
                errors.append(DataError(where, reason) if kind == "data" else SetupError(reason))
            else:
                watch.end(index)
    return errors


def _work(tell: Any, name: str, unit: Unit, index: int, out: Path, options: Options) -> None:
    """In a process of its own: tells bytes read, then None for done or (who must act, where, reason)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        write_unit(FORMATS[name], unit, index, out, options, tell.send)
        tell.send(None)
    except DataError as error:
        tell.send(("data", error.where, reason_of(error)))
    except SetupError as error:
        tell.send(("setup", "", str(error)))


def _follow_parent() -> None:
    """A worker must not outlive a killed parent: it would write beside the next run."""
    if (parent := multiprocessing.parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _one_of(errors: list[Exception], units: int) -> Exception:
    """The first error, with how many more files are like it."""
    first = errors[0]
    if len(errors) > 1 and isinstance(first, DataError):
        more = f"; {len(errors)} of {units} files could not be imported, the others are kept for the next run"
        return DataError(first.where, reason_of(first) + more)
    return first


def _reasons(total: Journal) -> str:
    reasons = Counter(row["reason"] for row in total["dropped"]) + Counter(total["unlisted"])
    return "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3)) or "the files are empty"
