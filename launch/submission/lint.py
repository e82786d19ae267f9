"""What an honest reader would ask about a sound bundle. None of these is an error; all of them belong beside the number."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from guiderail.agent.untrusted import printable
from guiderail.envs.recordings.match import ALL_RULES, GUIDERAIL
from guiderail.launch.submission import scores
from guiderail.launch.submission.schema import Manifest, canonical
from guiderail.launch.submission.verify import Checked

OFFICIAL = {"android-world": 116, "mobilegym": 256, "screenspot-pro": 1581, "screenspot-v2": 1272}
"""Tasks of the whole benchmark, by board."""
BROKEN = {"android-world": ("BrowserDraw",)}
"""Tasks reported as unsolvable upstream."""
MANY = 0.05
ON_POCKET = "android-world on pocket"
NAMED = {"pocket": ("split", "style"), "miniwob": ("suite",), "aitw": ("list",), "world": ("world",)}
"""Settings that stand in the name of a board, because results that differ in them are not comparable."""


def lint(checked: Checked, training: frozenset[str] = frozenset()) -> list[str]:
    """One sentence per finding. training: content hashes of screenshots that were trained on."""
    manifest = checked.manifest
    if manifest is None:
        return []
    found = [
        *_scope(checked, manifest),
        *_checkers(checked, manifest),
        *_claims(manifest),
        *_provenance(manifest),
        *_overlap(checked, training),
    ]
    return [printable(line) for line in found]


def board_of(checked: Checked) -> str:
    """The board that a result stands on: its kind, of a closed set, and what makes results of a kind incomparable. Which
    ScreenSpot it is, its rows say; MobileGym's board is its test split in Chinese."""
    manifest = checked.manifest
    assert manifest is not None
    return printable(_board(checked, manifest))


def _board(checked: Checked, manifest: Manifest) -> str:
    if manifest.kind == "screenspot":
        areas = {(row.group or "").rpartition(" ")[0] for row in checked.attempts}
        return "screenspot-v2" if areas <= {"mobile", "desktop", "web"} else "screenspot-pro"
    if manifest.kind == "android-world" and _settings(manifest).get("device") == "pocket":
        return ON_POCKET
    if manifest.kind == "mobilegym":
        part = {name: str(_settings(manifest).get(name))[:20] for name in ("split", "language")}
        return "mobilegym" if [*part.values()] == ["test", "zh"] else f"mobilegym {part['split']} {part['language']}"
    if manifest.kind in scores.RECORDINGS:
        return f"{manifest.kind} {_digest(manifest)}{_rules(manifest)}"
    settings = _settings(manifest)
    named = (str(settings[name])[:60] for name in NAMED.get(manifest.kind, ()) if name in settings)
    return " ".join((manifest.kind, *named))


def _digest(manifest: Manifest) -> str:
    """How the digest of the recordings begins."""
    data = manifest.provenance.get("data")
    digest = data.get("digest") if isinstance(data, dict) else None
    return str(digest)[:8] if digest else "unknown data"


def _rules(manifest: Manifest) -> str:
    """Empty for the default; rules that do not come with Guiderail under this name also bring their digest."""
    rules = asdict(GUIDERAIL) | (manifest.rules or {})
    if rules == asdict(GUIDERAIL):
        return ""
    known = rules in map(asdict, ALL_RULES.values())
    digest = "" if known else f" {hashlib.sha256(canonical(rules).encode('utf-8', 'replace')).hexdigest()[:8]}"
    return f" {str(rules['name'])[:40]}{digest}"


def _settings(manifest: Manifest) -> Mapping[str, Any]:
    settings = manifest.provenance.get("settings")
    return settings if isinstance(settings, dict) else {}


def _checkers(checked: Checked, manifest: Manifest) -> Iterator[str]:
    """Who decided about success, as the attempts say."""
    judge = manifest.provenance.get("judge")
    name = judge.get("model") if isinstance(judge, dict) else None
    counts = Counter(row.checked_by for row in checked.attempts if row.checked_by is not None)
    if counts["judge"]:
        yield f"a judge model ({name or 'not named'}) decided about {counts['judge']} of {counts.total()} attempts, not the state of the device"
    if counts["person"]:
        yield f"a person decided about {counts['person']} of {counts.total()} attempts"
    if helped := sum(row.helped for row in checked.attempts):
        yield f"a person took part in {helped} of {len(checked.attempts)} attempts; these are not scored"
    if manifest.kind == "run":
        yield "a single use at a goal of the submitter's own choice: not a benchmark"
    if manifest.kind == "aitw" and counts["state"]:
        yield "AITW has no check of the state; its attempts are judged by a model"
    if board_of(checked) == ON_POCKET:
        yield "on the simulated phone with stand-in apps: not an AndroidWorld score"
    if manifest.kind == "world":
        yield f"a world of the submitter's own ({str(_settings(manifest).get('world'))[:100]}): the bundle does not hold its checks"
    if manifest.rules is not None and manifest.rules not in map(asdict, ALL_RULES.values()):
        yield f"match rules {str(manifest.rules.get('name'))[:100]!r} are not those that come with Guiderail under this name"


def _scope(checked: Checked, manifest: Manifest) -> Iterator[str]:
    board = board_of(checked)
    whole = OFFICIAL.get(board)
    if whole is not None and len(manifest.tasks) < whole:
        yield f"subset of tasks: {len(manifest.tasks)} of {whole}"
    broken = [t[:80] for t in manifest.tasks if t.startswith(BROKEN.get(board, ()))]
    if broken:
        yield f"known to be broken upstream: {', '.join(broken[:5])}"
    budgets: dict[str, set[int | None]] = defaultdict(set)
    for row in checked.attempts:
        budgets[row.task].add(row.budget)
    changed = sorted(task for task, found in budgets.items() if len(found) > 1)
    if changed:
        yield f"changed budget: the trials of {changed[0][:80]!r} had different step budgets ({len(changed)} tasks)"
    if any(found == {None} for found in budgets.values()):
        yield "budget unknown: the run did not record how many steps a task allows"
    lost = sum(row.ended == "crashed" for row in checked.attempts)
    if checked.attempts and lost / len(checked.attempts) > MANY:
        yield f"{lost} of {len(checked.attempts)} attempts crashed; read the rate with crashes as failures beside the headline"
    if not checked.screenshots and manifest.kind not in scores.RECORDINGS:
        yield "no screenshots: nobody can look at what the agent saw"


def _claims(manifest: Manifest) -> Iterator[str]:
    if manifest.declarations.best_of > 1:
        yield f"best of {manifest.declarations.best_of} is not pass@1: one attempt counts, the others were thrown away"
    if manifest.samples == 1 and manifest.kind not in scores.RECORDINGS:
        yield "single trial per task: the interval holds for these attempts, not for the spread between runs"
    if "interval" not in manifest.scores:
        yield "no interval beside the headline"
    for name, value in (
        ("human help", manifest.declarations.human_help),
        ("training on test tasks", manifest.declarations.trained_on_test),
    ):
        if value is None:
            yield f"not declared: {name}"
        elif value:
            yield f"declared: {name}"


def _provenance(manifest: Manifest) -> Iterator[str]:
    found = manifest.provenance
    judge, model = found.get("judge"), found.get("model")
    if isinstance(judge, dict) and judge.get("model") is not None and judge["model"] == model:
        yield f"judge equals policy: {str(model)[:100]} judges itself"
    if not found.get("commit"):
        yield "no source commit: the code cannot be found again"
    elif found.get("dirty") is True:
        yield "local changes: the code differs from its commit"
    if not found.get("weights"):
        yield "no weight hashes: the model was a server, a hub id or a script"
    if temperature := _settings(manifest).get("temperature"):
        yield f"sampled at temperature {str(temperature)[:40]}: one run is one draw"


def _overlap(checked: Checked, training: frozenset[str]) -> Iterator[str]:
    seen = {turn.screenshot for row in checked.attempts for turn in row.turns if turn.screenshot} | checked.screenshots
    if both := seen & training:
        yield f"train/test overlap: {len(both)} of {len(seen)} screenshots were trained on"
