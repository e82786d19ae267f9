"""What an honest reader would ask about a sound bundle. None of these is an error; all of them belong beside the number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from launch.submission import scores
from launch.submission.schema import Manifest
from launch.submission.verify import Checked

OFFICIAL = {"android_world": 116, "screenspot-pro": 1581, "screenspot-v2": 1272}
"""Tasks of the whole benchmark, by world or kind."""
BROKEN = {"android_world": ("BrowserDraw",)}
"""Tasks reported as unsolvable upstream."""
MANY = 0.05


def lint(checked: Checked, training: frozenset[str] = frozenset()) -> list[str]:
    """One sentence per finding. training: content hashes of screenshots that were trained on."""
    manifest = checked.manifest
    if manifest is None:
        return []
    return [*_scope(checked, manifest), *_claims(manifest), *_provenance(manifest), *_overlap(checked, training)]


def world(manifest: Manifest) -> str:
    """The benchmark: the world of a live run, else its kind."""
    return str(manifest.provenance.get("settings", {}).get("world") or manifest.kind)


def _scope(checked: Checked, manifest: Manifest) -> Iterator[str]:
    whole = OFFICIAL.get(world(manifest))
    if whole is not None and len(manifest.tasks) < whole:
        yield f"subset of tasks: {len(manifest.tasks)} of {whole}"
    broken = [t for t in manifest.tasks if t.startswith(BROKEN.get(world(manifest), ()))]
    if broken:
        yield f"known to be broken upstream: {', '.join(broken)}"
    budgets: dict[str, set[int | None]] = defaultdict(set)
    for row in checked.attempts:
        budgets[row.task].add(row.budget)
    changed = sorted(task for task, found in budgets.items() if len(found) > 1)
    if changed:
        yield f"changed budget: the trials of {changed[0]!r} had different step budgets ({len(changed)} tasks)"
    if any(found == {None} for found in budgets.values()):
        yield "budget unknown: the run did not record how many steps a task allows"
    lost = manifest.scores.get("unscored", 0)
    if checked.attempts and lost / len(checked.attempts) > MANY:
        yield f"{lost} of {len(checked.attempts)} attempts crashed; read the rate with crashes as failures beside the headline"
    if not checked.screenshots and manifest.kind not in scores.RECORDINGS:
        yield "no screenshots: nobody can look at what the agent saw"


def _claims(manifest: Manifest) -> Iterator[str]:
    if manifest.declarations.best_of > 1:
        yield f"best of {manifest.declarations.best_of} is not pass@1: one attempt counts, the others were thrown away"
    if manifest.trials == 1 and manifest.kind not in scores.RECORDINGS:
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
        yield f"judge equals policy: {model} judges itself"
    if not found.get("commit"):
        yield "no source commit: the code cannot be found again"
    if not found.get("weights"):
        yield "no weight hashes: the model was a server, a hub id or a script"
    settings = found.get("settings")
    if isinstance(settings, dict) and settings.get("temperature"):
        yield f"sampled at temperature {settings['temperature']}: one run is one draw"


def _overlap(checked: Checked, training: frozenset[str]) -> Iterator[str]:
    seen = {turn.screenshot for row in checked.attempts for turn in row.turns if turn.screenshot} | checked.screenshots
    if both := seen & training:
        yield f"train/test overlap: {len(both)} of {len(seen)} screenshots were trained on"
