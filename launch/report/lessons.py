"""What a teacher said of the turns that were trained on, for the viewer: scripts that it loads when such a turn is looked at.

A lesson: {n, tokens, answer?}, with tokens [text, student, teacher, best, best_p] as in `rl.train.lessons.lines`. Entries
point at it with [script, place]: a turn's `taught` is about the answer that was sampled there, its `shown` about the expert's
answer behind the same history, and a step's `taught` about the expert's answer behind the expert's history.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guiderail.agent.errors import DataError
from guiderail.launch.report.chunks import CHUNK_BYTES, script_json
from guiderail.launch.report.entries import Entry, ids_of
from guiderail.launch.report.runs import Run
from guiderail.rl.runs.generations import LESSONS
from guiderail.rl.runs.log import read_lines

READ_BYTES = 100_000_000  # of lessons.jsonl; a larger one is shown of every second generation, or third, ...
TOKENS = 400  # of one turn
LONGEST = 200  # characters of a token's text
ANSWER = 4000  # characters

Turns = dict[tuple[int, str, int, int], list[dict[str, Any]]]
Groups = dict[tuple[int, str], list[Entry]]


def taught_scripts(entries: Sequence[Entry], run: Run, remarks: list[str]) -> Iterator[tuple[str, str]]:
    """(file name, content) of the scripts with lessons; the entries get their pointers on the way. Adds to `remarks` what is
    left out. Raises DataError "file:line"; while a run is under way, the rest is left out instead."""
    path = run.folder / LESSONS
    if not path.is_file():
        return
    last = max((entry["generation"] or 0 for entry in entries), default=0)
    every = max(1, math.ceil(path.stat().st_size / READ_BYTES))
    if every > 1:
        remarks.append(f"of the taught turns, only those of one generation in {every} are shown: {path} is large")
    (turns, groups), found, size, number = _indexed(entries), list[str](), 0, 0
    name = "lessons-0"
    try:
        for line, row in enumerate(read_lines(run.folder, LESSONS), 1):
            try:
                if (last - int(row["generation"])) % every or not _point(row, turns, groups, [name, len(found)]):
                    continue
                found.append(script_json(_lesson(row)))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
                raise DataError(f"{path}:{line}", f"not a lesson: {type(error).__name__} {error}") from None
            size += len(found[-1])
            if size > CHUNK_BYTES:
                yield f"{name}.js", _script(name, found)
                number, found, size = number + 1, [], 0
                name = f"lessons-{number}"
    except DataError as error:
        if run.metrics is not None:
            raise
        remarks.append(f"lessons are read up to here while the run goes on: {error}")
    if found:
        yield f"{name}.js", _script(name, found)


def _script(name: str, lessons: Sequence[str]) -> str:
    return f'guiderail.put("{name}",[{",".join(lessons)}]);\n'


def _indexed(entries: Sequence[Entry]) -> tuple[Turns, Groups]:
    turns: Turns = {}
    groups: Groups = {}
    for entry in entries:
        group = (entry["generation"] or 0, entry["episode"])
        groups.setdefault(group, []).append(entry)
        for rollout in entry["rollouts"]:
            for turn in rollout["turns"]:
                turns.setdefault((*group, rollout["sample"], turn["t"]), []).append(turn)
    return turns, groups


def _point(row: Mapping[str, Any], turns: Turns, groups: Groups, place: list[Any]) -> bool:
    """Whether an entry has the turn, which points at `place` from now on. The first lesson of a turn stays."""
    generation, unit, sample, t = int(row["generation"]), str(row["unit"]), int(row["sample"]), int(row["index"])
    if sample < 0:
        mine = [entry for entry in groups.get((generation, unit), []) if 0 <= t < len(entry["steps"])]
        for entry in mine:
            entry["steps"][t] = {"taught": place} | entry["steps"][t]
        return bool(mine)
    here = turns.get((generation, unit, sample, t), [])
    same = [turn for turn in here if turn.get("ids") == ids_of(row["token_ids"])]
    for turn in same or here[:1]:
        turn.setdefault("taught" if same else "shown", place)
    return bool(here)


def _lesson(row: Mapping[str, Any]) -> dict[str, Any]:
    tokens = [
        [
            str(one["text"])[:LONGEST],
            _share(one["student"]),
            _share(one["teacher"]),
            str(one["best"])[:LONGEST],
            _share(one["best_p"]),
        ]
        for one in row["tokens"][:TOKENS]
    ]
    answer = row.get("answer")
    return {"n": len(row["tokens"]), "tokens": tokens} | ({} if answer is None else {"answer": str(answer)[:ANSWER]})


def _share(value: Any) -> float | None:
    """A probability in three digits; None for none."""
    if value is None:
        return None
    number = float(value)
    return float(f"{min(1.0, max(0.0, number)):.3g}") if math.isfinite(number) else None
