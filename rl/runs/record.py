"""run.json as a typed model: what a run is about, and one leg for each time it was started. Version 2; version 1 is read
and converted.

    version, kind
    legs    command, started, seconds, versions, commit, dirty, about

A resumed run appends a leg, so what an earlier leg ran with is never lost. Readers ask for `RunRecord.about`, that of the
last leg.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from guiderail.agent.errors import SetupError

VERSION = 2
"""Of the whole run folder: run.json and its lines (rl/runs/rows.py)."""


class Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Typed):
    """The recordings. digest: SHA-256 of the file, hex. screen: WxH or infer, where it was given. swipes: how the file stores
    vertical swipes, as found. notes: what the loader decided. episodes: how many were read."""

    path: str
    digest: str
    screen: str | None = None
    swipes: str | None = None
    notes: tuple[str, ...] = ()
    episodes: int | None = None


class About(Typed):
    """Who acts, on what, and how it is judged. Each kind of run fills in its part.

    model: what acts: a folder, hub id, server, or script. voice: how it is addressed (launch/parts.py). rules: those of
    the match, by field. repeats: attempts per live task. world: the live world: its name and what describes it. options:
    how live attempts were run (workers, patience, ...), which may differ between legs. config: of a training, all
    sections. processes: of a training. parts: by kind, where each part came from that is not Guiderail's own. history,
    thoughts: of likelihoods. of, profiles: of a rejudged run.
    """

    model: str | None = None
    voice: dict[str, Any] | None = None
    data: Data | None = None
    rules: dict[str, Any] | None = None
    temperature: float | None = None
    seed: int | None = None
    repeats: int | None = None
    world: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    processes: int | None = None
    parts: dict[str, dict[str, str]] | None = None
    history: str | None = None
    thoughts: bool | None = None
    of: str | None = None
    profiles: tuple[str, ...] | None = None


class Leg(Typed):
    """One start of the run. started: UTC, such as 2026-01-02T03:04:05Z. seconds: until the leg was finished; of one that was
    killed, until one of the last lines or checkpoints that it left, None where there was none. commit, dirty: of
    Guiderail's own repository, None where it ran from an installation."""

    command: tuple[str, ...]
    started: str | None
    seconds: float | None
    versions: dict[str, str | None]
    commit: str | None
    dirty: bool | None
    about: About


class RunRecord(Typed):
    """The content of run.json. legs: in the order in which they were started, at least one."""

    version: Literal[2] = 2
    kind: str
    legs: tuple[Leg, ...] = Field(min_length=1)

    @property
    def about(self) -> About:
        return self.legs[-1].about

    @property
    def started(self) -> str | None:
        return self.legs[0].started

    def content(self) -> dict[str, Any]:
        """As JSON values. Fields of `About` and `Data` that a run leaves open are left out."""
        return {"version": self.version} | self.model_dump(mode="json", exclude_defaults=True)


def changes(before: About, now: About) -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, value before, value now) of everything in which two legs differ."""
    old, new = (dict(_flat("", about.model_dump(mode="json"))) for about in (before, now))
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


MayChange = Callable[[About, str], bool]
"""Whether what has this dotted name may differ between two legs; the `About` is that of the new one."""


def nothing(about: About, name: str) -> bool:
    return False


def refuse_changes(folder: Path, before: About, now: About, may_change: MayChange = nothing) -> None:
    """Raises SetupError that names every setting in which a leg differs from the one before. Recordings may have moved,
    since their digest is compared; `options` (how attempts are made, not what they are) may always differ."""

    known = dict(_flat("", before.model_dump(mode="json")))

    def free(name: str) -> bool:
        moved = name in ("data.path", "data.notes", "config.data.train")
        return moved or name.split(".")[0] == "options" or may_change(now, name) or newer(name)

    def newer(name: str) -> bool:
        """Whether an older Guiderail could not have recorded it. Only these two hold what was given, without defaults."""
        parents = {".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 2)}
        absent = not name.startswith(("config.training.", "parts.")) and not parents & known.keys()
        return absent or (name == "data.episodes" and known.get(name) is None)

    found = [f"{name} {was!r}, not {new!r}" for name, was, new in changes(before, now) if not free(name)]
    if found:
        raise SetupError(f"{folder} was run with {'; '.join(found)}; set this back, or give another --out")


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else key, item)
    else:
        yield name, value


def convert(old: Mapping[str, Any]) -> dict[str, Any]:
    """The content of version 1, one flat object that every resume overwrote, as version 2. What only some worlds recorded
    becomes the description of the world."""
    rest = dict(old)
    kind, versions = rest.pop("kind", "unknown"), dict(rest.pop("versions", {}))
    leg = {"command": rest.pop("command", ()), "started": rest.pop("started", None), "seconds": None, "dirty": None}
    leg |= {"commit": versions.pop("commit", None), "versions": versions}
    about = {name: rest.pop(name) for name in About.model_fields if name in rest and name != "world"}
    if "how" in rest:
        about["options"] = rest.pop("how")
    if isinstance(about.get("rules"), str):
        about["rules"] = {"name": about["rules"]}
    if isinstance(about.get("rules"), list):
        about["profiles"] = about.pop("rules")
    if rest:
        about["world"] = {"name": rest.pop("world", kind), **rest}
    return {"version": VERSION, "kind": kind, "legs": [leg | {"about": about}]}
