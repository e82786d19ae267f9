"""Writing what importers read: each image once, one part per unit, a journal per finished part, then all parts joined.

A file that is written halfway never counts as complete. A part counts when its journal exists. A part is renamed into place
after its last line, and its journal after it. Images are renamed into place too, and named after their content.
`episodes.jsonl` comes last. A process that is killed at any moment leaves only files that the next run makes again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from guiderail.agent.errors import DataError
from guiderail.agent.types import Screenshot
from guiderail.agent.untrusted import printable
from guiderail.envs.imports.draft import Dropped, Format, Fragment, Line, Options, Unit, splits_of
from guiderail.envs.recordings.conventions import Size
from guiderail.envs.recordings.episodes import episode_of, load_episodes
from guiderail.envs.recordings.match import judge

Tick = Callable[[int], None]
Journal = dict[str, Any]

_COUNTERS = ("theirs", "ours", "boxes", "splits", "unlisted")


@dataclass
class UnitContext:
    """The `Context` of one unit. Holds no image in memory."""

    out: Path
    options: Options
    tick: Tick
    notes: list[str] = field(default_factory=list)

    def put(self, screenshot: Screenshot) -> str:
        """Store under the SHA-256 of the file's bytes; an image that exists already is left as it is."""
        data, digest = screenshot.encoded(), screenshot.digest
        name = f"images/{digest[:2]}/{digest[:32]}.{'png' if data[:1] == bytes((0x89,)) else 'jpg'}"
        path = self.out / name
        if not path.exists() or path.stat().st_size != len(data):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        return name

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is either there completely or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(data)
    os.replace(partial, path)


def journal_path(out: Path, index: int) -> Path:
    return out / f".import-{index:05d}.json"


def part_path(out: Path, index: int) -> Path:
    return out / f".import-{index:05d}.jsonl"


def write_unit(form: Format, unit: Unit, index: int, out: Path, options: Options, tick: Tick) -> None:
    """Import one unit into its part and journal. When it raises DataError, neither exists."""
    context = UnitContext(out, options, tick)
    journal: Journal = {"unit": unit.name, "episodes": 0, "steps": 0, "dropped": [], "fragments": []}
    counters: dict[str, Counter[str]] = {name: Counter() for name in _COUNTERS}
    ids: dict[str, str] = {}
    # With the process id in the name, a process left over from a killed run does not disturb its successor.
    partial = out / f".import-{index:05d}.{os.getpid()}.part.jsonl"
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for where, make in form.read(unit, context):
                made = _made(where, make, context, journal, counters, ids)
                if isinstance(made, Fragment):
                    steps = {str(i): step for i, step in made.steps.items()}
                    journal["fragments"].append([where, made.id, made.length, made.head, steps])
                elif made is not None:
                    write_line(file, form, where, made, journal, counters)
            file.flush()
            os.fsync(file.fileno())
        if journal["episodes"]:
            journal["gate"] = gate(partial, options.screen)
        os.replace(partial, part_path(out, index))
    finally:
        partial.unlink(missing_ok=True)
    journal |= {"notes": context.notes, **{name: dict(c) for name, c in counters.items()}}
    write_whole(journal_path(out, index), json.dumps(journal, ensure_ascii=False).encode())


def _made(
    where: str,
    make: Callable[[], Line | Fragment | None],
    context: UnitContext,
    journal: Journal,
    counters: Mapping[str, Counter[str]],
    ids: dict[str, str],
) -> Line | Fragment | None:
    """What `make` makes, if the loader will read it. ids: of the unit's lines so far, and where they are."""
    try:
        made = _tried(make, where)
        if isinstance(made, dict):
            episode_of(made, context.out / "episodes.jsonl", where, "", context.options.screen)
            if (first := ids.setdefault(str(made["episode_id"]), where)) != where:
                raise DataError(where, f"episode_id {made['episode_id']!r} was already used at {short(first)}")
        return made
    except Dropped as reason:
        if reason.listed:
            journal["dropped"].append({"where": short(where), "reason": str(reason)})
        else:
            counters["unlisted"][str(reason)] += 1
    except DataError as error:
        if not context.options.skip_bad:
            raise DataError(
                error.where, f"{reason_of(error)} (--skip-bad drops such episodes and lists them)"
            ) from None
        journal["dropped"].append({"where": short(error.where), "reason": reason_of(error)})
    return None


def _tried(make: Callable[[], Line | Fragment | None], where: str) -> Line | Fragment | None:
    """What `make` makes, if it can be written. Raises DataError also for values of a kind that the format's reader did not
    expect; errors of the output folder pass."""
    try:
        made = make()
        json.dumps(asdict(made) if isinstance(made, Fragment) else made, ensure_ascii=False, allow_nan=False).encode()
        return made
    except UnicodeEncodeError:
        raise DataError(where, "a text holds one half of a surrogate pair") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(where, f"breaks the format's rules: {type(error).__name__} {error}"[:300]) from None


def short(where: str) -> str:
    """ "file:record" without the folder, which means nothing on another machine."""
    return where.rpartition(os.sep)[2]


def reason_of(error: DataError) -> str:
    return printable(str(error).removeprefix(f"{error.where}: "))


def write_line(
    file: Any, form: Format, where: str, line: Line, journal: Journal, counters: Mapping[str, Counter[str]]
) -> None:
    """Write one finished line. `was` of each step is counted, and moved to the line's `import` until all are joined."""
    was = [step.pop("was") for step in line["steps"]]
    for name, counted in _counted(line, was).items():
        counters[name].update(counted)
    provenance = {"format": form.name, "source": short(where), **line.pop("import", {}), "was": was}
    file.write(json.dumps(line | {"swipes": "finger", "import": provenance}, ensure_ascii=False) + "\n")
    journal["episodes"] += 1
    journal["steps"] += len(line["steps"])


def _counted(line: Line, was: Sequence[str]) -> dict[str, Counter[str]]:
    """What a line adds to the counters. was: the source's names of its actions."""
    ours = [step["action_content"]["action"] for step in line["steps"]]
    return {
        "theirs": Counter(f"{a} -> {b}" for a, b in zip(was, ours, strict=True)),
        "ours": Counter(ours),
        "boxes": Counter(step["box_origin"] for step in line["steps"] if "box_origin" in step),
        "splits": Counter(splits_of(line)),
    }


def gate(part: Path, screen: Size | Any) -> dict[str, int]:
    """Read the part back through the loader and judge every expert action against itself.

    Returns the number of steps by action. Raises DataError for the first line that the loader refuses, or whose action does
    not match itself: then the importer is at fault, not the data.
    """
    steps: Counter[str] = Counter()
    for episode in load_episodes(part, screen=screen, swipes="finger").episodes:
        for index, step in enumerate(episode.steps):
            verdict = judge(step, step.action)
            if not verdict.exact:
                raise DataError(f"{episode.source} step {index}", f"fails the oracle gate: {verdict.why}")
            steps[step.action.name] += 1
    return dict(steps)


# ---------------------------------------------------------------------------------------------------------- joining


def join(form: Format, units: list[Unit], out: Path, options: Options) -> Journal:
    """Join all parts into `episodes.jsonl.part`, in the order of the units; then the episodes that span several units.

    An episode whose id was seen before is dropped when its line is the same, and renamed "<unit>-<id>" otherwise. Returns
    the sums of all journals.
    """
    total = _added([json.loads(journal_path(out, index).read_bytes()) for index in range(len(units))])
    seen: dict[str, int] = {}
    partial = out / "episodes.jsonl.part"
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for index, unit in enumerate(units):
            with part_path(out, index).open(encoding="utf-8") as part:
                for text in part:
                    line = json.loads(text)
                    _put_once(file, line, unit, seen, total)
        loose = out / ".import-loose.jsonl"
        counters: dict[str, Counter[str]] = {name: Counter(total[name]) for name in _COUNTERS}
        with loose.open("w", encoding="utf-8", newline="\n") as several:
            for where, made in _joined(total):
                write_line(several, form, where, made, total, counters)
        total |= {name: dict(counter) for name, counter in counters.items()}
        if loose.stat().st_size:
            total["gate"] = dict(Counter(total["gate"]) + Counter(gate(loose, options.screen)))
            for text in filter(None, loose.read_text("utf-8").split("\n")):
                _put_once(file, json.loads(text), Unit("several", ()), seen, total)
        loose.unlink()
        file.flush()
        os.fsync(file.fileno())
    return total


def _put_once(file: Any, line: Line, unit: Unit, seen: dict[str, int], total: Journal) -> None:
    id_, was = str(line["episode_id"]), line["import"].pop("was")
    content = hash(json.dumps({k: v for k, v in line.items() if k != "import"}, sort_keys=True))
    if id_ in seen:
        again = {"where": line["import"]["source"], "reason": f"episode {id_} is there already"}
        if seen[id_] == content:
            total["dropped"].append(again)
            total["episodes"] -= 1
            total["steps"] -= len(line["steps"])
            counted = _counted(line, was)
            for name, less in (*counted.items(), ("gate", counted["ours"])):
                total[name] = dict(Counter[str](total[name]) - less)
            return
        line["import"].setdefault("episode_id", line["episode_id"])
        line["episode_id"] = f"{Path(unit.name).stem}-{id_}"
        total["renamed"] = total.get("renamed", 0) + 1
        if line["episode_id"] in seen:
            raise DataError(again["where"], f"{again['reason']}, and so is {line['episode_id']}")
    seen[str(line["episode_id"])] = content
    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _added(journals: list[Journal]) -> Journal:
    total: Journal = {"units": len(journals)}
    for name in ("episodes", "steps"):
        total[name] = sum(journal[name] for journal in journals)
    for name in ("dropped", "fragments"):
        total[name] = [entry for journal in journals for entry in journal[name]]
    total["notes"] = list(dict.fromkeys(note for journal in journals for note in journal["notes"]))
    for name in (*_COUNTERS, "gate"):
        total[name] = dict(sum((Counter(journal.get(name, {})) for journal in journals), Counter()))
    return total


def _joined(total: Journal) -> Iterator[tuple[str, Line]]:
    """Put fragments together to episodes. Incomplete ones are dropped; the reason says what is missing."""
    known: dict[str, tuple[str, int, Line, dict[int, Line]]] = {}
    for where, id_, length, head, steps in total["fragments"]:
        _, _, _, together = known.setdefault(id_, (where, length, head, {}))
        together |= {int(i): step for i, step in steps.items()}
    total["fragments"] = len(known)
    for id_, (where, length, head, together) in known.items():
        if len(together) == length:
            yield where, head | {"steps": [together[i] for i in range(length)]}
        else:
            reason = f"incomplete: {len(together)} of {length} steps are in these files"
            total["dropped"].append({"where": short(where), "reason": reason, "episode": id_})
