"""Two bundles on what both attempted, paired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from statistics import fmean
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.launch import show
from guiderail.launch.report.tasks import tasks_of
from guiderail.launch.submission import scores
from guiderail.launch.submission.build import WORLD
from guiderail.launch.submission.schema import Manifest
from guiderail.launch.submission.verify import Checked
from guiderail.rl.score.statistics import paired_difference, paired_p

ALPHA = 0.05
Outcomes = dict[tuple[str, int, int], bool]


def compare(first: Checked, second: Checked) -> dict[str, Any]:
    """{n, left_out, first, second, difference, interval, p, flip_rate, same_seed, distinguishable, words}.

    Pairs are equal (unit, step, sample). One per unit: McNemar's exact test decides. Repeated attempts at a task and the steps
    of an episode are not independent, so there p is None and the bootstrap over whole units decides. flip_rate: share of
    pairs whose outcome differs. Raises SetupError, also where the two were not run on the same.
    """
    a, b = first.manifest, second.manifest
    if a is None or b is None or a.kind != b.kind:
        raise SetupError(
            "these are results of different kinds; compare two bundles of one kind, each of which verifies"
        )
    if apart := [*_differences(a, b)]:
        raise SetupError(f"these are results on different tasks: {'; '.join(apart)}; compare results on the same tasks")
    old, new = _outcomes(a.kind, first), _outcomes(b.kind, second)
    keys = sorted(old.keys() & new.keys())
    if not keys:
        raise SetupError("no attempt is in both bundles; compare results on the same tasks")
    pairs = [(key[0], float(old[key]), float(new[key])) for key in keys]
    interval, p = paired_difference(pairs), paired_p(pairs)
    rates = fmean(x for _, x, _ in pairs), fmean(y for _, _, y in pairs)
    result = {
        "metric": scores.headline(a.kind),
        "n": len(keys),
        "left_out": len(old.keys() ^ new.keys()),
        "first": rates[0],
        "second": rates[1],
        "difference": rates[0] - rates[1],
        "interval": list(interval),
        "p": p,
        "flip_rate": fmean(x != y for _, x, y in pairs),
        "same_seed": a.seed == b.seed,
        "distinguishable": p < ALPHA if p is not None else not interval[0] <= 0 <= interval[1],
    }
    return result | {"words": _words(result)}


def _outcomes(kind: str, checked: Checked) -> Outcomes:
    """Of the scored attempts, by unit, step and sample."""
    found = ((row, scores.success(kind, row)) for row in checked.attempts)
    return {(row.unit, row.start or 0, row.sample): right for row, right in found if right is not None}


def _differences(a: Manifest, b: Manifest) -> Iterator[str]:
    """What says that the same name is not the same task in both, or is not judged alike."""
    old, new = _terms(a), _terms(b)
    for name in [*old, *(name for name in new if name not in old)]:
        if (was := old.get(name)) != (now := new.get(name)):
            yield f"{name} is {str(was)[:80]!a} in the first, {str(now)[:80]!a} in the second"


def _terms(manifest: Manifest) -> dict[str, Any]:
    """By dotted name: the digest of the recordings and every field of the rules, or what describes the live world's tasks."""
    data, settings = manifest.provenance.get("data"), manifest.provenance.get("settings")
    if manifest.kind in scores.RECORDINGS:
        rules = scores.match_rules(manifest.kind, manifest.rules)
        fields = {f"rules.{name}": value for name, value in asdict(rules).items()} if rules is not None else {}
        return {"data.digest": data.get("digest") if isinstance(data, dict) else None} | fields
    known = settings if isinstance(settings, dict) else {}
    world = {name: known[name] for name in ("world", *WORLD) if name in known}
    found = tasks_of({"name": manifest.kind, **world, "judge": manifest.provenance.get("judge")})
    return {("judge" if name == "judge" else f"settings.{name}"): value for name, value in found.items()}


def _words(found: dict[str, Any]) -> str:
    numbers = show.points(found["difference"], found["interval"], found["p"])
    seeds = "" if found["same_seed"] else "; the seeds differ, so tasks may start differently"
    if not found["distinguishable"]:
        said = "not distinguishable"
    else:
        said = f"the {'first' if found['difference'] > 0 else 'second'} is better"
    return f"{said}: {numbers}; {100 * found['flip_rate']:.0f} % of {found['n']} pairs flip{seeds}"
