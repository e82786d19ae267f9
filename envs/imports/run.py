"""One import: its units in parallel processes, resumable, then joined into `episodes.jsonl` with its card."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from guiderail.agent.disk import locked
from guiderail.agent.errors import DataError, EnvCrashed, SetupError
from guiderail.envs.imports.aitw import AITW
from guiderail.envs.imports.androidcontrol import ANDROID_CONTROL
from guiderail.envs.imports.card import card
from guiderail.envs.imports.draft import Format, Options, Unit
from guiderail.envs.imports.odyssey import ODYSSEY
from guiderail.envs.imports.screenspot import SCREENSPOT_PRO, SCREENSPOT_V2
from guiderail.envs.imports.uis1 import UIS1
from guiderail.envs.imports.writer import Journal, join, journal_path, reason_of, write_unit, write_whole

VERSION = 2
FORMATS: dict[str, Format] = {
    form.name: form for form in (ANDROID_CONTROL, AITW, ODYSSEY, SCREENSPOT_V2, SCREENSPOT_PRO, UIS1)
}


@dataclass(frozen=True, slots=True)
class Progress:
    """done, total: bytes of the sources. resumed: bytes that an earlier run had finished."""

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
    if out.exists() and not out.is_dir():
        raise SetupError(f"{out} is a file; give --out another name, of the folder to write")
    with locked(out):
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


def _same_import(form: Format, units: list[Unit], out: Path, options: Options) -> None:
    """Refuse to mix two imports in a folder. `skip_bad` may differ: finished units had nothing bad in them."""
    wanted = {
        "version": VERSION,
        "format": form.name,
        "options": {k: str(v) for k, v in asdict(options).items() if k != "skip_bad"},
        "units": [[u.name, [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in u.paths]] for u in units],
    }
    plan = out / ".import.json"
    if plan.exists() and plan.read_bytes() != json.dumps(wanted).encode():
        raise SetupError(
            f"{out} holds an unfinished import of other files or with other options; choose another folder or delete it"
        )
    write_whole(plan, json.dumps(wanted).encode())
    for leftover in (*out.glob(".import-*.part.jsonl"), *out.glob(".*.part"), *out.glob("images/*/.*.part")):
        leftover.unlink()


class _Watch:
    """Adds up the progress of all units."""

    def __init__(self, units: list[Unit], todo: list[int], report: Callable[[Progress], None]):
        self.sizes = [unit.size for unit in units]
        self.at = dict.fromkeys(todo, 0)
        self.resumed = sum(size for index, size in enumerate(self.sizes) if index not in self.at)
        self.finished = len(units) - len(todo)
        self.report = report
        self._report_progress()

    def tick(self, index: int, consumed: int) -> None:
        self.at[index] = min(consumed, self.sizes[index])
        self._report_progress()

    def end(self, index: int) -> None:
        self.finished += 1
        self.tick(index, self.sizes[index])

    def _report_progress(self) -> None:
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
    """One process per unit, `jobs` at a time. They are daemons, so they end with an interrupted parent."""
    context = multiprocessing.get_context("spawn")
    errors: list[Exception] = []
    waiting = list(reversed(todo))
    running: dict[Any, tuple[Any, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                index = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(sender, form.name, units[index], index, out, options), daemon=True
                )
                process.start()
                sender.close()
                running[receiver] = process, index
            ready = set(connection.wait(list(running)))
            for receiver in [pipe for pipe in running if pipe in ready]:
                process, index = running[receiver]
                try:
                    message = receiver.recv()
                except EOFError:
                    raise EnvCrashed(
                        f"the process that read {units[index].name} died (killed, or out of memory); finished files are kept: "
                        "run the same command again, with fewer --jobs if memory is short"
                    ) from None
                if isinstance(message, int):
                    watch.tick(index, message)
                    continue
                process.join()
                del running[receiver]
                if isinstance(message, tuple):
                    kind, where, reason = message
                    errors.append(DataError(where, reason) if kind == "data" else SetupError(reason))
                else:
                    watch.end(index)
    finally:  # else they would go on writing to a folder that is not locked any more
        for process, _ in running.values():
            process.terminate()
            process.join()
    return errors


def _work(sender: Any, name: str, unit: Unit, index: int, out: Path, options: Options) -> None:
    """The main function of a process: sends the bytes read, then None when done, or (who must act, where, reason)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        write_unit(FORMATS[name], unit, index, out, options, sender.send)
        sender.send(None)
    except DataError as error:
        sender.send(("data", error.where, reason_of(error)))
    except (SetupError, OSError) as error:
        sender.send(("setup", "", str(error)))


def _follow_parent() -> None:
    """End with the parent: a worker that outlives it would write to the files of the next run."""
    if (parent := multiprocessing.parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _one_of(errors: list[Exception], units: int) -> Exception:
    """The first error, with the number of files that failed."""
    first = errors[0]
    if len(errors) > 1 and isinstance(first, DataError):
        more = f"; {len(errors)} of {units} files could not be imported, the others are kept for the next run"
        return DataError(first.where, reason_of(first) + more)
    return first


def _reasons(total: Journal) -> str:
    reasons = Counter(row["reason"] for row in total["dropped"]) + Counter(total["unlisted"])
    return "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3)) or "the files are empty"
