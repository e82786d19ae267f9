"""From run folders to a folder of pages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from launch.report import atlas, charts, compare, figures, overview
from launch.report.entries import Entry, matched, read_entries
from launch.report.images import Images
from launch.report.runs import Curves, Run, curves, discover, recording
from rl.metrics import METRICS

CHUNK_BYTES = 400_000
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
    "logprob_gap/mean",
)
KINDS = {
    "train": "Training",
    "sop": "Semi-online performance (SOP)",
    "offline": "Single steps under the expert's history",
    "pocket": "Live on simulated phones",
    "screenspot": "ScreenSpot",
    "rejudge": "Judged again",
    "gate": "Oracle gate and blind probes",
}


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

    data: place of the recording, when it moved. width: widest screenshot kept, in pixels. plots: also SVG and PNG files.
    Raises SetupError when there is no run, DataError "file:line" for a run folder that cannot be read.
    """
    found = discover(folders)
    images = Images(out, width)
    homes = _homes(found)
    pages = [_read(run, home, data, images) for run, home in zip(found, homes, strict=True)]
    stamp = hashlib.sha256("".join(map(_state, found)).encode()).hexdigest()[:16]
    live = any(run.metrics is None for run in found)
    site = Site(out, _environment(), stamp, live, len(pages) > 1)
    out.mkdir(parents=True, exist_ok=True)
    _copy_assets(out)
    pairs = [_pair(pages[a], pages[b]) for a, b in compare.comparable(found)]
    for page in pages:
        site.run(page, plots, bool(pairs))
    if len(pages) > 1:
        site.study(pages, pairs, folders)
    # Last, so that a page that sees the new stamp finds everything else in place.
    site.text("stamp.js", f"guiderailStamp({script_json(stamp)});\n")
    return pages


def _homes(runs: Sequence[Run]) -> list[str]:
    """Folder names made of plain letters, unique also where names differ in other letters or in case only."""
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


def _read(run: Run, home: str, data: str | None, images: Images) -> Page:
    source = recording(run, data)
    entries, remarks = read_entries(run, source, images)
    if not source.found and run.record.get("data"):
        remarks.append(source.state)
    return Page(run, home, entries, curves(run.folder), remarks, source.state)


def _state(run: Run) -> str:
    """Changes when the run folder does."""
    files = ["run.json", "rollouts.jsonl", "metrics.json"]
    known = [(run.folder / name) for name in files] + sorted(run.folder.glob("runs/**/events.out.tfevents.*"))
    return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in known if file.is_file()])


def _copy_assets(out: Path) -> None:
    (out / "assets").mkdir(exist_ok=True)
    for file in resources.files("launch.report").joinpath("assets").iterdir():
        (out / "assets" / file.name).write_bytes(file.read_bytes())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("launch.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.update(charts=charts, hash=hash_of, duration=_duration, count=_count, shade=_shade, tint=_tint)
    return environment


def hash_of(key: str, sample: int, t: int) -> str:
    """A deep link into the viewer: #episode/rollout/step."""
    return f"#{quote(key, safe='')}/{sample}/{t}"


def script_json(value: Any) -> str:
    """JSON that may stand in a script: nothing in it can end the script or a line of it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --------------------------------------------------------------------------------------------------------------- pages


@dataclass(frozen=True)
class Site:
    out: Path
    environment: Environment
    stamp: str
    live: bool
    several: bool

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
        self._data(page)
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
            lead=lead(page),
            remarks=page.remarks,
            headline=page.parts["headline"],
            curves=_curve_parts(page.curves),
            groups=groups,
            patches=overview.patches(page.entries),
            templates=overview.by_template(page.entries) if evaluated and page.run.kind != "offline" else [],
            stages=overview.stages(page.run, page.entries, page.curves),
            facts=facts(page),
            more_facts=more_facts(page),
            figures=made,
        )
        if page.entries:
            render("walks")
        if _diverging(page):
            render(
                "atlas",
                lead=f"{page.run.name}: every turn that disagrees, counted. Links open it in the viewer.",
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
        kinds = [
            (title, rows) for kind, title in KINDS.items() if (rows := [_row(p) for p in pages if p.run.kind == kind])
        ]
        title = " and ".join(folder.name or "runs" for folder in folders[:3])
        common = {"run": None, "live_run": False, "up": ""}
        self._render(
            "study.html",
            "index.html",
            runs=pages,
            kinds=kinds,
            pairs=pairs,
            nav=nav,
            title=title,
            live=self.live,
            **common,
        )
        if pairs:
            here = [item | {"here": item["href"] == "compare.html"} for item in nav]
            self._render("compare.html", "compare.html", pairs=pairs, nav=here, live=False, **common)

    def _render(self, template: str, path: str, **parts: Any) -> None:
        self.text(path, self.environment.get_template(template).render(stamp=self.stamp, **parts))

    def text(self, path: str, content: str) -> None:
        """Whole or not at all: a page may be reading while the next version is written."""
        target = self.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial_ = target.with_name(target.name + ".part")
        partial_.write_text(content, encoding="utf-8", errors="replace")
        os.replace(partial_, target)

    def _data(self, page: Page) -> None:
        """data/index.js names every entry; data/chunk-N.js hold them, loaded when the viewer asks."""
        folder = f"{page.home}data/"
        if not page.entries:
            shutil.rmtree(self.out / folder, ignore_errors=True)
            return
        rows = []
        for number, chunk in enumerate(_chunks(page.entries)):
            self.text(
                f"{folder}chunk-{number}.js",
                f'guiderail.put("chunk-{number}",[{",".join(text for _, text in chunk)}]);\n',
            )
            rows += [_index_row(entry, f"chunk-{number}") for entry, _ in chunk]
        method = (page.run.record.get("config") or {}).get("method") or {}
        credit = {"gamma": method.get("gamma", 0.0), "returns": method.get("returns", "paper")}
        self.text(f"{folder}index.js", f'guiderail.put("index",{script_json({"entries": rows, "credit": credit})});\n')


def _chunks(entries: Sequence[Entry]) -> Iterator[list[tuple[Entry, str]]]:
    chunk: list[tuple[Entry, str]] = []
    size = 0
    for entry in entries:
        text = script_json(entry)
        if chunk and size + len(text) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append((entry, text))
        size += len(text)
    if chunk:
        yield chunk


def _index_row(entry: Entry, chunk: str) -> dict[str, Any]:
    """paths: [letters of the turns, capital where patched; whether all of it was right]."""
    paths = []
    for rollout in entry["rollouts"]:
        letters = "".join(t["outcome"].upper() if "repair" in t else t["outcome"] for t in rollout["turns"])
        right = rollout["success"] if entry["live"] else rollout["ended"] != "crashed" and matched(rollout) is None
        paths.append([letters, right])
    names = ("key", "episode", "generation", "signal", "template")
    return {**{name: entry[name] for name in names}, "goal": entry["goal"][:300], "chunk": chunk, "paths": paths}


# ------------------------------------------------------------------------------------------------------ words and facts


def lead(page: Page) -> str:
    """One sentence about the run."""
    run, record = page.run, page.run.record
    method = (record.get("config") or {}).get("method") or {}
    kind = f"{method.get('algorithm', '')} training".strip() if run.kind == "train" else KINDS.get(run.kind, run.kind)
    parts = [kind[:1].upper() + kind[1:]]
    if _model(run):
        parts.append(f"of {_model(run)}" if run.kind != "train" else f"from {_model(run)}")
    if (record.get("data") or {}).get("path"):
        parts.append(f"on {record['data']['path']}")
    ending = "under way" if run.metrics is None else "finished"
    return f"{' '.join(parts)}; started {record.get('started', 'at an unknown time')}, {ending}."


def _model(run: Run) -> str:
    config = run.record.get("config") or {}
    return str(run.record.get("model") or (config.get("model") or {}).get("path") or run.record.get("of") or "")


def facts(page: Page) -> list[tuple[str, str]]:
    record, metrics = page.run.record, page.run.metrics or {}
    data, rules = record.get("data") or {}, record.get("rules") or {}
    method = (record.get("config") or {}).get("method") or {}
    named = (
        rules.get("name")
        if isinstance(rules, Mapping)
        else ", ".join(map(str, rules))
        if isinstance(rules, list)
        else rules
    )
    rows = [
        ("command", " ".join(["guiderail", *map(str, record.get("command", []))])),
        ("model", _model(page.run)),
        ("rules", named or method.get("rules")),
        ("recording", data.get("path") and page.state),
        ("its SHA-256", data.get("digest")),
        ("seed", record.get("seed", (record.get("config") or {}).get("training", {}).get("seed"))),
        ("temperature", record.get("temperature", method.get("temperature"))),
        ("commit", (record.get("versions") or {}).get("commit")),
        ("scored", metrics.get("n")),
        ("unscored", metrics.get("unscored")),
        ("model written to", metrics.get("model")),
        ("run folder", page.run.folder),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "", [])]


def more_facts(page: Page) -> list[tuple[str, list[tuple[str, str]]]]:
    record = page.run.record
    rest = {key: value for key, value in record.items() if key not in ("config", "versions", "rules", "command")}
    return [
        ("Configuration", flat(record.get("config") or {})),
        ("Rules in full", flat(record["rules"]) if isinstance(record.get("rules"), Mapping) else []),
        ("Versions", flat(record.get("versions") or {})),
        ("Everything else in run.json", flat(rest)),
        ("metrics.json", flat(page.run.metrics or {})[:200]),
    ]


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    if isinstance(value, Mapping) and value:
        return [row for key, item in value.items() for row in flat(item, f"{name}.{key}" if name else str(key))]
    return [
        (name, "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    ]


def _curve_parts(found: Curves) -> dict[str, list[dict[str, Any]]] | None:
    rows = {name: {"title": name, "points": points, "words": METRICS.get(name, "")} for name, points in found.items()}
    if not rows:
        return None
    first = [rows[name] for name in FIRST_CURVES if name in rows]
    return {"first": first, "rest": [row for name, row in rows.items() if name not in FIRST_CURVES]}


def _diverging(page: Page) -> bool:
    return any(not entry["live"] for entry in page.entries)


def _row(page: Page) -> dict[str, Any]:
    headline = page.parts["headline"]
    columns = [h["name"].partition(", generation")[0] for h in headline]
    return {
        "name": page.run.name,
        "href": f"{page.home}index.html",
        "live": page.run.metrics is None,
        "model": _model(page.run),
        "headline": headline,
        "columns": columns,
        "started": page.run.record.get("started", ""),
    }


def _pair(before: Page, after: Page) -> dict[str, Any]:
    found = compare.compare((before.run, before.entries), (after.run, after.entries))
    names = {"before": before.run.name, "after": after.run.name, "before_up": before.home, "after_up": after.home}
    return found | names


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
