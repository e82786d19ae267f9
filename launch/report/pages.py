"""From run folders to a folder of pages."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from guiderail.envs.live.worlds import RESTORED
from guiderail.launch.report import atlas, charts, compare, figures, names, overview
from guiderail.launch.report.chunks import script_json, scripts
from guiderail.launch.report.entries import Entry, read_entries
from guiderail.launch.report.facts import KINDS, facts, lead, model, more_facts, when
from guiderail.launch.report.images import Images
from guiderail.launch.report.lessons import taught_scripts
from guiderail.launch.report.runs import Curves, Read, Run, curves, discover, read_recording, recording
from guiderail.rl.runs.generations import LESSONS
from guiderail.rl.runs.log import reading

FIRST_CURVES = (
    "rollout/exact",
    "rollout/finished",
    "rollout/reward",
    "rollout/patched",
    "rollout/readable",
    "groups/kept",
    "loss",
    "mean_token_accuracy",
    "entropy",
    "grad_norm",
    "kl",
    "hindsight/taught",
    "teach/divergence",
    "logprob_gap/mean",
)


@dataclass
class Page:
    """One run in the report. home: its folder below the report's, "" or "name/"."""

    run: Run
    home: str
    entries: list[Entry]
    curves: Curves
    remarks: list[str]
    state: str
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def up(self) -> str:
        return "../" if self.home else ""


def build(
    folders: Sequence[Path], out: Path, *, data: str | None = None, width: int = 480, plots: bool = True
) -> list[Page]:
    """Write the report of every run in or below `folders` to `out`; returns what was read.

    data: where the recording is now, if it moved. width: wider screenshots are scaled down to it, in pixels. plots: also
    write SVG and PNG figures. Raises SetupError when there is no run, DataError "file:line" for an unreadable run folder.
    """
    found = discover(folders)
    out.mkdir(parents=True, exist_ok=True)
    _copy_assets(out)  # first: they mark the folder as a report, which may be written again
    images = Images(out, width)
    homes = _homes(found)
    read = lru_cache(maxsize=4)(read_recording)  # many runs name the same recording
    pages = []
    for run, home in zip(found, homes, strict=True):
        with reading(run.folder):
            pages.append(_read(run, home, data, images, read))
    stamp = hashlib.sha256("".join(map(_state, found)).encode()).hexdigest()[:16]
    live = any(run.metrics is None for run in found)
    site = Site(out, _environment(), stamp, live)
    pairs = [
        _pair(pages[a], pages[b]) | {"number": number} for number, (a, b) in enumerate(compare.comparable(found), 1)
    ]
    for page in pages:
        with reading(page.run.folder):
            site.run(page, plots, bool(pairs))
    if len(pages) > 1:
        site.study(pages, pairs, folders)
    # Last: a page that sees the new stamp must find everything else written.
    site.text("stamp.js", f"guiderailStamp({script_json(stamp)});\n")
    return pages


def _homes(runs: Sequence[Run]) -> list[str]:
    """Folder names of plain letters, unique also on file systems that ignore case."""
    if len(runs) == 1:
        return [""]
    homes: list[str] = []
    for run in runs:
        plain = (
            "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in run.name)[-60:].strip("-")
            or "run"
        )
        plain = f"run-{plain}" if plain.lower() in ("assets", "images", "figures", "data") else plain
        number, home = 1, plain
        while f"{home.lower()}/" in (known.lower() for known in homes):
            number += 1
            home = f"{plain}-{number}"
        homes.append(f"{home}/")
    return homes


def _read(run: Run, home: str, data: str | None, images: Images, read: Read) -> Page:
    source = recording(run, data, read)
    entries, remarks = read_entries(run, source, images)
    if not source.found and run.record.about.data:
        remarks.append(source.state)
    return Page(run, home, entries, curves(run.folder), remarks, source.state)


def _state(run: Run) -> str:
    """A text that changes whenever the run folder changes."""
    files = ["run.json", "rollouts.jsonl", LESSONS, "metrics.json"]
    known = [(run.folder / name) for name in files] + sorted(run.folder.glob("runs/**/events.out.tfevents.*"))
    return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in known if file.is_file()])


def _copy_assets(out: Path) -> None:
    (out / "assets").mkdir(exist_ok=True)
    for file in resources.files("guiderail.launch.report").joinpath("assets").iterdir():
        (out / "assets" / file.name).write_bytes(file.read_bytes())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("guiderail.launch.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.update(charts=charts, hash=hash_of, duration=_duration, count=_count, shade=_shade, tint=_tint)
    return environment


def hash_of(key: str, sample: int, t: int) -> str:
    """A deep link into the viewer: #episode/rollout/step."""
    return f"#{quote(key, safe='')}/{sample}/{t}"


# --------------------------------------------------------------------------------------------------------------- pages


@dataclass(frozen=True)
class Site:
    out: Path
    environment: Environment
    stamp: str
    live: bool

    def run(self, page: Page, plots: bool, pairs: bool) -> None:
        page.parts = {
            "heat": atlas.template_steps(page.entries),
            "confusion": atlas.confusion(page.entries),
            "first": atlas.first_divergence(page.entries),
            "offsets": atlas.offsets(page.entries),
            "screens": atlas.screens(page.entries),
            "clusters": atlas.clusters(page.entries),
            "early": compare.early_late(page.entries),
        }
        page.parts["headline"] = overview.headline(page.run, page.entries)
        if page.entries:
            about = page.run.record.about
            again = page.run.kind != "train" and (about.world or {}).get("name") in RESTORED
            method = page.run.config.get("method", {})
            for name, content in taught_scripts(page.entries, page.run, page.remarks):
                self.text(f"{page.home}data/{name}", content)
            for name, content in scripts(page.entries, method, str(page.run.folder), again):
                self.text(f"{page.home}data/{name}", content)
        groups = overview.groups(page.entries)
        made = (
            figures.draw(self.out / page.home / "figures", page.curves, list(FIRST_CURVES), groups, page.parts)
            if plots
            else []
        )
        render = partial(self.page, page, pairs)
        evaluated = page.run.kind != "train"
        render(
            "overview",
            lead=lead(page.run),
            remarks=page.remarks,
            headline=page.parts["headline"],
            learned=overview.learned(page.entries) if page.run.kind == "train" else None,
            curves=_curve_parts(page.curves),
            groups=groups,
            live_tasks=not _diverging(page),
            patches=overview.patches(page.entries),
            templates=overview.by_template(page.entries) if evaluated and page.run.kind != "offline" else [],
            stages=overview.stages(page.run, page.entries, page.curves),
            facts=facts(page.run, page.state),
            more_facts=more_facts(page.run),
            figures=made,
        )
        if page.entries:
            render("walks")
        if _diverging(page):
            render(
                "atlas",
                lead=f"{page.run.name}: all turns that disagree with the expert, counted. Links open the viewer.",
                **page.parts,
            )

    def page(self, page: Page, pairs: bool, name: str, **parts: Any) -> None:
        href = "index.html" if name == "overview" else f"{name}.html"
        titles = [("overview", "Overview", "index.html")]
        titles += [("walks", "Trajectories", "walks.html")] if page.entries else []
        titles += [("atlas", "Atlas", "atlas.html")] if _diverging(page) else []
        nav = [{"title": t, "href": h, "here": n == name} for n, t, h in titles]
        nav += [{"title": "Before/after", "href": f"{page.up}compare.html", "here": False}] if pairs else []
        common = {"run": page.run, "live_run": page.run.metrics is None, "up": page.up, "nav": nav}
        self._render(f"{name}.html", page.home + href, live=self.live, **common, **parts)

    def study(self, pages: Sequence[Page], pairs: Sequence[dict[str, Any]], folders: Sequence[Path]) -> None:
        nav = [{"title": "Runs", "href": "index.html", "here": True}]
        nav += [{"title": "Before/after", "href": "compare.html", "here": False}] if pairs else []
        titles = KINDS | {page.run.kind: page.run.kind for page in pages if page.run.kind not in KINDS}
        kinds = [
            (titles[kind], _columns(rows), rows)
            for kind in titles
            if (rows := [_row(page) for page in pages if page.run.kind == kind])
        ]
        sentences = {
            titles[kind]: {
                h["title"].partition(", generation")[0]: h["words"]
                for page in pages
                for h in page.parts["headline"]
                if page.run.kind == kind and h["words"]
            }.items()
            for kind in titles
        }
        title = ", ".join(folder.name or "runs" for folder in folders[:4])
        common = {"run": None, "live_run": False, "up": ""}
        self._render(
            "study.html",
            "index.html",
            runs=pages,
            kinds=kinds,
            sentences=sentences,
            told=sorted((pair for pair in pairs if pair["sentence"]), key=lambda pair: pair["cls"] == "same"),
            pairs=pairs,
            nav=nav,
            title=title,
            live=self.live,
            **common,
        )
        if pairs:
            here = [item | {"here": item["href"] == "compare.html"} for item in nav]
            self._render("compare.html", "compare.html", pairs=pairs, nav=here, live=self.live, **common)

    def _render(self, template: str, path: str, **parts: Any) -> None:
        self.text(path, self.environment.get_template(template).render(stamp=self.stamp, **parts))

    def text(self, path: str, content: str) -> None:
        """Write a file whole or not at all: a page may read it meanwhile."""
        target = self.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial_ = target.with_name(target.name + ".part")
        partial_.write_text(content, encoding="utf-8", errors="replace")
        os.replace(partial_, target)


def _curve_parts(found: Curves) -> dict[str, list[dict[str, Any]]] | None:
    rows = {
        name: {"name": name, "title": names.title(name), "words": names.words(name), "points": points}
        for name, points in found.items()
    }
    if not rows:
        return None
    first = [rows[name] for name in FIRST_CURVES if name in rows]
    return {"first": first, "rest": [row for name, row in rows.items() if name not in FIRST_CURVES]}


def _diverging(page: Page) -> bool:
    return any(not entry["live"] for entry in page.entries)


def _row(page: Page) -> dict[str, Any]:
    headline = page.parts["headline"]
    return {
        "name": page.run.name,
        "href": f"{page.home}index.html",
        "live": page.run.metrics is None,
        "model": model(page.run),
        "cells": {h["title"].partition(", generation")[0]: h for h in headline},
        "started": when(page.run.record),
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all cells, those of the row with most of them first."""
    return [*dict.fromkeys(name for row in sorted(rows, key=lambda row: -len(row["cells"])) for name in row["cells"])]


def _pair(before: Page, after: Page) -> dict[str, Any]:
    found = compare.compare((before.run, before.entries), (after.run, after.entries))
    both = {"before": before.run.name, "after": after.run.name, "before_up": before.home, "after_up": after.home}
    return found | both


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _shade(exact: int, n: int) -> str:
    wrong = 1 - exact / n
    return "h0" if wrong == 0 else f"b{min(5, 1 + int(5 * wrong))}"


def _tint(cell: Mapping[str, Any]) -> str:
    return f"{'g' if cell['same'] else 'b'}{min(5, 1 + int(5 * cell['share']))}"
